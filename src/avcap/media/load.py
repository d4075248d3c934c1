"""Media file -> Clip: `load_clip` makes one safely, `read_clip` in this process."""

import os

from avcap.media.clip import Clip, ClipRequest
from avcap.media.frame_size import PixelBudget


def load_clip(
    path: str | os.PathLike[str],
    *,
    fps: float = 1.0,
    max_frames: int = 110,
    interval_s: tuple[float, float] | None = None,
    frame_size: tuple[int, int] | None = None,
    with_video: bool = True,
    with_audio: bool = True,
    lead_in: bool = False,
    pixel_budget: PixelBudget | None = None,
    deadline_s: float = 120.0,
) -> Clip:
    """Media file -> Clip, decoded in a worker process that is killed when it takes longer than `deadline_s`.

    A file that crashes the decoder or never ends is a MediaError like any other bad file; this process goes on.
    """
    from avcap.media.pool import decode  # here: starting processes is not needed by those who only hold a Clip

    request = ClipRequest(
        path=os.fsdecode(path),
        fps=fps,
        max_frames=max_frames,
        interval_s=None if interval_s is None else (float(interval_s[0]), float(interval_s[1])),
        frame_size=frame_size,
        with_video=with_video,
        with_audio=with_audio,
        lead_in=lead_in,
        pixel_budget=pixel_budget,
    )
    return decode(request, deadline_s=deadline_s)


def read_clip(
    path: str | os.PathLike[str],
    *,
    fps: float = 1.0,
    max_frames: int = 110,
    interval_s: tuple[float, float] | None = None,
    frame_size: tuple[int, int] | None = None,
    with_video: bool = True,
    with_audio: bool = True,
    lead_in: bool = False,
    pixel_budget: PixelBudget | None = None,
) -> Clip:
    """Media file -> Clip, decoded in this process and without a deadline: for files you trust."""
    from avcap.media.reader import read_request  # here: PyAV loads FFmpeg, 100 MB

    request = ClipRequest(
        path=os.fsdecode(path),
        fps=fps,
        max_frames=max_frames,
        interval_s=None if interval_s is None else (float(interval_s[0]), float(interval_s[1])),
        frame_size=frame_size,
        with_video=with_video,
        with_audio=with_audio,
        lead_in=lead_in,
        pixel_budget=pixel_budget,
    )
    return read_request(request)
