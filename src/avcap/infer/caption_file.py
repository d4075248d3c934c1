"""A JSONL file of captions that a stopped run goes on with: one Caption or CaptionError per sample. No torch."""

import contextlib
import errno
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from avcap.errors import UserError
from avcap.records import Caption, CaptionError, from_json, to_json, write_jsonl

Row = Caption | CaptionError
ROW_STARTS = (b'{"caption_id": ', b'{"sample_id": ')


class CaptionFile:
    """Context manager around the file. What it held stays; `done` are the samples that need no captioning again."""

    def __init__(self, path: str | Path, *, retry: Collection[str], check: Callable[[Caption], None]):
        """`retry`: samples whose old errors make room for a new try. `check`: UserError for captions made otherwise."""
        self.path = Path(path)
        self.done: set[str] = set()
        # before hours of work, not after: a file that cannot be written, or that holds something else
        with _named_errors(self.path):
            self._handle = self._open()
            if self.path.is_file():
                self._take_up(retry, check)

    def _take_up(self, retry: Collection[str], check: Callable[[Caption], None]) -> None:
        """Notes what is done; drops a torn last line, and the errors of samples that are tried again."""
        num_retried = 0
        for row in read_rows(self.path):
            if isinstance(row, Caption):
                try:
                    check(row)
                except UserError as error:
                    raise UserError(f"{self.path}: {error}") from None
                self.done.add(row.sample_id)
            num_retried += _is_retried(row, retry)
        os.truncate(self.path, _whole_lines_size(self.path))
        if num_retried:
            write_jsonl(self.path, (row for row in read_rows(self.path) if not _is_retried(row, retry)))
            self._handle.close()
            self._handle = self._open()

    def _open(self) -> IO[str]:
        # A file name that is no UTF-8 has lone surrogates; backslashreplace writes them just as JSON does.
        return open(self.path, "a", encoding="utf-8", errors="backslashreplace")

    def append(self, rows: Iterable[Row]) -> None:
        """Writes the rows and sees them to the disk: what was appended outlasts any crash."""
        with _named_errors(self.path):
            self._handle.write("".join(to_json(row) + "\n" for row in rows))
            self._handle.flush()
            if self.path.is_file():
                os.fsync(self._handle.fileno())

    def __enter__(self) -> "CaptionFile":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(OSError):  # only what `append` has complained about can be left to write
            self._handle.close()


def read_rows(path: str | Path) -> Iterator[Row]:
    """JSONL file of captions and errors -> its rows, one at a time. UserError with file and line for anything else.

    A last line without its end is what a process killed while writing leaves: it is passed over.
    """
    with open(path, "rb") as handle:
        for number, line in enumerate(handle, start=1):
            if not line.endswith(b"\n") and any(line.startswith(start[: len(line)]) for start in ROW_STARTS):
                return
            try:
                yield _row(line.decode("utf-8"))
            except (UserError, ValueError) as error:
                raise UserError(
                    f"{path}, line {number}: got no row of captions ({error}); wanted a new file or one that "
                    "avcap caption wrote"
                ) from None


def _row(line: str) -> Row:
    data = json.loads(line)
    if isinstance(data, dict) and "error" in data:
        return from_json(line, CaptionError)
    return from_json(line, Caption)


def _is_retried(row: Row, retry: Collection[str]) -> bool:
    return isinstance(row, CaptionError) and row.sample_id in retry


def _whole_lines_size(path: Path) -> int:
    """File -> how many of its bytes are lines with an end."""
    with open(path, "rb") as handle:
        end = handle.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            handle.seek(start)
            newline = handle.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0


@contextlib.contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Makes an error of the operating system one that says which file and what to do."""
    try:
        yield
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        todo = "make room and run it again: what is written is kept" if is_full else "check the path, or choose another"
        raise UserError(f"{path}: cannot be written ({error.strerror}); {todo}") from None
