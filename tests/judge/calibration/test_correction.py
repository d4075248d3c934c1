"""Corrected rates: by hand, refused where the judge tells nothing, and covering the truth as often as promised."""

import random
import re
from dataclasses import replace

import numpy as np
import pytest

from avcap.errors import UserError
from avcap.judge.calibration.agreement import LABELS, Checked
from avcap.judge.calibration.cases import Labelled, make_calibration_cases
from avcap.judge.calibration.correction import NoiseCounts, correct_rates, count_noise
from avcap.judge.calibration.noisy_oracle import JudgeNoise, NoisyOracle
from avcap.judge.metrics.error_rates import Scored, compute_metrics
from avcap.judge.types import Case
from avcap.records import Event, EventLabel, EventVerdict, InventedClaim, Sample, Unscored, Verdict
from avcap.world import describe
from avcap.world.oracle import judge_caption
from avcap.world.scene import make_scene

COUNTED = ("events_without_invented", "false_invented", "events_with_invented", "judged_invented", "true_invented")


def scored(video: str, *, correct: int, missing: int, incorrect: int, invented: int = 0) -> Scored:
    labels: list[EventLabel] = ["correct"] * correct + ["missing"] * missing + ["incorrect"] * incorrect
    events = tuple(Event(event_id=str(i), text="", modality="visual") for i in range(len(labels)))
    verdict = Verdict(
        caption_id=video,
        events=tuple(EventVerdict(event_id=str(i), label=label) for i, label in enumerate(labels)),
        invented=(InventedClaim(text="x"),) * invented,
    )
    sample = Sample(sample_id=video, video=video, prompt="", events=events)
    return Scored(case=Case(caption_id=video, sample=sample, text="a b"), verdict=verdict)


def noise_counts(confusion: tuple[int, ...], *, invented: tuple[int, int, int, int, int] = (100, 0, 10, 4, 4)):
    """Two equal videos. `invented`: events, false claims; events, judged, true claims."""
    counts = dict(zip(COUNTED, invented, strict=True))
    return [NoiseCounts(video=video, confusion=confusion, **counts) for video in ("a", "b")]


def test_two_labels_give_the_estimator_of_rogan_and_gladen():
    # Of 100 that are not missing 90 are judged so (specificity 0.9), of 50 missing 40 (sensitivity 0.8); of 10
    # incorrect all.
    noise = noise_counts((90, 10, 0, 10, 40, 0, 0, 0, 10))
    run = [scored(name, correct=70, missing=30, incorrect=0) for name in ("x", "y")]
    corrected = correct_rates(run, noise=noise, num_resamples=100)
    # (0.30 + 0.9 - 1) / (0.8 + 0.9 - 1) = 0.2 / 0.7
    assert corrected.valid and corrected.missing_rate.value == pytest.approx(0.2 / 0.7)
    assert corrected.hallucination_rate.value == pytest.approx(0)


