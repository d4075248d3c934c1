"""JSON that somebody wrote -> data, without what other readers refuse or read otherwise. Standard library only.

NaN and infinite numbers are no JSON, of a field that stands twice one value would be lost, and nesting is bounded.
"""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avcap.errors import UserError
from avcap.texts.read import LARGEST_TEXT, read_lines, read_text


class _Refused(ValueError):
    """What JSON allows, or Python's reader, and we do not. `token`: what stands there in the text, if that is known."""

    def __init__(self, why: str, *, token: str | None = None) -> None:
        super().__init__(why)
        self.token = token


def parse_json(text: str, *, where: str = "", expected: str = "a line of JSON") -> Any:
    """Text of JSON -> data.

    Args:
        text: one JSON value.
        where: the place that an error names: "rows.jsonl, line 3".
        expected: what an error says it should be.

    Raises:
        UserError: it is no JSON, has NaN or an infinite number, names a field twice, or is nested too deeply.
    """
    try:
        return _parse(text)
    except ValueError as error:
        place = f"{where}: " if where else ""
        raise UserError(f"{place}not {expected} ({error}): {text[:80]!r}") from None


def _parse(text: str) -> Any:
    """Text -> data. ValueError for what is no JSON: JSONDecodeError, _Refused, a number of too many digits."""
    try:
        return json.loads(
            text.removeprefix("\ufeff"),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=_without_doubles,
        )
    except RecursionError:
        raise _Refused("nested too deeply") from None


def read_json(path: str | Path, *, expected: str, most_bytes: int = LARGEST_TEXT) -> Any:
    """JSON file -> data; errors as `read_text` and `parse_json`."""
    text = read_text(path, expected=expected, most_bytes=most_bytes)
    if not text.strip():
        raise UserError(f"{path}: the file is empty, expected {expected}")
    return _parse_file(text, path=path, expected=expected)


def read_json_lines(path: str | Path, *, expected: str) -> Iterator[tuple[int, Any]]:
    """JSONL file -> (line's number, data), one at a time; empty lines are passed over."""
    for number, line in read_lines(path, expected=expected):
        if line.strip():
            yield number, parse_json(line, where=f"{path}, line {number}")


def read_json_or_lines(path: str | Path, *, expected: str) -> tuple[bool, Iterator[tuple[int, Any]]]:
    """A JSON file or a JSONL file -> (whether it has lines, (line's number, data)); one file of JSON is one such pair.

    It is read once, for it may be a pipe. JSONL: its first line is an object, and another line comes after it.
    """
    lines = ((number, line) for number, line in read_lines(path, expected=expected) if line.strip())
    first = next(lines, None)
    if first is None:
        raise UserError(f"{path}: the file is empty, expected {expected}")
    second = next(lines, None)
    if second is None or not _is_object(first[1]):
        return False, _one_value([first] + ([second] if second else []), lines, path=path, expected=expected)
    return True, _values(first, second, lines, path=path)


def _values(
    first: tuple[int, str], second: tuple[int, str], lines: Iterator[tuple[int, str]], *, path: str | Path
) -> Iterator[tuple[int, Any]]:
    for some in ((first, second), lines):
        for number, line in some:
            yield number, parse_json(line, where=f"{path}, line {number}")


def _one_value(
    begun: list[tuple[int, str]], lines: Iterator[tuple[int, str]], *, path: str | Path, expected: str
) -> Iterator[tuple[int, Any]]:
    parts, size = [line for _, line in begun], sum(len(line) for _, line in begun)
    for _, line in lines:
        parts.append(line)
        size += len(line) + 1
        if size > LARGEST_TEXT:
            raise UserError(f"{path}: got more than {LARGEST_TEXT:,} characters, expected {expected}; write JSONL")
    yield begun[0][0], _parse_file("\n".join(parts), path=path, expected=expected)


def _parse_file(text: str, *, path: str | Path, expected: str) -> Any:
    try:
        return _parse(text)
    except _Refused as error:
        line = "" if error.token is None else f", line {_line_of(error.token, text)}"
        raise UserError(f"{path}{line}: cannot be read as JSON ({error}); expected {expected}") from None
    except ValueError as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); expected {expected}") from None


_STRING_OR_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s"{}\[\]:,]+', re.DOTALL)


def _line_of(token: str, text: str) -> int:
    """The line of the first such token of a JSON text; what stands in its strings is none."""
    starts = (found.start() for found in _STRING_OR_TOKEN.finditer(text) if found[0] == token)
    return text.count("\n", 0, next(starts, 0)) + 1


def _is_object(line: str) -> bool:
    """Whether a line is a whole object. What is wrong in it is said when it is read."""
    if not line.lstrip().startswith("{"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return line.rstrip().endswith("}")


def _refuse_constant(name: str) -> Any:
    raise _Refused(f"{name} is no number of JSON: write null, or leave the field out", token=name)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise _Refused(f"{digits[:40]} is larger than any number here", token=digits)
    return number


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Refused(f"the field {twice!r} stands twice in one object: keep one of them")
    return found
