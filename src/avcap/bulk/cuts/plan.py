"""Which intervals each file is cut into: found out a few files ahead, and noted, so that nothing is looked at twice.

    OUT/.avcap/cuts.jsonl    one CutFile for each file that was looked at

No torch by itself.
"""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from avcap.bulk.cuts.cutter import Cutter
from avcap.bulk.cuts.measure import measure
from avcap.bulk.inputs.items import Item
from avcap.bulk.inputs.spool import Spool
from avcap.data.request import Interval
from avcap.errors import UserError, WriteError
from avcap.records import CutFile, journal

NUM_AHEAD = max(1, min(8, os.cpu_count() or 1))


class CutPlan:
    """Context manager: items -> how they are cut. `notes` None: nothing is noted."""

    def __init__(
        self, cutter: Cutter, *, notes: Path | None, key: Callable[[str, str], str], deadline_s: float
    ) -> None:
        self.cutter, self.deadline_s, self._key = cutter, deadline_s, key
        self._journal = None if notes is None else journal(notes, CutFile)
        self._known: dict[str, CutFile] = {}

    def __enter__(self) -> "CutPlan":
        if self._journal is not None:
            self._journal.__enter__()
            for row in self._journal.read():
                if row.cut == self.cutter.name:
                    self._known[self._key(row.sample_id, row.video)] = row
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._journal is not None:
            self._journal.__exit__(kind, error, trace)

    def cut(self, items: Iterable[tuple[str, Item]], *, spool: Spool) -> Iterator[tuple[Item, CutFile | UserError]]:
        """Ids and items -> how each is cut, or why it cannot be; in order, a few ahead."""
        waiting: deque[tuple[Item, CutFile | Future[CutFile | UserError]]] = deque()
        with ThreadPoolExecutor(NUM_AHEAD, thread_name_prefix="cut") as threads:
            try:
                for sample_id, item in items:
                    known = self._known.get(self._key(sample_id, item.video))
                    waiting.append((item, known or threads.submit(self._look, sample_id, item, spool)))
                    while waiting and (len(waiting) > NUM_AHEAD or isinstance(waiting[0][1], CutFile)):
                        yield self._done(*waiting.popleft())
                while waiting:
                    yield self._done(*waiting.popleft())
            finally:
                for _, found in waiting:
                    if isinstance(found, Future):
                        found.cancel()

    def _done(self, item: Item, found: "CutFile | Future[CutFile | UserError]") -> tuple[Item, CutFile | UserError]:
        if isinstance(found, CutFile):
            return item, found
        result = found.result()
        if isinstance(result, CutFile) and self._journal is not None:
            self._journal.append([result])
        return item, result

    def _look(self, sample_id: str, item: Item, spool: Spool) -> CutFile | UserError:
        try:
            with spool.held(item) as path:
                measured = measure(path, deadline_s=self.deadline_s)
                intervals = self.cutter.intervals(path, measured, deadline_s=self.deadline_s)
        except WriteError:
            raise
        except UserError as error:
            return error
        within = _within(intervals, item.interval_s)
        return CutFile(
            sample_id=sample_id,
            video=item.video,
            cut=self.cutter.name,
            duration_s=round(measured.duration_s, 3),
            has_audio=measured.has_audio,
            starts_s=tuple(start_s for start_s, _ in within),
            ends_s=tuple(None if end_s == math.inf else end_s for _, end_s in within),
        )


def _within(intervals: Iterable[Interval], asked: Interval | None) -> list[Interval]:
    """Intervals of a file -> what of them a row of a list asks for; of windows that overlap, none that adds nothing."""
    if asked is None:
        return list(intervals)
    found: list[Interval] = []
    for start_s, end_s in intervals:
        start_s, end_s = max(start_s, asked[0]), min(end_s, asked[1])
        if start_s < end_s and not (found and end_s <= found[-1][1]):
            found.append((start_s, end_s))
    return found


def intervals_of(cut: CutFile) -> list[Interval]:
    """How a file is cut -> its intervals."""
    return [
        (start_s, math.inf if end_s is None else end_s) for start_s, end_s in zip(cut.starts_s, cut.ends_s, strict=True)
    ]
