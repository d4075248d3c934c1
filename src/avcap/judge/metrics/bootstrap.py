"""Intervals by drawing the videos again: all that is known of a video stays together. No torch.

V videos  C counts of a video  R resamples
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NUM_RESAMPLES = 10_000
LEVEL = 0.95
# Weights of this many (resample, video) pairs are in memory at a time: 16 MB.
_CHUNK_WEIGHTS = 2_000_000


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A measured value and its 95 % interval.

    All None: there was nothing to divide by. Only the interval None: one video alone says nothing about others.
    """

    value: float | None
    low: float | None
    high: float | None


def resampled_sums(counts_VC: Floats, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> Floats:
    """Counts per video (V, C) -> their sums over `num_resamples` draws of V videos with replacement (R, C)."""
    num_videos = len(counts_VC)
    if num_videos == 0:
        return np.zeros((num_resamples, counts_VC.shape[1]))
    rng = np.random.default_rng(seed)
    sums_RC = np.empty((num_resamples, counts_VC.shape[1]))
    chunk = max(1, _CHUNK_WEIGHTS // num_videos)
    for start in range(0, num_resamples, chunk):
        size = min(chunk, num_resamples - start)
        drawn_RV = rng.integers(num_videos, size=(size, num_videos)) + num_videos * np.arange(size)[:, None]
        weights_RV = np.bincount(drawn_RV.ravel(), minlength=size * num_videos).reshape(size, num_videos)
        sums_RC[start : start + size] = weights_RV.astype(np.float64) @ counts_VC
    return sums_RC


def divide(numerators: Floats, denominators: Floats) -> Floats:
    """Elementwise quotients; nan where there is nothing to divide by."""
    quotients = np.full(np.broadcast(numerators, denominators).shape, np.nan)
    np.divide(numerators, denominators, out=quotients, where=denominators != 0)
    return quotients


def rates_of(values_K: Floats, resampled_RK: Floats, *, num_videos_K: NDArray[np.int64] | int) -> list[Rate]:
    """K values, the same in each resample, and how many videos each is made of -> K rates with intervals.

    Resamples in which a value does not exist (nan) are left out of its interval.
    """
    rates = []
    nums_videos = np.broadcast_to(num_videos_K, values_K.shape)
    for value, resampled_R, num_videos in zip(values_K, resampled_RK.T, nums_videos, strict=True):
        exists_R = resampled_R[~np.isnan(resampled_R)]
        if np.isnan(value):
            rates.append(Rate(value=None, low=None, high=None))
        elif num_videos < 2 or not len(exists_R):
            rates.append(Rate(value=float(value), low=None, high=None))
        else:
            tail = _tail(int(num_videos))
            low, high = np.quantile(exists_R, (tail, 1 - tail))
            rates.append(Rate(value=float(value), low=float(low), high=float(high)))
    return rates


def _tail(num_videos: int) -> float:
    """How much of the resamples lies outside an interval on each side: less than 2.5 % where videos are few.

    Plain percentiles are too narrow by sqrt((n - 1) / n), and use the normal distribution where Student's t belongs
    (Hesterberg 2015, "expanded percentile interval"): 2.2 % for 60 videos, 1.1 % for 12.
    """
    z, dof = NormalDist().inv_cdf((1 + LEVEL) / 2), num_videos - 1
    # The first terms of the expansion of Student's quantile: right to 0.1 % from 5 degrees of freedom on.
    student = z + (z**3 + z) / (4 * dof) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * dof**2)
    return NormalDist().cdf(-student * math.sqrt(num_videos / dof))


def ratio_rates(
    numerators_VK: Floats, denominators_VK: Floats, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> list[Rate]:
    """K ratios of counts per video -> K rates: sums over all videos before dividing, e.g. right answers / questions."""
    num_ratios = numerators_VK.shape[1]
    counts_VC = np.concatenate([numerators_VK, denominators_VK], axis=1)
    total_C = counts_VC.sum(axis=0)
    sums_RC = resampled_sums(counts_VC, num_resamples=num_resamples, seed=seed)
    return rates_of(
        divide(total_C[:num_ratios], total_C[num_ratios:]),
        divide(sums_RC[:, :num_ratios], sums_RC[:, num_ratios:]),
        num_videos_K=(denominators_VK != 0).sum(axis=0),
    )
