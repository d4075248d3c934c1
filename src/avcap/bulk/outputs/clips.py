"""What every form is made of: a clip with its caption's text, and what could not be written. No torch."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avcap.bulk.places import Root
from avcap.bulk.wording import Wording
from avcap.files.walk import AUDIO_SUFFIXES, suffix_of
from avcap.records import Caption


@dataclass(frozen=True, kw_only=True)
class CaptionedClip:
    """A clip, where it lies, and its caption as it is written."""

    path: str
    """Absolute."""
    name: str
    """Below the root, with "/" between its parts."""
    text: str
    """In the wording that was asked for."""
    caption: Caption

    @property
    def stem(self) -> str:
        """The name without its last suffix: all readers of side-cars look there."""
        return os.path.splitext(self.name)[0]

    @property
    def is_audio_file(self) -> bool:
        """Whether its name is one of an audio file, which trainers of videos do not read."""
        return suffix_of(self.name) in AUDIO_SUFFIXES


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A clip that a form has no place for, and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class TableFiles:
    """The files of a form that holds all clips together: name below --out -> what writes it."""

    files: dict[str, bytes | Callable[[Path], None]]
    left_out: list[LeftOut] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class SideCar:
    """A form with one file for each clip, beside it: `clip.txt`."""

    suffix: str
    render: Callable[[CaptionedClip, Wording], str] = lambda clip, _: clip.text
    wording: Callable[[Wording], Wording] = lambda wording: wording
    """What its reader needs of the wording; UserError for what it does not take."""
    reader: str = ""
    """What reads it from the folder of the clips, and nowhere else; "": nothing does."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A form with all clips in one file, or a few."""

    file: str
    """The name of its file below --out, or of each of its files below their folders."""
    make: Callable[[Sequence[CaptionedClip], Path, Root], TableFiles]
    """Clips in order, --out, and the root -> the files."""
    wording: Callable[[Wording], Wording] = lambda wording: wording
    reader: str = ""
    is_one_file: bool = True
    check: Callable[[], None] = lambda: None
    """UserError where it cannot be written here at all."""


def json_bytes(data: Any) -> bytes:
    """Data -> a JSON file in UTF-8; halves of characters, as in odd file names, as JSON escapes them."""
    return (json.dumps(data, ensure_ascii=False, indent=1) + "\n").encode("utf-8", errors="backslashreplace")


def json_lines_bytes(rows: Iterable[Any]) -> bytes:
    """Rows -> a JSONL file, without empty lines: readers take every line for a row."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return text.encode("utf-8", errors="backslashreplace")


def without_audio_files(clips: Sequence[CaptionedClip], *, reader: str) -> tuple[list[CaptionedClip], list[LeftOut]]:
    """Clips -> the videos, and the others with their reason."""
    left_out = [
        LeftOut(name=clip.name, reason=f"{reader} reads videos, and this is an audio file")
        for clip in clips
        if clip.is_audio_file
    ]
    return [clip for clip in clips if not clip.is_audio_file], left_out
