"""The waveform of a stream whose format changes, whose rate is no multiple of 16 kHz, or whose time stamps are odd."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.media_files import tone, write_media

from avcap.media import read_clip
from avcap.media.audio import MAX_GAP_S, AudioReader
from avcap.media.codec import find_streams, open_file
from avcap.media.video import InexactShortcut

MP2_FRAME = 1152  # samples


def write_changing_stream(path: Path, parts: Sequence[tuple[int, int, str]]) -> Path:
    """(pitch in Hz, sample rate, layout) of parts of a second each -> one MP2 stream in an MPEG-TS file."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mp2", rate=parts[0][1], layout=parts[0][2])
        container.start_encoding()
        clock_s = Fraction(0)
        for hz, rate, layout in parts:
            encoder = av.CodecContext.create("mp2", "w")
            encoder.sample_rate, encoder.layout, encoder.format = rate, layout, "s16"
            encoder.time_base, encoder.bit_rate = Fraction(1, rate), 192_000
            wave = (16_000 * np.sin(2 * np.pi * hz * np.arange(rate) / rate)).astype(np.int16)
            packets = []
            for first in range(0, rate - MP2_FRAME + 1, MP2_FRAME):
                block = wave[first : first + MP2_FRAME].repeat(len(av.AudioLayout(layout).channels))
                frame = av.AudioFrame.from_ndarray(block[None], format="s16", layout=layout)
                frame.sample_rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
                packets += encoder.encode(frame)
            for packet in packets + encoder.encode(None):
                packet.stream, packet.time_base = stream, stream.time_base
                packet.pts = packet.dts = round(clock_s / stream.time_base)
                clock_s += Fraction(MP2_FRAME, rate)
                container.mux(packet)
    return path


def pitch_hz(wave_S: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(wave_S * np.hanning(len(wave_S))))
    return float(spectrum.argmax() * 16_000 / len(wave_S))


def test_a_stream_may_change_its_rate_and_its_layout(tmp_path):
    path = write_changing_stream(
        tmp_path / "changing.ts", [(500, 48_000, "mono"), (1000, 32_000, "mono"), (2000, 32_000, "stereo")]
    )
    clip = read_clip(path)
    assert clip.num_bad_packets == 0
    # read with the rate before it, 1000 Hz at 32 kHz would sound as 1500 Hz, and last 2/3 s
    for second, hz in enumerate((500, 1000, 2000)):
        middle_S = clip.waveform_S[int((second + 0.25) * 16_000) : int((second + 0.75) * 16_000)]
        assert pitch_hz(middle_S) == pytest.approx(hz, abs=2)  # 0.5 s: steps of 2 Hz
        assert np.abs(middle_S).max() == pytest.approx(16_000 / 32_768, abs=0.06)
    # whole frames of 1152 samples: 41 of 48 000 a second, 27 of 32 000, twice
    assert len(clip.waveform_S) / 16_000 == pytest.approx(41 * 1152 / 48_000 + 2 * 27 * 1152 / 32_000, abs=0.05)


@pytest.mark.parametrize(("name", "codec"), [("mkv", "flac"), ("mkv", "aac"), ("mkv", "mp3"), ("wav", "pcm_s16le")])
def test_an_interval_of_44_100_hz_is_a_slice_of_the_whole(tmp_path, name, codec):
    # 441 samples of 44.1 kHz are 160 of 16 kHz: only every 441st sample has an instant that both rates have. Matroska's
    # time stamps are whole milliseconds, 44 samples; from 1.3 s on without a seek, from 3.77 s on after one.
    path = write_media(
        tmp_path / f"cd.{name}",
        waveform=tone(seconds=5, rate=44_100),
        audio_rate=44_100,
        audio_codec=codec,
        layout="mono",
    )
    whole_S = read_clip(path).waveform_S
    for start_s in (1.3, 2.0, 3.77):
        part_S = read_clip(path, interval_s=(start_s, start_s + 1)).waveform_S
        first = round(start_s * 16_000)
        np.testing.assert_allclose(part_S, whole_S[first : first + 16_000], atol=2e-4)


# --- packets one by one -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """3 s of audio in packets of about 0.1 s."""
    path = tmp_path_factory.mktemp("audio") / "tone.mkv"
    return write_media(path, waveform=tone(seconds=3, rate=48_000), layout="mono")


def reader_of(stream: av.AudioStream, **options) -> AudioReader:
    values = {"origin_s": 0.0, "start_s": 0.0, "max_samples": 2 * 3600 * 16_000, "after_seek": False}
    return AudioReader(stream, **values | options)


@pytest.mark.parametrize(
    ("after_seek", "first_times_s", "is_exact"),
    [
        (True, [1.8], False),  # the decoder has less than 0.25 s to warm up until 2 s
        (True, [1.5], True),
        (True, [0.2, 1.8], True),  # nothing is missing between what was passed over and the next packet
        (False, [1.8], True),  # from the head of the file: audio begins there
    ],
)
def test_a_seek_that_leaves_no_time_to_warm_up_is_found(file, after_seek, first_times_s, is_exact):
    with open_file(str(file)) as container:
        stream = find_streams(container).audio
        packets = [packet for packet in container.demux([stream]) if packet.size]
        reader = reader_of(stream, start_s=2.0, after_seek=after_seek)
        for time_s in first_times_s:
            packet = next(packet for packet in packets if packet.pts * packet.time_base >= time_s)
            assert time_s <= packet.pts * packet.time_base < time_s + 0.1
            if is_exact or time_s != 1.8:
                reader.push(packet)
            else:
                with pytest.raises(InexactShortcut):
                    reader.push(packet)


@pytest.mark.parametrize(("gap_s", "is_filled"), [(2, True), (MAX_GAP_S + 1, False)])
def test_a_gap_is_silence_unless_it_is_so_long_that_its_time_is_damaged(file, gap_s, is_filled):
    with open_file(str(file)) as container:
        stream = find_streams(container).audio
        reader = reader_of(stream)
        packets = [packet for packet in container.demux([stream]) if packet.size]
        half = len(packets) // 2
        half_s = float(packets[half].pts * packets[half].time_base)
        for index, packet in enumerate(packets):
            if index >= half:
                packet.pts += round(gap_s / packet.time_base)
            reader.push(packet)
        reader.finish()
    waveform_S = reader.take_waveform()
    if is_filled:
        assert reader.num_bad_packets == 0 and len(waveform_S) == pytest.approx((3 + gap_s) * 16_000, abs=1)
        silence_S = waveform_S[round(half_s * 16_000) + 20 : round((half_s + gap_s) * 16_000) - 20]
        assert not silence_S.any() and waveform_S[-16_000:].any()
    else:
        assert reader.num_bad_packets == len(packets) - half
        assert len(waveform_S) == pytest.approx(half_s * 16_000, abs=1)