def test_three_labels_and_invented_claims_by_hand():
    # Rows: true correct, missing, incorrect; judged 8:1:1, 1:9:0, 2:1:7 in tenths.
    noise = noise_counts((80, 10, 10, 10, 90, 0, 20, 10, 70), invented=(200, 10, 100, 45, 80))
    # True shares 0.5, 0.3, 0.2 are judged 0.5*0.8+0.3*0.1+0.2*0.2 = 0.47, 0.05+0.27+0.02 = 0.34, 0.05+0.14 = 0.19.
    # False claims 10/200 = 0.05 per event; found are (45 - 0.05 * 100) / 80 = 0.5 of the true ones: 0.4 true per event
    # are judged 0.4 * 0.5 + 0.05 = 0.25.
    run = [scored(name, correct=47, missing=34, incorrect=19, invented=25) for name in ("x", "y")]
    corrected = correct_rates(run, noise=noise, num_resamples=100)
    assert corrected.missing_rate.value == pytest.approx(0.3)
    assert corrected.hallucination_rate.value == pytest.approx(0.2 + 0.4)
    assert corrected.total_error_rate.value == pytest.approx(0.9)
    # All videos of a kind are alike: nothing varies.
    assert corrected.missing_rate.low == pytest.approx(0.3) and corrected.missing_rate.high == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("judged", "missing", "hallucination"),
    [
        # Of each label 90 % are judged so, of what is correct 10 % missing, or incorrect: (q - 0.1) / 0.8.
        ({"correct": 95, "missing": 5, "incorrect": 0}, 0, 0),  # 5 %: false alarms alone make 10 %
        ({"correct": 5, "missing": 95, "incorrect": 0}, 1, 0),  # 0.85 / 0.8 = 1.06
        ({"correct": 95, "missing": 0, "incorrect": 5}, 0, 0),
        ({"correct": 5, "missing": 0, "incorrect": 95}, 0, 1),
    ],
)
def test_a_share_of_events_is_corrected_to_0_at_least_and_1_at_most(judged, missing, hallucination):
    noise = noise_counts((90, 10, 0, 10, 90, 0, 0, 0, 10))
    if judged["incorrect"]:
        noise = noise_counts((90, 0, 10, 0, 10, 0, 10, 0, 90))
    corrected = correct_rates([scored(name, **judged) for name in ("x", "y")], noise=noise, num_resamples=100)
    assert (corrected.missing_rate.value, corrected.hallucination_rate.value) == (missing, hallucination)
    assert corrected.total_error_rate.value == missing + hallucination


def test_fewer_invented_claims_than_false_alarms_take_nothing_from_the_incorrect_ones():
    # False claims 20 / 200 = 0.1 per event, and none is judged invented: 0 - 0.1 is taken for 0, not for -0.1.
    noise = noise_counts((90, 0, 0, 0, 90, 0, 0, 0, 90), invented=(200, 20, 100, 90, 80))
    run = [scored(name, correct=80, missing=0, incorrect=20) for name in ("x", "y")]
    assert correct_rates(run, noise=noise, num_resamples=100).hallucination_rate.value == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("confusion", "invented", "reason"),
    [
        # sensitivity 0.4 + specificity 0.6 = 1: missing is said as often where it is false
        ((60, 40, 0, 60, 40, 0, 0, 4, 6), (9, 0, 9, 1, 1), r"for missing events is 1\.00, expected more than 1"),
        ((90, 0, 10, 10, 90, 0, 9, 1, 0), (9, 0, 9, 1, 1), r"for incorrect events is 0\.95, expected more than 1"),
        ((90, 0, 10, 10, 90, 0, 0, 0, 0), (9, 0, 9, 1, 1), "no calibrated event, or every one, is truly incorrect"),
        ((90, 5, 5, 5, 90, 5, 5, 5, 90), (9, 0, 9, 0, 3), "finds so few invented claims"),
        ((90, 5, 5, 5, 90, 5, 5, 5, 90), (9, 0, 0, 0, 0), "finds so few invented claims"),
        # 50 / 100 false claims per event make 5 on 10 events, but 1 is found: (1 - 5) / 4 of the true ones
        ((90, 5, 5, 5, 90, 5, 5, 5, 90), (100, 50, 10, 1, 4), "finds so few invented claims"),
        # Missing: 1 + 190 / 200, incorrect: 0.5 + 110 / 200, both above 1; and yet what is correct is judged incorrect:
        # the determinant of ((0, 0.1, 0.9), (0, 1, 0), (0.5, 0, 0.5)) is -0.45.
        ((0, 10, 90, 0, 100, 0, 50, 0, 50), (9, 0, 9, 1, 1), "confuses the labels so much"),
    ],
)
def test_a_judge_that_tells_nothing_corrects_nothing(confusion, invented, reason):
    run = [scored(name, correct=70, missing=30, incorrect=0) for name in ("x", "y")]
    corrected = correct_rates(run, noise=noise_counts(confusion, invented=invented), num_resamples=100)
    assert not corrected.valid and corrected.total_error_rate.value is None
    assert re.search(reason, corrected.reason), corrected.reason


