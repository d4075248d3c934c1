"""Lists of videos as JSONL, JSON or CSV -> items, one at a time; a bad row is an item with its error. No torch."""

from collections.abc import Iterator
from typing import Any

from avcap.bulk.inputs.columns import VIDEO, item_of
from avcap.bulk.inputs.items import Item, refused
from avcap.errors import UserError
from avcap.texts.json_text import parse_json, read_json
from avcap.texts.read import read_lines
from avcap.texts.tables import read_table

JSON_LINES = (".jsonl", ".ndjson")
TABLES = (".csv", ".tsv")
JSON = (".json",)
SUFFIXES = (*JSON_LINES, *TABLES, *JSON)
EXPECTED = "a list of videos, one a row"


def read_list(path: str, *, suffix: str) -> Iterator[Item]:
    """A list -> its items, in order.

    Args:
        path: of the list; its rows are seen from its folder.
        suffix: which of `SUFFIXES` it has.

    Raises:
        UserError: it cannot be read at all, is empty, or none of its rows names a file.
    """
    if suffix in JSON_LINES:
        items = _json_lines(path)
    elif suffix in TABLES:
        rows = read_table(path, names=VIDEO, expected=EXPECTED)
        items = (item_of(row, path=path, number=number) for number, row in rows)
    else:
        items = _json(path)
    return _some(items, path=path)


def _json_lines(path: str) -> Iterator[Item]:
    for number, line in read_lines(path, expected=EXPECTED):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except UserError as error:
            yield refused(path, number, error)
            continue
        yield item_of(row, path=path, number=number)


def _json(path: str) -> Iterator[Item]:
    data: Any = read_json(path, expected=EXPECTED)
    if isinstance(data, dict):  # {"data": [...]}
        lists = [value for value in data.values() if isinstance(value, list)]
        data = lists[0] if len(lists) == 1 else data
    if not isinstance(data, list):
        raise UserError(f"{path}: got {type(data).__name__}, expected {EXPECTED}")
    for number, row in enumerate(data, start=1):
        yield item_of({"video": row} if isinstance(row, str) else row, path=path, number=number)


def _some(items: Iterator[Item], *, path: str) -> Iterator[Item]:
    """Items -> the same; UserError if none of them can be captioned: then it is another kind of file."""
    waiting: list[Item] = []
    for item in items:
        if item.error:
            waiting.append(item)
            continue
        yield from (*waiting, item)
        yield from items
        return
    if not waiting:
        raise UserError(f"{path}: got no rows, expected {EXPECTED}")
    raise UserError(
        f"{path}: got {len(waiting)} rows and no video in any of them (the first: "
        f"{waiting[0].error.removeprefix(f'{path}, ')}); expected a column such as {', '.join(VIDEO[:6])}"
    )
