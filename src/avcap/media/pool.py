"""Worker processes that decode, seen from the process that asks: started once, killed when late, replaced when dead."""

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, replace

from avcap.errors import MediaError
from avcap.media.clip import Clip, ClipRequest
from avcap.media.worker import OUT_OF_MEMORY, ConnectionClosed, receive_clip, send_header

# A fresh interpreter, not a fork: a fork of a process with threads and a loaded torch may deadlock. And not
# multiprocessing's spawn, which runs the caller's script again and so imports torch. It finds avcap where we did.
WORKER_CODE = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from avcap.media.worker import main; main()"


class DeadlinePassed(Exception):
    """The worker did not answer in time."""


class Worker:
    """One worker process; decodes one file at a time."""

    def __init__(self) -> None:
        self._connection, theirs = socket.socketpair()
        with theirs:
            descriptor = theirs.fileno()
            command = [sys.executable, "-c", WORKER_CODE, json.dumps(sys.path), str(descriptor)]
            self._process = subprocess.Popen(command, pass_fds=[descriptor], stdin=subprocess.DEVNULL)

    @property
    def process_id(self) -> int:
        return self._process.pid

    def decode(self, request: ClipRequest, *, deadline_s: float) -> Clip:
        """Request -> Clip. A MediaError leaves the worker ready for the next file, any other exception does not."""
        deadline = time.monotonic() + deadline_s
        try:
            self._connection.settimeout(deadline_s)
            # Relative paths mean the directory this process is in now, not the one it was in when the worker started.
            send_header(self._connection, {"request": asdict(request), "directory": os.getcwd()})
            return receive_clip(lambda view: self._receive_into(view, deadline=deadline))
        except TimeoutError:
            raise DeadlinePassed from None
        except (BrokenPipeError, ConnectionResetError):
            raise ConnectionClosed from None

    def _receive_into(self, view: memoryview, *, deadline: float) -> None:
        """Fill `view`; the deadline is for the whole answer, a socket's timeout is for each of its parts."""
        while len(view):
            self._connection.settimeout(max(deadline - time.monotonic(), 1e-3))
            num_received = self._connection.recv_into(view)
            if num_received == 0:
                raise ConnectionClosed
            view = view[num_received:]

    def stop(self, *, grace_s: float = 1.0) -> int:
        """End the process and leave no zombie -> its exit code, negative for a signal."""
        self._connection.close()  # an idle worker ends by itself then
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout=grace_s)
        self._process.kill()
        return self._process.wait()

    def forget(self) -> None:
        """Let go of a process that is not ours but that of the process we were forked from."""
        self._connection.close()
        self._process.returncode = 0  # keeps Popen from waiting for it


_idle_workers: list[Worker] = []
_lock = threading.Lock()


def decode(request: ClipRequest, *, deadline_s: float) -> Clip:
    """Request -> Clip from an idle worker process, or a new one if all are busy: one per thread that asks at once."""
    with _lock:
        worker = _idle_workers.pop() if _idle_workers else None
    worker = worker or Worker()
    start_s = time.monotonic()
    try:
        clip = worker.decode(request, deadline_s=deadline_s)
    except MediaError:
        _give_back(worker)
        raise
    except DeadlinePassed:
        worker.stop(grace_s=0.0)
        raise MediaError(
            f"{request.path}: got no result after {deadline_s:g} s of decoding, so it was stopped; ask for a shorter "
            "interval or give it a longer deadline_s"
        ) from None
    except ConnectionClosed:
        raise MediaError(
            f"{request.path}: the decoding process ended with {_exit_name(worker.stop())} on this file, expected "
            "frames or sound; the file is damaged or hostile, or memory ran out"
        ) from None
    except MemoryError:
        worker.stop(grace_s=0.0)  # in the middle of an answer
        raise MediaError(f"{request.path}: {OUT_OF_MEMORY}") from None
    except BaseException:
        worker.stop(grace_s=0.0)  # interrupted in the middle of an answer: it cannot be asked again
        raise
    _give_back(worker)
    return replace(clip, decoding_s=time.monotonic() - start_s)


def _give_back(worker: Worker) -> None:
    with _lock:
        _idle_workers.append(worker)


def _exit_name(exit_code: int) -> str:
    """Exit code of a process -> words."""
    if exit_code < 0:
        return f"signal {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"


@atexit.register
def stop_idle_workers() -> None:
    """End the worker processes that wait for a file; the next one asked for starts anew."""
    with _lock:
        workers = list(_idle_workers)
        _idle_workers.clear()
    for worker in workers:
        worker.stop()


def _forget_workers() -> None:
    """In a forked child: the parent's workers must not answer two processes at once."""
    global _lock
    _lock = threading.Lock()  # some other thread of the parent may have held it during the fork
    for worker in _idle_workers:
        worker.forget()
    _idle_workers.clear()


os.register_at_fork(after_in_child=_forget_workers)


class DecodePool:
    """Decodes many files ahead of their use, in `num_workers` processes. A bad file is a value and not an exception:
    one of ten thousand must not end the run, and must be counted by the caller."""

    def __init__(self, *, num_workers: int, deadline_s: float = 120.0) -> None:
        self._num_workers = num_workers
        self._deadline_s = deadline_s
        self._threads = ThreadPoolExecutor(num_workers, thread_name_prefix="decode")

    def map(self, requests: Iterable[ClipRequest]) -> Iterator[Clip | MediaError]:
        """Requests -> their Clips or errors in the same order. At most `num_workers` + 1 wait, decoded, in memory."""
        waiting: deque[Future[Clip | MediaError]] = deque()
        try:
            for request in requests:
                waiting.append(self._threads.submit(self._decode, request))
                if len(waiting) > self._num_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def map_unordered(self, requests: Iterable[ClipRequest]) -> Iterator[tuple[int, Clip | MediaError]]:
        """Requests -> (place in `requests`, Clip or error), whichever is done first."""
        index_of: dict[Future[Clip | MediaError], int] = {}
        try:
            for index, request in enumerate(requests):
                index_of[self._threads.submit(self._decode, request)] = index
                if len(index_of) > self._num_workers:
                    yield from _take_done(index_of)
            while index_of:
                yield from _take_done(index_of)
        finally:
            for future in index_of:
                future.cancel()

    def _decode(self, request: ClipRequest) -> Clip | MediaError:
        try:
            return decode(request, deadline_s=self._deadline_s)
        except MediaError as error:
            return error

    def close(self) -> None:
        """Wait for the files being decoded. The processes stay for the next pool, until this process ends."""
        self._threads.shutdown(cancel_futures=True)

    def __enter__(self) -> "DecodePool":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _take_done(index_of: dict[Future[Clip | MediaError], int]) -> Iterator[tuple[int, Clip | MediaError]]:
    """Take the finished ones, at least one, out of the futures -> their places and results."""
    done, _ = wait(index_of, return_when=FIRST_COMPLETED)
    for future in done:
        yield index_of.pop(future), future.result()
