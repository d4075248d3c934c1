"""Whether labels follow the caption: exact judges, blind ones, and what the calibration then says."""

import random

import pytest

from avcap.judge.calibration.agreement import Checked
from avcap.judge.calibration.calibrate import calibrate
from avcap.judge.calibration.cases import make_calibration_cases, shuffled_cases
from avcap.judge.calibration.dependence import LEAST_DIFFERENCE, caption_dependence
from avcap.judge.calibration.noisy_oracle import NoisyOracle, even_noise
from avcap.judge.calibration.text import calibration_text
from avcap.records import EventVerdict, Verdict

CASES = make_calibration_cases(num_videos=30, seed=0)
SHUFFLED = shuffled_cases(CASES)
TRUTHS = {one.case.caption_id: one.truth for one in (*CASES, *SHUFFLED)}


class Blind:
    """Labels in a rhythm, whatever the caption says; so often right that its accuracy looks fair."""

    name, prompt_version = "blind", ""

    def judge(self, cases):
        for case in cases:
            rng = random.Random(case.sample.sample_id)
            labels = rng.choices(("correct", "missing", "incorrect"), weights=(8, 1, 1), k=len(case.sample.events))
            events = tuple(
                EventVerdict(event_id=event.event_id, label=label)
                for event, label in zip(case.sample.events, labels, strict=True)
            )
            yield Verdict(caption_id=case.caption_id, events=events)


def calibration_of(judge):
    return calibrate(lambda attempt: judge, cases=CASES, shuffled=SHUFFLED, num_resamples=500)


def test_captions_of_other_videos_tell_hardly_any_event():
    assert len({one.case.sample.video for one in SHUFFLED}) == len(SHUFFLED) == 30
    texts = {one.case.sample.sample_id: one.case.text for one in reversed(CASES)}
    assert all(one.case.text != texts[one.case.sample.sample_id] for one in SHUFFLED)
    labels = [event.label for one in SHUFFLED for event in one.truth.events]
    assert labels.count("correct") < 0.05 * len(labels)
    by_sample = {one.case.sample.sample_id: one.case.sample.interval_s for one in CASES}
    for one in SHUFFLED:
        donor = next(sample_id for sample_id, text in texts.items() if text == one.case.text)
        assert (by_sample[donor] is None) == (one.case.sample.interval_s is None)


def test_an_exact_judge_depends_on_the_caption_wholly():
    found = calibration_of(NoisyOracle(TRUTHS, noise=even_noise(0.0), seed=0)).dependence
    assert (found.own.value, found.shuffled.value, found.difference.value) == (1.0, 0.0, 1.0)
    assert not found.is_blind and found.num_shuffled == 30


def test_a_noisy_judge_is_not_blind():
    # called correct: 1 - 0.4 of what is told, 0.4 / 2 of what is not; 0.6 - 0.2 = 0.4
    found = calibration_of(NoisyOracle(TRUTHS, noise=even_noise(0.4), seed=0)).dependence
    assert found.difference.low <= 0.4 <= found.difference.high and not found.is_blind


def test_a_blind_judge_is_found_out_although_most_of_its_labels_are_right():
    calibration = calibration_of(Blind())
    assert calibration.oracle.accuracy.value > 0.6  # most events are told right, and it says so of most
    assert calibration.dependence.is_blind and calibration.dependence.difference.high < LEAST_DIFFERENCE
    text = calibration_text(calibration)
    assert "its labels hardly depend on the caption" in text and "do not use this judge" in text
    assert 'calls every event "correct"' in text


def test_without_captions_of_other_videos_nothing_is_said():
    assert caption_dependence([], shuffled=[]) is None
    judge = NoisyOracle(TRUTHS, noise=even_noise(0.0), seed=0)
    calibration = calibrate(lambda attempt: judge, cases=CASES[:4], num_resamples=10)
    assert calibration.dependence is None and "hardly depend" not in calibration_text(calibration)


def test_one_video_alone_is_judged_by_its_value():
    own, other = (Checked(case=one.case, truth=one.truth, judged=one.truth) for one in (CASES[0], SHUFFLED[0]))
    found = caption_dependence([own], shuffled=[other])
    assert found.difference.value == pytest.approx(1.0) and not found.is_blind
