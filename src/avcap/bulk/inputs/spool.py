"""Items -> rows: what is packed lies in a temporary file while it is looked at, and records call it by its own name.

    asked about -> copied out of its tar or table -> captioned -> its file is removed -> row, in order

No more files lie there than the captioner has in hand. No torch.
"""

import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO

from avcap.bulk.inputs.items import Item, ParquetCell, TarMember
from avcap.bulk.inputs.parquet import CellReader
from avcap.errors import UserError, WriteError
from avcap.files.write import write_errors
from avcap.infer.caption_file import Row
from avcap.records import CaptionError, Sample

Stream = Callable[[Iterable[Sample]], Iterator[Row]]
COPY_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be captioned: a sample, and the item whose file it is of."""

    item: Item
    sample: Sample


@dataclass(kw_only=True)
class _Spooled:
    path: str
    num_users: int = 0


class Spool:
    """Context manager: temporary files of what is packed, each as long as somebody holds it."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files: dict[TarMember | ParquetCell, _Spooled] = {}
        self._cells = CellReader()
        self._count = 0
        self._lock = threading.Lock()
        """Files are cut up by several threads while others are captioned."""

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._cells.close()
        if self._folder is not None:
            self._folder.cleanup()

    @contextmanager
    def held(self, item: Item) -> Iterator[str]:
        """An item -> the path of its file, which stays as long as the context does; errors as `take`."""
        path = self.take(item)
        try:
            yield path
        finally:
            self.free(item)

    def take(self, item: Item) -> str:
        """An item -> the path of its file, to be given back by `free`. UserError if its bytes cannot be had."""
        if item.packed is None:
            return item.video
        with self._lock:
            spooled = self._files.get(item.packed)
            if spooled is None:
                spooled = self._files[item.packed] = _Spooled(path=self._copied(item))
            spooled.num_users += 1
            return spooled.path

    def free(self, item: Item) -> None:
        """Gives back what `take` gave; the last one removes the file."""
        if item.packed is None:
            return
        with self._lock:
            spooled = self._files[item.packed]
            spooled.num_users -= 1
            if not spooled.num_users:
                del self._files[item.packed]
                os.unlink(spooled.path)

    def _copied(self, item: Item) -> str:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="avcap-")
        self._count += 1
        path = os.path.join(self._folder.name, f"{self._count:06}{os.path.splitext(item.video)[1]}")
        try:
            with write_errors(Path(path)), open(path, "wb") as handle:
                if isinstance(item.packed, TarMember):
                    _copy_member(item.packed, handle)
                else:
                    assert item.packed is not None
                    self._cells.copy(item.packed, handle)
        except WriteError:
            raise  # no room for any file: the end of the run, and not a row of it
        except UserError as error:
            if os.path.exists(path):
                os.unlink(path)
            raise UserError(f"{item.video}: {error}") from None
        return path


def _copy_member(member: TarMember, handle: IO[bytes]) -> None:
    left = member.size
    try:
        with open(member.container, "rb") as shard:
            shard.seek(member.offset)
            while left and (data := shard.read(min(COPY_BYTES, left))):
                handle.write(data)
                left -= len(data)
    except OSError as error:
        raise UserError(f"its shard cannot be read ({error.strerror}); check {member.container}") from None
    if left:
        raise UserError(f"its shard ends {left} bytes before it does; {member.container} was not copied whole")


def rows_of(asked: Iterable[Asked | CaptionError], *, stream: Stream, spool: Spool) -> Iterator[Row]:
    """What is asked about, errors among it -> a row for each, in the order of `stream`.

    `stream` is called once there is something for it: of errors alone no model is started.
    """
    rest = iter(asked)
    first: Asked | None = None
    for one in rest:
        if isinstance(one, Asked):
            first = one
            break
        yield one
    if first is None:
        return
    waiting: OrderedDict[str, Asked | CaptionError] = OrderedDict()

    def samples() -> Iterator[Sample]:
        for one in _chained(first, rest):
            if isinstance(one, CaptionError):
                waiting[one.sample_id] = one
                continue
            sample = one.sample
            try:
                path = spool.take(one.item)
            except WriteError:
                raise
            except UserError as error:
                waiting[sample.sample_id] = CaptionError(
                    sample_id=sample.sample_id, video=sample.video, error=str(error)
                )
                continue
            waiting[sample.sample_id] = one
            yield replace(sample, video=path)

    for row in stream(samples()):
        yield from _leading_errors(waiting)
        sent = waiting.pop(row.sample_id)
        assert isinstance(sent, Asked)
        spool.free(sent.item)
        yield _renamed(row, sent)
    yield from (row for row in waiting.values() if isinstance(row, CaptionError))


def _leading_errors(waiting: OrderedDict[str, Asked | CaptionError]) -> Iterator[CaptionError]:
    """What waits -> the errors before the first that is being captioned, taken out."""
    while isinstance(error := next(iter(waiting.values())), CaptionError):
        waiting.popitem(last=False)
        yield error


def _chained(first: Asked, rest: Iterator[Asked | CaptionError]) -> Iterator[Asked | CaptionError]:
    yield first
    yield from rest


def _renamed(row: Row, sent: Asked) -> Row:
    """A row about a temporary file -> the same about what was asked for."""
    if row.video == sent.sample.video:
        return row
    if isinstance(row, CaptionError):
        return replace(row, video=sent.sample.video, error=row.error.replace(row.video, sent.sample.video))
    return replace(row, video=sent.sample.video)
