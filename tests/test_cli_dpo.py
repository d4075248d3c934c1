"""`avcap dpo` as a user runs it: one round on pairs from a file, about the example videos."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from avcap.infer.find_checkpoint import find_checkpoint
from avcap.model.average import read_weights
from avcap.records import PreferencePair, WorldTruth, read_jsonl, write_jsonl

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = ("--set", "dpo.epochs=4", "--set", "dpo.batch_size=4", "--set", "dpo.loss.guidance_weight=0")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """For each example video: the true caption against the same without its last sentence."""
    found = [
        PreferencePair(
            sample_id=truth.clip_id,
            video=truth.video,
            prompt="Describe the video.",
            chosen=truth.reference_caption,
            rejected=truth.reference_caption.rpartition(". ")[0] + ".",
        )
        for truth in read_jsonl(EXAMPLES / "truth.jsonl", WorldTruth)
    ]
    write_jsonl(tmp_path / "pairs.jsonl", found)
    return tmp_path / "pairs.jsonl"


@pytest.mark.slow
def test_pairs_from_a_file_are_learned(run, pairs, tmp_path):
    words = ("dpo", "tiny_dpo", "--pairs", pairs, "--videos", EXAMPLES, "--out", tmp_path / "dpo", *SMALL)
    code, out, err = run(*words)
    assert code == 0, err
    assert out.strip() == str(tmp_path / "dpo" / "checkpoint")
    steps = [json.loads(line) for line in (tmp_path / "dpo" / "train" / "metrics.jsonl").read_text().splitlines()]
    assert steps[0]["rewards/margins"] == pytest.approx(0, abs=1e-4) and steps[-1]["rewards/margins"] > 0.01
    before = read_weights(find_checkpoint("tiny-sft") / "model.safetensors")
    after = load_file(tmp_path / "dpo" / "checkpoint" / "model.safetensors")
    assert before.keys() == after.keys() and any(not before[name].equal(after[name]) for name in before)
    assert run(*words)[1] == out  # again: there is nothing left to do


def test_a_loss_that_is_no_number_is_one_line_and_the_state_is_kept(run, pairs, tmp_path):
    words = ("dpo", "tiny_dpo", "--pairs", pairs, "--videos", EXAMPLES, "--out", tmp_path / "dpo", *SMALL)
    code, out, err = run(*words, "--set", "dpo.optim.lr=1e30", "--set", "dpo.optim.warmup_steps=0")
    assert code == 1 and out == "" and "lower the learning rate" in err and len(err.splitlines()) == 1
    assert (tmp_path / "dpo" / "train" / "ref_logprobs.jsonl").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"checkpoint": "other@1234"}, "4 of 4 pairs were written by another model (other@1234)"),
        ({"rejected": " "}, "4 pairs have an empty caption"),
        ({"chosen": "same", "rejected": "same"}, "4 pairs have the same caption twice"),
        ({"video": "nowhere.mp4"}, "nowhere.mp4"),
    ],
)
def test_bad_pairs_are_one_line(run, pairs, change, expected, tmp_path):
    rows = [json.loads(line) | change for line in pairs.read_text().splitlines()]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = run("dpo", "tiny_dpo", "--pairs", pairs, "--videos", EXAMPLES, "--out", tmp_path / "dpo", *SMALL)
    assert code == 2 and out == "" and expected in err and len(err.splitlines()) == 1


def test_pairs_of_another_model_can_be_learned_if_expected(run, pairs, tmp_path):
    rows = [json.loads(line) | {"checkpoint": "other@1234"} for line in pairs.read_text().splitlines()]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows[:1]))
    words = ("dpo", "tiny_dpo", "--pairs", pairs, "--videos", EXAMPLES, "--out", tmp_path / "dpo", *SMALL)
    assert run(*words, "--off-policy")[0] == 0