def test_a_judge_of_which_too_little_is_known_corrects_nothing():
    good = NoiseCounts(
        video="a",
        confusion=(9, 1, 0, 1, 9, 0, 0, 0, 9),
        events_without_invented=9,
        false_invented=0,
        events_with_invented=9,
        judged_invented=1,
        true_invented=1,
    )
    # All that is known of incorrect events comes from the first of two videos: it is not drawn one time in four.
    other = replace(good, video="b", confusion=(9, 1, 0, 1, 9, 0, 0, 0, 0))
    run = [scored(name, correct=70, missing=30, incorrect=0) for name in ("x", "y")]
    corrected = correct_rates(run, noise=[good, other], num_resamples=1000)
    assert not corrected.valid and "too few calibrated captions: 2" in corrected.reason
    assert "expected at least 2" in correct_rates(run, noise=[good]).reason


def test_one_judged_video_is_too_few():
    noise = noise_counts((9, 1, 0, 1, 9, 0, 0, 0, 9))
    corrected = correct_rates([scored("x", correct=7, missing=3, incorrect=0)], noise=noise)
    assert not corrected.valid and "1 video(s) judged and 2 calibrated on" in corrected.reason


@pytest.mark.parametrize(
    ("num_telling", "is_valid"),
    [
        (3, False),  # not drawn in (9 / 12)^12 = 3.2 % of the draws
        (4, True),  # (8 / 12)^12 = 0.8 %, below 2.5 %
    ],
)
def test_a_correction_may_fail_in_so_many_draws_as_lie_outside_an_interval(num_telling, is_valid):
    # Only the first of 12 calibrated videos have invented claims: draws without them correct no hallucination.
    tells = noise_counts((9, 1, 0, 1, 9, 0, 0, 0, 9))[0]
    silent = replace(tells, events_with_invented=0, judged_invented=0, true_invented=0)
    noise = [replace(tells if i < num_telling else silent, video=str(i)) for i in range(12)]
    run = [scored(name, correct=7, missing=3, incorrect=0) for name in ("x", "y")]
    corrected = correct_rates(run, noise=noise)
    assert corrected.valid == is_valid
    assert is_valid or "too few calibrated captions: 3% of the draws" in corrected.reason


def perfect_noise(*, num_videos: int) -> list[NoiseCounts]:
    """Of a judge that never errs."""
    one = noise_counts((9, 0, 0, 0, 9, 0, 0, 0, 9))[0]
    return [replace(one, video=str(i)) for i in range(num_videos)]


@pytest.mark.parametrize("num_calibrated", [12, 100])
def test_a_judge_that_never_errs_leaves_rates_and_intervals_as_they_are(num_calibrated):
    run = [scored(f"v{i:02}", correct=11 - i, missing=i, incorrect=0, invented=i % 3) for i in range(12)]
    down = scored("down", correct=5, missing=0, incorrect=0)
    run.append(replace(down, verdict=Unscored(caption_id="down", reason="no JSON")))  # in no rate, and never drawn
    corrected = correct_rates(run, noise=perfect_noise(num_videos=num_calibrated), num_resamples=1000)
    plain = compute_metrics(run, num_resamples=1000).global_
    assert plain is not None and plain.missing_rate.value == pytest.approx(66 / 132)  # 0 + ... + 11 of 12 x 11
    for name in ("missing_rate", "hallucination_rate", "total_error_rate"):
        got, expected = getattr(corrected, name), getattr(plain, name)
        assert (got.value, got.low, got.high) == pytest.approx((expected.value, expected.low, expected.high)), name


def test_few_calibrated_videos_widen_the_interval_as_few_judged_ones_do():
    run = [scored(f"v{i}", correct=60 - i, missing=i, incorrect=0) for i in range(60)]
    few, many = (
        correct_rates(run, noise=perfect_noise(num_videos=number), num_resamples=2000).missing_rate
        for number in (5, 60)
    )
    assert few.low is not None and many.low is not None
    assert few.value == many.value and few.low < many.low < many.high < few.high


