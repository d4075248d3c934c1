"""Whether a clip is what was asked for, and which span of it prompt and record tell of. No torch."""

import math

from avcap.data.request import Interval
from avcap.errors import UserError
from avcap.media.clip import Clip

# Headers round a file's length to a frame or a packet of sound: so much past its end is still its end.
END_TOLERANCE_S = 0.1


def span_asked(interval_s: Interval, *, duration_s: float) -> Interval:
    """An interval, its end perhaps infinite, of a file -> the one that prompt and record tell of."""
    start_s, end_s = interval_s
    return (start_s, round(duration_s, 1) if end_s == math.inf else end_s)


def check_clip(clip: Clip, *, interval_s: Interval | None) -> None:
    """Raises UserError where a clip is not what was asked for, or has nothing to caption."""
    if interval_s is not None and clip.duration_s + END_TOLERANCE_S < interval_s[1] < math.inf:
        raise UserError(
            f"{clip.path}: got an interval that ends at {interval_s[1]:g} s, expected one within the file, which lasts "
            f"{clip.duration_s:.1f} s; leave out --end for all the rest of it"
        )
    if not len(clip.frames_THWC) and not len(clip.waveform_S):
        streams = {"video": clip.has_video, "audio": clip.has_audio}
        there = " and ".join(name for name, is_there in streams.items() if is_there)
        raise UserError(
            f"{clip.path}: got a file with {there}, and nothing of it to be used; leave out --no-video or --no-audio"
        )
