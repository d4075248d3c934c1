"""What the rest of avcap sees of a media file: a Clip; load.py makes one.

T frames   H height   W width   C = 3 colours (RGB)   S samples of sound
"""

from dataclasses import dataclass

import numpy as np

from avcap.errors import UserError
from avcap.media.frame_size import PixelBudget

SAMPLE_RATE_HZ = 16000


@dataclass(frozen=True, kw_only=True)
class Clip:
    """The decoded part of one media file that a model looks at and listens to.

    All times are seconds on one origin for picture and sound: the start of the stream that starts first. Frame k is
    the picture a player shows at the instant `frame_times_T[k]`, that is the last frame at or before it.
    """

    path: str
    frames_THWC: np.ndarray
    """uint8 RGB, upright: the rotation a phone writes beside the picture is applied."""
    frame_times_T: np.ndarray
    """float64: the instants looked at (a frame may have come on screen earlier)."""
    lead_in_frame_HWC: np.ndarray | None
    """The picture one sampling step before the first instant, when asked for and the span starts after 0."""
    waveform_S: np.ndarray
    """float32 mono in [-1, 1] from `start_s` on: zeros before late sound and in gaps, none after sound that ends early.
    It counts as kept memory: 64 kB a second."""
    sample_rate_hz: int
    start_s: float
    end_s: float
    """`start_s`..`end_s` is the span seen: the interval asked for, cut to the file; of a damaged file, up to where it
    could be read."""
    duration_s: float
    """Of the whole file: where the last packet of picture or sound ends."""
    has_video: bool
    has_audio: bool
    """Whether the file has such a stream, asked for or not. Cover art is no picture."""
    num_bad_packets: int
    """Packets that could not be read or decoded, and frames that were decoded with errors."""
    decoding_s: float = 0.0
    """How long a worker process took for it."""
    notes: tuple[str, ...] = ()
    """What of the file was corrected, or could not be, in words: its clock, its colours, its channels, its streams."""


@dataclass(frozen=True, kw_only=True)
class ClipRequest:
    """Which part of a file to decode, and how: the arguments of `load_clip` as one value."""

    path: str
    fps: float = 1.0
    max_frames: int = 110
    interval_s: tuple[float, float] | None = None
    frame_size: tuple[int, int] | None = None
    """(height, width) every frame is squashed to while decoding; None keeps the size in the file."""
    with_video: bool = True
    with_audio: bool = True
    lead_in: bool = False
    pixel_budget: PixelBudget | None = None
    """Instead of `frame_size`: the size follows from that in the file and from how many frames are looked at."""
    official: str | None = None
    """"v1" or "plus": the file is read as the published code of that family reads it (media.official), all of it."""

    def __post_init__(self) -> None:
        if not (self.fps > 0 and self.max_frames >= 1):
            raise UserError(f"{self.path}: got fps={self.fps} and max_frames={self.max_frames}, expected both above 0")
        if not (self.with_video or self.with_audio):
            raise UserError(f"{self.path}: got with_video=False and with_audio=False, expected one of them")
        if self.frame_size is not None and self.pixel_budget is not None:
            raise UserError(f"{self.path}: got both frame_size and pixel_budget, expected one of them or neither")