def test_videos_of_the_run_and_of_the_calibration_are_drawn_apart():
    # The i-th videos err alike: drawn together, (0.2 + f - f) / (0.6 + f - f) would be 1/3 in every draw.
    run = [scored(f"v{i}", correct=80 - i, missing=20 + i, incorrect=0) for i in range(12)]
    one = noise_counts((0, 0, 0, 0, 0, 0, 0, 0, 100))[0]
    noise = [replace(one, video=str(i), confusion=(100 - i, i, 0, 40 - i, 60 + i, 0, 0, 0, 100)) for i in range(12)]
    missing = correct_rates(run, noise=noise, num_resamples=500).missing_rate
    # incorrect events are judged right, and there are none: f = mean(0 ... 11) / 100 = 0.055
    assert missing.value == pytest.approx((0.255 - 0.055) / (0.655 - 0.055))
    assert missing.low is not None and missing.high - missing.low > 0.02


def checked(video: str, name: str, *, labels: dict[str, tuple[str, str]], invented: tuple[int, int]) -> Checked:
    """A caption with (true, judged) labels by event, and how many claims are truly and by the judge invented."""
    events = tuple(Event(event_id=event_id, text="", modality="visual") for event_id in labels)
    truth, judged = (
        Verdict(
            caption_id=name,
            events=tuple(EventVerdict(event_id=event_id, label=pair[who]) for event_id, pair in labels.items()),
            invented=(InventedClaim(text="x"),) * invented[who],
        )
        for who in (0, 1)
    )
    sample = Sample(sample_id=name, video=video, prompt="", events=events)
    return Checked(case=Case(caption_id=name, sample=sample, text="a"), truth=truth, judged=judged)


def test_noise_is_counted_by_video_and_apart_for_captions_that_invent():
    right, overlooked = ("correct", "correct"), ("missing", "correct")
    counts = count_noise(
        [
            checked("a", "a1", labels={"0": right, "1": overlooked, "2": ("incorrect", "missing")}, invented=(0, 1)),
            checked("b", "b1", labels={"0": ("correct", "incorrect")}, invented=(1, 0)),
            checked("a", "a2", labels={"0": right, "1": overlooked}, invented=(3, 2)),
        ]
    )
    assert counts == (
        NoiseCounts(
            video="a",
            # true correct: 2 judged correct; true missing: 2 judged correct; true incorrect: 1 judged missing
            confusion=(2, 0, 0, 2, 0, 0, 0, 1, 0),
            events_without_invented=3,
            false_invented=1,  # a1 invents nothing, and one claim is called so
            events_with_invented=2,
            judged_invented=2,
            true_invented=3,  # a2
        ),
        NoiseCounts(
            video="b",
            confusion=(0, 0, 1, 0, 0, 0, 0, 0, 0),
            events_without_invented=0,
            false_invented=0,
            events_with_invented=1,
            judged_invented=0,
            true_invented=1,
        ),
    )


def test_global_and_local_captions_are_corrected_apart():
    whole = scored("x", correct=1, missing=1, incorrect=0)
    local = replace(whole, case=replace(whole.case, sample=replace(whole.case.sample, interval_s=(0.0, 2.0))))
    with pytest.raises(UserError, match="global and local"):
        correct_rates([whole, local], noise=noise_counts((9, 1, 0, 1, 9, 0, 0, 0, 9)))


# --- coverage ---------------------------------------------------------------------------------------------------------

NOISE = JudgeNoise(
    labels=((0.90, 0.06, 0.04), (0.10, 0.85, 0.05), (0.15, 0.10, 0.75)),
    invented_recall=0.7,
    false_invented_per_event=0.03,
)
NUM_RUNS = 500
NUM_JUDGED_RUNS = 20  # of these every caption is judged; of the others the counts are drawn from the same chances
NUM_JUDGED, NUM_CALIBRATED = 60, 100  # videos of a run, and of its calibration


