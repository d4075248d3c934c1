"""Two names of one file, written on two machines: compared from their ends. Standard library only."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

ItemT = TypeVar("ItemT")


def composed(name: str) -> str:
    """A name -> with accents as one character: some systems write them as two."""
    return unicodedata.normalize("NFC", name)


def parts_of(name: str) -> list[str]:
    """
    >>> parts_of("C:\\\\films\\\\a.mp4"), parts_of("./films/a.mp4")
    (['C:', 'films', 'a.mp4'], ['films', 'a.mp4'])
    """
    return [part for part in re.split(r"[/\\]", composed(name)) if part not in ("", ".")]


def last_part(name: str) -> str:
    """ "films/a.mp4", "films\\a.mp4" -> "a.mp4"."""
    return (parts_of(name) or [""])[-1]


def common_tail(one: str, other: str) -> int:
    """How many parts two names have in common, counted from their ends; a suffix may be missing, or be another.

    >>> common_tail("/data/ytb/001.mp4", "ytb/001.mkv"), common_tail("nsr/001.mp4", "ytb/001.mp4")
    (2, 1)
    """
    ours, theirs = _comparable(one), _comparable(other)
    return next(
        (count for count, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
    )


def disagree(one: str, other: str) -> bool:
    """Whether both names go on before their common tail: then they may be of two files in two folders."""
    return common_tail(one, other) < min(len(_comparable(one)), len(_comparable(other)))


def longest_tail(name: str, items: Sequence[ItemT], *, name_of: Callable[[ItemT], str] = str) -> list[ItemT]:
    """Those of the items whose names have the most parts in common with a name, from the end."""
    most = max((common_tail(name, name_of(item)) for item in items), default=0)
    return [item for item in items if common_tail(name, name_of(item)) == most]


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Paths -> as much of each path's end as tells it from the others: "a.mp4", or "x/a.mp4" and "y/a.mp4"."""
    shown = {path: 1 for path in paths}
    while True:
        tails = {path: os.sep.join(path.split(os.sep)[-count:]) for path, count in shown.items()}
        groups: dict[str, list[str]] = {}
        for path, tail in tails.items():
            groups.setdefault(tail, []).append(path)
        longer = [p for same in groups.values() if len(same) > 1 for p in same if shown[p] < p.count(os.sep) + 1]
        if not longer:
            return tails
        for path in longer:
            shown[path] += 1


def _comparable(name: str) -> list[str]:
    """The parts of a name from its end, the first of them without its suffix."""
    parts = parts_of(name)[::-1]
    return [os.path.splitext(parts[0])[0], *parts[1:]] if parts else []
