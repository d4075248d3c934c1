"""Do a judge's labels follow the caption at all? Asked about captions of other videos, an honest one says "missing".

    own       share of the events that a caption tells right that are called correct
    shuffled  share of the events that the caption of another video does not tell that are called correct, too

A judge that reads has own near 1 and shuffled near 0; one that labels in a rhythm, or calls everything correct, has
both alike, however many of its labels are right by chance. No torch.

V videos  R resamples
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avcap.judge.calibration.agreement import Checked
from avcap.judge.metrics.bootstrap import NUM_RESAMPLES, Floats, Rate, divide, rates_of, resampled_sums

LEAST_DIFFERENCE = 0.2
"""A judge whose interval reaches below this is not to be used: chance explains most of its labels."""


@dataclass(frozen=True, kw_only=True)
class CaptionDependence:
    """How far labels depend on the caption. `difference`: own minus shuffled; 1 of an exact judge, 0 of a blind one."""

    own: Rate
    shuffled: Rate
    difference: Rate
    num_shuffled: int
    """Captions of other videos that were judged."""

    @property
    def is_blind(self) -> bool:
        """Whether the labels may hardly depend on the caption."""
        low = self.difference.low if self.difference.low is not None else self.difference.value
        return low is not None and low < LEAST_DIFFERENCE


def caption_dependence(
    own: Sequence[Checked], *, shuffled: Sequence[Checked], num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> CaptionDependence | None:
    """Judged captions, and judged captions of other videos -> how far labels follow the text; None without any."""
    if not own or not shuffled:
        return None
    videos = sorted({one.case.sample.video for one in (*own, *shuffled)})
    counts_V4 = np.zeros((len(videos), 4))
    for one in own:
        counts_V4[videos.index(one.case.sample.video), :2] += _called_correct(one, is_told=True)
    for one in shuffled:
        counts_V4[videos.index(one.case.sample.video), 2:] += _called_correct(one, is_told=False)
    sums_R4 = resampled_sums(counts_V4, num_resamples=num_resamples, seed=seed)
    rates = rates_of(_rates(counts_V4.sum(axis=0)), _rates(sums_R4), num_videos_K=len(videos))
    return CaptionDependence(own=rates[0], shuffled=rates[1], difference=rates[2], num_shuffled=len(shuffled))


def _called_correct(one: Checked, *, is_told: bool) -> Floats:
    """A judged caption -> (how many of the events it tells right, or does not, are called correct; of how many)."""
    label_of = {event.event_id: event.label for event in one.judged.events}
    asked = [event.event_id for event in one.truth.events if (event.label == "correct") == is_told]
    return np.array([sum(label_of[event_id] == "correct" for event_id in asked), len(asked)], dtype=float)


def _rates(counts: Floats) -> Floats:
    """Counts (..., 4) -> own, shuffled, difference (..., 3)."""
    own, shuffled = divide(counts[..., 0], counts[..., 1]), divide(counts[..., 2], counts[..., 3])
    return np.stack([own, shuffled, own - shuffled], axis=-1)