def imperfect_captions(*, num_videos: int) -> list[Labelled]:
    """Captions such as a mediocre captioner makes: about half missing, a twelfth wrong."""
    labelled = []
    for seed in range(num_videos):
        scene, name = make_scene(seed), f"imperfect-{seed}"
        text = describe.imperfect_caption(scene, annotator=describe.Annotator(), rng=random.Random(seed))
        sample = Sample(sample_id=name, video=name, prompt="", events=describe.scene_events(scene))
        truth = judge_caption(text, truth=scene, caption_id=name)
        labelled.append(Labelled(case=Case(caption_id=name, sample=sample, text=text), truth=truth))
    return labelled


def draw_videos(pool: list[list[Labelled]], *, num_videos: int, rng: random.Random) -> list[Labelled]:
    """Videos with all their captions, drawn with replacement, each draw a video of its own."""
    drawn = []
    for i in range(num_videos):
        for one in rng.choice(pool):
            caption_id = f"{one.case.caption_id}#{i}"
            sample = replace(one.case.sample, video=f"{one.case.sample.video}#{i}")
            case = replace(one.case, caption_id=caption_id, sample=sample)
            drawn.append(Labelled(case=case, truth=replace(one.truth, caption_id=caption_id)))
    return drawn


def judged_by_noise(drawn: list[Labelled], *, seed: int) -> list[Verdict]:
    judge = NoisyOracle({one.case.caption_id: one.truth for one in drawn}, noise=NOISE, seed=seed)
    return [verdict for verdict in judge.judge([one.case for one in drawn]) if isinstance(verdict, Verdict)]


def by_video(labelled) -> list[list[Labelled]]:
    groups: dict[str, list[Labelled]] = {}
    for one in labelled:
        groups.setdefault(one.case.sample.video, []).append(one)
    return list(groups.values())


def judged_run(pool: list[list[Labelled]], *, rng: random.Random, seed: int) -> list[Scored]:
    """A run as it is made: captions of videos, each judged."""
    new = draw_videos(pool, num_videos=NUM_JUDGED, rng=rng)
    return [Scored(case=one.case, verdict=v) for one, v in zip(new, judged_by_noise(new, seed=seed), strict=True)]


def judged_calibration(pool: list[list[Labelled]], *, rng: random.Random, seed: int) -> tuple[NoiseCounts, ...]:
    known = draw_videos(pool, num_videos=NUM_CALIBRATED, rng=rng)
    judged_known = zip(known, judged_by_noise(known, seed=seed), strict=True)
    return count_noise(Checked(case=one.case, truth=one.truth, judged=judged) for one, judged in judged_known)


