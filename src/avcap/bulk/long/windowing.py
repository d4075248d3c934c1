"""How a long video is captioned: windows of which length, with which overlap, and what is made of their captions.

0 ------------- 60
            54 ------------- 113        a border is moved back to a quiet place or a change of scene
                        107 ------------- end
"""

import math
from dataclasses import dataclass

from avcap.bulk.cuts.cutter import check_seconds
from avcap.bulk.cuts.measure import Measured
from avcap.bulk.long.borders import find_border
from avcap.data.request import Interval
from avcap.errors import UserError

SHORTEST_WINDOW_S = 2.0
OVERLAP_SHARE = 0.1
REACH_SHARE = 0.15
"""How much of a window a border may be moved back."""


@dataclass(frozen=True, kw_only=True)
class Windowing:
    """Windows of at most `window_s` seconds, each beginning `overlap_s` before the one before it ends.

    As a cutter it gives one interval for a file that is not longer than a window.
    """

    window_s: float
    overlap_s: float
    carry: bool = False
    """Whether the prompt of a window holds the caption of the window before."""
    summary: str = ""
    """The name of the language model that makes one caption of all; "": they are stitched."""

    def __post_init__(self) -> None:
        check_seconds("--window", self.window_s)
        if self.window_s < SHORTEST_WINDOW_S or not 0 <= self.overlap_s <= self.window_s / 2:
            raise UserError(
                f"got --window {self.window_s:g} and --overlap {self.overlap_s:g}, expected a window of at least "
                f"{SHORTEST_WINDOW_S:g} s and an overlap of at most half of it"
            )

    @property
    def name(self) -> str:
        return f"windows of {self.window_s:g} s, overlapping by {self.overlap_s:g} s"

    @property
    def made_by(self) -> str:
        """What records of captions that are made of windows say."""
        carried = ", each told of the one before" if self.carry else ""
        return f"{self.name}{carried}, {f'summed up by {self.summary}' if self.summary else 'stitched'}"

    def intervals(self, path: str, measured: Measured, *, deadline_s: float) -> list[Interval]:
        """A measured file -> its windows, in order; each border is looked for before its time."""
        starts = [0.0]
        while measured.duration_s - starts[-1] > self.window_s:
            latest_s = starts[-1] + self.window_s - self.overlap_s
            reach_s = min(REACH_SHARE * self.window_s, (self.window_s - self.overlap_s) / 2)
            starts.append(
                find_border(path, start_s=latest_s - reach_s, end_s=latest_s, measured=measured, deadline_s=deadline_s)
            )
        ends = [start_s + self.overlap_s for start_s in starts[1:]]
        return list(zip(starts, [round(end_s, 3) for end_s in ends] + [math.inf], strict=True))


def default_overlap(window_s: float) -> float:
    """A window's length -> the overlap if none is given."""
    return round(OVERLAP_SHARE * window_s, 1)
