"""`avcap evaluate-qa`, `audit-audio` and `track` as a user runs them."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def daily_omni(tmp_path: Path, videos: Path) -> Path:
    """A folder in Daily-Omni's form with two videos, and a question about a third."""
    rows = [
        {
            "Question": "What do you hear?",
            "Choice": ["A. rain", "B. a bell", "C. a drum", "D. a knock"],
            "Answer": "B",
            "Type": "AV Event Alignment",
            "video_id": video,
            "video_duration": "30s",
        }
        for video in ("a", "b", "gone")
    ]
    folder = tmp_path / "daily"
    for video in ("a", "b"):
        (folder / "Videos" / video).mkdir(parents=True)
        (folder / "Videos" / video / f"{video}_video.mp4").write_bytes((videos / f"{video}.mp4").read_bytes())
    (folder / "qa.json").write_text(json.dumps(rows))
    return folder


def test_questions_of_a_benchmark(run, daily_omni, random_checkpoint, tmp_path):
    out = tmp_path / "out"
    words = ("evaluate-qa", "--model", random_checkpoint, "--data", daily_omni, "--out", out)
    code, stdout, stderr = run(*words)
    assert code == 1  # one question has no video
    assert "gone-2: no video called gone" in stderr and "Traceback" not in stderr
    heading, *rows = stdout.splitlines()
    assert heading.split() == ["kind", "questions", "chance", "generate", "logprobs"]
    assert rows[0].split()[:2] == ["all", "2"] and "0.25" in rows[0]  # four options
    assert rows[1].startswith("AV Event Alignment")
    assert rows[-1] == "2 questions about 2 videos, 1 unanswered"
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["unanswered"].keys() == {"gone-2"} and set(metrics["by_method"]) == {"generate", "logprobs"}
    again = run(*words)
    assert again[:2] == (code, stdout)
    code, _, stderr = run(*words, "--no-audio")
    assert code == 2 and "use_audio: got True there, False here" in stderr and stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("evaluate-qa", "--data", "nowhere", "--out", "o"), "nowhere: got no such file or folder"),
        (("evaluate-qa", "--data", ".", "--out", "o", "--format", "mmmu"), "got the format 'mmmu'"),
        (("evaluate-qa", "--data", ".", "--out", "o", "--no-audio", "--no-video"), "expected at least one of picture"),
        (("evaluate-qa", "--data", ".", "--out", "o", "--method", "guess"), "got '--method guess'"),
        (("audit-audio", "--data", ".", "--out", "o", "--clips", "1"), "expected at least 2"),
        (("audit-audio", "--data", "nowhere", "--out", "o", "--model", "gpt-17"), "no model of that name"),
        (("track", "nowhere.json", "--out", "o"), "nowhere.json: cannot be read"),
    ],
)
def test_bad_input_is_one_line(run, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, stdout, stderr = run(*words)
    assert (code, stdout) == (2, "") and message in stderr and stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())  # and nothing was written


def test_the_audio_of_any_videos_is_audited(run, random_checkpoint, videos, tmp_path):
    code, stdout, stderr = run("audit-audio", "--model", random_checkpoint, "--data", videos, "--out", tmp_path)
    audit = json.loads((tmp_path / "metrics.json").read_text())
    assert code == (0 if audit["uses_audio"] else 1)
    *_, last = stdout.splitlines()
    # a, b, c and short_audio have a picture and sound; silent and audio.m4a lack one of them
    assert last == f"{audit['verdict']} (4 clips, 2 could not be used)"
    assert "silent.mp4" in stderr and "audio.m4a" in stderr
    assert len((tmp_path / "texts.jsonl").read_text().splitlines()) == 4 * 4  # a caption a clip and condition


def test_figures_are_tracked(run, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is an extra")
    (tmp_path / "metrics.json").write_text(json.dumps({"global": {"missing_rate": {"value": 0.5}}}))
    code, stdout, _ = run("track", tmp_path / "metrics.json", "--out", tmp_path / "board")
    assert code == 0 and stdout.endswith("board: 1 steps of 1 figures\n")
    assert list((tmp_path / "board").glob("events.out.*"))
