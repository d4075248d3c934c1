"""The clips of a run: what each is called, where its side-car stands, which rows are about it. No torch.

clips/a.mp4                     ->  a.txt
film.mp4, cut into three clips  ->  film/clip_0001.txt, film/clip_0002.txt, film/clip_0003.txt
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from avcap.bulk.inputs.items import Item, items_of
from avcap.bulk.job import FolderJob
from avcap.bulk.places import order_key
from avcap.data.request import Interval, Request
from avcap.files.walk import RealPaths
from avcap.infer.caption_file import Row
from avcap.records import Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A clip: an item, or an interval that it was cut at."""

    item: Item
    name: str
    """Below the root: what its side-car mirrors."""
    interval_s: Interval | None = None
    """Of a cut; None: the item as it is."""

    @property
    def stem(self) -> str:
        return stem_of(self.name)

    @property
    def span_s(self) -> Interval | None:
        """Which part of a file it is; None: all of it."""
        return self.interval_s or self.item.interval_s

    @property
    def has_own_file(self) -> bool:
        """Whether a file holds this clip and nothing else: neither a part of one, nor packed with others."""
        return self.span_s is None and self.item.packed is None

    def sample(self, request: Request) -> Sample:
        """What is asked of all -> the sample of this clip."""
        if self.interval_s is None:
            return self.item.sample(request)
        return replace(self.item, interval_s=None).sample(replace(request, interval_s=self.interval_s))


class Clips:
    """All clips of a run that are known so far; those of files that are cut become known as it goes."""

    def __init__(self, job: FolderJob) -> None:
        self._request = job.request
        self._real_paths = RealPaths()
        named = sorted(
            ((item.name(job.root), item) for item in items_of(job.videos)),
            key=lambda pair: (order_key(pair[0]), pair[1].sample_id),
        )
        self.whole = [Part(item=item, name=name) for name, item in named if job.shard is None or job.shard.holds(name)]
        """Of the items of this run, in order."""
        self.by_key: dict[str, Part] = {}
        self.first_of_stem: dict[str, str] = {}
        """Stem -> the first clip that has it: the side-car of another would take the place of its own."""
        for part in self.whole:
            self.first_of_stem.setdefault(part.stem, part.name)

    def key(self, sample_id: str, video: str) -> str:
        """The file and the part of it, whatever way the file is called: `x` and `./x` are one."""
        return self._real_paths(video) + sample_id.removeprefix(video) if sample_id.startswith(video) else sample_id

    def key_of(self, row: Row) -> str:
        """A row of a record -> what it is about."""
        return self.key(row.sample_id, row.video)

    def key_of_part(self, part: Part) -> str:
        """A clip -> the key of rows about it."""
        sample = part.sample(self._request)
        return self.key(sample.sample_id, sample.video)

    def add(self, part: Part) -> str:
        """Notes a clip -> its key."""
        key = self.key_of_part(part)
        self.by_key.setdefault(key, part)
        return key

    def cut(self, whole: Part, intervals: Sequence[Interval], *, prompt: str = "") -> Iterator[Part]:
        """A file and where it is cut -> its clips, numbered from 1, in a folder called like the file.

        `prompt`: what is asked about each, unless the file has a prompt of its own.
        """
        item = replace(whole.item, prompt=whole.item.prompt or prompt)
        suffix = os.path.splitext(whole.name)[1]
        for number, interval_s in enumerate(intervals, start=1):
            name = f"{whole.stem}/clip_{number:04}{suffix}"
            self.first_of_stem.setdefault(stem_of(name), name)
            yield Part(item=item, name=name, interval_s=interval_s)

    def owner_of_stem(self, part: Part) -> str:
        """Which clip the side-cars at this one's place are of."""
        return self.first_of_stem.get(part.stem, part.name)


def stem_of(name: str) -> str:
    """A name -> without its last suffix: all readers of side-cars look there."""
    return os.path.splitext(name)[0]


def spread(parts: Sequence[Part], count: int) -> list[Part]:
    """Clips in order -> so many of them, the first and the last among them."""
    if count >= len(parts):
        return list(parts)
    return [parts[round(index * (len(parts) - 1) / max(1, count - 1))] for index in range(count)]
