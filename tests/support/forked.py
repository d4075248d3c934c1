"""`avcap` in processes of their own, without the seconds that importing torch takes each of them.

    with Forks() as forks:
        forks.run("caption", "a.mp4")               # as subprocess.run([..., "-m", "avcap", ...]) with text
        first = forks.begin("caption", "a.mp4")     # as subprocess.Popen: pid, poll, wait, send_signal, communicate

One process imports what the commands import, and forks: each command runs as `python -m avcap` does and has its own
id, streams, signals, folder and environment. What it does not show is how an interpreter starts and ends; tests about
that start Python. `forks.program(folder)` writes a program `avcap` for a PATH.

    python forked.py serve SOCKET        the process that forks; it ends when its stdin is closed
    python forked.py SOCKET WORDS...     what the program calls: a command on this process's streams
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Any

if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).parent))  # no module of this folder is one of the commands'


def serve(address: str) -> None:
    """Imports, then answers every connection with a command, until stdin is closed."""
    import gc
    import select

    import avcap.cli
    import avcap.infer.captioner
    import avcap.model.salmonn2_plus.modeling
    import avcap.runs.recipe  # noqa: F401

    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, _reap)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(64)
        while True:
            ready, _, _ = select.select([listening, 0], [], [])
            if listening not in ready:
                return
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                return _answer(connection)
            connection.close()


def _reap(number: int, frame: FrameType | None) -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _answer(connection: socket.socket) -> None:
    """A connection -> the command that it asks for; its id and, when it has ended, how are sent back."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, streams, _, _ = socket.recv_fds(connection, 2**20, 3)
    while not message.endswith(b"\n"):
        message += connection.recv(2**20)
    asked = json.loads(message)
    process_id = os.fork()
    if process_id == 0:
        return _become(asked, streams, connection)
    for stream in streams:
        os.close(stream)
    connection.sendall(b"%d\n" % process_id)
    _, status = os.waitpid(process_id, 0)
    connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _become(asked: dict[str, Any], streams: list[int], connection: socket.socket) -> None:
    """This process -> the command, from the point on at which Python would have imported it."""
    import atexit
    import runpy
    import threading
    import traceback

    connection.close()
    for index, stream in enumerate(streams):
        os.dup2(stream, index)
        os.close(stream)
    # new ones: the old ones remember what their streams were then
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", closefd=False, buffering=1, errors="backslashreplace")  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = ["avcap", *asked["words"]]
    code = 1
    try:
        runpy.run_module("avcap", run_name="__main__")
    except SystemExit as stopped:
        code = stopped.code
    except BaseException:
        traceback.print_exc()
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)  # an interpreter would take down all modules first, and so copy the memory that is shared


def _ask(address: str, words: list[str], *, folder: str, environment: dict[str, str], streams: list[int]) -> Any:
    """A command -> the connection to it, and its id."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    message = json.dumps({"words": words, "folder": folder, "environment": environment}) + "\n"
    data = message.encode()
    sent = socket.send_fds(connection, [data], streams)
    connection.sendall(data[sent:])
    answers = connection.makefile("r")
    return answers, int(answers.readline())


class Forked:
    """A command that runs; as a Popen whose stdout and stderr are caught as text."""

    def __init__(self, address: str, words: list[str], *, folder: str, environment: dict[str, str]):
        self.args, self.returncode = words, None
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        with open(os.devnull) as nothing:
            streams = [nothing.fileno(), self._out.fileno(), self._err.fileno()]
            self._answers, self.pid = _ask(address, words, folder=folder, environment=environment, streams=streams)

    def poll(self) -> int | None:
        import select

        if self.returncode is None and select.select([self._answers], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = int(self._answers.readline())
            self._answers.close()
        return self.returncode

    def communicate(self) -> tuple[str, str]:
        self.wait()
        texts = []
        for file in (self._out, self._err):
            file.seek(0)
            texts.append(file.read().decode())
        return texts[0], texts[1]

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forks:
    """The process that forks, started when it is first needed."""

    def __init__(self) -> None:
        self._server: subprocess.Popen | None = None

    def __enter__(self) -> "Forks":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._server is not None:
            self._server.communicate()
            self._folder.cleanup()

    @property
    def address(self) -> str:
        if self._server is None:
            self._folder = tempfile.TemporaryDirectory()
            self._address = str(Path(self._folder.name) / "socket")
            command = [sys.executable, __file__, "serve", self._address]
            self._server = subprocess.Popen(command, stdin=subprocess.PIPE, env=os.environ | {"PYTHONPATH": _source()})
            while not os.path.exists(self._address):
                assert self._server.poll() is None, "it could not be started"
                time.sleep(0.01)
        return self._address

    def begin(self, *words: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> Forked:
        environment = dict(os.environ if env is None else env)
        return Forked(self.address, [*map(str, words)], folder=str(cwd or Path.cwd()), environment=environment)

    def run(self, *words: object, **options: Any) -> subprocess.CompletedProcess[str]:
        process = self.begin(*words, **options)
        out, err = process.communicate()
        return subprocess.CompletedProcess(process.args, process.wait(), out, err)

    def program(self, folder: Path) -> Path:
        """A folder -> a program in it that runs the command it is given."""
        path = folder / "avcap"
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -SE "{__file__}" "{self.address}" "$@"\n')
        path.chmod(0o755)
        return path


def _source() -> str:
    return str(Path(__file__).parents[2] / "src")


def main() -> None:
    if sys.argv[1] == "serve":
        return serve(sys.argv[2])
    address, *words = sys.argv[1:]
    answers, _ = _ask(address, words, folder=os.getcwd(), environment=dict(os.environ), streams=[0, 1, 2])
    sys.exit(int(answers.readline()) % 256)


if __name__ == "__main__":
    main()
