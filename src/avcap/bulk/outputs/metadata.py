"""Hugging Face `videofolder` and finetrainers: metadata.jsonl with `file_name` and `caption`. No torch.

`file_name` is seen from the folder of metadata.jsonl, below it, with "/" and no "://"; what reads it takes no half
characters. All clips have a row in one file, whatever folder below they are in.
"""

from collections.abc import Sequence
from pathlib import Path

from avcap.bulk.outputs.clips import CaptionedClip, LeftOut, Table, TableFiles, json_lines_bytes
from avcap.bulk.places import Root

READER = "datasets.load_dataset"


def make_metadata(clips: Sequence[CaptionedClip], out: Path, root: Root) -> TableFiles:
    """Clips -> metadata.jsonl."""
    rows, left_out = [], []
    for clip in clips:
        if reason := _refused(clip.name):
            left_out.append(LeftOut(name=clip.name, reason=reason))
        else:
            rows.append({"file_name": clip.name, "caption": clip.text})
    return TableFiles(files={"metadata.jsonl": json_lines_bytes(rows)}, left_out=left_out)


def _refused(name: str) -> str:
    if "\\" in name or "://" in name:
        return "metadata.jsonl takes no \\ and no :// in names"
    if any("\ud800" <= char <= "\udfff" for char in name):
        return "metadata.jsonl takes only names that are UTF-8"
    return ""


METADATA = Table(file="metadata.jsonl", make=make_metadata, reader=READER)
