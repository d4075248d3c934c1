"""Calibration of judges whose mistakes are known: none, some of every kind, all."""

import json
import random
from dataclasses import replace

import pytest

from avcap.errors import UserError
from avcap.judge.calibration.calibrate import Calibration, calibrate
from avcap.judge.calibration.cases import Labelled, make_calibration_cases
from avcap.judge.calibration.noisy_oracle import JudgeNoise, NoisyOracle
from avcap.judge.calibration.text import calibration_text
from avcap.judge.metrics.error_counts import total_error
from avcap.judge.metrics.error_rates import Scored, compute_metrics
from avcap.records import from_json, to_json

EXACT = JudgeNoise(labels=((1, 0, 0), (0, 1, 0), (0, 0, 1)))
NOISE = JudgeNoise(
    labels=((0.90, 0.06, 0.04), (0.10, 0.85, 0.05), (0.15, 0.10, 0.75)),
    invented_recall=0.7,
    false_invented_per_event=0.03,
)


@pytest.fixture(scope="module")
def cases() -> tuple[Labelled, ...]:
    return make_calibration_cases(num_videos=60, seed=0)


def calibration_of(cases, noise: JudgeNoise, *, seeds=(0, 1), **options) -> Calibration:
    truths = {one.case.caption_id: one.truth for one in cases}
    return calibrate(
        lambda attempt: NoisyOracle(truths, noise=noise, seed=seeds[attempt]), cases=cases, num_resamples=500, **options
    )


def covers(rate, true_value: float) -> bool:
    return rate.low <= true_value <= rate.high


