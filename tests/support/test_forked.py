"""A forked command has what a process has: exit codes, streams, its own folder and environment, signals."""

import os
import signal
import subprocess
import time


def test_codes_streams_folder_and_environment(forks, tmp_path):
    assert forks.run("--version").stdout.startswith("avcap ")
    done = forks.run("caption", "*.mp4", "--model", "tiny", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("avcap: *.mp4: got a pattern that no file matches") and done.stderr.count("\n") == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    there = forks.run("caption", "x.mp4", "--model", "mine", cwd=tmp_path).stderr
    assert "mine" in there and "no model of that name" not in there
    assert "no model of that name" in forks.run("caption", "x.mp4", "--model", "mine").stderr


def test_signals_reach_the_command_alone(forks, tmp_path):
    first, second = (forks.begin("world", "make", "--clips", 50, "--out", tmp_path / name) for name in "ab")
    while not all((tmp_path / name).exists() for name in "ab"):
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL and second.poll() is None
    second.send_signal(signal.SIGINT)
    assert second.wait() == 130 and "interrupted" in second.communicate()[1]


def test_a_program_for_a_path_is_one_of_a_pipe(forks, tmp_path):
    forks.program(tmp_path)
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    line = "avcap --version | cat; avcap sing; echo $?"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, env=environment)
    version, code = done.stdout.splitlines()
    assert version.startswith("avcap ") and code == "2" and "No such command 'sing'" in done.stderr
