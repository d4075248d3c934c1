"""Files of this machine that a request names: only below the folders that are opened for it. Standard library only.

What was checked is what is read: the file is opened first, and then asked where it really lies.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote_to_bytes, urlsplit

from avcap.web.server.refusals import Refused

CLOSED = "file: URLs are not opened here; send the file as a data: URL, or start the server with --allow-dir"
NOT_OPENED = "this file is not opened here: it is not there, no regular file, or outside the folders of --allow-dir"
"""One sentence for all of these, so that nobody learns which files there are."""


def file_of_url(url: str, *, param: str) -> bytes:
    """A file: URL -> the path in it, decoded once.

    Raises:
        Refused: It names another machine, or no absolute path.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise Refused("got a file: URL that cannot be read", param=param) from None
    path = unquote_to_bytes(parts.path)
    is_here = parts.netloc in ("", "localhost")
    if not is_here or not path.startswith(b"/") or b"\0" in path or parts.query or parts.fragment:
        raise Refused(
            "got a file: URL that names no file here, expected file:///path, with ? and # as %3F and %23", param=param
        )
    return path


@contextmanager
def opened_below(path: bytes, folders: Sequence[Path], *, param: str) -> Iterator[BinaryIO]:
    """An absolute path and the open folders -> the file, open to be read.

    Raises:
        Refused: It is not there, no regular file, or leads out of the folders by links or "..".
    """
    if not folders:
        raise Refused(CLOSED, param=param, status=403, code="file_not_allowed")
    try:
        descriptor = _open_below(path, [os.path.realpath(os.fsencode(folder)) for folder in folders])
    except OSError:
        raise Refused(NOT_OPENED, param=param, status=403, code="file_not_allowed") from None
    with open(descriptor, "rb", buffering=0) as handle:
        yield handle  # type: ignore[misc]


def _open_below(path: bytes, folders: list[bytes]) -> int:
    """-> an open descriptor; OSError where there is nothing that may be opened."""
    real = os.path.realpath(path)
    if not _is_below(real, folders):
        raise PermissionError
    # neither a pipe without a writer nor a link that was put there meanwhile keeps us
    descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # a folder on the way may have become a link since: where the open file lies is what counts
        own = f"/proc/self/fd/{descriptor}".encode()
        lies = os.path.realpath(own if os.path.exists(own) else path)
        is_same = os.path.samestat(os.fstat(descriptor), os.stat(lies))
        if not (is_same and _is_below(lies, folders) and stat.S_ISREG(os.fstat(descriptor).st_mode)):
            raise PermissionError
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _is_below(path: bytes, folders: list[bytes]) -> bool:
    return any(path.startswith(folder.rstrip(b"/") + b"/") for folder in folders)
