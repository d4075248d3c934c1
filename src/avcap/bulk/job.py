"""What is to be in a folder of captions in the end, and what became of it. No torch."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from avcap.bulk.cuts.cutter import Cutter, EverySeconds
from avcap.bulk.inputs.items import Item
from avcap.bulk.inputs.spool import Stream
from avcap.bulk.long.summary import Summarizer
from avcap.bulk.long.windowing import Windowing
from avcap.bulk.outputs.clips import LeftOut
from avcap.bulk.places import Root, Shard
from avcap.bulk.where import Where
from avcap.bulk.wording import Wording
from avcap.data.request import Prompts, Request
from avcap.infer.caption_file import Row
from avcap.records import Caption, CaptionError

Watch = Callable[[Iterator[Row], int | None], Iterable[Row]]
"""Rows as they come, and how many there will be, if that is known -> the same."""

__all__ = ["FolderJob", "Stream", "Told", "Watch"]


@dataclass(frozen=True, kw_only=True)
class FolderJob:
    """What is to be in a folder in the end."""

    out: Path
    root: Root
    videos: tuple[str | Item, ...]
    """All that the command line means; a shard takes its part."""
    request: Request
    forms: tuple[str, ...] = ()
    subtitles: tuple[str, ...] = ()
    wording: Wording = field(default_factory=Wording)
    every_s: float = 5.0
    split: Cutter | None = None
    """Files are cut into clips of their own; None: whole files, or subtitles of `every_s` seconds."""
    long: Windowing | None = None
    """Files that are longer than a window are captioned window by window, and have one caption all the same."""
    summarizer: Summarizer | None = None
    prompts: Prompts = field(default_factory=Prompts)
    checkpoint: str = ""
    """How captions call the model, and what it is asked without a prompt: of windows."""
    toc: bool = False
    """Whether each file gets a table of contents."""
    clip_prompts: Prompts | None = None
    """What clips of `split` are asked, as if each were a file of its own; None: as intervals of their files."""
    where: Where | None = None
    """What a caption must be for any form; the record keeps all."""
    keep_existing: bool = False
    retry_failed: bool = False
    shard: Shard | None = None
    num_samples: int | None = None
    """Only so many, spread over all, for a person to look at."""
    rows_at_once: int = 8
    deadline_s: float = 600.0

    def file(self, name: str) -> Path:
        """ "captions.jsonl" -> its path, of this shard."""
        stem, suffix = os.path.splitext(name)
        return self.out / f"{stem}{self.shard.suffix if self.shard else ''}{suffix}"

    @property
    def record(self) -> Path:
        """Where captions are kept."""
        return self.file("intervals.jsonl" if self.subtitles else "captions.jsonl")

    @property
    def cutter(self) -> Cutter | None:
        """How files are cut; None: they are not."""
        return EverySeconds(every_s=self.every_s) if self.subtitles and self.split is None else self.split


@dataclass(kw_only=True)
class Told:
    """What became of a job."""

    record: Path
    num_new: int = 0
    num_old: int = 0
    new_errors: list[CaptionError] = field(default_factory=list)
    num_old_errors: int = 0
    """Of runs before, not tried again."""
    num_kept: int = 0
    """Clips with a side-car that was there before, which were not captioned."""
    num_cut: int = 0
    """Files that were cut into clips."""
    num_clips: int = 0
    """What they were cut into."""
    num_long: int = 0
    """Captions that are made of those of windows."""
    num_doubled: int = 0
    """Sentences that two windows had told, and that are written once."""
    num_with_gaps: int = 0
    """Of them, those some of whose windows have no caption."""
    num_without_audio: int = 0
    num_written: int = 0
    external: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    num_filtered: int = 0
    """Captions that `where` is not true of: in the record alone."""
    num_empty: int = 0
    num_truncated: int = 0
    num_put_into_form: int = 0
    num_gone: int = 0
    """Of the record, but not of tables: their files are no longer there, or not below the root."""
    skipped_tables: tuple[str, ...] = ()
    samples: list[Caption] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether everything that was asked for is there."""
        return not (self.new_errors or self.num_old_errors or self.external or self.left_out or self.num_with_gaps)
