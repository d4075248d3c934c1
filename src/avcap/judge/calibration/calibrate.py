"""How far a judge can be trusted: asked about captions whose errors were planted, twice. No torch.

make_calibration_cases -> Labelled captions -> EventJudge, two attempts -> Calibration
"""

import dataclasses
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from avcap.errors import UserError
from avcap.judge.calibration.agreement import Agreement, Checked, agreement
from avcap.judge.calibration.correction import NoiseCounts, count_noise
from avcap.judge.metrics.bootstrap import NUM_RESAMPLES, Rate, ratio_rates
from avcap.judge.metrics.error_counts import total_error
from avcap.judge.metrics.words import count_words
from avcap.judge.types import Case, EventJudge
from avcap.records import Modality, Sample, Unscored, Verdict
from avcap.world import describe
from avcap.world.oracle import PlantedError, corrupt, judge_caption
from avcap.world.scene import DIFFICULTIES, Scene, make_scene

MAX_ERRORS = 5
NOISE_LEVEL = 0.05
_LENGTH_SLICES = 3
_TRIES = 40


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A caption whose true verdict is known: from the oracle, with the errors planted in it, or from a person."""

    case: Case
    truth: Verdict
    planted: tuple[PlantedError, ...] = ()


@dataclass(frozen=True, kw_only=True)
class KindFinding:
    """What a judge makes of one kind of planted error ("drop", "change", "shift", "invent", "repeat", "split").

    An effect is one event that became missing or incorrect, one claim invented or one repeated. `found`: share judged
    to be just that. `noticed`: share judged to be any error. Claims are matched by their number.
    """

    kind: str
    num_planted: int
    num_effects: int
    found: Rate
    noticed: Rate


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

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, no nan; `records.to_json` and `from_json` take the calibration to disk and back."""
        return dataclasses.asdict(self)


# --- captions with planted errors -------------------------------------------------------------------------------------


def make_calibration_cases(
    *, num_videos: int = 200, seed: int = 0, max_errors: int = MAX_ERRORS
) -> tuple[Labelled, ...]:
    """Captions of scenes of every difficulty, long ones and those of an interval, with 0 to `max_errors` errors.

    Two captions of each video where possible, with different errors and the same true total error.
    """
    rng = random.Random(f"calibrate/{seed}")
    difficulties = sorted(DIFFICULTIES)
    labelled: list[Labelled] = []
    for i in range(num_videos):
        scene = make_scene(rng.randrange(10**9), difficulty=difficulties[i % len(difficulties)])
        labelled += _plant_twice(scene, video=f"planted-{i}", rng=rng, max_errors=max_errors)
    return tuple(labelled)


def _plant_twice(scene: Scene, *, video: str, rng: random.Random, max_errors: int) -> list[Labelled]:
    """Scene -> a caption with planted errors, and a second that is exactly as good if one can be made."""
    sample = _draw_sample(scene, video=video, rng=rng)
    assert sample.reference_caption is not None
    num_seconds = len(describe.sentences_of(scene, interval_s=sample.interval_s))

    def plant(name: str) -> Labelled:
        num_errors = rng.randint(0, min(max_errors, num_seconds))
        text, planted = corrupt(sample.reference_caption or "", num_errors, rng=rng)
        case = Case(caption_id=f"{video}-{name}", sample=sample, text=text, finished=True)
        truth = judge_caption(text, truth=scene, interval_s=sample.interval_s, caption_id=case.caption_id)
        return Labelled(case=case, truth=truth, planted=planted)

    first = plant("a")
    for _ in range(_TRIES):
        second = plant("b")
        if second.case.text != first.case.text and total_error([second.truth]) == total_error([first.truth]):
            return [first, second]
    return [first]


def _draw_sample(scene: Scene, *, video: str, rng: random.Random) -> Sample:
    """Scene -> the sample of the whole clip or, one time in three, of an interval in which something happens."""
    intervals = describe.interval_samples(scene, clip_id=video, video=f"{video}.mp4", rng=rng)
    told = [sample for sample in intervals if sample.events]
    if told and rng.random() < 1 / 3:
        return told[0]
    return Sample(
        sample_id=video,
        video=f"{video}.mp4",
        prompt=describe.GLOBAL_PROMPTS[0],
        reference_caption=describe.reference_caption(scene),
        events=describe.scene_events(scene),
    )


# --- asking -----------------------------------------------------------------------------------------------------------


