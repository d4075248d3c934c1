"""`avcap rebirth` and `avcap average` as a user runs them, on the example videos."""

import json
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = ("--set", "loop.num_steps=1", "--set", "batch_size=2", "--set", "mix.modalities=0")


@pytest.mark.slow
def test_rebirth_ends_with_a_checkpoint(run, tmp_path):
    words = ("rebirth", "tiny_rebirth", "--teacher", "tiny-base", "--data", EXAMPLES / "truth.jsonl")
    code, out, err = run(*words, "--out", tmp_path / "r", *SMALL)
    assert code == 0, err
    assert out.strip().endswith("r/checkpoint") and "are good enough" in err
    assert run(*words, "--out", tmp_path / "r", *SMALL)[1] == out  # again: there is nothing left to do
    code, _, err = run(*words, "--out", tmp_path / "r", *SMALL, "--set", "batch_size=3")
    assert code == 2 and "another configuration" in err


def test_a_folder_of_videos_is_a_pool(run, tmp_path):
    words = ("rebirth", "tiny_rebirth", "--teacher", "tiny-base", "--data", EXAMPLES)
    (tmp_path / "videos").mkdir()
    for clip in sorted(EXAMPLES.glob("*.mp4"))[:2]:
        (tmp_path / "videos" / clip.name).symlink_to(clip)
    words = (*words[:-1], tmp_path / "videos", "--out", tmp_path / "r", *SMALL, "--set", "mix.questions=0")
    code, _, err = run(*words)
    assert code == 0 and "2 of 2 are good enough" in err


def test_average_writes_a_model_that_commands_take(run, tmp_path):
    code, out, err = run("average", "tiny-base", "tiny-sft", "--weights", "1,1", "--out", tmp_path / "mean")
    assert code == 0 and out.strip() == str(tmp_path / "mean"), err
    assert json.loads((tmp_path / "mean" / "lineage.json").read_text())["stage"] == "average"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("rebirth", "tiny_rounds", "--teacher", "tiny-base"), "such as tiny_rebirth"),
        (("rebirth", "salmonn2_7b_rebirth", "--teacher", "tiny-base"), "give --data"),
        (("rebirth", "tiny_rebirth", "--teacher", "nowhere"), "nowhere"),
        (("average", "tiny-base", "--weights", "a", "--out", "x"), "numbers with commas"),
    ],
)
def test_bad_input_is_one_line(run, words, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*words)
    assert code == 2 and out == "" and expected in err and len(err.splitlines()) == 1
