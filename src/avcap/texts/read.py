"""A file that somebody wrote -> its text, whatever editor or system it comes from; bounded. Standard library only.

Byte-order marks and Windows line ends go; UTF-16 is read where it says so. What cannot be text is refused with its
line: other encodings, NUL bytes, devices, pipes that nobody writes to, lines without end.
"""

import contextlib
import io
import os
import select
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from avcap.errors import UserError

LONGEST_LINE = 2**26
"""Characters of one line. An annotation of a long video has thousands of them, not millions."""
LARGEST_TEXT = 2**30
"""Bytes of a file that has to be in memory at once."""
LARGEST_SETTINGS = 2**22
"""Bytes of a file of settings, which a person wrote."""
PIPE_WAIT_S = 10.0
"""A pipe (as of `<(command)`) that is silent for so long at its beginning has no writer."""
BYTE_ORDER_MARK = "\ufeff"
WIDE = "it looks like UTF-16 without a byte-order mark"
_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


def read_text(path: str | Path, *, expected: str, most_bytes: int = LARGEST_TEXT, errors: str = "strict") -> str:
    """File -> its text, without a byte-order mark, lines ending with \\n.

    Args:
        path: a file or a pipe.
        expected: what an error says it should be, as in "a YAML file".
        most_bytes: of the file; more is refused before it is read.
        errors: "surrogateescape" keeps bytes that are no UTF-8, as in names of files.

    Raises:
        UserError: it cannot be read, is too large, or is no text.
    """
    with open_text(path, expected=expected, most_bytes=most_bytes, errors=errors) as handle:
        text = handle.read(most_bytes + 1)
        # a file may grow, or a pipe never end, while it is read
        if len(text) > most_bytes:
            raise UserError(f"{path}: got more than {most_bytes:,} characters, expected {expected}")
    return _checked(text, where=str(path))


def read_lines(path: str | Path, *, expected: str) -> Iterator[tuple[int, str]]:
    """File of any size -> its lines with their numbers from 1, one at a time, without ends; errors as `read_text`."""
    with open_text(path, expected=expected) as handle:
        yield from _lines(handle, path=path)


def _lines(handle: IO[str], *, path: str | Path) -> Iterator[tuple[int, str]]:
    number = 0
    while line := handle.readline(LONGEST_LINE + 1):
        number += 1
        if len(line.removesuffix("\n")) > LONGEST_LINE:
            raise UserError(
                f"{path}, line {number}: got more than {LONGEST_LINE:,} characters without a line's end; is it the "
                "right file?"
            )
        # joined files have a mark wherever one of them begins
        yield number, _checked(line.removesuffix("\n"), where=f"{path}, line {number}").removeprefix(BYTE_ORDER_MARK)


@contextlib.contextmanager
def open_text(
    path: str | Path,
    *,
    expected: str,
    most_bytes: int | None = None,
    errors: str = "strict",
    newline: str | None = None,
) -> Iterator[IO[str]]:
    """File -> an open text; errors while it is read become a UserError, too. `newline` as in `open`."""
    try:
        with _open_bytes(path, expected=expected, most_bytes=most_bytes) as raw:
            encoding = _encoding(raw.peek(4)[:4])
            with io.TextIOWrapper(raw, encoding=encoding, errors=errors, newline=newline) as handle:
                yield handle
    except UnicodeError as error:
        raise UserError(f"{path}: {_where_no_text(path, error)}; save it as UTF-8; expected {expected}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); expected {expected}") from None
    except ValueError as error:
        if "null byte" not in str(error) and "null character" not in str(error):
            raise
        raise UserError(f"{str(path)!r}: got a name with a NUL character; expected {expected}") from None


def _open_bytes(path: str | Path, *, expected: str, most_bytes: int | None) -> io.BufferedReader:
    """Opens a file or a pipe, never waiting for ever. UserError for what is neither, and for too many bytes."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise UserError(f"{path}: got a folder, expected {expected}")
        if stat.S_ISFIFO(found.st_mode):
            _await_writer(descriptor, path=path, expected=expected)
        elif not stat.S_ISREG(found.st_mode):
            raise UserError(f"{path}: got a device, expected {expected}")
        elif most_bytes is not None and found.st_size > most_bytes:
            raise UserError(f"{path}: got {found.st_size:,} bytes, expected {expected} of at most {most_bytes:,}")
        return io.BufferedReader(io.FileIO(descriptor, "rb"))
    except BaseException:
        os.close(descriptor)
        raise


def _await_writer(descriptor: int, *, path: str | Path, expected: str) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLHUP)
    if not poll.poll(PIPE_WAIT_S * 1000):
        raise UserError(f"{path}: got a pipe that nobody writes to, expected {expected}")
    os.set_blocking(descriptor, True)


def _encoding(start: bytes) -> str:
    return next((encoding for mark, encoding in _MARKS if start.startswith(mark)), "utf-8")


def _checked(text: str, *, where: str) -> str:
    if "\0" in text:
        hint = f"{WIDE}: save it as UTF-8" if _looks_wide(text) else "it is no text"
        raise UserError(f"{where}: got NUL characters; {hint}")
    return text


def _looks_wide(text: str) -> bool:
    return text.count("\0") * 3 > len(text)


def _where_no_text(path: str | Path, error: UnicodeError) -> str:
    """Which line and byte of a file are no text of its encoding; a pipe cannot be looked at twice."""
    if isinstance(error, UnicodeDecodeError) and error.encoding == "utf-8" and os.path.isfile(path):
        with open(path, "rb") as handle:
            if _looks_wide(handle.read(1000).decode("latin-1")):
                return WIDE
            handle.seek(0)
            for number, line in enumerate(iter(lambda: handle.readline(LONGEST_LINE), b""), start=1):
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as found:
                    return f"line {number} has the byte 0x{line[found.start]:02x}, which is no UTF-8"
    return f"it is no text ({error})"
