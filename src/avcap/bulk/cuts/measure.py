"""How long a file is, and what is in it: a moment of it is decoded, in a worker process. No torch by itself."""

from dataclasses import dataclass

LOOKED_AT_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A file's length in seconds, and which streams it has."""

    duration_s: float
    has_video: bool
    has_audio: bool


def measure(path: str, *, deadline_s: float) -> Measured:
    """A file -> its length. MediaError says why it cannot be read."""
    from avcap.media.clip import ClipRequest  # here: NumPy takes a quarter of a second
    from avcap.media.pool import decode

    request = ClipRequest(path=path, max_frames=1, interval_s=(0.0, LOOKED_AT_S))
    clip = decode(request, deadline_s=deadline_s)
    return Measured(duration_s=clip.duration_s, has_video=clip.has_video, has_audio=clip.has_audio)
