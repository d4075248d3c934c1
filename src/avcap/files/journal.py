"""A JSONL file that a stopped run goes on with: whole lines, one writer, nothing foreign. Standard library only.

Lines are appended whole and seen to the disk. A last line without its end is what a process killed while writing
leaves: it is dropped, and that is said. Anything else that is no line of ours is refused, and left as it is.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

from avcap.errors import UserError, WriteError
from avcap.files.lock import lock_file
from avcap.files.write import replacing, write_errors

logger = logging.getLogger("avcap")

RowT = TypeVar("RowT")
SYNC_EVERY_S = 0.1
"""Rows that come faster than this are seen to the disk together. A killed process loses none of them all the same."""
TAIL_BYTES = 65536


@dataclass(frozen=True, kw_only=True)
class LineFormat(Generic[RowT]):
    """What a line of a journal is."""

    what: str
    """What an error calls one, as in "got no row of captions"."""
    parse: Callable[[str], RowT]
    """UserError or ValueError for what is no row."""
    dump: Callable[[RowT], str]
    """Row -> one line without its end."""
    starts: tuple[str, ...]
    """How our lines begin: by it the torn end of a journal is told from a file of something else."""

    def may_be_torn(self, line: bytes) -> bool:
        """Whether bytes without a line's end can be the beginning of one of ours."""
        return any(line.startswith(start.encode()[: len(line)]) for start in self.starts)


class Journal(Generic[RowT]):
    """Context manager around the file, which nobody else may write meanwhile. First `read`, then `append`.

    A device or a pipe is written to and never read.
    """

    def __init__(self, path: str | Path, line_format: LineFormat[RowT]) -> None:
        self.path = Path(path)
        self.format = line_format
        self.num_torn = 0
        self._stack = contextlib.ExitStack()
        self._descriptor = -1
        self._synced_s = 0.0

    def __enter__(self) -> "Journal[RowT]":
        with write_errors(self.path):
            is_new = not self.path.exists()
            self._descriptor = self._open()  # before hours of work, not after: a file that cannot be written
        try:
            if self.path.is_file():
                self._stack.enter_context(lock_file(self.path))
        except BaseException:
            os.close(self._descriptor)
            if is_new and not self.path.stat().st_size:
                self.path.unlink()
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            with contextlib.ExitStack() as stack:
                if error is not None:  # it tells more than that what it broke off cannot be seen to the disk
                    stack.enter_context(contextlib.suppress(WriteError))
                self._sync()
        finally:
            os.close(self._descriptor)
            self._stack.close()

    def read(self) -> Iterator[RowT]:
        """The rows that are there, one at a time; at their end a torn last line is dropped.

        Raises:
            UserError: a line is no row; it names the file and the line.
        """
        if not self.path.is_file():
            return
        yield from read_lines(self.path, self.format)
        self._drop_torn_line()

    def append(self, rows: Iterable[RowT]) -> None:
        """Writes rows, all or none of them. WriteError says what to do where that cannot be done."""
        self._drop_torn_line()
        text = "".join(self.format.dump(row) + "\n" for row in rows)
        with write_errors(self.path):
            size = os.fstat(self._descriptor).st_size
            # lone surrogates, as in odd file names, are no UTF-8: they are written as JSON writes them
            left = memoryview(text.encode("utf-8", errors="backslashreplace"))
            try:
                while left:
                    left = left[os.write(self._descriptor, left) :]
            except BaseException:
                if self.path.is_file():
                    os.ftruncate(self._descriptor, size)
                raise
            if time.monotonic() - self._synced_s > SYNC_EVERY_S:
                self._sync()

    def rewrite(self, rows: Iterable[RowT]) -> None:
        """Puts these rows, which may come from `read`, in the place of all that is there."""
        with replacing(self.path) as aside, open(aside, "w", encoding="utf-8", errors="backslashreplace") as handle:
            handle.writelines(self.format.dump(row) + "\n" for row in rows)
        os.close(self._descriptor)
        self._descriptor = self._open()

    def _open(self) -> int:
        way = os.O_RDWR if self.path.is_file() or not self.path.exists() else os.O_WRONLY
        return os.open(self.path, way | os.O_APPEND | os.O_CREAT, 0o666)

    def _drop_torn_line(self) -> None:
        if not self.path.is_file():
            return
        size = os.fstat(self._descriptor).st_size
        whole = _whole_lines_size(self._descriptor, size)
        if whole == size:
            return
        if not self.format.may_be_torn(os.pread(self._descriptor, TAIL_BYTES, whole)):
            raise UserError(f"{self.path}: got an end that is no {self.format.what}; move the file away")
        with write_errors(self.path):
            os.ftruncate(self._descriptor, whole)
        self.num_torn += 1
        logger.info(f"{self.path}: half a line that a stopped run left is dropped")

    def _sync(self) -> None:
        if self.path.is_file():
            with write_errors(self.path):
                os.fsync(self._descriptor)
        self._synced_s = time.monotonic()


def read_lines(path: str | Path, line_format: LineFormat[RowT]) -> Iterator[RowT]:
    """File of a journal, also while it is being written -> its rows, one at a time; a torn last line is passed over.

    Raises:
        UserError: a line is no row; it names the file and the line.
    """
    with open(path, "rb") as handle:
        for number, line in enumerate(handle, start=1):
            if not line.strip():
                continue
            if not line.endswith(b"\n") and line_format.may_be_torn(line):
                return
            try:
                yield line_format.parse(line.decode("utf-8"))
            except (UserError, ValueError) as error:
                raise UserError(
                    f"{path}, line {number}: got no {line_format.what} ({error}); choose another file: this one is "
                    "left as it is"
                ) from None


def _whole_lines_size(descriptor: int, size: int) -> int:
    """Open file -> how many of its bytes are lines with an end."""
    end = size
    while end > 0:
        start = max(0, end - TAIL_BYTES)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
