"""Which instants of a video to look at.

T frames looked at
"""

import math

import numpy as np

# A span of 2.9999999 s that should be 3 s must not lose its frame, nor 3.0000001 s gain one: durations are floats.
TOLERANCE_FRAMES = 1e-6


def frame_instants(*, start_s: float, end_s: float, fps: float, max_frames: int) -> np.ndarray:
    """A span in seconds -> (T,) float64 instants: start_s, start_s + 1/fps, ... before end_s; at least one.

    More than `max_frames` of them are thinned to `max_frames` evenly spaced ones from the first to the last of the
    full list, as np.linspace does.
    """
    num_instants = max(1, math.ceil((end_s - start_s) * fps - TOLERANCE_FRAMES))
    if num_instants <= max_frames:
        steps_T = np.arange(num_instants, dtype=np.float64)
    else:
        steps_T = np.linspace(0, num_instants - 1, max_frames)
    return start_s + steps_T / fps


def official_v1_frame_index(
    *, num_frames: int, source_fps: float, fps: float, max_frames: int, interval_s: tuple[float, float] | None = None
) -> np.ndarray:
    """Frames and rate of a video -> (T,) int64 frame numbers that the published video-SALMONN 2 looks at.

    Its rule counts frames and not seconds: every round(source_fps / fps)-th frame, and above the cap evenly spread
    frame numbers, cut to whole numbers. Only right for a constant frame rate; kept to run its checkpoints as published.
    `interval_s`: from the frame nearest to the start to the one nearest to the end, which is looked at, too; none where
    it starts behind the last frame.
    """
    first, last = 0, num_frames - 1
    if interval_s is not None:
        start_s, end_s = interval_s
        first, last = round(start_s * source_fps), min(round(end_s * source_fps), last)
    step = max(round(source_fps / fps), 1)
    index_T = np.arange(first, last + 1, step, dtype=np.int64)
    if len(index_T) > max_frames:
        index_T = np.linspace(first, last, max_frames).astype(np.int64)
    return index_T


def official_plus_frame_index(
    *, num_frames: int, source_fps: float, interval_s: float, min_frames: int, max_frames: int
) -> np.ndarray:
    """Frames and rate of a video -> (T,) int64 frame numbers that the published video-SALMONN 2+ looks at.

    One frame every `interval_s`, at least `min_frames` and at most `max_frames`, spread evenly from the first to the
    last frame and cut to whole numbers, each once.
    """
    expected = min(max(round(num_frames / source_fps / interval_s), min_frames), max_frames)
    return np.unique(np.linspace(0, num_frames - 1, expected).astype(np.int64))


def official_plus_seconds_per_grid(*, num_frames: int, source_fps: float, num_looked_at: int) -> float:
    """Frames and rate of a video and how many frames are looked at -> seconds that two of these are taken to cover.

    The published rule: 2 / rate of the frames looked at, that is as if they were spread over the whole duration.
    """
    duration_s = num_frames / source_fps
    return 2.0 / (num_looked_at / duration_s)
