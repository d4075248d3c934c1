"""A file becomes a Clip: frames at chosen instants and 16 kHz sound, on one clock."""

from avcap.media.clip import SAMPLE_RATE_HZ, Clip, ClipRequest
from avcap.media.load import load_clip, read_clip

__all__ = ["SAMPLE_RATE_HZ", "Clip", "ClipRequest", "load_clip", "read_clip"]
