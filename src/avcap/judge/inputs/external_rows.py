"""Files that somebody wrote, ours or not: JSON, JSONL and CSV become rows, and rows say who, when and what.

Nothing is guessed: a row without a name or a text, or with two texts that differ, is an error that names it.
"""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avcap.errors import UserError
from avcap.files.names import composed
from avcap.texts.json_text import parse_json, read_json_or_lines
from avcap.texts.tables import read_table

NAME_FIELDS = ("sample_id", "id", "video_id", "video", "video_path", "path", "file", "video_name")
TEXT_FIELDS = ("pred", "prediction", "response", "output", "predicted_caption", "caption", "text")
REFERENCE_CAPTION_FIELDS = ("reference_caption", "ref", "reference", "gt", "caption", "text")
INTERVAL_FIELDS = ("interval_s", "timestamps", "interval")
LIST_FIELDS = ("data", "results", "samples", "annotations")
TABLE_SUFFIXES = (".csv", ".tsv", ".tab")

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One object of a file, and where it stands: "captions.json, row 3"."""

    where: str
    data: Mapping[str, Any]


def read_rows(path: str | Path) -> Iterator[Row]:
    """A .csv or .tsv file, a JSONL file, a JSON list, or a JSON object of named rows -> its rows, in order."""
    path = Path(path)
    if path.suffix.lower() in TABLE_SUFFIXES:
        for number, cells in read_table(path, names=(*NAME_FIELDS, *TEXT_FIELDS), expected="a CSV file with a header"):
            yield Row(where=f"{path}, row {number}", data=cells)
        return
    is_lines, values = read_json_or_lines(path, expected="a JSONL, JSON or CSV file")
    for number, data in values:
        if is_lines:
            yield _row(data, where=f"{path}, line {number}")
        else:
            yield from _json_rows(path, data)


def _json_rows(path: Path, data: Any) -> Iterator[Row]:
    if isinstance(data, dict) and "clip_id" not in data:
        data = next((data[name] for name in LIST_FIELDS if isinstance(data.get(name), list)), None) or _named_rows(data)
    if isinstance(data, dict):
        data = [data]
    if not isinstance(data, list):
        raise UserError(f"{path}: got JSON of a {type(data).__name__}, expected a list of objects")
    for number, item in enumerate(data, start=1):
        yield _row(item, where=f"{path}, row {number}")


def _named_rows(data: dict[str, Any]) -> list[Any]:
    """{"a.mp4": "A dog barks."}, or objects or lists of events for texts -> rows of their own. One row stays one."""
    if any(name in data for name in NAME_FIELDS):
        return [data]

    def fields(value: Any) -> dict[str, Any]:
        return value if isinstance(value, dict) else {"events" if isinstance(value, list) else "text": value}

    return [{"sample_id": name, **fields(value)} for name, value in data.items()]


def _row(data: Any, *, where: str) -> Row:
    if not isinstance(data, dict):
        raise UserError(f"{where}: got a {type(data).__name__}, expected an object with a video and a text")
    return Row(where=where, data=data)


# --- what a row says --------------------------------------------------------------------------------------------------


def names_of(row: Row) -> tuple[str, ...]:
    """Row -> all it calls its sample or video: ids and paths, the surest first."""
    names: list[str] = []
    for field in NAME_FIELDS:
        value = row.data.get(field)
        # the released v1 writes id: [video, audio]; the released 2+ may write a list of videos
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, str | int) and not isinstance(first, bool) and str(first).strip():
            names.append(str(first))
    if not names:
        raise UserError(
            f"{row.where}: got the fields {', '.join(row.data) or 'none'}, expected one that names the video: "
            f"{', '.join(NAME_FIELDS)}"
        )
    return tuple(dict.fromkeys(names))


def spellings(name: str) -> tuple[str, ...]:
    """
    >>> spellings("data/talk.mp4")
    ('data/talk.mp4', 'talk.mp4', 'talk')
    """
    name = composed(name)
    base = os.path.basename(name.replace("\\", "/"))
    return tuple(dict.fromkeys((name, base, os.path.splitext(base)[0])))


def text_of(row: Row, *, field: str | None = None) -> str | None:
    """Row -> its caption; None where it says that there is none (null). `field`: where to look, if not everywhere."""
    found = [name for name in ((field,) if field else TEXT_FIELDS) if name in row.data]
    if not found:
        raise UserError(
            f"{row.where}: got the fields {', '.join(row.data)}, expected one with the caption: "
            f"{field or ', '.join(TEXT_FIELDS)}; name another with --caption-field"
        )
    texts = {name: row.data[name] for name in found}
    if any(not isinstance(text, str | None) for text in texts.values()):
        raise UserError(f"{row.where}: got {texts}, expected text; name another field with --caption-field"[:400])
    if len(set(texts.values())) > 1:
        raise UserError(f"{row.where}: got other texts in {' and '.join(found)}; choose one with --caption-field")
    return texts[found[0]]


def reference_caption_of(row: Row) -> str | None:
    """Row -> its reference caption, if it has one: a field of its own, or a turn of a conversation."""
    for name in REFERENCE_CAPTION_FIELDS:
        if isinstance(row.data.get(name), str) and row.data[name].strip():
            return str(row.data[name])
    turns = row.data.get("conversations")
    if not isinstance(turns, list):
        return None
    said = {turn.get("from"): turn.get("value") for turn in turns if isinstance(turn, dict)}
    # "gpt" is the chosen answer where there is a "reject_gpt" (preference data of the first release), else the truth
    reference_caption = said.get("gt") if "gt" in said or "reject_gpt" in said else said.get("gpt")
    return reference_caption if isinstance(reference_caption, str) and reference_caption.strip() else None


def interval_of(row: Row) -> Interval | None:
    """Row -> the interval that it is about, or None for the whole video."""
    value = next((row.data[name] for name in INTERVAL_FIELDS if row.data.get(name) not in (None, "")), None)
    if value is None:
        return None
    try:
        start_s, end_s = (float(time_s) for time_s in (parse_json(value) if isinstance(value, str) else value))
    except (TypeError, ValueError, UserError):
        raise UserError(f"{row.where}: got the interval {value!r}, expected [start, end] in seconds") from None
    if not 0 <= start_s < end_s < math.inf:
        raise UserError(f"{row.where}: got the interval {value!r}, expected a start of 0 or more and an end after it")
    return start_s, end_s
