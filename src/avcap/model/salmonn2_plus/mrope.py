"""Positions on three axes (time, height, width) of the media tokens of video-SALMONN 2+: pure functions on numbers.

All are counted from the first media token. One step of time is half a second, for picture and sound alike.
S temporal grids  U audio tokens  M = S * tokens of a grid + U  3 axes
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

POSITIONS_PER_S = 2
"""The released training has this number in its code, whatever the backbone's `tokens_per_second` says."""


@dataclass(frozen=True, kw_only=True)
class MediaPositions:
    """Positions (3, M) in the order in which the tokens stand, and of the token behind them."""

    of_tokens: np.ndarray
    following: int


def grid_times(num_grids: int, *, seconds_per_grid: float) -> np.ndarray:
    """-> (S,) whole steps of time at which the grids begin. In float32, as the released code computes it.

    >>> grid_times(5, seconds_per_grid=0.8).tolist()
    [0, 1, 3, 4, 6]
    """
    steps = np.arange(num_grids, dtype=np.float32) * np.float32(seconds_per_grid) * np.float32(POSITIONS_PER_S)
    return np.floor(steps).astype(np.int64)


def audio_times(starts_s: Sequence[float] | np.ndarray) -> np.ndarray:
    """Where the windows of audio tokens begin -> (U,) whole steps of time."""
    return np.floor(np.asarray(starts_s) * POSITIONS_PER_S + 1e-6).astype(np.int64)


def audio_per_grid(num_grids: int, audio_times_U: np.ndarray, *, seconds_per_grid: float) -> list[int]:
    """-> how many audio tokens follow each grid: those that end no later than it does; the last gets the rest.

    Where sound ends before the picture, later grids have none. (Released code, of 2509: n_i = floor(2 s (i + 1)) -
    floor(2 s i), the last grid takes what remains, which must not be negative.)

    >>> audio_per_grid(4, audio_times([0.0, 0.5, 1.0]), seconds_per_grid=0.5)
    [1, 1, 1, 0]
    """
    borders = grid_times(num_grids + 1, seconds_per_grid=seconds_per_grid)
    ends = np.searchsorted(audio_times_U, borders[1:], side="left")
    ends[-1] = len(audio_times_U)
    return np.diff(ends, prepend=0).tolist()


def train_positions(
    grid_times_S: np.ndarray, *, height: int, width: int, audio_times_U: np.ndarray, order_M: np.ndarray
) -> MediaPositions:
    """Times of grids (each height x width tokens) and audio tokens -> positions as in the released training.

    Picture: (time, row, column). Sound beside picture: (time, 0, time), alone: (time, time, 0). What follows goes on
    after the latest time if there is sound, after the largest position on any axis if not. `order_M`: which of [picture
    tokens, audio tokens] stands where.
    """
    visual_3 = _video(grid_times_S, height=height, width=width)
    none_U = np.zeros_like(audio_times_U)
    has_video, has_audio = bool(len(grid_times_S)), bool(len(audio_times_U))
    axes = (audio_times_U, none_U, audio_times_U) if has_video else (audio_times_U, audio_times_U, none_U)
    both_3M = np.concatenate([visual_3, np.stack(axes)], axis=1)
    last = both_3M[0].max() if has_audio else both_3M.max()
    return MediaPositions(of_tokens=both_3M[:, order_M], following=int(last) + 1)


def official_generate_positions(
    num_grids: int, *, height: int, width: int, num_audio: int, steps_per_grid: int
) -> MediaPositions:
    """Counts -> the positions that the published generation used, by mistake, in place of those of the training.

    It takes a grid for a second (`steps_per_grid` = the backbone's tokens_per_second), and lays the picture's positions
    over the first tokens, whatever they are; all further ones are counted like text.
    """
    visual_3 = _video(np.arange(num_grids) * steps_per_grid, height=height, width=width)
    first = int(visual_3.max()) + 1 if num_grids else 0
    rest_3 = np.broadcast_to(np.arange(first, first + num_audio), (3, num_audio))
    return MediaPositions(of_tokens=np.concatenate([visual_3, rest_3], axis=1), following=first + num_audio)


def _video(times_S: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """Times of grids -> (3, S * height * width), row by row."""
    axes = np.meshgrid(times_S, np.arange(height), np.arange(width), indexing="ij")
    return np.stack([axis.reshape(-1) for axis in axes])