def calibrate(
    judge_factory: Callable[[int], EventJudge],
    *,
    cases: Sequence[Labelled],
    person: Sequence[Labelled] = (),
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Calibration:
    """A judge, made anew for attempts 0 and 1, and captions with true verdicts -> what it finds, misses and invents.

    `person`: captions of any videos with the labels of a person, which the judge is asked about once.
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
        by_kind=_findings(cases, first, num_resamples=num_resamples, seed=seed),
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


# --- by kind of error -------------------------------------------------------------------------------------------------


def _findings(
    cases: Iterable[Labelled], verdicts: Verdicts, *, num_resamples: int, seed: int
) -> tuple[KindFinding, ...]:
    """Captions with planted errors and their verdicts -> findings by kind, with intervals over videos."""
    planted = [
        (error, one, verdict)
        for one in cases
        if isinstance(verdict := verdicts[one.case.caption_id], Verdict)
        for error in one.planted
    ]
    kinds = sorted({error.kind for error, _, _ in planted})
    videos = {video: i for i, video in enumerate(sorted({one.case.sample.video for _, one, _ in planted}))}
    above_V2K, below_VK = np.zeros((len(videos), 2, len(kinds))), np.zeros((len(videos), len(kinds)))
    for error, one, verdict in planted:
        video, kind = videos[one.case.sample.video], kinds.index(error.kind)
        num_effects, found, noticed = _effects(error, truth=one.truth, judged=verdict)
        above_V2K[video, :, kind] += found, noticed
        below_VK[video, kind] += num_effects
    rates = ratio_rates(
        above_V2K.reshape(len(videos), 2 * len(kinds)),
        np.concatenate([below_VK, below_VK], axis=1),
        num_resamples=num_resamples,
        seed=seed,
    )
    return tuple(
        KindFinding(
            kind=kind,
            num_planted=sum(error.kind == kind for error, _, _ in planted),
            num_effects=int(below_VK[:, i].sum()),
            found=rates[i],
            noticed=rates[len(kinds) + i],
        )
        for i, kind in enumerate(kinds)
    )


def _effects(error: PlantedError, *, truth: Verdict, judged: Verdict) -> tuple[int, float, float]:
    """A planted error -> (its effects, how many are judged to be just that, how many to be any error)."""
    label_of = {event.event_id: event.label for event in judged.events}
    expected = {**dict.fromkeys(error.missing, "missing"), **dict.fromkeys(error.incorrect, "incorrect")}
    found = float(sum(label_of[event_id] == label for event_id, label in expected.items()))
    noticed = float(sum(label_of[event_id] != "correct" for event_id in expected))
    # Which of a caption's claims is this one cannot be told: each gets its share of those that were found.
    claims = 0.0
    if error.num_invented:
        claims += error.num_invented * min(1, len(judged.invented) / len(truth.invented))
    if error.num_repeated:
        claims += error.num_repeated * min(1, len(judged.repeated) / len(truth.repeated))
    num_effects = len(expected) + error.num_invented + error.num_repeated
    return num_effects, found + claims, noticed + claims


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


# --- in words ---------------------------------------------------------------------------------------------------------


def calibration_text(calibration: Calibration) -> str:
    """Calibration -> a summary of some 20 lines."""
    oracle, margin = calibration.oracle, calibration.noise_margin
    lines = [
        f"judge {calibration.judge}: {oracle.num_captions} captions with planted errors, {oracle.num_events} events, "
        f"{calibration.num_unscored} unscored",
        f"agreement with the oracle   accuracy {_percent(oracle.accuracy)}   kappa {_number(oracle.kappa)}",
        f"missing events     found {_percent(oracle.missing_sensitivity)}   "
        f"others spared {_percent(oracle.missing_specificity)}",
        f"incorrect events   found {_percent(oracle.incorrect_sensitivity)}   "
        f"others spared {_percent(oracle.incorrect_specificity)}",
        f"invented claims    found {_percent(oracle.invented_recall)}   "
        f"of those called so, true {_percent(oracle.invented_precision)}",
        *(
            f"  planted {finding.kind:8} x {finding.num_planted:<4} found {_percent(finding.found)}   "
            f"noticed {_percent(finding.noticed)}"
            for finding in calibration.by_kind
        ),
        *(
            f"  {part.name:15} accuracy {_percent(part.agreement.accuracy)}   kappa {_number(part.agreement.kappa)}"
            for part in (*calibration.by_modality, *calibration.by_length)
        ),
    ]
    if calibration.retest is not None:
        lines.append(f"asked twice, the same label {_percent(calibration.retest.accuracy)}")
    if calibration.person is not None:
        person = calibration.person
        lines.append(
            f"agreement with the person   accuracy {_percent(person.accuracy)}   kappa {_number(person.kappa)}"
        )
    if margin.margin is None:
        lines.append(
            f"noise margin unknown: {margin.num_retest_pairs} captions asked twice and {margin.num_equal_pairs} equal "
            "pairs, expected at least 20 of each"
        )
    else:
        lines.append(
            f"two captions of a video differ beyond the noise if their total errors differ by > {margin.margin:.3f}"
        )
    return "\n".join(lines)


def _percent(rate: Rate) -> str:
    if rate.value is None:
        return "-"
    interval = "" if rate.low is None or rate.high is None else f" [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"
    return f"{100 * rate.value:.1f} %{interval}"


def _number(rate: Rate) -> str:
    if rate.value is None:
        return "-"
    interval = "" if rate.low is None or rate.high is None else f" [{rate.low:.2f}, {rate.high:.2f}]"
    return f"{rate.value:.2f}{interval}"
