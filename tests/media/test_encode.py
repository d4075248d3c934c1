"""Frames and audio become files that decode to what they were."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from avcap.media.encode import decode_wav, encode_jpeg, encode_mp4, encode_wav


def plain_frames(num: int, *, height: int = 48, width: int = 64) -> np.ndarray:
    """Each of one grey, 20 apart: a codec cannot mix them up."""
    return np.stack([np.full((height, width, 3), 20 * (k + 1), np.uint8) for k in range(num)])


def decoded(data: bytes):
    with av.open(io.BytesIO(data)) as container:
        frames = list(container.decode(video=0))
    return [(float(frame.pts * frame.time_base), int(frame.to_ndarray(format="rgb24").mean())) for frame in frames]


@pytest.mark.parametrize("fps", [Fraction(2), Fraction(1, 5), Fraction(2, 21), Fraction(30000, 1001)])
def test_an_mp4_has_a_constant_rate(fps):
    frames = decoded(encode_mp4(plain_frames(5), fps=fps))
    assert [time_s for time_s, _ in frames] == pytest.approx([k / float(fps) for k in range(5)], abs=1e-3)
    assert [grey for _, grey in frames] == pytest.approx([20, 40, 60, 80, 100], abs=3)


def test_one_frame_and_odd_sides():
    found = decoded(encode_mp4(plain_frames(1, height=35, width=51), fps=Fraction(1)))
    assert found == [(0.0, pytest.approx(20, abs=3))]


def test_the_same_frames_give_the_same_bytes():
    rng = np.random.default_rng(0)
    frames_THWC = rng.integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    waveform_S = rng.normal(0, 0.1, 16000).astype(np.float32)
    first, second = (encode_mp4(frames_THWC, fps=Fraction(2), waveform_S=waveform_S) for _ in range(2))
    assert first == second


def test_an_mp4_with_its_audio():
    """A tone of 1 kHz for 2 s: the loudest frequency of what comes back is it, and as long."""
    waveform_S = (0.5 * np.sin(2 * np.pi * 1000 * np.arange(32000) / 16000)).astype(np.float32)
    data = encode_mp4(plain_frames(4), fps=Fraction(2), waveform_S=waveform_S)
    with av.open(io.BytesIO(data)) as container:
        read_S = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert len(read_S) == pytest.approx(32000, abs=2048)
    assert np.argmax(np.abs(np.fft.rfft(read_S[4000:20000]))) == 1000  # a second: one bin a hertz


def test_a_wav_holds_every_sample():
    waveform_S = np.array([-1.5, -1.0, -0.5, 0.0, 0.25, 1.0, 2.0], np.float32)
    kept_S = decode_wav(encode_wav(waveform_S))
    assert kept_S == pytest.approx([-1, -1, -0.5, 0, 0.25, 32767 / 32768, 32767 / 32768])


def test_a_jpeg_is_the_frame():
    frame_HWC = plain_frames(3)[2]
    assert np.abs(np.asarray(Image.open(io.BytesIO(encode_jpeg(frame_HWC)))).astype(int) - 60).max() <= 2
