"""Every frame and every second of audio of many kinds of files, against what was put in."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from support.media_files import set_display_matrix, stamped_frame, stamps, steps, stored_for, tone_hz, write_media

from avcap.media import read_clip

SECONDS, FPS = 3, 25
AUDIO_SECONDS = 3.1  # encoders may leave out a last packet that is not full
FRAMES = SECONDS * FPS
CONSTANT = [40 * number for number in range(FRAMES)]  # ms
UNEVEN = [0, *np.cumsum(np.random.default_rng(2).integers(5, 75, FRAMES - 1)).tolist()]
TV = {"time_base": Fraction(1, FPS)}
FAST_VP = {"video_options": {"deadline": "realtime", "cpu-used": "8"}}
FORMATS: dict[str, dict[str, Any]] = {
    "h264-aac.mp4": {"audio_codec": "aac"},
    "mpeg4-pcm.mov": {"video_codec": "mpeg4", "audio_codec": "pcm_s16le"},
    "h264-flac.mkv": {},
    "ffv1-opus.mkv": {"video_codec": "ffv1", "audio_codec": "libopus"},
    "vp8-opus.webm": {"video_codec": "libvpx", "audio_codec": "libopus", **FAST_VP},
    "h264-aac.ts": {"audio_codec": "aac"},
    "mpeg2-mp2.ts": {"video_codec": "mpeg2video", "audio_codec": "mp2", **TV},
    "mpeg2-mp2.mpg": {"video_codec": "mpeg2video", "audio_codec": "mp2", **TV},
    "h264-mp3.flv": {"audio_codec": "mp3", "audio_rate": 44100},
    "mjpeg-pcm.avi": {"video_codec": "mjpeg", "pix_fmt": "yuvj420p", "audio_codec": "pcm_s16le", **TV},
    "fragmented.mp4": {"audio_codec": "aac", "container_options": {"movflags": "frag_keyframe+delay_moov"}},
    "8khz-24bit.mov": {"video_codec": "mpeg4", "audio_codec": "pcm_s24le", "audio_rate": 8000},
}
TIMINGS: dict[str, dict[str, Any]] = {
    "constant": {},
    "uneven": {"frame_times": UNEVEN},
    "late audio": {"audio_start": Fraction(1, 2)},
    "late video": {"frame_times": [time + 480 for time in CONSTANT]},
    "late clock": {"shift_s": 7},
}
# What a format cannot hold: uneven times where it counts frames, a late start where it counts from 0.
IMPOSSIBLE = {
    ("mpeg2-mp2.ts", "uneven"),
    ("mpeg2-mp2.mpg", "uneven"),
    ("mjpeg-pcm.avi", "uneven"),
    ("mjpeg-pcm.avi", "late audio"),
    ("mjpeg-pcm.avi", "late video"),
    ("mjpeg-pcm.avi", "late clock"),
}
MIXES: dict[str, dict[str, Any]] = {
    "mono": {"layout": "mono"},
    "inverted": {"gains": [1, -1]},
    "left alone": {"gains": [1, 0]},
    "5.1": {"layout": "5.1"},
    "5.1, centre empty": {"layout": "5.1", "gains": [1, 1, 0, 0, 0.5, 0.5]},
    "5.1, front inverted": {"layout": "5.1", "gains": [1, -1, 0, 0, 0, 0]},
    "5.1, low frequencies alone": {"layout": "5.1", "gains": [0, 0, 0, 1, 0, 0]},
}
MATRICES = [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]


def check(path: Path, *, frame_times: list[int]) -> None:
    """Compares a file with its plan: frame k was put at `frame_times[k]` ms of its video."""
    with av.open(str(path)) as container:
        starts_s = {stream.type: float((stream.start_time or 0) * stream.time_base) for stream in container.streams}
    origin_s = min(starts_s.values())
    clip = read_clip(path, fps=FPS, max_frames=1000)
    shown_s = (np.array(frame_times) - frame_times[0]) / 1000 + starts_s["video"] - origin_s
    # times of the container are rounded, to 1/1000 s at worst
    expected = np.searchsorted(shown_s, clip.frame_times_T + 6e-4, side="right") - 1
    early = np.searchsorted(shown_s, clip.frame_times_T - 6e-4, side="right") - 1
    numbers = np.array(stamps(clip.frames_THWC))
    assert ((numbers == expected.clip(0)) | (numbers == early.clip(0))).all()
    assert numbers[-1] >= FRAMES - 2  # the last one may have come after the last instant
    late_s = starts_s["audio"] - origin_s
    assert tone_hz(clip.waveform_S[round(late_s * 16000) :]) == [400, 600, 800]
    assert clip.num_bad_packets == 0
    assert clip.duration_s == pytest.approx(max(shown_s[-1] + 0.04, late_s + AUDIO_SECONDS), abs=0.1)


def write(path: Path, **plan: Any) -> list[int]:
    """Renders a plan -> the times of its frames in ms."""
    times = plan.pop("frame_times", CONSTANT)
    time_base = plan.get("time_base", Fraction(1, 1000))
    plan["waveform"] = steps(seconds=AUDIO_SECONDS, rate=plan.get("audio_rate", 48000))
    write_media(path, frame_times=[round(Fraction(time, 1000) / time_base) for time in times], **plan)
    return times


PLANS = [(name, timing) for name in FORMATS for timing in TIMINGS if (name, timing) not in IMPOSSIBLE]
# AAC keeps nothing above 120 Hz of the channel for low frequencies.
MIXED = [
    (name, mix)
    for name in ("h264-aac.mp4", "h264-flac.mkv")
    for mix in MIXES
    if (name, mix) != ("h264-aac.mp4", "5.1, low frequencies alone")
]


@pytest.mark.parametrize(("name", "timing"), PLANS)
def test_format_and_timing(tmp_path, name, timing):
    times = write(tmp_path / name, **FORMATS[name] | TIMINGS[timing])
    check(tmp_path / name, frame_times=times)


@pytest.mark.parametrize(("name", "mix"), MIXED)
def test_channels(tmp_path, name, mix):
    times = write(tmp_path / name, **FORMATS[name] | MIXES[mix])
    check(tmp_path / name, frame_times=times)


@pytest.mark.parametrize("matrix", MATRICES, ids=str)
def test_display_matrix(tmp_path, matrix):
    path = tmp_path / "turned.mp4"
    times = write(path, **FORMATS["h264-aac.mp4"], image=lambda number: stored_for(stamped_frame(number), matrix))
    check(set_display_matrix(path, matrix), frame_times=times)
