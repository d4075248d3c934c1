"""Where a window should end: at a change of scene near its time, else at a quiet place, else at its time.

T frames   H height   W width   S samples   B blocks of audio
"""

import numpy as np

from avcap.bulk.cuts.measure import Measured
from avcap.media.clip import Clip, ClipRequest
from avcap.media.pool import decode

FPS = 4.0
FRAME_SIZE = (32, 32)
BLOCK_S = 0.25
LEAST_CHANGE, TIMES_MEDIAN = 20.0, 4.0
"""A change of scene: so many of 255 levels from one frame to the next, and so many times what is usual there."""
QUIET_SHARE = 0.3
"""A quiet place: its loudness (RMS) is at most this share of the mean, 10 dB below it."""
SILENCE = 1e-3


def find_border(path: str, *, start_s: float, end_s: float, measured: Measured, deadline_s: float) -> float:
    """A file and a stretch of it -> the second in the stretch at which to cut. MediaError as for all decoding.

    Only the stretch is decoded, in frames of 32 by 32 pixels.
    """
    request = ClipRequest(
        path=path,
        fps=FPS,
        max_frames=max(1, int((end_s - start_s) * FPS)),
        interval_s=(start_s, end_s),
        frame_size=FRAME_SIZE,
        with_video=measured.has_video,
        with_audio=measured.has_audio,
    )
    return round(border_in(decode(request, deadline_s=deadline_s), end_s=end_s), 3)


def border_in(clip: Clip, *, end_s: float) -> float:
    """A decoded stretch -> its best second; `end_s` where it has none."""
    if (change_s := _scene_change(clip)) is not None:
        return change_s
    quiet_s = _quiet_place(clip)
    return end_s if quiet_s is None else quiet_s


def _scene_change(clip: Clip) -> float | None:
    frames_THWC = clip.frames_THWC
    if len(frames_THWC) < 3:
        return None
    changes_T = np.abs(np.diff(frames_THWC.astype(np.int16), axis=0)).mean(axis=(1, 2, 3))
    largest = int(changes_T.argmax())
    if changes_T[largest] < max(LEAST_CHANGE, TIMES_MEDIAN * float(np.median(changes_T))):
        return None
    return float(clip.frame_times_T[largest + 1])


def _quiet_place(clip: Clip) -> float | None:
    """The middle of the quietest block; of several, the last."""
    size = int(BLOCK_S * clip.sample_rate_hz)
    count = len(clip.waveform_S) // size
    if count < 2:
        return None
    loudness_B = np.sqrt((clip.waveform_S[: count * size].reshape(count, size) ** 2).mean(axis=1))
    if loudness_B.mean() < SILENCE or loudness_B.min() > QUIET_SHARE * loudness_B.mean():
        return None
    quietest = count - 1 - int(loudness_B[::-1].argmin())
    return clip.start_s + (quietest + 0.5) * BLOCK_S
