"""Many channels of audio -> one, where FFmpeg's own mix cannot or would lose what is heard.

S samples  N channels
"""

import numpy as np

# The mix of ordinary stereo is some 3 dB quieter than its channels, one of eight surround channels some 18 dB.
# 20 dB takes channels that are nearly each other's negative (correlation below -0.98), or one among very many.
CANCELLED_POWER_RATIO = 0.01
SILENT_POWER = 1e-6  # -60 dB of full scale: below it there is nothing to lose


def split_channels(samples: np.ndarray, *, num_channels: int, is_planar: bool) -> np.ndarray:
    """Samples as a decoder lays them out -> (N, S) float32 in [-1, 1]."""
    samples_NS = samples if is_planar else samples.reshape(-1, num_channels).T
    if samples.dtype == np.uint8:  # silence is 128
        return (samples_NS.astype(np.float32) - 128) / 128
    if np.issubdtype(samples.dtype, np.integer):
        return samples_NS * np.float32(1 / -float(np.iinfo(samples.dtype).min))
    return samples_NS.astype(np.float32, copy=False)


def mix_to_int16(samples_NS: np.ndarray) -> np.ndarray:
    """Channels of unknown places -> (1, S) int16, their mean."""
    return np.rint(np.clip(samples_NS.mean(axis=0, keepdims=True), -1, 1) * 32767).astype(np.int16)


def powers(samples_NS: np.ndarray) -> np.ndarray:
    """(N, S) -> (N,) mean square of each channel."""
    return np.array([power(samples_S) for samples_S in samples_NS])


def power(samples_S: np.ndarray) -> float:
    """(S,) -> mean square."""
    return float(np.vdot(samples_S, samples_S)) / max(1, len(samples_S))


def is_cancelled(*, mix_power: float, channel_powers_N: np.ndarray) -> bool:
    """Whether the mix of channels is far quieter than the loudest of them, which is no silence."""
    loudest = float(channel_powers_N.max(initial=0.0))
    return loudest > SILENT_POWER and mix_power < CANCELLED_POWER_RATIO * loudest
