"""Any number of channels becomes one, and what is heard in them is not lost in the mix."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from support.media_files import steps, tone_hz, write_media

from avcap.media import read_clip
from avcap.media.channels import is_cancelled, powers, split_channels


def write_wav(path, samples_SN: np.ndarray, *, rate: int = 16000, mask: int = 0):
    """(S, N) int16 -> WAV of N channels; `mask` 0: nothing says where they are."""
    num_channels = samples_SN.shape[1]
    data = samples_SN.astype("<i2").tobytes()
    guid = struct.pack("<IHH8s", 1, 0, 16, bytes.fromhex("800000aa00389b71"))
    header = struct.pack(
        "<HHIIHHHHI", 0xFFFE, num_channels, rate, rate * 2 * num_channels, 2 * num_channels, 16, 22, 16, mask
    )
    chunk = b"fmt " + struct.pack("<I", 40) + header + guid
    body = b"WAVE" + chunk + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


def encode(container, audio, frame: av.AudioFrame) -> None:
    """Encodes a frame of any length at 48 kHz, cut and laid out as the encoder wants it."""
    frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
    context = audio.codec_context
    cutter = av.AudioResampler(
        format=context.format.name, layout=context.layout.name, rate=48000, frame_size=context.frame_size or 4608
    )
    for ready in [*cutter.resample(frame), *cutter.resample(None), None]:
        container.mux(audio.encode(ready))


@pytest.mark.parametrize("num_channels", [3, 9, 16, 32, 63])
def test_channels_in_unknown_places_are_all_mixed(tmp_path, num_channels):
    wave_S = np.round(steps(seconds=3, rate=16000) * 32767)
    path = write_wav(tmp_path / "many.wav", np.stack([wave_S] * num_channels, axis=1))
    clip = read_clip(path)
    # the mean of equal channels is each of them; FFmpeg's own idea of three of them leaves the third out
    np.testing.assert_allclose(clip.waveform_S, wave_S / 32768, atol=1e-4)
    assert any("places" in note for note in clip.notes)


@pytest.mark.parametrize("num_channels", [9, 63])
@pytest.mark.parametrize("place", [0, -1])
def test_one_channel_among_many_is_kept(tmp_path, num_channels, place):
    samples_SN = np.zeros((3 * 16000, num_channels))
    samples_SN[:, place] = np.round(steps(seconds=3, rate=16000) * 32767)
    clip = read_clip(write_wav(tmp_path / "one.wav", samples_SN))
    assert tone_hz(clip.waveform_S) == [400, 600, 800]
    # a mean of 63 would be 36 dB down; taken alone it is as loud as it was. Of 9 it is 19 dB down, and stays mixed
    assert np.abs(clip.waveform_S).max() == pytest.approx(0.4 if num_channels == 63 else 0.4 / 9, abs=0.01)


@pytest.mark.parametrize(("codec", "name"), [("aac", "a.mp4"), ("flac", "a.mkv"), ("pcm_s24le", "a.mov")])
def test_eight_planes_are_read_safely(tmp_path, codec, name):
    """PyAV reads past the end of a frame's planes where there are eight of them."""
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        audio = container.add_stream(codec, rate=48000, layout="7.1")
        packed = np.repeat(steps(seconds=3.1)[:, None], 8, axis=1).reshape(1, -1).astype(np.float32)
        encode(container, audio, av.AudioFrame.from_ndarray(packed, format="flt", layout="7.1"))
    clip = read_clip(path)
    assert tone_hz(clip.waveform_S) == [400, 600, 800]
    assert clip.waveform_S.std() == pytest.approx(0.4 / 2**0.5, rel=0.05)
    assert tone_hz(read_clip(path, interval_s=(1.0, 3.0)).waveform_S) == [600, 800]


def test_a_mix_that_cancels_is_replaced_second_by_second(tmp_path):
    wave_S = steps(seconds=4)
    path = tmp_path / "half.mkv"
    with av.open(str(path), "w") as container:
        audio = container.add_stream("flac", rate=48000, layout="stereo")
        side_S = np.where(np.arange(len(wave_S)) < 2 * 48000, wave_S, -wave_S)  # from 2 s on the negative
        samples = np.round(np.stack([wave_S, side_S], axis=1) * 32767).astype(np.int16).reshape(1, -1)
        encode(container, audio, av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo"))
    clip = read_clip(path)
    assert tone_hz(clip.waveform_S) == [400, 600, 800, 1000]
    (note,) = clip.notes
    assert "cancel each other" in note and "the loudest alone" in note


@pytest.mark.parametrize("gains", [[1, 1], [1, 0], [1, -0.5]])
def test_an_ordinary_mix_is_ffmpegs_own(tmp_path, gains):
    path = write_media(tmp_path / "a.mkv", waveform=steps(seconds=2, rate=16000), audio_rate=16000, gains=gains)
    clip = read_clip(path)
    np.testing.assert_allclose(clip.waveform_S, steps(seconds=2, rate=16000) * sum(gains) / 2, atol=2e-4)
    assert clip.notes == ()


def test_silence_does_not_cancel():
    assert not is_cancelled(mix_power=0.0, channel_powers_N=np.zeros(2))
    # two channels of power 1 and correlation -0.9: the mix has (1 + 1 - 2 * 0.9) / 4 = 0.05
    assert not is_cancelled(mix_power=0.05, channel_powers_N=np.ones(2))
    assert is_cancelled(mix_power=0.005, channel_powers_N=np.ones(2))  # correlation -0.99


def test_samples_of_all_kinds_have_one_scale():
    half = {np.uint8: 192, np.int16: 2**14, np.int32: 2**30, np.float32: 0.5, np.float64: 0.5}
    for kind, value in half.items():
        samples_NS = split_channels(np.full((1, 6), value, kind), num_channels=2, is_planar=False)
        np.testing.assert_array_equal(samples_NS, np.full((2, 3), 0.5, np.float32))
    np.testing.assert_array_equal(powers(np.array([[0.5, -0.5], [0, 1]], np.float32)), [0.25, 0.5])
