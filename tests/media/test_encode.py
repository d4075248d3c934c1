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


def test_a_padded_wav_holds_the_same_samples():
    """2 s are 44 + 64,000 bytes; of 8 s there would be 256,044. Another decoder passes the padding over, too."""
    waveform_S = np.random.default_rng(0).uniform(-1, 1, 32_000).astype(np.float32)
    plain, padded = encode_wav(waveform_S), encode_wav(waveform_S, num_bytes=256_044)
    assert (len(plain), len(padded)) == (64_044, 256_044)
    assert np.array_equal(decode_wav(padded), decode_wav(plain))
    with av.open(io.BytesIO(padded)) as container:
        read_S = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert np.array_equal(read_S / 32768, decode_wav(plain))
    assert len(encode_wav(waveform_S, num_bytes=64_052)) == 64_052  # the head of the chunk alone


def test_a_padded_mp4_holds_the_same_frames_and_audio():
    waveform_S = np.random.default_rng(0).uniform(-0.5, 0.5, 32_000).astype(np.float32)
    plain = encode_mp4(plain_frames(4), fps=Fraction(2), waveform_S=waveform_S)
    padded = encode_mp4(plain_frames(4), fps=Fraction(2), waveform_S=waveform_S, num_bytes=len(plain) + 100_001)
    assert len(padded) == len(plain) + 100_001 and decoded(padded) == decoded(plain)
    with av.open(io.BytesIO(padded)) as container, av.open(io.BytesIO(plain)) as other:
        first, second = (
            np.concatenate([frame.to_ndarray()[0] for frame in one.decode(audio=0)]) for one in (container, other)
        )
    assert np.array_equal(first, second)
