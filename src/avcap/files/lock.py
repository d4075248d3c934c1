"""One process at a time writes a file or a folder: a second one is told who does. Standard library only.

The lock is the kernel's, on a small file (`FILE.lock`, `FOLDER/run.lock`) that says who holds it. It ends with the
process, however that ends: a lock file that a killed process left is no obstacle. `flock` holds between hosts on NFS,
too, if the server has a lock daemon. Where there is no such lock (Windows, some network file systems) work goes on
without one, and that is said: two processes on one output would not be noticed.
"""

import contextlib
import logging
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from avcap.errors import UserError
from avcap.files.write import write_errors

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("avcap")

FOLDER_LOCK = "run.lock"


@contextlib.contextmanager
def lock_folder(folder: str | Path) -> Iterator[None]:
    """Makes the folder if need be, and holds it. UserError if another process does, or if it cannot be written to."""
    folder = Path(folder)
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _hold(folder / FOLDER_LOCK, told=folder):
        yield


@contextlib.contextmanager
def lock_file(path: str | Path) -> Iterator[None]:
    """Holds a file, which need not be there yet; its folder has to be."""
    path = Path(path)
    real = Path(os.path.realpath(path))  # all links to a file have one lock
    with _hold(real.with_name(real.name + ".lock"), told=path):
        yield


@contextlib.contextmanager
def _hold(lock: Path, *, told: Path) -> Iterator[None]:
    descriptor = _take(lock, told=told)
    try:
        with contextlib.suppress(OSError):  # a full disk: then nobody reads who it was
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}".encode(), 0)
        yield
    finally:
        # first the name, then the lock: whoever took the lock in between would hold a file without a name
        with contextlib.suppress(OSError):
            lock.unlink(missing_ok=True)
        os.close(descriptor)


def _take(lock: Path, *, told: Path) -> int:
    """-> the open lock file, locked."""
    while True:
        with write_errors(told):
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _flock(descriptor, told=told)
            if _is_at(descriptor, lock):
                return descriptor
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise UserError(f"{told}: {holder} is writing it; wait for it to end, or choose another --out") from None
        os.close(descriptor)  # its holder has just ended and deleted it: take the next one


def _flock(descriptor: int, *, told: Path) -> None:
    """BlockingIOError if another process holds it; a system without such locks is said, and passed over."""
    # A child that was forked, and not started anew, would share the lock and outlive us with it: pools here spawn.
    try:
        if fcntl is None:
            raise OSError("this system has none")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        logger.warning(f"{told}: cannot be locked ({error}); see to it that no other process writes it")


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
