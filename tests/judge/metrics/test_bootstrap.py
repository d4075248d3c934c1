"""Draws of videos: their sums, their intervals, their cost."""

import time
import tracemalloc

import numpy as np
import pytest

from avcap.judge.metrics.bootstrap import Rate, rates_of, ratio_rates, resampled_sums


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
    assert covered / num_runs == pytest.approx(0.95, abs=0.025)


@pytest.mark.parametrize(
    ("num_videos", "tail"),
    [
        # Student's t at 97.5 % is 2.0010 for 59 degrees of freedom; x sqrt(60 / 59) = 2.0179; normal tail 0.0218
        (60, 0.0218),
        # 2.2010 for 11; x sqrt(12 / 11) = 2.2988; normal tail 0.0108
        (12, 0.0108),
        # 1.9600 for so many that nothing is widened: 0.025
        (1_000_000, 0.0250),
    ],
)
def test_intervals_of_few_videos_are_widened(num_videos, tail):
    # Resamples spread evenly over 0..1: the quantile at `tail` is `tail` itself.
    (rate,) = rates_of(np.array([0.5]), np.linspace(0, 1, 10_001)[:, None], num_videos_K=num_videos)
    assert (rate.low, rate.high) == pytest.approx((tail, 1 - tail), abs=5e-5)


def test_draws_without_a_value_are_left_out_and_not_taken_for_zero():
    # Events lie in 2 of 20 videos, and every one of them is missed: 1 in each draw that has any.
    events_V1 = np.array([[3.0], [5.0], *[[0.0]] * 18])
    assert (resampled_sums(events_V1, num_resamples=1000)[:, 0] == 0).mean() > 0.05  # (18 / 20)^20 = 0.12
    assert ratio_rates(events_V1, events_V1, num_resamples=1000) == [Rate(value=1.0, low=1.0, high=1.0)]


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
