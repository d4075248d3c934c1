"""Two judges on the same captions: how their labels agree, event by event. No torch.

V videos  C counts  K rates
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from avcap.judge.metrics.bootstrap import NUM_RESAMPLES, Floats, Rate, divide, rates_of, resampled_sums
from avcap.judge.types import Case
from avcap.records import EventLabel, Modality, Verdict

LABELS: tuple[EventLabel, ...] = ("correct", "missing", "incorrect")


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A caption, the labels held to be true, and those of the judge that is checked."""

    case: Case
    truth: Verdict
    judged: Verdict


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """`confusion[i][j]`: events whose true label is LABELS[i] and whose judged one is LABELS[j].

    Sensitivity: share of what is truly missing (incorrect) that is judged so; specificity: share of the rest that is
    not. Invented claims are matched by their number in each caption: texts of two judges need not be alike.
    """

    num_captions: int
    num_videos: int
    num_events: int
    confusion: tuple[tuple[int, ...], ...]
    accuracy: Rate
    kappa: Rate
    """Cohen's kappa: agreement beyond what the two judges' label frequencies alone would give."""
    missing_sensitivity: Rate
    missing_specificity: Rate
    incorrect_sensitivity: Rate
    incorrect_specificity: Rate
    invented_recall: Rate
    invented_precision: Rate
    num_invented_true: int
    num_invented_judged: int


def agreement(
    checked: Sequence[Checked], *, modality: Modality | None = None, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Agreement:
    """Checked captions -> agreement with intervals over videos; with `modality`, on its events and claims alone."""
    counts_VC = counts_by_video(checked, count=lambda one: _count(one, modality=modality))
    total_C = counts_VC.sum(axis=0)
    sums_RC = resampled_sums(counts_VC, num_resamples=num_resamples, seed=seed)
    rates = rates_of(_rates(total_C), _rates(sums_RC), num_videos_K=len(counts_VC))
    confusion_33 = total_C[:9].reshape(3, 3).astype(int)
    return Agreement(
        num_captions=len(checked),
        num_videos=len(counts_VC),
        num_events=int(total_C[:9].sum()),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion_33),
        **dict(zip(_RATES, rates, strict=True)),
        num_invented_true=int(total_C[9]),
        num_invented_judged=int(total_C[10]),
    )


def counts_by_video(checked: Iterable[Checked], *, count: Callable[[Checked], Floats]) -> Floats:
    """Checked captions -> their counts, summed by video (V, C)."""
    by_video: dict[str, Floats] = {}
    for one in checked:
        video = one.case.sample.video
        by_video[video] = by_video.get(video, 0) + count(one)
    return np.array(list(by_video.values()))


def confusion_of(one: Checked, *, modality: Modality | None = None) -> Floats:
    """A checked caption -> its events by true and judged label (3, 3)."""
    label_of = {event.event_id: event.label for event in one.judged.events}
    modality_of = {event.event_id: event.modality for event in one.case.sample.events}
    confusion_33 = np.zeros((3, 3))
    for event in one.truth.events:
        if modality in (None, modality_of[event.event_id]):
            confusion_33[LABELS.index(event.label), LABELS.index(label_of[event.event_id])] += 1
    return confusion_33


_RATES = [field.name for field in dataclasses.fields(Agreement) if field.type is Rate]


def _count(one: Checked, *, modality: Modality | None) -> Floats:
    """A checked caption -> its confusion (9), and how many invented claims are true, judged, and in both (12,)."""
    true, judged = (
        sum(modality in (None, claim.modality) for claim in verdict.invented) for verdict in (one.truth, one.judged)
    )
    return np.array([*confusion_of(one, modality=modality).ravel(), true, judged, min(true, judged)], dtype=float)


def _rates(counts: Floats) -> Floats:
    """Counts (..., 12) -> the rates of Agreement in their order (..., 8)."""
    confusion, (true, judged, matched) = counts[..., :9], np.moveaxis(counts[..., 9:], -1, 0)
    confusion = confusion.reshape(*counts.shape[:-1], 3, 3)
    num_events = confusion.sum(axis=(-2, -1))
    agreed = np.trace(confusion, axis1=-2, axis2=-1)
    # Both sides of kappa times events^2: whole numbers, so that perfect agreement is exactly 1.
    by_chance = (confusion.sum(axis=-1) * confusion.sum(axis=-2)).sum(axis=-1)
    return np.stack(
        [
            divide(agreed, num_events),
            divide(agreed * num_events - by_chance, num_events**2 - by_chance),
            *sensitivity_and_specificity(confusion, label="missing"),
            *sensitivity_and_specificity(confusion, label="incorrect"),
            divide(matched, true),
            divide(matched, judged),
        ],
        axis=-1,
    )


def sensitivity_and_specificity(confusion: Floats, *, label: EventLabel) -> tuple[Floats, Floats]:
    """Confusion (..., 3, 3) -> (share of `label` that is judged so, share of the others that is not)."""
    i = LABELS.index(label)
    others = [j for j in range(3) if j != i]
    with_label, without = confusion[..., i, :], confusion[..., others, :].sum(axis=-2)
    return divide(with_label[..., i], with_label.sum(axis=-1)), divide(
        without[..., others].sum(axis=-1), without.sum(axis=-1)
    )
