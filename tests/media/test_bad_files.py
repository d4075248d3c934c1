"""Bad and hostile files: one line that says what is wrong, or what could be read with the damage counted."""

import os
from pathlib import Path

import numpy as np
import pytest
from support.media_files import stamps, tone, write_media

from avcap.errors import MediaError
from avcap.media import read_clip


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """8 s of picture and sound whose index lies at its head."""
    return write_media(
        tmp_path_factory.mktemp("good") / "good.mp4",
        frame_times=[40 * index for index in range(200)],
        waveform=tone(seconds=8, rate=48000),
        audio_codec="aac",
        container_options={"movflags": "faststart"},
    )


def links(target: Path) -> dict[str, str]:
    """File -> files of all kinds that only point to it."""
    header = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:8\n"
    playlist = f"{header}#EXTINF:8,\n{target}\n#EXT-X-ENDLIST\n"
    manifest = (
        '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT8S">'
        f'<Period><AdaptationSet><Representation id="1" bandwidth="1"><BaseURL>{target}</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>"
    )
    session = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    return {
        "list.m3u8": playlist,
        "playlist_called.mp4": playlist,
        "list.m3u": f"{target}\n",
        "list.ffconcat": f"ffconcat version 1.0\nfile {target}\n",
        "concat_called.mp4": f"ffconcat version 1.0\nfile {target}\n",
        "manifest.mpd": manifest,
        "session.sdp": session,
        "drawing.svg": f'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="{target}"/></svg>',
    }


@pytest.mark.parametrize("name", links(Path()))
def test_a_file_that_points_to_others_is_refused(good, tmp_path, name):
    path = tmp_path / name
    path.write_text(links(good)[name])
    with pytest.raises(MediaError, match=f"{name}: got a file that cannot be opened as media"):
        read_clip(path)


@pytest.mark.parametrize("content", [b"plain words, no film\n" * 500, bytes(range(256)) * 100], ids=["text", "bytes"])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    path = tmp_path / "film.mp4"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"film.mp4: got .* expected"):
        read_clip(path)


def test_subtitles_alone_are_neither_video_nor_audio(tmp_path):
    path = tmp_path / "words.srt"
    path.write_text("1\n00:00:00,000 --> 00:00:02,000\nhello\n\n")
    with pytest.raises(MediaError, match="no picture and no sound stream"):
        read_clip(path)


def test_only_regular_files_that_hold_something_are_opened(tmp_path):
    (tmp_path / "empty.mp4").touch()
    os.mkfifo(tmp_path / "pipe.mp4")  # reading it would wait for ever
    for name, reason in [
        ("empty.mp4", "an empty file"),
        ("pipe.mp4", "pipe"),
        (".", "a directory"),
        ("none.mp4", "No such"),
    ]:
        with pytest.raises(MediaError, match=reason):
            read_clip(tmp_path / name)


@pytest.mark.parametrize(
    "address", ["file:{}", "concat:{0}|{0}", "subfile,,start,0,end,0,,:{}", "http://127.0.0.1:9/{}", "fd:", "pipe:0"]
)
def test_addresses_mean_nothing(good, monkeypatch, address):
    monkeypatch.chdir(good.parent)
    with pytest.raises(MediaError, match="No such file"):
        read_clip(address.format(good.name))


def test_an_image_pattern_is_only_a_name(tmp_path):
    for index in range(3):
        write_media(tmp_path / f"{index}.png", frame_times=[0], video_codec="png", pix_fmt="rgb24")
    with pytest.raises(MediaError, match="No such file"):
        read_clip(tmp_path / "%d.png")
    (tmp_path / "0.png").rename(tmp_path / "%d.png")  # and a file of that very name is that one file
    assert len(read_clip(tmp_path / "%d.png", fps=25).frames_THWC) == 1


def test_a_file_without_its_index_is_refused(good, tmp_path):
    data = good.read_bytes()
    path = tmp_path / "headless.mp4"
    path.write_bytes(data[: data.index(b"moov")])
    with pytest.raises(MediaError, match=r"headless\.mp4: got a file that cannot be opened"):
        read_clip(path)


def test_a_truncated_file_gives_its_readable_part_and_no_repeated_frames(good, tmp_path):
    data = good.read_bytes()
    path = tmp_path / "truncated.mp4"
    path.write_bytes(data[: len(data) * 6 // 10])
    clip = read_clip(path, fps=25, max_frames=1000)
    numbers = stamps(clip.frames_THWC)
    assert 50 < len(numbers) < 190
    # Right up to the cut, but for a frame or two whose bytes are gone, shown as the one before them.
    assert numbers[:100] == list(range(100))
    assert np.abs(np.array(numbers) - np.arange(len(numbers))).max() <= 3
    assert clip.num_bad_packets >= 1
    assert clip.duration_s == pytest.approx(8.0)
    assert clip.frame_times_T[-1] <= clip.end_s < 7.5


def test_corrupt_bytes_are_survived_and_counted(good, tmp_path):
    data = np.frombuffer(good.read_bytes(), np.uint8).copy()
    rng = np.random.default_rng(0)
    data[rng.integers(len(data) // 3, len(data), 60)] ^= 255
    path = tmp_path / "corrupt.mp4"
    path.write_bytes(data.tobytes())
    clip = read_clip(path)
    assert len(clip.frames_THWC) == 8
    assert 7.5 * 16000 < len(clip.waveform_S) <= 8 * 16000
    assert clip.num_bad_packets > 0


def test_a_video_stream_without_a_readable_frame_is_an_error(good, tmp_path):
    data = bytearray(good.read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = bytes(len(data) - start)
    path = tmp_path / "blank.mp4"
    path.write_bytes(bytes(data))
    with pytest.raises(MediaError, match="got 0 frames"):
        read_clip(path)


@pytest.mark.parametrize("seed", range(20))
def test_no_damage_is_worse_than_a_media_error(good, tmp_path, seed):
    """Bytes changed anywhere, header too: a Clip or a MediaError, never another exception."""
    rng = np.random.default_rng(seed)
    data = np.frombuffer(good.read_bytes(), np.uint8).copy()
    data[rng.integers(0, 6000 if seed % 2 else len(data), 25)] = rng.integers(0, 256, 25)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data.tobytes())
    try:
        clip = read_clip(path)
    except MediaError as error:
        assert str(error).startswith(str(path))
    else:
        assert np.isfinite(clip.waveform_S).all()