class DrawnCounts:
    """The same without a verdict for each caption: N captions whose counts are drawn at once, from the same chances."""

    def __init__(self, pool: list[list[Labelled]]):
        self.captions_of = [
            np.array(part) for part in np.split(np.arange(sum(map(len, pool))), np.cumsum([*map(len, pool)])[:-1])
        ]
        truths = [one.truth for video in pool for one in video]
        labels = [[event.label for event in truth.events] for truth in truths]
        self.true_N3 = np.array([[found.count(label) for label in LABELS] for found in labels])
        self.invented_N = np.array([len(truth.invented) for truth in truths])

    def draw(
        self, *, num_videos: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """-> of each drawn caption: its video (N), confusion (N, 3, 3), truly and judged invented claims (N)."""
        drawn = [self.captions_of[i] for i in rng.integers(len(self.captions_of), size=num_videos)]
        video_N, chosen_N = np.repeat(np.arange(num_videos), [*map(len, drawn)]), np.concatenate(drawn)
        true_N3, invented_N = self.true_N3[chosen_N], self.invented_N[chosen_N]
        rows = [rng.multinomial(true_N3[:, i], NOISE.labels[i]) for i in range(3)]
        found_N = rng.binomial(invented_N, NOISE.invented_recall)
        false_N = rng.binomial(true_N3.sum(axis=1), NOISE.false_invented_per_event)
        return video_N, np.stack(rows, axis=1), invented_N, found_N + false_N

    def calibration(self, *, rng: np.random.Generator) -> list[NoiseCounts]:
        video_N, confusion_N33, invented_N, judged_N = self.draw(num_videos=NUM_CALIBRATED, rng=rng)
        events_N, invents_N = confusion_N33.sum(axis=(1, 2)), invented_N > 0
        columns = (events_N * ~invents_N, judged_N * ~invents_N, events_N * invents_N, judged_N * invents_N, invented_N)
        sums = np.zeros((NUM_CALIBRATED, 14), dtype=int)
        np.add.at(sums, video_N, np.column_stack([confusion_N33.reshape(-1, 9), *columns]))
        return [
            NoiseCounts(video=str(i), confusion=tuple(row[:9]), **dict(zip(COUNTED, row[9:], strict=True)))
            for i, row in enumerate(sums)
        ]

    def run(self, *, rng: np.random.Generator) -> list[Scored]:
        _, confusion_N33, _, judged_N = self.draw(num_videos=NUM_JUDGED, rng=rng)
        counts = zip(confusion_N33.sum(axis=1), judged_N, strict=True)
        return [
            scored(str(i), correct=correct, missing=missing, incorrect=incorrect, invented=invented)
            for i, ((correct, missing, incorrect), invented) in enumerate(counts)
        ]


def totals(run: list[Scored], noise) -> list[int]:
    """-> the counts that a correction is made from, over all videos."""
    labels = [event.label for one in run for event in one.verdict.events]
    invented = sum(len(one.verdict.invented) for one in run)
    sums = np.sum([[*one.confusion, *(getattr(one, name) for name in COUNTED)] for one in noise], axis=0)
    return [*(labels.count(label) for label in LABELS), invented, *sums]


@pytest.mark.slow
def test_intervals_of_corrected_rates_cover_the_truth_in_93_of_100_runs():
    captions = imperfect_captions(num_videos=200)
    truth = compute_metrics([Scored(case=one.case, verdict=one.truth) for one in captions], num_resamples=1).global_
    assert truth is not None
    true_values = [truth.missing_rate.value, truth.hallucination_rate.value, truth.total_error_rate.value]
    run_pool, calibration_pool = by_video(captions), by_video(make_calibration_cases(num_videos=150, seed=1))
    runs, calibrations = DrawnCounts(run_pool), DrawnCounts(calibration_pool)
    covered, drawn_totals = np.zeros(3), []
    for number in range(NUM_RUNS):
        rng = np.random.default_rng(number)
        run, noise = runs.run(rng=rng), calibrations.calibration(rng=rng)
        drawn_totals.append(totals(run, noise))
        corrected = correct_rates(run, noise=noise, num_resamples=1000, seed=2 * number)
        rates = (corrected.missing_rate, corrected.hallucination_rate, corrected.total_error_rate)
        # A run that cannot be corrected covers nothing.
        covered += [
            rate.low is not None and rate.low <= true <= rate.high
            for rate, true in zip(rates, true_values, strict=True)
        ]
    assert (covered / NUM_RUNS).min() >= 0.93, covered / NUM_RUNS

    judged_totals = []
    for number in range(NUM_JUDGED_RUNS):
        rng = random.Random(number)
        noise = judged_calibration(calibration_pool, rng=rng, seed=2 * number)
        run = judged_run(run_pool, rng=rng, seed=2 * number + 1)
        judged_totals.append(totals(run, noise))
        # Uncorrected, false alarms make 0.13 of 0.08: no interval reaches down to the truth.
        plain = compute_metrics(run, num_resamples=400).global_
        assert plain is not None and plain.hallucination_rate.low is not None
        assert plain.hallucination_rate.low > truth.hallucination_rate.value
    # What was drawn is what the judge does: 18 means of 20 runs, each within 4 standard errors.
    error = np.std(drawn_totals, axis=0) / NUM_JUDGED_RUNS**0.5
    off = (np.mean(judged_totals, axis=0) - np.mean(drawn_totals, axis=0)) / error
    assert np.abs(off).max() < 4, off
