"""How far a judge can be trusted: asked about captions whose errors were planted, twice. No torch.

cases.py -> Labelled captions -> EventJudge, two attempts -> Calibration -> text.py
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avcap.errors import UserError
from avcap.judge.calibration.agreement import Agreement, Checked, agreement
from avcap.judge.calibration.cases import Labelled
from avcap.judge.calibration.correction import NoiseCounts, count_noise
from avcap.judge.calibration.dependence import CaptionDependence, caption_dependence
from avcap.judge.calibration.findings import KindFinding, kind_findings
from avcap.judge.metrics.bootstrap import NUM_RESAMPLES
from avcap.judge.metrics.error_counts import total_error
from avcap.judge.metrics.words import count_words
from avcap.judge.protocols.avcap_yesno1 import Thresholds
from avcap.judge.types import EventJudge
from avcap.records import Modality, Unscored, Verdict

NOISE_LEVEL = 0.05
_LENGTH_SLICES = 3


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Agreement on a part of the captions or events."""

    name: str
    agreement: Agreement


@dataclass(frozen=True, kw_only=True)
class NoiseMargin:
    """A difference of total error between two captions of one video that is larger than `margin` is above the noise.

    Of two captions that are equally good, fewer than 5 % differ by more; None: too few equal pairs to say so (at least
    20 are needed). The margin is the larger of two: the judge asked twice about one caption, and asked about two
    captions of a video that truly have equally many errors.
    """

    margin: float | None
    retest_margin: float | None
    equal_margin: float | None
    num_retest_pairs: int
    num_equal_pairs: int

    def is_exceeded_by(self, difference: float) -> bool:
        """Difference of two total errors -> whether it is above the noise; False where the margin is not known."""
        return self.margin is not None and abs(difference) > self.margin + 1e-9


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """All that is known of a judge's mistakes; a record, which `correct_rates` and the choice of pairs read."""

    judge: str
    prompt_version: str
    num_captions: int
    num_unscored: int
    """Of the first attempt; in no rate."""
    unscored_reasons: tuple[str, ...]
    oracle: Agreement
    by_kind: tuple[KindFinding, ...]
    by_length: tuple[Slice, ...]
    by_modality: tuple[Slice, ...]
    retest: Agreement | None
    """The second attempt against the first."""
    person: Agreement | None
    noise_margin: NoiseMargin
    noise: tuple[NoiseCounts, ...]
    """For `correct_rates`; below the same from a person's labels."""
    person_noise: tuple[NoiseCounts, ...]
    judge_protocol: str = "avcap-1"
    """How the judge was asked."""
    style: str = "plain"
    """How the captions were worded: by the world's own words, or a style of paraphrases."""
    thresholds: Thresholds | None = None
    """Of avcap-yesno-1; the labels above are by thresholds that were found on the other half of the videos."""
    dependence: CaptionDependence | None = None
    """None in files of 0.1, and where there were no captions of other videos."""

    @property
    def share_correct(self) -> float:
        """The accuracy of a judge that calls every event correct."""
        confusion = self.oracle.confusion
        return sum(confusion[0]) / sum(map(sum, confusion))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, no nan; `records.to_json` and `from_json` take the calibration to disk and back."""
        return dataclasses.asdict(self)


# --- asking -----------------------------------------------------------------------------------------------------------


def calibrate(
    judge_factory: Callable[[int], EventJudge],
    *,
    cases: Sequence[Labelled],
    person: Sequence[Labelled] = (),
    shuffled: Sequence[Labelled] = (),
    judge_protocol: str = "avcap-1",
    style: str = "plain",
    thresholds: Thresholds | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Calibration:
    """What a judge finds, misses and invents.

    Args:
        judge_factory: Makes the judge anew for attempts 0 and 1.
        cases: Captions with their true verdicts.
        person: Captions of any videos with the labels of a person; the judge is asked about them once.
        shuffled: The same samples with captions of other videos (`cases.shuffled_cases`); asked about once.
        judge_protocol: How the judge is asked, for the record.
        style: How the captions are worded, for the record.
        thresholds: Those of the judge, for the record.
        num_resamples: Draws of videos for the intervals.
        seed: Of these draws.

    Returns:
        Agreement, findings by kind of error, the noise margin, and counts that rates are corrected by.

    Raises:
        UserError: The judge has no verdict on any caption.
    """
    judge = judge_factory(0)
    first = _ask(judge, cases)
    second = _ask(judge_factory(1), cases)
    checked = _checked(cases, first)
    if not checked:
        raise UserError(
            f"{judge.name}: no verdict on any of {len(cases)} captions, expected at least one; the first reason: "
            f"{next((v.reason for v in first.values() if isinstance(v, Unscored)), 'there were no captions')}"
        )
    by_person = _checked(person, _ask(judge, person))

    def agree(some: Sequence[Checked], *, modality: Modality | None = None) -> Agreement:
        return agreement(some, modality=modality, num_resamples=num_resamples, seed=seed)

    reasons = [verdict.reason for verdict in first.values() if isinstance(verdict, Unscored)]
    return Calibration(
        judge=judge.name,
        prompt_version=judge.prompt_version,
        num_captions=len(cases),
        num_unscored=len(reasons),
        unscored_reasons=tuple(sorted(set(reasons))),
        oracle=agree(checked),
        by_kind=kind_findings(cases, first, num_resamples=num_resamples, seed=seed),
        by_length=tuple(Slice(name=name, agreement=agree(some)) for name, some in _by_length(checked).items()),
        by_modality=tuple(
            Slice(name=modality, agreement=agree(checked, modality=modality))
            for modality in ("visual", "audio", "both")
        ),
        retest=agree(asked_twice) if (asked_twice := _asked_twice(cases, first, second)) else None,
        person=agree(by_person) if by_person else None,
        noise_margin=_noise_margin(cases, first, second),
        noise=count_noise(checked),
        person_noise=count_noise(by_person),
        judge_protocol=judge_protocol,
        style=style,
        thresholds=thresholds,
        dependence=caption_dependence(
            checked, shuffled=_checked(shuffled, _ask(judge, shuffled)), num_resamples=num_resamples, seed=seed
        ),
    )


Verdicts = Mapping[str, Verdict | Unscored]


def _ask(judge: EventJudge, cases: Sequence[Labelled]) -> dict[str, Verdict | Unscored]:
    """A judge and labelled captions -> caption id -> its answer."""
    asked = [one.case for one in cases]
    return {case.caption_id: verdict for case, verdict in zip(asked, judge.judge(asked), strict=True)}


def _checked(cases: Iterable[Labelled], verdicts: Verdicts) -> list[Checked]:
    """The captions that have a verdict, with it."""
    return [
        Checked(case=one.case, truth=one.truth, judged=judged)
        for one in cases
        if isinstance(judged := verdicts[one.case.caption_id], Verdict)
    ]


def _asked_twice(cases: Iterable[Labelled], first: Verdicts, second: Verdicts) -> list[Checked]:
    """The captions that have two verdicts: the first stands where the truth does elsewhere."""
    return [
        Checked(case=one.case, truth=before, judged=after)
        for one in cases
        if isinstance(before := first[one.case.caption_id], Verdict)
        and isinstance(after := second[one.case.caption_id], Verdict)
    ]


def _by_length(checked: Sequence[Checked]) -> dict[str, list[Checked]]:
    """Checked captions -> thirds of about equal size, named by their numbers of words."""
    by_words: dict[int, list[Checked]] = {}
    for one in checked:
        by_words.setdefault(count_words(one.case.text).num_words, []).append(one)
    thirds: list[dict[int, list[Checked]]] = [{} for _ in range(_LENGTH_SLICES)]
    before = 0
    for num_words, some in sorted(by_words.items()):
        thirds[before * _LENGTH_SLICES // len(checked)][num_words] = some
        before += len(some)
    return {
        f"{min(third)}-{max(third)} words": [one for some in third.values() for one in some]
        for third in thirds
        if third
    }


# --- the margin -------------------------------------------------------------------------------------------------------


def _noise_margin(cases: Sequence[Labelled], first: Verdicts, second: Verdicts) -> NoiseMargin:
    """Two answers on each caption -> the difference of total error that chance alone hardly makes."""
    retest = [abs(total_error([one.judged]) - total_error([one.truth])) for one in _asked_twice(cases, first, second)]
    by_sample: dict[tuple[str, float], list[float]] = {}
    for one in _checked(cases, first):
        key = one.case.sample.sample_id, total_error([one.truth])
        by_sample.setdefault(key, []).append(total_error([one.judged]))
    equal = [abs(totals[0] - totals[1]) for totals in by_sample.values() if len(totals) > 1]
    margins = _margin(retest), _margin(equal)
    known = [margin for margin in margins if margin is not None]
    return NoiseMargin(
        margin=max(known) if len(known) == len(margins) else None,
        retest_margin=margins[0],
        equal_margin=margins[1],
        num_retest_pairs=len(retest),
        num_equal_pairs=len(equal),
    )


def _margin(differences: Sequence[float]) -> float | None:
    """Differences of equal pairs -> the smallest of them that the next pair exceeds with a chance below NOISE_LEVEL.

    The next pair may be the largest of all with a chance of 1 / (n + 1): that counts as one more exceedance.
    """
    ordered = sorted(differences)
    allowed = NOISE_LEVEL * (len(ordered) + 1) - 1
    if allowed <= 0:
        return None
    return next(value for i, value in enumerate(ordered) if len(ordered) - 1 - i < allowed)