@pytest.mark.slow
def test_captions_have_errors_of_every_kind_number_and_length(cases):
    first, again, other = (make_calibration_cases(num_videos=10, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert {error.kind for one in cases for error in one.planted} == {
        "drop",
        "change",
        "shift",
        "invent",
        "repeat",
        "split",
    }
    assert {len(one.planted) for one in cases} == set(range(6))
    lengths = [len(one.case.text.split()) for one in cases]
    assert min(lengths) < 20 and max(lengths) > 120
    assert {one.case.sample.interval_s is None for one in cases} == {True, False}
    assert all(one.case.sample.events for one in cases)
    # The truth can be counted: every verdict is about the events of its sample.
    compute_metrics([Scored(case=one.case, verdict=one.truth) for one in cases], num_resamples=1)


def test_most_videos_have_two_captions_that_are_equally_bad(cases):
    by_sample: dict[str, list[Labelled]] = {}
    for one in cases:
        by_sample.setdefault(one.case.sample.sample_id, []).append(one)
    pairs = [pair for pair in by_sample.values() if len(pair) == 2]
    assert len(by_sample) == 60 and len(pairs) > 50
    for first, second in pairs:
        assert first.case.text != second.case.text
        assert total_error([first.truth]) == total_error([second.truth])


def test_the_oracle_makes_no_mistake(cases):
    calibration = calibration_of(cases, EXACT)
    oracle = calibration.oracle
    assert oracle.accuracy.value == oracle.kappa.value == oracle.invented_precision.value == 1
    assert all(finding.found.value == finding.noticed.value == 1 for finding in calibration.by_kind)
    assert calibration.retest is not None and calibration.retest.accuracy.value == 1
    margin = calibration.noise_margin
    assert margin.margin == 0 and margin.is_exceeded_by(0.05) and not margin.is_exceeded_by(0.0)


def test_known_noise_is_found(cases):
    calibration = calibration_of(cases, NOISE)
    oracle = calibration.oracle
    assert covers(oracle.missing_sensitivity, 0.85) and covers(oracle.incorrect_sensitivity, 0.75)
    # Matched by number, a false claim may stand for one that was overlooked: not less than the true recall.
    assert oracle.invented_recall.value >= 0.65 and oracle.invented_precision.value < 0.8
    found = {finding.kind: finding for finding in calibration.by_kind}
    assert covers(found["drop"].found, 0.85)  # an event that is missing: 0.85 missing, 0.05 incorrect
    assert covers(found["drop"].noticed, 0.90)
    assert [part.name for part in calibration.by_modality] == ["visual", "audio", "both"]
    assert sum(part.agreement.num_events for part in calibration.by_modality) == oracle.num_events
    assert sum(part.agreement.num_captions for part in calibration.by_length) == len(cases)
    # Two answers to a correct event are the same with 0.9^2 + 0.06^2 + 0.04^2 = 0.815; most events are correct.
    assert calibration.retest is not None and 0.75 < calibration.retest.accuracy.value < 0.83


def test_the_margin_is_above_the_noise_of_new_pairs(cases):
    """Of equal pairs that were not calibrated on, few exceed it; of pairs with a large true difference, many."""
    margin = calibration_of(cases, NOISE).noise_margin
    assert margin.margin is not None and margin.num_equal_pairs > 50 and margin.num_retest_pairs == len(cases)
    assert margin.margin == max(margin.retest_margin, margin.equal_margin)
    new = make_calibration_cases(num_videos=60, seed=5)
    truths = {one.case.caption_id: one.truth for one in new}
    judge = NoisyOracle(truths, noise=NOISE, seed=9)
    totals = {v.caption_id: total_error([v]) for v in judge.judge([one.case for one in new])}
    pairs = [name[:-2] for name in totals if name.endswith("-b")]
    exceeded = [margin.is_exceeded_by(totals[f"{name}-a"] - totals[f"{name}-b"]) for name in pairs]
    # Expected 5 % of about 57: 3; a binomial of 57 and 0.05 is above 8 in 1 % of cases
    assert sum(exceeded) <= 8


def test_few_pairs_make_no_margin():
    calibration = calibration_of(make_calibration_cases(num_videos=9, seed=0), NOISE)
    assert calibration.noise_margin.margin is None
    assert not calibration.noise_margin.is_exceeded_by(1.0)
    assert "noise margin unknown: 1" in calibration_text(calibration)


def test_a_judge_that_sometimes_fails_is_counted(cases):
    calibration = calibration_of(cases, replace(EXACT, unscored=0.2))
    assert 0 < calibration.num_unscored < len(cases) / 2
    assert calibration.oracle.num_captions == len(cases) - calibration.num_unscored
    assert calibration.unscored_reasons == ("simulated failure",)
    assert calibration.oracle.accuracy.value == 1
    with pytest.raises(UserError, match=r"no verdict on any of .* captions.*simulated failure"):
        calibration_of(cases, replace(EXACT, unscored=1.0))


def test_a_persons_labels_are_a_second_truth(cases):
    rng = random.Random(0)
    some = rng.sample(cases, 30)
    person = [Labelled(case=one.case, truth=one.truth) for one in some]
    calibration = calibration_of(cases, NOISE, person=person)
    assert calibration.person is not None and calibration.person.num_captions == 30
    assert calibration.person.accuracy.value < 1 and len(calibration.person_noise) <= 30
    assert calibration_of(cases, EXACT).person is None


def test_clean_captions_alone_can_be_asked_about():
    clean = [one for one in make_calibration_cases(num_videos=12, seed=0, max_errors=0) if not one.planted]
    calibration = calibration_of(clean, EXACT)
    assert calibration.by_kind == () and calibration.oracle.missing_sensitivity.value is None


def test_a_calibration_goes_to_disk_and_back(cases):
    calibration = calibration_of(cases, NOISE)
    assert from_json(to_json(calibration), Calibration) == calibration
    json.dumps(calibration.to_dict(), allow_nan=False)


def test_the_summary_names_what_matters(cases):
    text = calibration_text(calibration_of(cases, NOISE))
    for part in ("judge noisy-oracle", "kappa 0.", "planted split", "visual", "asked twice", "differ by > 0."):
        assert part in text
    assert max(map(len, text.splitlines())) <= 120
