"""What every way of cutting is, and the plainest: intervals of equal length. No torch by itself."""

import math
from dataclasses import dataclass
from typing import Protocol

from avcap.bulk.cuts.measure import Measured
from avcap.data.request import Interval
from avcap.errors import UserError

SHORTEST_S, LONGEST_S = 0.5, 86_400.0
SHARE_OF_AN_INTERVAL = 0.2
"""A rest of a file that is shorter than this share of an interval is captioned with the interval before."""


class Cutter(Protocol):
    """A way of cutting files into intervals."""

    @property
    def name(self) -> str:
        """How it is called where the intervals are kept: another name, other intervals."""

    def intervals(self, path: str, measured: Measured, *, deadline_s: float) -> list[Interval]:
        """A measured file -> intervals in order; the last has no end, so that it reaches the file's.

        MediaError for a file that cannot be looked at.
        """


@dataclass(frozen=True, kw_only=True)
class EverySeconds:
    """Intervals of `every_s` seconds."""

    every_s: float

    @property
    def name(self) -> str:
        return f"every {self.every_s:g} s"

    def intervals(self, path: str, measured: Measured, *, deadline_s: float) -> list[Interval]:
        return equal_intervals(measured.duration_s, every_s=self.every_s)


def equal_intervals(duration_s: float, *, every_s: float) -> list[Interval]:
    """A length -> intervals that cover it without a gap; the last has no end, so that it reaches the file's.

    >>> equal_intervals(10.9, every_s=5.0)
    [(0.0, 5.0), (5.0, inf)]
    """
    count = max(1, int(duration_s / every_s + 1 - SHARE_OF_AN_INTERVAL))
    return between([round(index * every_s, 3) for index in range(count)])


def between(starts: list[float]) -> list[Interval]:
    """Starts in order -> the intervals from each to the next."""
    return list(zip(starts, [*starts[1:], math.inf], strict=True))


def check_seconds(option: str, seconds: float, *, longest_s: float = LONGEST_S) -> None:
    """Raises UserError for a length that no interval should have."""
    if not SHORTEST_S <= seconds <= longest_s:
        raise UserError(f"got {option} {seconds:g}, expected {SHORTEST_S:g} to {longest_s:g} seconds")
