"""`avcap caption --official` and `avcap audit-official` as a user runs them."""

import json
import math

import pytest
from support import ASSETS

from avcap.errors import UserError
from avcap.infer.captioner import Captioner
from avcap.infer.official.audit import audit_official
from avcap.model.checkpoint.load import load
from avcap.model.interleave import VISUAL_ID

V1, PLUS = ASSETS / "v1_av_31s", ASSETS / "plus_av_10s"


@pytest.fixture(scope="module")
def video(videos):
    return videos / "a.mp4"  # 3 s, 5 frames a second, 64 x 64


@pytest.fixture
def rows(tmp_path, run):
    """Captions a video -> its record."""

    def caption(video, *words):
        out = tmp_path / "captions.jsonl"
        code, _, err = run("caption", video, "--max-new-tokens", 2, "--out", out, *words)
        assert code == 0, err
        return json.loads(out.read_text().splitlines()[-1])

    return caption


def test_v1_as_official_hears_the_silence_of_the_whole_chunk(video, rows, run, tmp_path):
    row = rows(video, "--model", V1, "--official")
    # 3 frames of 13 * 14 tokens; all 60 windows of the padded 30 s
    assert row["seen"] | {"bad_packets": 0} == {
        "frames": 3,
        "audio_seconds": 3.0,
        "visual_tokens": 546,
        "audio_tokens": 60,
        "audio": None,
        "bad_packets": 0,
        "notes": [],
    }
    assert row["checkpoint"].endswith("+official")
    code, _, err = run("caption", video, "--max-new-tokens", 2, "--out", tmp_path / "captions.jsonl", "--model", V1)
    assert code == 2 and "choose another --out" in err


@pytest.mark.slow
def test_plus_as_official_takes_all_frames_of_a_short_file(video, rows):
    # 64 frames at least, and the file has 15; 4 tokens for each of 8 grids of 56 x 56
    seen = rows(video, "--model", PLUS, "--official")["seen"]
    assert (seen["frames"], seen["visual_tokens"], seen["audio_tokens"]) == (15, 32, 60)


def test_what_was_never_official_is_refused(video, random_checkpoint, run):
    code, _, err = run("caption", video, "--model", random_checkpoint, "--official")
    assert code == 2 and "a model that was never published (it has frame_difference" in err
    code, _, err = run("audit-official", video, "--model", random_checkpoint)
    assert code == 2 and "leave out --official" in err


def test_v1_as_official_captions_a_part(video, rows):
    row = rows(video, "--model", V1, "--official", "--start", 1, "--end", 3)
    # frames 5 and 10 of 15, 13 * 14 tokens each; the sound of 2 s and 28 s of silence
    seen = {"frames": 2, "audio_seconds": 2.0, "visual_tokens": 364, "audio_tokens": 60, "bad_packets": 0}
    seen |= {"audio": None, "notes": []}
    assert row["seen"] == seen
    assert (row["interval_s"], row["checkpoint"].endswith("+official")) == ([1.0, 3.0], True)
    assert row["prompt"] == "Describe what happens from 1s to 3s."


def test_v1_as_official_captions_a_part_in_python(videos):
    captioner = Captioner(V1, official=True)
    to_the_end = captioner.caption(videos / "a.mp4", interval_s=(1, math.inf), max_new_tokens=2)
    assert (to_the_end.seen.frames, to_the_end.seen.audio_seconds) == (2, 2.0)
    looked = captioner.caption(videos / "a.mp4", interval_s=(0, 2), use_audio=False, max_new_tokens=2)
    assert (looked.seen.frames, looked.seen.audio_tokens) == (3, 0)  # frames 0, 5, 10
    with pytest.raises(UserError, match="expected one within the file"):
        captioner.caption(videos / "a.mp4", interval_s=(1, 9), max_new_tokens=2)


def test_parts_of_a_video_are_refused_for_plus(video, run, tmp_path):
    out = tmp_path / "captions.jsonl"
    code, _, err = run("caption", video, "--model", PLUS, "--official", "--end", 2, "--out", out)
    assert code == 2 and "expected a whole video: its published code knows no parts of videos" in err
    assert not out.exists()
    code, _, err = run("audit-official", video, "--model", PLUS, "--end", 2)
    assert code == 2 and "its published code knows no parts of videos" in err
    with pytest.raises(UserError, match="knows no parts"):
        Captioner(PLUS, official=True).caption(video, interval_s=(0, 2))


def test_times_written_in_a_part_without_audio_count_from_its_start(videos):
    official, _ = audit_official(str(videos / "silent.mp4"), V1, interval_s=(0, 1))
    assert official.frame_times_s == [0, 1]  # frames 0 and 5 of 10; the whole 2 s look at the same two
    _, tokenizer = load(V1)
    first = official.ids.index(VISUAL_ID)
    texts = []
    for _ in range(2):
        first += 13 * 14
        texts.append(tokenizer.decode(official.ids[first : first + 3]))
        first += 3
    assert texts == ["0.5", "1.0"]  # 1 s / 2 frames, and twice that


def test_audit_of_a_part(video, run, tmp_path):
    words = ("--start", 1, "--end", 3, "--out", tmp_path / "audit.png")
    code, out, err = run("audit-official", video, "--model", V1, *words)
    assert code == 0, err
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "frame times 1, 2 s 1, 2 s" in lines and "audio 2.000 s 2.000 s" in lines
    # 4 of 60 tokens are of real sound; all 30 before frame 2 as published, 2 a second by default
    assert "audio tokens 60, of them 56 of silence that was added 4, of them 0 of silence that was added" in lines
    (row,) = [line for line in lines if line.startswith("2 ")]
    assert "2 tokens after 1.00 s" in row and row.endswith("2 tokens after 2.00 s")
    assert (tmp_path / "audit.png").stat().st_size > 10_000


def test_audit_of_v1(video, run, tmp_path):
    plot = tmp_path / "audit.png"
    code, out, _ = run("audit-official", video, "--model", V1, "--out", plot)
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "audio tokens 60, of them 54 of silence that was added 6, of them 0 of silence that was added" in lines
    # 20 tokens after each of 3 frames: second 2 still after the first; by default 2 after its own
    (row,) = [line for line in lines if line.startswith("2 ")]
    assert row.count("2 tokens") == 2 and row.endswith("after 2.00 s") and "after 0.00 s" in row
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_audit_of_plus(video, run, tmp_path):
    code, out, _ = run("audit-official", video, "--model", PLUS, "--out", tmp_path / "audit.png", "--prompt", "What?")
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    # by default 10 instants a second, some of which show the same frame
    assert "frames 15 30" in lines
    assert "seconds of a grid 0.4000 0.2000" in lines  # 2 / (15 / 3), 2 * 0.1
    assert "Positions (time, height, width)" in lines
    assert (tmp_path / "audit.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("name", "model", "row"), [("audio.m4a", V1, "visual tokens 0 0"), ("silent.mp4", PLUS, "frames 10 20")]
)
def test_audit_of_one_modality(videos, run, tmp_path, name, model, row):
    code, out, _ = run("audit-official", videos / name, "--model", model, "--out", tmp_path / "audit.png")
    assert code == 0
    assert row in [" ".join(line.split()) for line in out.splitlines()]
    assert (tmp_path / "audit.png").exists()
