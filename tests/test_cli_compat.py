"""`avcap caption --compat official` and `avcap audit-compat` as a user runs them."""

import json
from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"
V1, PLUS = DATA / "v1_av_31s", DATA / "plus_av_10s"


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


def test_v1_as_published_hears_the_silence_of_the_whole_chunk(video, rows, run, tmp_path):
    row = rows(video, "--model", V1, "--compat", "official")
    # 3 frames of 13 * 14 tokens; all 60 windows of the padded 30 s
    assert row["seen"] | {"bad_packets": 0} == {
        "frames": 3, "audio_seconds": 3.0, "visual_tokens": 546, "audio_tokens": 60, "bad_packets": 0,
        "notes": [],
    }  # fmt: skip
    assert row["checkpoint"].endswith("+official")
    code, _, err = run("caption", video, "--max-new-tokens", 2, "--out", tmp_path / "captions.jsonl", "--model", V1)
    assert code == 2 and "choose another --out" in err


def test_plus_as_published_takes_all_frames_of_a_short_file(video, rows):
    # 64 frames at least, and the file has 15; 4 tokens for each of 8 grids of 56 x 56
    seen = rows(video, "--model", PLUS, "--compat", "official")["seen"]
    assert (seen["frames"], seen["visual_tokens"], seen["audio_tokens"]) == (15, 32, 60)


def test_what_was_never_published_is_refused(video, random_checkpoint, run):
    code, _, err = run("caption", video, "--model", random_checkpoint, "--compat", "official")
    assert code == 2 and "a model that was never published (it has frame_difference" in err
    code, _, err = run("audit-compat", video, "--model", random_checkpoint)
    assert code == 2 and "leave out --compat" in err


def test_parts_of_a_video_are_refused(video, run):
    code, _, err = run("caption", video, "--model", V1, "--compat", "official", "--end", 2)
    assert code == 2 and "wanted a whole video" in err


def test_audit_of_v1(video, run, tmp_path):
    picture = tmp_path / "audit.png"
    code, out, _ = run("audit-compat", video, "--model", V1, "--out", picture)
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "sound tokens 60, of them 54 of silence that was added 6, of them 0 of silence that was added" in lines
    # 20 tokens after each of 3 frames: second 2 still after the first; by default 2 after its own
    (row,) = [line for line in lines if line.startswith("2 ")]
    assert row.count("2 tokens") == 2 and row.endswith("after 2.00 s") and "after 0.00 s" in row
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_audit_of_plus(video, run, tmp_path):
    code, out, _ = run("audit-compat", video, "--model", PLUS, "--out", tmp_path / "audit.png", "--prompt", "What?")
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    # by default 10 instants a second, some of which show the same frame
    assert "frames 15 30" in lines
    assert "seconds of a grid 0.4000 0.2000" in lines  # 2 / (15 / 3), 2 * 0.1
    assert "Positions (time, height, width)" in lines
    assert (tmp_path / "audit.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("name", "model", "row"), [("sound.m4a", V1, "picture tokens 0 0"), ("silent.mp4", PLUS, "frames 10 20")]
)
def test_audit_of_one_modality(videos, run, tmp_path, name, model, row):
    code, out, _ = run("audit-compat", videos / name, "--model", model, "--out", tmp_path / "audit.png")
    assert code == 0
    assert row in [" ".join(line.split()) for line in out.splitlines()]
    assert (tmp_path / "audit.png").exists()
