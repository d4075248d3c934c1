"""Confusion, kappa, sensitivity and specificity by hand."""

import pytest

from avcap.judge.calibration.agreement import Checked, agreement
from avcap.judge.metrics.bootstrap import Rate
from avcap.judge.types import Case
from avcap.records import Event, EventVerdict, InventedClaim, Modality, Sample, Verdict

NAMES = {"c": "correct", "m": "missing", "i": "incorrect"}


def checked(
    video: str, truth: str, judged: str, *, invented: tuple[int, int] = (0, 0), modality: Modality = "visual"
) -> Checked:
    """Labels by letters; `invented`: truly, and as judged."""
    events = tuple(Event(event_id=str(i), text="", modality=modality) for i in range(len(truth)))
    sample = Sample(sample_id=video, video=video, prompt="", events=events)

    def verdict(labels: str, num_invented: int) -> Verdict:
        return Verdict(
            caption_id=video,
            events=tuple(EventVerdict(event_id=str(i), label=NAMES[label]) for i, label in enumerate(labels)),
            invented=(InventedClaim(text="x", modality=modality),) * num_invented,
        )

    return Checked(
        case=Case(caption_id=video, sample=sample, text=""),
        truth=verdict(truth, invented[0]),
        judged=verdict(judged, invented[1]),
    )


SOME = [
    checked("a", "ccccmm", "cccmmm", invented=(2, 1)),
    checked("b", "ccmi", "ccci", invented=(0, 1), modality="audio"),
]


def test_agreement_by_hand():
    whole = agreement(SOME)
    # 10 events; true correct 6: 5 judged so, 1 missing; true missing 3: 2 found, 1 correct; the incorrect one found
    assert whole.confusion == ((5, 1, 0), (1, 2, 0), (0, 0, 1))
    assert (whole.num_captions, whole.num_videos, whole.num_events) == (2, 2, 10)
    assert whole.accuracy.value == pytest.approx(0.8)
    # By chance (6 * 6 + 3 * 3 + 1 * 1) / 100 = 0.46; kappa = (0.8 - 0.46) / (1 - 0.46)
    assert whole.kappa.value == pytest.approx(0.34 / 0.54)
    assert whole.missing_sensitivity.value == pytest.approx(2 / 3)
    assert whole.missing_specificity.value == pytest.approx(6 / 7)
    assert whole.incorrect_sensitivity.value == whole.incorrect_specificity.value == 1
    # Claims by number: a has 2 and 1 judged, 1 in both; b has none and 1 judged
    assert (whole.invented_recall.value, whole.invented_precision.value) == (0.5, 0.5)
    assert (whole.num_invented_true, whole.num_invented_judged) == (2, 2)


def test_one_modality_alone():
    audio = agreement(SOME, modality="audio")
    assert audio.confusion == ((2, 0, 0), (1, 0, 0), (0, 0, 1))
    assert audio.missing_sensitivity.value == 0
    assert (audio.num_invented_true, audio.num_invented_judged) == (0, 1)
    assert audio.invented_recall == Rate(value=None, low=None, high=None)


def test_two_judges_who_only_ever_say_correct_have_no_kappa():
    always = agreement([checked("a", "ccc", "ccc"), checked("b", "cc", "cc")])
    assert (always.accuracy.value, always.accuracy.low, always.kappa.value) == (1, 1, None)
    assert always.missing_sensitivity.value is None and always.missing_specificity.value == 1
