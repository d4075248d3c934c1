"""Decoded frames and audio become files in memory again, for servers that take files: mp4, JPEG, WAV.

The same input gives the same bytes, so that what was sent can be known by its hash.

T frames   H height   W width   C = 3 colours (RGB)   S samples of audio
"""

import io
import struct
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
WAV_HEADER_BYTES = 44


def encode_mp4(
    frames_THWC: np.ndarray, *, fps: Fraction, waveform_S: np.ndarray | None = None, num_bytes: int | None = None
) -> bytes:
    """Frames -> an mp4 of a constant frame rate, H.264 without B-frames: frame k is shown at k / fps.

    Args:
        frames_THWC: uint8 (T, H, W, 3), at least one; an odd last row or column is left out, as the codec wants it.
        fps: Frames a second.
        waveform_S: float32 (S,) at 16 kHz in -1 to 1, stored as AAC beside them; None: the file has no audio.
        num_bytes: Pad the file to so many bytes, by a box that is passed over by whatever reads it.
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
    data = buffer.getvalue()
    if num_bytes is None:
        return data
    missing = num_bytes - len(data)  # the head of a box counts as a part of it: ISO/IEC 14496-12, 8.1.2
    return data + struct.pack(">I4s", missing, b"free") + _filling(missing - 8, of=data)


def encode_jpeg(frame_HWC: np.ndarray) -> bytes:
    """A frame, uint8 (H, W, 3) -> JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(frame_HWC).save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def encode_wav(waveform_S: np.ndarray, *, num_bytes: int | None = None) -> bytes:
    """A waveform -> a WAV of 16-bit mono.

    Args:
        waveform_S: float32 (S,) at 16 kHz in -1 to 1.
        num_bytes: Pad the file to so many bytes, by a JUNK chunk before the samples that is passed over by whatever
            reads chunks. Even, and at least 8 more than without.
    """
    samples_S = np.clip(np.round(np.asarray(waveform_S, dtype=np.float64) * 32768), -32768, 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(samples_S.tobytes())
    data = buffer.getvalue()
    if num_bytes is None:
        return data
    before = WAV_HEADER_BYTES - 8  # the head of the chunk of samples is the last of the header
    missing = num_bytes - len(data)
    assert missing % 2 == 0, f"chunks of a RIFF file are even: {missing} bytes"
    junk = struct.pack("<4sI", b"JUNK", missing - 8) + _filling(missing - 8, of=data[WAV_HEADER_BYTES:])
    return data[:4] + struct.pack("<I", num_bytes - 8) + data[8:before] + junk + data[before:]


def _filling(num_bytes: int, *, of: bytes) -> bytes:
    """So many bytes of what a file holds anyway: as text, too, they look like more of it."""
    assert num_bytes >= 0, "no room for the head of a chunk or box"
    return (of * (num_bytes // len(of) + 1))[:num_bytes]


def decode_wav(data: bytes) -> np.ndarray:
    """A WAV as `encode_wav` makes it -> float32 waveform (S,) at 16 kHz."""
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, SAMPLE_RATE_HZ)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
