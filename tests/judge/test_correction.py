"""Corrected rates: by hand, refused where the judge tells nothing, and covering the truth as often as promised."""

import random
import re
from dataclasses import replace

import numpy as np
import pytest

from avcap.errors import UserError
from avcap.judge.agreement import Checked
from avcap.judge.base import Case
from avcap.judge.calibrate import Labelled, make_calibration_cases
from avcap.judge.correction import NoiseCounts, correct_rates, count_noise
from avcap.judge.metrics import Scored, compute_metrics
from avcap.judge.noisy_oracle import JudgeNoise, NoisyOracle
from avcap.records import Event, EventLabel, EventVerdict, InventedClaim, Sample, Verdict
from avcap.world import describe
from avcap.world.oracle import judge_caption
from avcap.world.scene import make_scene


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
    names = ("events_without_invented", "false_invented", "events_with_invented", "judged_invented", "true_invented")
    counts = dict(zip(names, invented, strict=True))
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


def test_a_rate_cannot_be_corrected_below_zero():
    noise = noise_counts((90, 10, 0, 10, 90, 0, 0, 0, 10))
    run = [scored(name, correct=95, missing=5, incorrect=0) for name in ("x", "y")]  # 5 %, false alarms alone make 10 %
    assert correct_rates(run, noise=noise, num_resamples=100).missing_rate.value == 0


@pytest.mark.parametrize(
    ("confusion", "invented", "reason"),
    [
        # sensitivity 0.4 + specificity 0.6 = 1: missing is said as often where it is false
        ((60, 40, 0, 60, 40, 0, 0, 4, 6), (9, 0, 9, 1, 1), r"for missing events is 1\.00, wanted more than 1"),
        ((90, 0, 10, 10, 90, 0, 9, 1, 0), (9, 0, 9, 1, 1), r"for incorrect events is 0\.95, wanted more than 1"),
        ((90, 0, 10, 10, 90, 0, 0, 0, 0), (9, 0, 9, 1, 1), "no calibrated event, or every one, is truly incorrect"),
        ((90, 5, 5, 5, 90, 5, 5, 5, 90), (9, 0, 9, 0, 3), "finds so few invented claims"),
        ((90, 5, 5, 5, 90, 5, 5, 5, 90), (9, 0, 0, 0, 0), "finds so few invented claims"),
    ],
)
def test_a_judge_that_tells_nothing_corrects_nothing(confusion, invented, reason):
    run = [scored(name, correct=70, missing=30, incorrect=0) for name in ("x", "y")]
    corrected = correct_rates(run, noise=noise_counts(confusion, invented=invented), num_resamples=100)
    assert not corrected.valid and corrected.total_error_rate.value is None
    assert re.search(reason, corrected.reason), corrected.reason


def test_a_judge_of_which_too_little_is_known_corrects_nothing():
    good = NoiseCounts(
        video="a", confusion=(9, 1, 0, 1, 9, 0, 0, 0, 9), events_without_invented=9, false_invented=0,
        events_with_invented=9, judged_invented=1, true_invented=1,
    )  # fmt: skip
    # All that is known of incorrect events comes from the first of two videos: it is not drawn one time in four.
    other = replace(good, video="b", confusion=(9, 1, 0, 1, 9, 0, 0, 0, 0))
    run = [scored(name, correct=70, missing=30, incorrect=0) for name in ("x", "y")]
    corrected = correct_rates(run, noise=[good, other], num_resamples=1000)
    assert not corrected.valid and "too few calibrated captions: 2" in corrected.reason
    assert "wanted at least 2" in correct_rates(run, noise=[good]).reason


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


@pytest.mark.slow
@pytest.mark.timeout(1800)  # half a minute of CPU time, on a machine that may be busy
def test_intervals_of_corrected_rates_cover_the_truth_in_93_of_100_runs():
    captions = imperfect_captions(num_videos=200)
    truth = compute_metrics([Scored(case=one.case, verdict=one.truth) for one in captions], num_resamples=1).global_
    assert truth is not None
    true_values = [truth.missing_rate.value, truth.hallucination_rate.value, truth.total_error_rate.value]
    run_pool, calibration_pool = by_video(captions), by_video(make_calibration_cases(num_videos=150, seed=1))
    covered, uncorrected = np.zeros(3), []
    for run in range(NUM_RUNS):
        rng = random.Random(run)
        known = draw_videos(calibration_pool, num_videos=NUM_CALIBRATED, rng=rng)
        new = draw_videos(run_pool, num_videos=NUM_JUDGED, rng=rng)
        judged_known = zip(known, judged_by_noise(known, seed=2 * run), strict=True)
        noise = count_noise(Checked(case=one.case, truth=one.truth, judged=judged) for one, judged in judged_known)
        judged_new = zip(new, judged_by_noise(new, seed=2 * run + 1), strict=True)
        scored_new = [Scored(case=one.case, verdict=judged) for one, judged in judged_new]
        corrected = correct_rates(scored_new, noise=noise, num_resamples=1000, seed=2 * run)
        rates = (corrected.missing_rate, corrected.hallucination_rate, corrected.total_error_rate)
        # A run that cannot be corrected covers nothing.
        covered += [
            rate.low is not None and rate.low <= true <= rate.high
            for rate, true in zip(rates, true_values, strict=True)
        ]
        if run < 20:
            plain = compute_metrics(scored_new, num_resamples=400).global_
            assert plain is not None and plain.hallucination_rate.low is not None
            uncorrected.append(plain.hallucination_rate.low <= truth.hallucination_rate.value)
    assert (covered / NUM_RUNS).min() >= 0.93, covered / NUM_RUNS
    # Uncorrected, false alarms make 0.13 of 0.08: no interval reaches down to the truth.
    assert not any(uncorrected)
