"""CSV in the dialects of spreadsheets -> rows: commas, semicolons, tabs, "sep=;". Standard library only."""

import csv
import io
import itertools
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO

from avcap.errors import UserError
from avcap.texts.read import BYTE_ORDER_MARK, LARGEST_TEXT, LONGEST_LINE, open_text

DELIMITERS = ",;\t|"
CELL_CHARACTERS = 2**24
"""Python's own limit is shorter than a caption that never ended."""
ROWS_LOOKED_AT = 20


def read_table(path: str | Path, *, names: Collection[str], expected: str) -> Iterator[tuple[int, dict[str, str]]]:
    """CSV file with a header -> (row's number from 1, cells by the header's names), one at a time.

    Args:
        path: its delimiter is the one under which the header has a known name and the first rows have as many cells.
        names: columns of which the header should have one.
        expected: what an error says it should be.

    Raises:
        UserError: it is no text, a row has another number of cells, a quote never ends, a column stands twice.
    """
    csv.field_size_limit(CELL_CHARACTERS)
    with open_text(path, expected=expected, most_bytes=LARGEST_TEXT, newline="") as handle:
        lines = _lines(handle, path=path)
        start = next(lines, "")
        told = _told_delimiter(start)
        begun = ([] if told else [start]) + list(itertools.islice(lines, ROWS_LOOKED_AT))
        if not any(line.strip() for line in begun):
            raise UserError(f"{path}: the file is empty, expected {expected}")
        delimiter = told or _delimiter(begun, names=names, first=_usual(path))
        try:
            # strict: an open quote would otherwise swallow all rows behind it without a word
            yield from _rows(csv.reader(itertools.chain(begun, lines), delimiter=delimiter, strict=True), path=path)
        except csv.Error as error:
            raise UserError(f"{path}: got no CSV ({error}); expected a header line and quoted cells") from None


def _lines(handle: IO[str], *, path: str | Path) -> Iterator[str]:
    """An open table -> its lines with their ends; a cell may have several."""
    while line := handle.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE:
            raise UserError(f"{path}: got more than {LONGEST_LINE:,} characters without a line's end; is it a table?")
        if "\0" in line:
            raise UserError(f"{path}: got NUL characters; it is no text, or UTF-16 without a byte-order mark")
        yield line


def _rows(rows: Iterator[list[str]], *, path: str | Path) -> Iterator[tuple[int, dict[str, str]]]:
    rows = (cells for cells in rows if any(cell.strip() for cell in cells))  # spreadsheets leave rows of empty cells
    header = [cell.strip().removeprefix(BYTE_ORDER_MARK) for cell in next(rows)]
    named = [name for name in header if name]
    if len(set(named)) < len(named):
        twice = next(name for name in named if named.count(name) > 1)
        raise UserError(f"{path}: got two columns called {twice!r}, expected each name once; rename or remove one")
    for number, cells in enumerate(rows, start=1):
        if len(cells) != len(header):
            raise UserError(
                f"{path}, row {number}: got another number of cells than the header has ({len(cells)}, {len(header)})"
            )
        yield number, dict(zip(header, cells, strict=True))


def _usual(path: str | Path) -> str:
    return "\t" if Path(path).suffix.lower() in (".tsv", ".tab") else ","


def _told_delimiter(line: str) -> str | None:
    """ "sep=;", with which Excel says it, -> ";"."""
    text = line.removeprefix(BYTE_ORDER_MARK).strip("\r\n").strip('"')
    return text[4:] if text[:4].lower() == "sep=" and len(text) == 5 else None


def _delimiter(lines: Sequence[str], *, names: Collection[str], first: str) -> str:
    """The beginning of a table -> what stands between its cells; `first` where nothing speaks for another."""
    known = {name.casefold() for name in names}

    def rank(delimiter: str) -> tuple[bool, bool, bool, int]:
        rows = _parsed(lines, delimiter)
        header = [cell.strip().removeprefix(BYTE_ORDER_MARK).casefold() for cell in rows[0]] if rows else []
        is_even = len(header) > 1 and all(len(row) == len(header) for row in rows)
        return bool(known & set(header)), is_even, delimiter == first, len(header)

    return max(DELIMITERS, key=rank)


def _parsed(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    """The rows of a beginning; the last, which may be cut off within a cell, is left out of long ones."""
    text = io.StringIO("".join(lines), newline="")
    rows: list[list[str]] = []
    try:
        for row in csv.reader(text, delimiter=delimiter):
            rows.append(row)
    except csv.Error:
        pass
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    return rows[:-1] if len(lines) >= ROWS_LOOKED_AT and len(rows) > 2 else rows
