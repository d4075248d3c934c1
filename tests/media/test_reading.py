"""Exact frames at exact instants, and sound to the sample, out of the kinds of files there are."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from support.media_files import HEIGHT, WIDTH, read_stamp, stamped_frame, stamps, tone, write_media

from avcap.errors import MediaError, UserError
from avcap.media import read_clip

SECONDS = 8
FRAMES = 200
EVEN = [40 * number for number in range(FRAMES)]  # ms: 25 frames a second
UNEVEN_STEPS = np.random.default_rng(1).integers(5, 80, FRAMES)
UNEVEN = (np.cumsum(UNEVEN_STEPS) - UNEVEN_STEPS[0]).tolist()
NTSC = {"frame_times": range(240), "time_base": Fraction(1001, 30000), "rate": Fraction(30000, 1001)}
TV = {"frame_times": range(FRAMES), "time_base": Fraction(1, 25)}
AUDIO = tone(seconds=SECONDS, rate=48000)
AAC = {"waveform": AUDIO, "audio_codec": "aac"}
OPUS = {"waveform": AUDIO, "audio_codec": "libopus"}
QUIET_X265 = "log-level=none"

KINDS = {
    "even.mp4": {"frame_times": EVEN, **AAC},
    "ntsc.mp4": {**NTSC, **AAC},
    "ntsc.mkv": {**NTSC, "waveform": AUDIO},
    "uneven.mp4": {"frame_times": UNEVEN, **AAC},
    "uneven.mkv": {"frame_times": UNEVEN, "waveform": AUDIO},
    "uneven.ts": {"frame_times": UNEVEN, **AAC},
    "fragmented.mp4": {"frame_times": EVEN, **AAC, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "vp9.webm": {
        "frame_times": EVEN,
        **OPUS,
        "video_codec": "libvpx-vp9",
        "video_options": {"deadline": "realtime", "cpu-used": "8"},
    },
    "hevc_layers.mp4": {
        "frame_times": UNEVEN,
        "video_codec": "libx265",
        "video_options": {"x265-params": f"{QUIET_X265}:temporal-layers=3:bframes=7"},
    },
    "hevc_open_groups.mkv": {
        "frame_times": EVEN,
        "video_codec": "libx265",
        "video_options": {"x265-params": f"{QUIET_X265}:open-gop=1:keyint=12:bframes=4"},
    },
    "open_groups.ts": {"frame_times": EVEN, "video_options": {"x264-params": "open-gop=1:bframes=3:keyint=12"}},
    # "Keyframes" that do not stand alone: the picture is refreshed column by column.
    "refresh.mp4": {"frame_times": EVEN, "video_options": {"x264-params": "intra-refresh=1:keyint=20"}},
    "refresh.ts": {"frame_times": EVEN, "video_options": {"x264-params": "intra-refresh=1:keyint=20"}},
    "mpeg2.mpg": {
        **TV,
        "video_codec": "mpeg2video",
        "video_options": {"bf": "2"},
        "audio_codec": "mp2",
        "waveform": AUDIO,
    },
    "mjpeg.avi": {**TV, "video_codec": "mjpeg", "pix_fmt": "yuvj420p", "audio_codec": "pcm_s16le", "waveform": AUDIO},
    "animated.gif": {**TV, "video_codec": "gif", "pix_fmt": "rgb8"},
    "late_video.mkv": {"frame_times": [time + 1200 for time in EVEN], "waveform": AUDIO},
}
# These formats say in which order frames are shown, but not when: frame k is shown at k / 25 s.
UNTIMED = {
    "h264.avi": {**TV, "audio_codec": "mp3", "waveform": AUDIO},
    "mpeg4.avi": {**TV, "video_codec": "mpeg4", "video_options": {"bf": "2"}},
    "raw.h264": TV,
}
REQUESTS = [
    {"fps": 1},
    {"fps": 7.3},
    {"fps": 60, "max_frames": 10_000},
    {"fps": 0.3},
    {"fps": 2, "interval_s": (3.3, 6.6), "lead_in": True},
    {"fps": 5, "interval_s": (6.0, 6.2)},
]


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("media")


def all_frames(path: Path) -> tuple[np.ndarray, list[int]]:
    """File -> time in s after the earliest stream start, and number, of every frame, by decoding them all."""
    with av.open(str(path)) as container:
        starts = [s.start_time * s.time_base for s in container.streams if s.start_time is not None]
        frames = [(frame.pts, read_stamp(frame.to_ndarray(format="rgb24"))) for frame in container.decode(video=0)]
        tick = container.streams.video[0].time_base
    times_s = [float(pts * tick - min(starts)) for pts, _ in frames]
    return np.array(times_s), [number for _, number in frames]


def assert_right_frames(path: Path, times_s: np.ndarray, numbers: list[int]) -> None:
    for request in REQUESTS:
        clip = read_clip(path, **request)
        shown = np.searchsorted(times_s, clip.frame_times_T + 1e-7, side="right") - 1
        assert stamps(clip.frames_THWC) == [numbers[max(0, index)] for index in shown], request
        if request.get("lead_in"):  # one step of 1/2 s before 3.3 s
            assert (
                read_stamp(clip.lead_in_frame_HWC)
                == numbers[int(np.searchsorted(times_s, 2.8 + 1e-7, side="right")) - 1]
            )
        assert clip.num_bad_packets == 0


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_is_the_one_shown_at_its_instant(files, name):
    path = write_media(files / name, **KINDS[name])
    assert_right_frames(path, *all_frames(path))


@pytest.mark.parametrize("name", UNTIMED)
def test_frames_without_display_times_are_counted(files, name):
    path = write_media(files / name, **UNTIMED[name])
    assert_right_frames(path, np.arange(FRAMES) / 25, list(range(FRAMES)))


@pytest.mark.parametrize("name", ["even.mp4", "ntsc.mkv", "uneven.ts", "fragmented.mp4", "vp9.webm", "mjpeg.avi"])
def test_audio_of_an_interval_is_a_slice_of_the_whole(files, name):
    path = write_media(files / f"sliced_{name}", **KINDS[name])
    whole_S = read_clip(path, with_video=False).waveform_S
    part_S = read_clip(path, interval_s=(3.3, 6.6)).waveform_S
    assert len(part_S) == 52800  # 3.3 s * 16 000
    np.testing.assert_allclose(part_S, whole_S[52800 : 2 * 52800], atol=2e-4)


def test_audio_is_the_one_that_was_put_in(files):
    path = write_media(files / "tone16k.mkv", waveform=tone(seconds=3, rate=16000), audio_rate=16000, layout="mono")
    clip = read_clip(path)
    np.testing.assert_allclose(clip.waveform_S, tone(seconds=3, rate=16000), atol=1e-4)
    assert (clip.has_video, clip.has_audio, len(clip.frames_THWC)) == (False, True, 0)


def test_late_audio_is_padded_in_front(files):
    path = write_media(files / "late.mkv", frame_times=EVEN, waveform=AUDIO[: 48000 * 2], audio_start=Fraction(3, 2))
    waveform_S = read_clip(path).waveform_S
    assert not waveform_S[:24000].any()  # 1.5 s * 16 000
    assert np.abs(waveform_S[24000:24100]).max() > 0.01
    assert len(waveform_S) == 56000  # ends at 1.5 + 2 s, and is not padded up to the end of the picture
    assert len(read_clip(path, interval_s=(1.0, 2.0)).waveform_S) == 16000


def test_surround_audio_becomes_mono_without_clipping(files):
    path = write_media(files / "surround.mp4", waveform=2 * AUDIO, audio_codec="aac", layout="5.1")
    waveform_S = read_clip(path).waveform_S
    assert waveform_S.dtype == np.float32
    assert 0.5 < np.abs(waveform_S).max() <= 1.0


def test_frames_hidden_by_an_edit_list_are_not_shown(files):
    # Muxed 3 s early, so that an edit list hides the first 75 of 200 frames.
    path = write_media(files / "edit.mp4", frame_times=EVEN, **AAC, shift_s=-3)
    clip = read_clip(path)
    assert stamps(clip.frames_THWC) == [75, 100, 125, 150, 175]
    assert clip.duration_s == pytest.approx(5.0)
    assert stamps(read_clip(path, interval_s=(2.0, 3.0)).frames_THWC) == [125]


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotated_video_comes_upright(files, rotation):
    path = write_media(
        files / f"rotated{rotation}.mp4",
        frame_times=EVEN[:30],
        rotation=rotation,
        image=lambda number: np.ascontiguousarray(np.rot90(stamped_frame(number), -rotation // 90)),
    )
    clip = read_clip(path)
    assert clip.frames_THWC.shape == (2, HEIGHT, WIDTH, 3)
    assert stamps(clip.frames_THWC) == [0, 25]


def test_frame_size_is_pillows_bicubic_to_the_bit(files):
    path = write_media(files / "squash.mp4", frame_times=EVEN)
    source_THWC = read_clip(path).frames_THWC
    expected = [np.asarray(Image.fromarray(frame).resize((48, 40), Image.Resampling.BICUBIC)) for frame in source_THWC]
    np.testing.assert_array_equal(read_clip(path, frame_size=(40, 48)).frames_THWC, expected)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [("one.mp4", "libx264", "yuv420p"), ("one.png", "png", "rgb24"), ("one.jpg", "mjpeg", "yuvj420p")],
)
def test_a_single_video_is_one_frame(files, name, codec, pix_fmt):
    clip = read_clip(write_media(files / name, frame_times=[0], video_codec=codec, pix_fmt=pix_fmt))
    assert stamps(clip.frames_THWC) == [0]
    assert clip.frame_times_T.tolist() == [0.0]
    assert not clip.has_audio


def test_cover_art_is_no_video(files):
    cover, path = files / "cover.png", files / "song.mp3"
    write_media(cover, frame_times=[0], video_codec="png", pix_fmt="rgb24")
    with av.open(str(path), "w") as container, av.open(str(cover)) as image:
        audio = container.add_stream("mp3", rate=48000, layout="stereo")
        art = container.add_stream_from_template(image.streams.video[0])
        art.disposition = av.stream.Disposition.attached_pic
        silence = av.AudioFrame.from_ndarray(np.zeros((2, 1152), np.float32), format="fltp", layout="stereo")
        silence.sample_rate = 48000
        packets = [packet for _ in range(20) for packet in audio.encode(silence)]
        image = next(packet for packet in image.demux() if packet.size)
        image.stream = art
        for packet in [*packets, *audio.encode(None), image]:
            container.mux(packet)
    clip = read_clip(path)
    assert (clip.has_video, clip.has_audio) == (False, True)
    assert len(clip.waveform_S) > 0


def test_what_is_not_expected_is_not_decoded_but_known(files):
    path = write_media(files / "both.mp4", frame_times=EVEN[:50], waveform=AUDIO[:48000], audio_codec="aac")
    silent, unseen = read_clip(path, with_audio=False), read_clip(path, with_video=False)
    assert (len(silent.waveform_S), silent.has_audio) == (0, True)
    assert (len(unseen.frames_THWC), unseen.has_video) == (0, True)


def test_above_the_cap_frames_are_spread_over_the_span(files):
    path = write_media(files / "capped.mp4", frame_times=EVEN)
    # instants 0..7 s, three of them: 0, 3.5, 7 s, at 25 frames a second: frames 0, 87, 175
    clip = read_clip(path, max_frames=3)
    assert clip.frame_times_T.tolist() == [0, 3.5, 7]
    assert stamps(clip.frames_THWC) == [0, 87, 175]


def test_interval_is_cut_to_the_file(files):
    path = write_media(files / "cut.mp4", frame_times=EVEN)
    clip = read_clip(path, interval_s=(6.0, 60.0))
    assert (clip.start_s, clip.end_s) == (6.0, pytest.approx(8.0))
    assert clip.lead_in_frame_HWC is None


@pytest.mark.parametrize("interval_s", [(8.5, 9.0), (-1.0, 2.0), (3.0, 3.0), (4.0, 3.0), (float("nan"), 2.0)])
def test_an_interval_outside_the_file_names_the_duration(files, interval_s):
    path = files / "outside.mp4"
    if not path.exists():
        write_media(path, frame_times=EVEN)
    with pytest.raises(MediaError, match=r"outside.mp4: got the interval .* lasts 8.000 s"):
        read_clip(path, interval_s=interval_s)


def test_nothing_expected_is_an_error():
    with pytest.raises(UserError, match="expected one of them"):
        read_clip("any.mp4", with_video=False, with_audio=False)
