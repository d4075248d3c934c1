"""A row of a list -> what is to be captioned: the field's usual names of columns. No torch.

Places are seen from the folder of the list.
"""

import math
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from avcap.bulk.inputs.items import Item, refused
from avcap.data.request import Interval, check_interval
from avcap.errors import UserError

VIDEO = (
    "video",
    "video_path",
    "file_name",
    "filename",
    "media_path",
    "path",
    "file_path",
    "filepath",
    "file",
    "clip",
    "clip_path",
    "media",
    "videos",
    "audio_path",
    "audio",
)
"""The first of these that a row has names its file."""
START = ("start_s", "start", "start_time", "start_sec", "start_seconds", "begin")
END = ("end_s", "end", "end_time", "end_sec", "end_seconds", "stop")
INTERVAL = ("interval_s", "interval", "timestamp", "segment", "span")
ID = ("sample_id", "id", "clip_id", "uid", "__key__", "key")
PROMPT = ("prompt", "instruction", "question")
_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:\.\d+)?)")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def item_of(row: Any, *, path: str, number: int) -> Item:
    """A row of the list at `path` -> its item; one with an error where the row names nothing to be captioned."""
    try:
        if not isinstance(row, Mapping):
            raise UserError(f"got {type(row).__name__}, expected an object with the columns of one video")
        cells = {str(name).strip().lower(): value for name, value in row.items()}
        video = _place(_first(cells, VIDEO), folder=os.path.dirname(path))
        interval_s = _interval(cells)
        return Item(video=video, sample_id=_text(cells, ID), prompt=_text(cells, PROMPT), interval_s=interval_s)
    except UserError as error:
        return refused(path, number, error)


def has_video_column(names: Iterable[str]) -> bool:
    """Whether one of the columns may name files."""
    return not {str(name).strip().lower() for name in names}.isdisjoint(VIDEO)


def _first(cells: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((cells[name] for name in names if cells.get(name) not in (None, "")), None)


def _text(cells: Mapping[str, Any], names: Iterable[str]) -> str:
    """Numbers are ids, too; what is neither text nor number is none."""
    value = _first(cells, names)
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _place(value: Any, *, folder: str) -> str:
    if isinstance(value, Mapping):  # {"path": ..., "bytes": null}, as datasets writes them
        value = value.get("path")
    if isinstance(value, list | tuple):
        if len(value) != 1:
            raise UserError(f"got {len(value)} videos in a row, expected one; write a row for each")
        (value,) = value
    if value is None:
        raise UserError(f"got no file; expected one of the columns {', '.join(VIDEO[:6])}, ...")
    if not isinstance(value, str):
        raise UserError(f"got {str(value)[:60]!r} for its file, expected a path")
    value = value.strip().removeprefix("file://")
    if _URL.match(value):
        raise UserError(f"got {value[:120]}, expected a file on this machine; fetch it first, and name the file")
    if not value or "\0" in value:
        raise UserError(f"got {value[:120]!r} for its file, expected a path")
    return os.path.join(folder, value)


def _interval(cells: Mapping[str, Any]) -> Interval | None:
    start, end = _seconds(_first(cells, START)), _seconds(_first(cells, END))
    if start is None and end is None:
        both = _first(cells, INTERVAL)
        if both is None or isinstance(both, str | int | float):  # a single "timestamp" is mostly when it was made
            return None
        if not isinstance(both, list | tuple) or len(both) != 2 or isinstance(both[0], list | tuple):
            raise UserError(f"got the interval {str(both)[:60]}, expected [start, end] in seconds; one a row")
        start, end = _seconds(both[0]), _seconds(both[1])
    interval_s = (start or 0.0, math.inf if end is None else end)
    check_interval(interval_s)
    return interval_s


def _seconds(value: Any) -> float | None:
    """3, "3.5", "01:02:03.5" -> seconds; None for an empty cell."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        if clock := _CLOCK.fullmatch(value.strip()):
            return 3600 * int(clock[1] or 0) + 60 * int(clock[2]) + float(clock[3])
        try:
            value = float(value)
        except ValueError:
            raise UserError(f"got the time {value[:40]!r}, expected seconds, or 01:02:03.5") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"got the time {str(value)[:40]!r}, expected seconds, or 01:02:03.5")
    return float(value)
