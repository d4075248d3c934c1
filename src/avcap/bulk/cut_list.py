"""clips.csv: which part of which file each clip is, for whatever cuts them out. No torch."""

import csv
import io
import math
from collections.abc import Iterable

from avcap.bulk.clips import Part
from avcap.data.request import format_seconds

HEADER = ("file_name", "source", "start_s", "end_s")


def cut_list(parts: Iterable[Part]) -> bytes:
    """Clips -> a CSV: the name below the root, the source as records call it, seconds; no end: that of the source."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for part in parts:
        assert part.span_s is not None, "a clip that is no part of a file"
        start_s, end_s = part.span_s
        end = "" if end_s == math.inf else format_seconds(end_s)
        writer.writerow((part.name, part.item.video, format_seconds(start_s), end))
    return text.getvalue().encode("utf-8", errors="backslashreplace")
