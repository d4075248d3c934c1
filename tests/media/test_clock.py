"""Clocks that jump: counting goes on, video and audio stay in step, and the record says so."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.media_files import stamped_frame, stamps, steps, tone_hz, write_media

from avcap.errors import MediaError
from avcap.media import read_clip
from avcap.media.clock import PacketTimes, mend_clock

KINDS = {
    "ts": {"audio_codec": "aac"},
    "mpg": {"video_codec": "mpeg2video", "audio_codec": "mp2", "time_base": Fraction(1, 25)},
    "mkv": {},
}


def recording(path: Path, *, first: int = 0, shift_s: int = 0, seconds: int = 3) -> Path:
    """`seconds` s of frames from number `first` on, and of a tone that says which second of 25 frames it is."""
    kind = dict(KINDS[path.suffix[1:]])
    tick = 1 if "time_base" in kind else 40
    return write_media(
        path,
        frame_times=[tick * number for number in range(25 * seconds)],
        image=lambda number: stamped_frame(number + first),
        waveform=steps(seconds=seconds, first_hz=400 + 200 * (first // 25)),
        shift_s=shift_s,
        **kind,
    )


def joined(tmp_path: Path, suffix: str, *, starts_s: list[int]) -> Path:
    """Recordings of 3 s, joined byte by byte; the clock of each begins at its start."""
    parts = [
        recording(tmp_path / f"{k}.{suffix}", first=75 * k, shift_s=start_s).read_bytes()
        for k, start_s in enumerate(starts_s)
    ]
    path = tmp_path / f"joined.{suffix}"
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize(
    ("suffix", "starts_s", "word"),
    [
        ("ts", [0, 0], "jumps back"),
        ("ts", [0, 0, 0], "jumps back (2 times"),
        ("ts", [0, 100], "jumps forward"),
        ("ts", [100, 0], "jumps forward"),  # libavformat takes it for a counter of 33 bits that ran over
        ("ts", [5, 60, 2], "jumps"),
        ("mpg", [0, 0], "jumps back"),
        ("mpg", [0, 1000], "jumps forward"),
        ("mkv", [0, 0], "jumps back"),
        ("mkv", [0, 100], "jumps forward"),
    ],
)
def test_joined_recordings_are_one(tmp_path, suffix, starts_s, word):
    path = joined(tmp_path, suffix, starts_s=starts_s)
    seconds = 3 * len(starts_s)
    clip = read_clip(path)
    # the audio may start some frames before the video, so frame 25 k or one just before it stands at second k
    off = np.array(stamps(clip.frames_THWC))[:seconds] - 25 * np.arange(seconds)
    assert (off <= 0).all() and (off >= -2).all()
    assert tone_hz(clip.waveform_S) == [400 + 200 * second for second in range(seconds)]
    assert clip.duration_s == pytest.approx(seconds, abs=0.1)
    assert clip.num_bad_packets == 0
    assert any(word in note for note in clip.notes)


@pytest.mark.parametrize(("suffix", "codec"), [("ogg", "libopus"), ("flac", "flac"), ("aac", "aac"), ("mp3", "mp3")])
def test_joined_audio_is_one(tmp_path, suffix, codec):
    parts = [
        write_media(tmp_path / f"{hz}.{suffix}", waveform=steps(seconds=3, first_hz=hz), audio_codec=codec)
        for hz in (400, 1000)
    ]
    path = tmp_path / f"joined.{suffix}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    clip = read_clip(path)
    lost_s = 0.4 if suffix == "flac" else 0.0  # FFmpeg's parser of FLAC loses three packets at the joint
    assert tone_hz(clip.waveform_S) == [400, 600, 800, 1000, 1200, 1400][: 5 if lost_s else 6]
    assert clip.duration_s == pytest.approx(6 - lost_s, abs=0.15)


@pytest.mark.parametrize("suffix", ["ts", "mpg", "mkv"])
def test_an_interval_is_one_of_the_mended_clock(tmp_path, suffix):
    clip = read_clip(joined(tmp_path, suffix, starts_s=[0, 0]), interval_s=(3.5, 5.5))
    off = np.array(stamps(clip.frames_THWC)) - [87, 112]  # 3.5 s * 25 = 87.5, 4.5 s * 25 = 112.5
    assert (off <= 0).all() and (off >= -2).all()
    assert len(clip.waveform_S) == 2 * 16000


def test_video_alone_is_mended_as_with_audio(tmp_path):
    path = joined(tmp_path, "ts", starts_s=[0, 100])
    with_audio, alone = read_clip(path), read_clip(path, with_audio=False)
    np.testing.assert_array_equal(alone.frames_THWC, with_audio.frames_THWC)
    assert alone.duration_s == with_audio.duration_s


def test_what_comes_after_the_end_of_the_demuxer_is_told(tmp_path):
    clip = read_clip(joined(tmp_path, "mkv", starts_s=[0, 0, 0]))  # libavformat stops after the second of them
    assert any("bytes were not read" in note for note in clip.notes)


def test_an_ordinary_file_has_no_notes(tmp_path):
    for suffix in KINDS:
        assert read_clip(recording(tmp_path / f"plain.{suffix}")).notes == ()


def packets(times_s: list[float], *, first_order: int = 0, step_s: float = 0.1) -> PacketTimes:
    """Packets of 0.1 s at these times, every second one of the file."""
    found = PacketTimes()
    for index, time_s in enumerate(times_s):
        found.add(order=first_order + 2 * index, decode_s=time_s, show_s=time_s, duration_s=step_s, is_shown=True)
    return found


def test_a_gap_of_one_stream_is_left_and_one_of_both_is_closed():
    steady = [0.1 * k for k in range(100)]  # 0..10 s
    paused = [time + (50 if k >= 50 else 0) for k, time in enumerate(steady)]
    alone = mend_clock([packets(steady), packets(paused, first_order=1)])
    assert not alone.is_needed and alone.ends_s == pytest.approx((10.0, 60.0))
    both = mend_clock([packets(paused), packets(paused, first_order=1)])
    assert both.closed_s == pytest.approx((50.0,)) and both.ends_s == pytest.approx((10.0, 10.0))
    assert both.corrections[0].at(49) == 0 and both.corrections[0].at(50) == pytest.approx(-50.0)


def test_a_wrong_time_among_right_ones_is_no_jump():
    times = [0.1 * k for k in range(100)]
    times[40] = 5000.0
    clock = mend_clock([packets(times)])
    assert (clock.back_s, clock.closed_s, clock.num_spikes) == ((), (), 1)
    assert times[40] + clock.corrections[0].at(40) == pytest.approx(4.0)
    assert clock.corrections[0].at(41) == 0 and clock.ends_s == pytest.approx((10.0,))


def test_after_a_jump_back_the_longer_stream_says_where_it_goes_on():
    # first recording: video to 10 s, audio to 12 s; the second starts at 0 again in both
    video = packets([0.1 * k for k in range(100)] + [0.1 * k for k in range(20)])
    audio = packets([0.1 * k for k in range(120)] + [0.1 * k for k in range(20)], first_order=1)
    clock = mend_clock([video, audio])
    assert clock.back_s == pytest.approx((12.0,))
    assert clock.ends_s == pytest.approx((14.0, 14.0))


def test_hours_of_silence_that_no_packet_stands_for_are_refused(tmp_path):
    path = tmp_path / "gaps.mkv"
    with av.open(str(path), "w") as container:
        audio = container.add_stream("flac", rate=16000, layout="mono")
        for minute in range(0, 150, 50):  # two gaps of 50 minutes, 6000 s together, of an only stream: no jumps
            frame = av.AudioFrame.from_ndarray(np.ones((1, 4608), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = 16000, Fraction(1, 16000), minute * 60 * 16000
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    with pytest.raises(MediaError, match="more than 3600 s of gaps"):
        read_clip(path)
    assert len(read_clip(path, interval_s=(2990, 3010)).waveform_S) == 20 * 16000  # one gap, 10 s of it
