"""Files and folders that are whole or not there: written aside, seen to the disk, renamed. Standard library only.

A writer killed at any moment leaves the old file, or the whole new one, and perhaps a `NAME.HOST-PID-N.partial` beside
it, which the next process that writes in that folder clears away.
"""

import contextlib
import errno
import itertools
import json
import os
import re
import shutil
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avcap.errors import WriteError

PARTIAL = re.compile(r"\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-\d+\.partial$")
"""End of the name of what is being written: whoever made another *.partial keeps it."""
STALE_S = 86_400.0
"""After so long without a change, what a process of another host was writing is taken for left behind."""
MAX_NAME = 200
"""Characters of a target's name in the name written aside: together they must stay below the 255 of file systems."""
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_numbers = itertools.count()
_cleared: set[Path] = set()
_clearing = threading.Lock()


@contextlib.contextmanager
def replacing(target: str | Path, *, durable: bool = True) -> Iterator[Path]:
    """Target -> a path beside it to write a file or a folder at, which takes the target's place when the block ends.

    Args:
        target: what is to be written; its folder is made. A link is followed; a device or a pipe is written to as it
            is, for it must not be replaced.
        durable: seen to the disk before it gets its name, so that not even a power cut leaves a name with half of it.
            False is for caches, which check what they read.

    Raises:
        WriteError: the disk is full, or the place cannot be written to. The target is as it was.
    """
    target = Path(os.path.realpath(target))
    if target.exists() and not target.is_file() and not target.is_dir():
        with write_errors(target):
            yield target
        return
    aside = _path_aside(target)
    try:
        with write_errors(target, within=aside):
            yield aside
            if durable:
                _sync(aside)
            _take_place(aside, target)
            if durable:
                _sync_entry(target.parent)
    finally:
        _remove(aside)


@contextlib.contextmanager
def folder_aside(target: Path) -> Iterator[Path]:
    """A target -> an empty folder beside it for what it is made of, on the same disk; gone afterwards."""
    target = Path(os.path.realpath(target))
    aside = _path_aside(target)
    try:
        with write_errors(target):
            aside.mkdir()
        yield aside
    finally:
        _remove(aside)


def write_text(path: str | Path, text: str) -> None:
    """Text -> a file in UTF-8, whole or as it was. Lone surrogates, as in odd file names, are written as in JSON."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_bytes(path: str | Path, data: bytes) -> None:
    """Bytes -> a file, whole or as it was."""
    with replacing(path) as aside:
        aside.write_bytes(data)


def write_json(path: str | Path, data: Any) -> None:
    """Data -> a small JSON file to be read by people too, whole or as it was."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def write_errors(path: Path, *, within: Path | None = None) -> Iterator[None]:
    """Makes an error of the operating system one that says which file and what to do.

    `within`: where the block writes; errors about other files are not about this one, and pass.
    """
    try:
        yield
    except WriteError:
        raise
    except Exception as error:
        if not is_full(error) and not (isinstance(error, OSError) and _concerns(error, path, within)):
            raise
        raise _cannot_write(path, error) from None


def is_full(error: BaseException) -> bool:
    """Whether an error says that the disk, or a quota, is full. Safetensors says so in the text of its own error."""
    texts = [os.strerror(number) for number in NO_SPACE]
    return getattr(error, "errno", None) in NO_SPACE or any(text in str(error) for text in texts)


def _concerns(error: OSError, path: Path, within: Path | None) -> bool:
    if within is None or not isinstance(error.filename, str | bytes):
        return True
    place = Path(os.fsdecode(error.filename))
    return place in (path, path.parent, within) or within in place.parents


def _cannot_write(path: Path, error: Exception) -> WriteError:
    if is_full(error):
        why, todo = os.strerror(_full_number(error)), "make room and run it again: what is written is kept"
    else:
        why, todo = getattr(error, "strerror", None) or str(error), "check the path, or choose another"
    return WriteError(f"{path}: cannot be written ({why}); {todo}")


def _full_number(error: Exception) -> int:
    return next(
        number for number in NO_SPACE if getattr(error, "errno", None) == number or os.strerror(number) in str(error)
    )


# --- aside ------------------------------------------------------------------------------------------------------------


def _path_aside(target: Path) -> Path:
    """Target -> where to write it; nothing is there yet, but the folder is."""
    with write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(target.parent)
    return _new_name(target)


def _new_name(target: Path) -> Path:
    return target.with_name(f"{target.name[:MAX_NAME]}.{_host()}-{os.getpid()}-{next(_numbers)}.partial")


def _host() -> str:
    """A short name of this host: a process number says nothing on another."""
    return f"{zlib.crc32(os.uname().nodename.encode() if hasattr(os, 'uname') else b''):08x}"


def _take_place(aside: Path, target: Path) -> None:
    """Renames. A folder that is there makes room first: for an instant the target is missing, never half of it."""
    if aside.is_dir() and target.is_dir():
        old = _new_name(target)
        os.replace(target, old)
        os.replace(aside, target)
        _remove(old)
    else:
        os.replace(aside, target)


def _remove(path: Path) -> None:
    """Deletes a file or a folder if it is there; what cannot be deleted is cleared away later."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def clear_leftovers(folder: Path, *, again: bool = False) -> None:
    """Deletes what killed processes were writing in a folder; looks once a process, for what comes later is ours.

    `again`: looks once more, for processes that were still ending at the first look.
    """
    with _clearing:
        if folder in _cleared and not again:
            return
        for path in folder.iterdir():
            if (found := PARTIAL.search(path.name)) and _is_left_behind(path, found["host"], int(found["pid"])):
                _remove(path)
        _cleared.add(folder)


def _is_left_behind(path: Path, host: str, pid: int) -> bool:
    if host == _host():
        return pid == os.getpid() or not is_running(pid)  # our own number: of a process before us, as in a container
    with contextlib.suppress(OSError):  # its writer was quicker
        return path.stat().st_mtime < time.time() - STALE_S
    return False


def is_running(pid: int) -> bool:
    """Whether a process of this host is alive. On Windows, where asking would end it, all are taken for alive."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def _sync(path: Path) -> None:
    """Forces a file, or all files of a folder, to the disk: a rename must not come before the bytes it names."""
    if path.is_dir():
        for inner in path.iterdir():
            _sync(inner)
        _sync_entry(path)
        return
    _sync_one(path)


def _sync_entry(folder: Path) -> None:
    """Forces the names in a folder to the disk, where the system can: Windows opens no folders."""
    with contextlib.suppress(OSError):
        _sync_one(folder)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
