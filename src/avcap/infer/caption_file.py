"""A JSONL file of captions that a stopped run goes on with: one Caption or CaptionError per sample. No torch."""

import json
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from types import TracebackType

from avcap.errors import UserError
from avcap.files.journal import Journal, LineFormat, read_lines
from avcap.records import Caption, CaptionError, from_json, line_format, to_json

Row = Caption | CaptionError


class CaptionFile:
    """Context manager around the file. What it held stays; `done` are the samples that need no captioning again."""

    def __init__(
        self,
        path: str | Path,
        *,
        retry: Container[str],
        check: Callable[[Caption], None],
        key: Callable[[Row], str] = lambda row: row.sample_id,
    ):
        """`retry`: samples whose old errors make room for a new try. `check`: UserError for captions made otherwise.

        `key`: what tells whether two rows are about the same sample; `retry` and `done` hold it.
        """
        self.path = Path(path)
        self._key = key
        self.done: set[str] = set()
        self.failed: set[str] = set()
        """Samples whose errors are kept: they are not in `retry`."""
        self._journal = Journal(self.path, ROWS)
        self._retry, self._check = retry, check

    def __enter__(self) -> "CaptionFile":
        self._journal.__enter__()
        try:
            self._take_up()
        except BaseException as error:
            self._journal.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._journal.__exit__(kind, error, trace)

    def append(self, rows: Iterable[Row]) -> None:
        """Writes the rows: what was appended outlasts any crash."""
        self._journal.append(rows)

    def _take_up(self) -> None:
        """Notes what is done; drops the errors of samples that are tried again."""
        num_retried = 0
        for row in self._journal.read():
            if isinstance(row, Caption):
                try:
                    self._check(row)
                except UserError as error:
                    raise UserError(f"{self.path}: {error}") from None
                self.done.add(self._key(row))
            elif not self._is_retried(row):
                self.failed.add(self._key(row))
            num_retried += self._is_retried(row)
        self.failed -= self.done
        if num_retried:
            self._journal.rewrite(row for row in self._journal.read() if not self._is_retried(row))

    def _is_retried(self, row: Row) -> bool:
        return isinstance(row, CaptionError) and self._key(row) in self._retry


def read_rows(path: str | Path) -> Iterator[Row]:
    """JSONL file of captions and errors -> its rows, one at a time. UserError with file and line for anything else."""
    return read_lines(path, ROWS)


def read_row(line: str, *, where: str) -> Row:
    """A line of such a file, read from `where`, -> its row."""
    try:
        return _row(line)
    except (UserError, ValueError) as error:
        raise UserError(f"{where}: got no row of captions ({error})") from None


def _row(line: str) -> Row:
    data = json.loads(line)
    if isinstance(data, dict) and "error" in data:
        return from_json(line, CaptionError)
    return from_json(line, Caption)


ROWS = LineFormat[Row](
    what="row of captions",
    parse=_row,
    dump=to_json,
    starts=(*line_format(Caption).starts, *line_format(CaptionError).starts),
)
