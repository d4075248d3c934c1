"""One thing to be captioned: a file, a row of a list, a member of a tar, a cell of a table. No torch.

clips/a.mp4                  a file
list.jsonl, line 7           a file that a row names, with its interval, prompt and id
shards/0001.tar/abc          a member of a tar: its bytes are copied to a temporary file while it is captioned
data/train.parquet/17        a cell of a parquet file: the same
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from avcap.bulk.places import Root, find_root
from avcap.data.request import Interval, Request, format_seconds
from avcap.errors import UserError
from avcap.records import CaptionError, Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class TarMember:
    """Where the bytes of a member stand in a tar."""

    container: str
    offset: int
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ParquetCell:
    """Where the bytes of a video stand in a parquet file."""

    container: str
    row_group: int
    index: int
    """Of the row within its group."""
    column: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """What is to be captioned, and how records call it."""

    video: str
    sample_id: str = ""
    """As a list or a shard calls it; "": by the video's path."""
    prompt: str = ""
    """Its own; "": what is asked of all."""
    interval_s: Interval | None = None
    packed: TarMember | ParquetCell | None = None
    """Where its bytes are; None: in the file `video`."""
    name_in_container: str = ""
    """Of a packed one: its name below the folder of its container, safe to be written at."""
    error: str = ""
    """Why it cannot be captioned: a row of the output like any other."""

    @property
    def file(self) -> str:
        """The file that has to be there for it."""
        return self.packed.container if self.packed else self.video

    def request(self, request: Request) -> Request:
        """What is asked of all -> what is asked of this one: its own prompt and interval come first."""
        if not self.prompt and self.interval_s is None:
            return request
        return replace(request, prompt=self.prompt or request.prompt, interval_s=self.interval_s or request.interval_s)

    def sample(self, request: Request) -> Sample:
        """What is asked of all -> the sample; an id of its own gets the part that the command line asks for."""
        sample = self.request(request).sample(self.video)
        if not self.sample_id:
            return sample
        part = replace(request, interval_s=None) if self.interval_s is not None else request
        fragment = part.sample(self.video).sample_id.removeprefix(self.video)
        return replace(sample, sample_id=self.sample_id + fragment)

    def failed(self, request: Request) -> CaptionError:
        """The row of one that cannot be captioned."""
        return CaptionError(sample_id=self.sample(request).sample_id, video=self.video, error=self.error)

    def name(self, root: Root) -> str:
        """The root -> the name of this clip below it: what side-cars mirror. UserError if it lies elsewhere.

        A row with an interval of its own has a name of its own: film.mp4 from 3 to 7 s is film_3-7.mp4.
        """
        if self.packed is None:
            name = root.relative(self.video)
        else:
            folder = os.path.dirname(root.relative(self.packed.container))
            name = f"{folder}/{self.name_in_container}" if folder else self.name_in_container
        if self.interval_s is None:
            return name
        start_s, end_s = self.interval_s
        end = "" if end_s == float("inf") else format_seconds(end_s)
        stem, suffix = os.path.splitext(name)
        return f"{stem}_{format_seconds(start_s)}-{end}{suffix}"


def items_of(videos: Iterable[str | Item]) -> list[Item]:
    """Paths and items -> items."""
    return [video if isinstance(video, Item) else Item(video=video) for video in videos]


def root_of(
    inputs: Iterable[str], items: Iterable[Item], *, lists: Iterable[str] = (), relative_to: Path | None = None
) -> Root:
    """The words of the command line and what they mean -> the folder that all of it lies in; errors as `find_root`."""
    return find_root(list(inputs), [*(item.file for item in items), *lists], relative_to=relative_to)


def once_each(items: Iterable[Item]) -> Iterator[Item]:
    """Items -> the same; one whose own id stands before it for something else is a row of an error.

    The same row again is passed over by whoever keeps captions by their ids.
    """
    first: dict[str, Item] = {}
    for item in items:
        if not item.sample_id or item.error:
            yield item
            continue
        before = first.setdefault(item.sample_id, item)
        if before is item or before == item:
            yield item
        else:
            why = f"{item.video}: got the id {item.sample_id!r}, which {before.video} has already; give each its own"
            yield Item(video=item.video, sample_id=f"{item.sample_id}#again", error=why)


def refused(path: str, number: int, error: UserError | str) -> Item:
    """A row of a list that names nothing to be captioned -> its item."""
    return Item(video=path, sample_id=f"{path}#row={number}", error=f"{path}, row {number}: {error}")


class OwnPrompts:
    """What lists ask about their own videos: the request that a row of a record has to be an answer to."""

    def __init__(self, items: Iterable[Item], request: Request) -> None:
        self._request = request
        self._prompts = {item.sample(request).sample_id: item.prompt for item in items if item.prompt}

    def request_of(self, sample_id: str) -> Request:
        """A row's id -> the request; a part of a file is asked about as the file is."""
        if not self._prompts:
            return self._request
        prompt = self._prompts.get(sample_id) or self._prompts.get(sample_id.partition("#t=")[0])
        return self._request if prompt is None else replace(self._request, prompt=prompt)
