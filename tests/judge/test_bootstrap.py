"""Draws of videos: their sums, their intervals, their cost."""

import time
import tracemalloc

import numpy as np
import pytest

from avcap.judge.bootstrap import LEVEL, Rate, ratio_rates, resampled_sums


def test_a_draw_has_as_many_videos_as_there_are():
    counts_VC = np.array([[1.0, 1.0], [1.0, 10.0], [1.0, 100.0]])
    sums_RC = resampled_sums(counts_VC, num_resamples=5000, seed=0)
    assert (sums_RC[:, 0] == 3).all()
    # 3 videos with replacement: 10 multisets, from (1, 1, 1) to (100, 100, 100); the mean stays 1 + 10 + 100
    assert len(set(sums_RC[:, 1])) == 10
    assert sums_RC[:, 1].mean() == pytest.approx(111, rel=0.03)


def test_the_same_seed_draws_the_same_videos_however_many_counts_there_are():
    counts_VC = np.random.default_rng(0).random((40, 3))
    sums_RC = resampled_sums(counts_VC, num_resamples=100, seed=7)
    assert np.allclose(resampled_sums(counts_VC[:, :1], num_resamples=100, seed=7), sums_RC[:, :1])
    assert not np.allclose(resampled_sums(counts_VC, num_resamples=100, seed=8), sums_RC)


def test_ratios_divide_sums():
    # Micro-average: (1 + 0 + 30) / (2 + 2 + 40) = 31 / 44, not the mean of 1/2, 0 and 3/4.
    (rate,) = ratio_rates(np.array([[1.0], [0.0], [30.0]]), np.array([[2.0], [2.0], [40.0]]))
    assert rate.value == pytest.approx(31 / 44)
    assert rate.low == 0 and rate.high == 0.75  # (second, second, second) and (third, third, third): 1 in 27 each


def test_what_cannot_be_divided_has_no_value_and_one_video_no_interval():
    nothing, one_video = ratio_rates(np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([[0.0, 4.0], [0.0, 0.0]]))
    assert nothing == Rate(value=None, low=None, high=None)
    assert one_video == Rate(value=0.25, low=None, high=None)
    assert ratio_rates(np.zeros((0, 1)), np.zeros((0, 1))) == [nothing]


def test_intervals_cover_the_true_rate_as_often_as_they_say():
    rng = np.random.default_rng(0)
    num_runs, num_videos, covered = 400, 100, 0
    for run in range(num_runs):
        # Videos differ: each has its own rate, drawn from Beta(2, 6), whose mean is 2 / 8.
        events_V1 = rng.integers(5, 15, size=(num_videos, 1))
        errors_V1 = rng.binomial(events_V1, rng.beta(2, 6, size=(num_videos, 1)))
        (rate,) = ratio_rates(errors_V1.astype(float), events_V1.astype(float), num_resamples=1000, seed=run)
        assert rate.low is not None and rate.high is not None
        covered += rate.low <= 0.25 <= rate.high
    # 400 runs: the standard error of the share is sqrt(0.95 * 0.05 / 400) = 0.011
    assert covered / num_runs == pytest.approx(LEVEL, abs=0.025)


def test_ten_thousand_resamples_of_500_videos_take_less_than_a_second_and_little_memory():
    counts_VC = np.random.default_rng(0).random((500, 5 * 11))  # 5 groups of 11 counts
    start_s = time.process_time()
    resampled_sums(counts_VC, num_resamples=10_000)
    assert time.process_time() - start_s < 1
    tracemalloc.start()
    resampled_sums(counts_VC, num_resamples=10_000)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 100e6
