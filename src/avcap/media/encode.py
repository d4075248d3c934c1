"""Decoded frames and audio become files in memory again, for servers that take files: mp4, JPEG, WAV.

The same input gives the same bytes, so that what was sent can be known by its hash.

T frames   H height   W width   C = 3 colours (RGB)   S samples of audio
"""

import io
import wave
from fractions import Fraction

import av
import numpy as np
from PIL import Image

from avcap.media.clip import SAMPLE_RATE_HZ

JPEG_QUALITY = 90
VIDEO_OPTIONS = {"crf": "23", "preset": "veryfast"}
AUDIO_BITS_PER_S = 64_000
BLOCK_SAMPLES = 1024
"""Samples of an AAC frame."""


def encode_mp4(frames_THWC: np.ndarray, *, fps: Fraction, waveform_S: np.ndarray | None = None) -> bytes:
    """Frames -> an mp4 of a constant frame rate, H.264 without B-frames: frame k is shown at k / fps.

    Args:
        frames_THWC: uint8 (T, H, W, 3), at least one; an odd last row or column is left out, as the codec wants it.
        fps: Frames a second.
        waveform_S: float32 (S,) at 16 kHz in -1 to 1, stored as AAC beside them; None: the file has no audio.
    """
    height, width = (side - side % 2 for side in frames_THWC.shape[1:3])
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=fps, options={**VIDEO_OPTIONS, "bf": "0"})
        video.height, video.width, video.pix_fmt = height, width, "yuv420p"
        video.codec_context.thread_count = 1  # callers encode side by side; and the same bytes anywhere
        audio = None
        if waveform_S is not None:
            audio = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono")
            audio.bit_rate = AUDIO_BITS_PER_S
        for index, frame_HWC in enumerate(frames_THWC):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC[:height, :width]), format="rgb24")
            frame.pts, frame.time_base = index, 1 / fps
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None and waveform_S is not None:
            for first in range(0, len(waveform_S), BLOCK_SAMPLES):
                block_1S = np.ascontiguousarray(waveform_S[None, first : first + BLOCK_SAMPLES])
                block = av.AudioFrame.from_ndarray(block_1S, format="fltp", layout="mono")
                block.sample_rate, block.pts, block.time_base = SAMPLE_RATE_HZ, first, Fraction(1, SAMPLE_RATE_HZ)
                container.mux(audio.encode(block))
            container.mux(audio.encode(None))
    return buffer.getvalue()


def encode_jpeg(frame_HWC: np.ndarray) -> bytes:
    """A frame, uint8 (H, W, 3) -> JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(frame_HWC).save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def encode_wav(waveform_S: np.ndarray) -> bytes:
    """float32 waveform (S,) at 16 kHz in -1 to 1 -> a WAV of 16-bit mono."""
    samples_S = np.clip(np.round(np.asarray(waveform_S, dtype=np.float64) * 32768), -32768, 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(samples_S.tobytes())
    return buffer.getvalue()


def decode_wav(data: bytes) -> np.ndarray:
    """A WAV as `encode_wav` makes it -> float32 waveform (S,) at 16 kHz."""
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, SAMPLE_RATE_HZ)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
