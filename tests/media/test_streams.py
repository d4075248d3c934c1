"""Which streams of a file are taken, and how long they are, whatever its header and its other streams say."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.media_files import stamped_frame, stamps, steps, tone_hz, write_media

from avcap.errors import MediaError
from avcap.media import read_clip

TIMES = [40 * number for number in range(75)]  # 3 s
WAVE = steps(seconds=3)


def with_subtitles(path: Path, *, kind: str = "srt", end_s: int = 3600) -> Path:
    """File -> the same with subtitles beside, the last of which ends at `end_s`."""
    words = path.with_name("words.srt")
    clock = f"{end_s // 3600:02}:{end_s // 60 % 60:02}:{end_s % 60:02}"
    words.write_text(f"1\n00:00:00,000 --> 00:00:01,000\none\n\n2\n00:00:02,000 --> {clock},000\ntwo\n\n")
    out = path.with_name(f"with_{path.name}")
    with av.open(str(path)) as source, av.open(str(words)) as text, av.open(str(out), "w") as target:
        streams = {stream: target.add_stream_from_template(stream) for stream in source.streams}
        streams[text.streams[0]] = target.add_stream_from_template(text.streams[0])
        packets = [packet for container in (source, text) for packet in container.demux() if packet.size]
        for packet in sorted(packets, key=lambda packet: (packet.dts or 0) * packet.time_base):
            packet.stream = streams[packet.stream]
            target.mux(packet)
    return out


def test_subtitles_do_not_make_a_video_longer(tmp_path):
    path = with_subtitles(write_media(tmp_path / "a.mkv", frame_times=TIMES, waveform=WAVE))
    with av.open(str(path)) as container:
        assert container.duration > 3599e6  # what the header says
    for options in ({}, {"max_frames": 2}, {"with_audio": False}, {"interval_s": (0.0, 5000.0)}):
        clip = read_clip(path, **options)
        assert clip.duration_s == pytest.approx(3.0, abs=0.05), options
        assert stamps(clip.frames_THWC) == ([0, 50] if "max_frames" in options else [0, 25, 50]), options


@pytest.mark.parametrize("suffix", ["mkv", "webm"])
@pytest.mark.parametrize("header_s", [3600.0, 0.5])
def test_the_length_is_that_of_the_packets_and_not_of_the_header(tmp_path, suffix, header_s):
    codecs = {"video_codec": "libvpx", "audio_codec": "libopus"} if suffix == "webm" else {}
    path = write_media(tmp_path / f"a.{suffix}", frame_times=TIMES, waveform=WAVE, **codecs)
    data = path.read_bytes()
    start = data.index(b"\x44\x89\x88") + 3  # Duration, 8 bytes, in ms
    data = data[:start] + struct.pack(">d", header_s * 1000) + data[start + 8 :]
    path.write_bytes(data.replace(b"DURATION", b"DURATIOX"))  # without the tags that have the lengths of streams
    for options in ({}, {"max_frames": 2}):
        clip = read_clip(path, **options)
        assert clip.duration_s == pytest.approx(3.0, abs=0.05)
        assert stamps(clip.frames_THWC) == ([0, 50] if options else [0, 25, 50])
    assert tone_hz(read_clip(path).waveform_S) == [400, 600, 800]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "flv"])
def test_audio_that_goes_on_is_kept_and_frames_keep_to_the_video(tmp_path, suffix):
    codec = {"mkv": "flac"}.get(suffix, "aac")
    path = write_media(tmp_path / f"a.{suffix}", frame_times=TIMES, waveform=steps(seconds=6.1), audio_codec=codec)
    clip = read_clip(path, fps=100, max_frames=3)
    # spread from the first to the last of some 300 instants in 3 s, not over 6 s
    assert clip.frame_times_T[-1] == pytest.approx(3.0, abs=0.1)
    assert clip.duration_s == pytest.approx(6.1, abs=0.1)
    assert tone_hz(clip.waveform_S) == [400, 600, 800, 1000, 1200, 1400]


def renamed(path: Path, *names: tuple[bytes, bytes]) -> Path:
    data = path.read_bytes()
    for old, new in names:
        assert old in data
        data = data.replace(old, new)
    path.write_bytes(data)
    return path


def test_what_can_be_decoded_is_captioned_and_the_rest_is_named(tmp_path):
    def write(name: str) -> Path:
        return write_media(
            tmp_path / name, frame_times=TIMES, video_codec="libvpx", waveform=WAVE, audio_codec="libopus"
        )

    no_audio = read_clip(renamed(write("a.mkv"), (b"A_OPUS", b"A_XPUS")))
    assert (no_audio.has_video, no_audio.has_audio) == (True, False)
    assert stamps(no_audio.frames_THWC) == [0, 25, 50]
    assert any("audio is in" in note and "left out" in note for note in no_audio.notes)
    no_video = read_clip(renamed(write("b.mkv"), (b"V_VP8", b"V_XP8")))
    assert (no_video.has_video, no_video.has_audio) == (False, True)
    assert tone_hz(no_video.waveform_S) == [400, 600, 800]
    with pytest.raises(MediaError, match=r"nothing that can be decoded \(its video .* its audio"):
        read_clip(renamed(write("c.mkv"), (b"A_OPUS", b"A_XPUS"), (b"V_VP8", b"V_XP8")))


def test_a_stream_without_a_decoder_gives_way_to_another_and_is_named(tmp_path):
    path = tmp_path / "two.mov"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream(codec, rate=48000, layout="mono") for codec in ("pcm_s16le", "aac")]
        for stream in streams:
            fmt = stream.codec_context.format.name
            wave_1S = WAVE[None] if fmt == "fltp" else np.round(WAVE[None] * 32767).astype(np.int16)
            size = stream.codec_context.frame_size or 4096
            for first in range(0, wave_1S.shape[1], size):
                block = np.ascontiguousarray(wave_1S[:, first : first + size])
                frame = av.AudioFrame.from_ndarray(block, format=fmt, layout="mono")
                frame.sample_rate, frame.time_base, frame.pts = 48000, Fraction(1, 48000), first
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    clip = read_clip(renamed(path, (b"sowt", b"xpac")))
    assert tone_hz(clip.waveform_S) == [400, 600, 800]
    assert clip.notes == ("audio in xpac cannot be decoded here: other audio of the file was taken",)


def test_an_animated_webp_is_named_and_what_to_do(tmp_path):
    flags = bytes([2, 0, 0, 0])  # animation
    extended = b"VP8X" + struct.pack("<I", 10) + flags + bytes([15, 0, 0, 15, 0, 0])
    body = b"WEBP" + extended + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    path = tmp_path / "anim.webp"
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    with pytest.raises(MediaError, match="animated WebP, which FFmpeg cannot decode; make a GIF or an mp4"):
        read_clip(path)


def test_frames_too_large_for_their_file_are_refused_before_they_are_decoded(tmp_path):
    path = tmp_path / "big.gif"
    path.write_bytes(
        b"GIF89a"
        + struct.pack("<HH", 16000, 8000)
        + bytes([0x80, 0, 0])
        + bytes(6)
        + b",\0\0\0\0"
        + struct.pack("<HH", 16000, 8000)
        + b"\0\x02\x02D\x01\0;"
    )
    with pytest.raises(MediaError, match="16000x8000 pixels in a file of"):
        read_clip(path)


def test_more_frames_than_memory_should_hold_are_refused(tmp_path):
    path = write_media(
        tmp_path / "large.mp4", frame_times=TIMES, image=lambda number: stamped_frame(number).repeat(40, axis=0)
    )
    # 300 000 frames of 1280 x 128 x 3 bytes: 137 GiB
    with pytest.raises(MediaError, match=r"137 GiB, expected at most 8 GiB"):
        read_clip(path, fps=100_000, max_frames=10**6)


def test_more_audio_than_memory_should_hold_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "long.mkv"
    with av.open(str(path), "w") as container:
        audio = container.add_stream("flac", rate=8000, layout="mono")
        for hour in range(6):  # packets 1 s apart would be 21 600 of them; the length is what counts
            frame = av.AudioFrame.from_ndarray(np.ones((1, 4608), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = 8000, Fraction(1, 8000), hour * 3600 * 8000
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    with pytest.raises(MediaError, match=r"5\.0 h of audio, expected at most 4 h at once"):
        read_clip(path)


def test_a_file_that_is_cut_off_or_still_written_gives_what_is_there_and_says_so(tmp_path):
    path = write_media(tmp_path / "growing.mkv", frame_times=[40 * index for index in range(150)])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    clip = read_clip(path)
    assert stamps(clip.frames_THWC) == [25 * second for second in range(len(clip.frames_THWC))]
    assert 3 <= clip.duration_s < 4.5 and len(clip.frames_THWC) >= 3
    (note,) = clip.notes
    assert note.startswith("its header says 6.0 s, its packets end at")
