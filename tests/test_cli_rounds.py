"""`avcap rounds` as a user runs it, on the example videos."""

from pathlib import Path

import pytest
from support.scripted_engine import VLLM
from support.served_model import ServedModel

from avcap.records import Caption, WorldTruth, read_jsonl, write_jsonl

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = (
    "--set",
    "num_rounds=1",
    "--set",
    "sampling.num_prompts=4",
    "--set",
    "sampling.captions_per_prompt=6",
    "--set",
    "sampling.temperature=1.0",
    "--set",
    "pairs.rule=best_vs_worst",
    "--set",
    "pairs.min_gap=0.01",
    "--set",
    "dpo.epochs=1",
)


@pytest.fixture
def data(tmp_path: Path) -> tuple[str, Path, str, Path]:
    """--data with three of the example videos, --held-out with the fourth."""
    truths = list(read_jsonl(EXAMPLES / "truth.jsonl", WorldTruth))
    for truth in truths:
        (tmp_path / truth.video).parent.mkdir(exist_ok=True)
        (tmp_path / truth.video).symlink_to(EXAMPLES / truth.video)
    write_jsonl(tmp_path / "learn.jsonl", truths[:3])
    write_jsonl(tmp_path / "measure.jsonl", truths[3:])
    return "--data", tmp_path / "learn.jsonl", "--held-out", tmp_path / "measure.jsonl"


@pytest.mark.slow
def test_rounds_end_with_a_checkpoint_and_tell_how_it_went(run, data, tmp_path):
    out_dir = tmp_path / "rounds"
    code, out, err = run("rounds", "tiny_rounds", *data, "--out", out_dir, *SMALL)
    assert code == 0, err
    lines = err.splitlines()
    assert lines[0].startswith("avcap: round 0: total error 0.") and "best: round" in lines[-1]
    assert any(line.startswith("avcap: round 1: 24 captions of 4 prompts") for line in lines)  # 4 x 6 = 24
    # round 0 being the best, the model that the rounds began with is the answer
    assert out.strip().endswith(("round-1/checkpoint", "tiny-sft"))

    code, shown, _ = run("rounds", "status", out_dir, "--plot", tmp_path / "rounds.png")
    assert (tmp_path / "rounds.png").read_bytes().startswith(b"\x89PNG")
    assert code == 0 and [line.partition(":")[0] for line in shown.splitlines()][:2] == ["round 0", "round 1"]
    assert run("rounds", "tiny_rounds", *data, "--out", out_dir, *SMALL)[1] == out  # again: there is nothing left to do

    code, _, err = run("rounds", "tiny_rounds", *data, "--out", out_dir, *SMALL, "--set", "dpo.epochs=2")
    assert code == 2 and "another configuration" in err


@pytest.mark.slow
def test_rounds_are_sampled_by_a_server_that_is_loaded_anew_for_each(run, data, tmp_path, monkeypatch):
    """Round 1 is sampled; for round 2 the server still has the first model, which one line says; then it is gone on."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out_dir, videos = tmp_path / "rounds", sorted(EXAMPLES.glob("*.mp4"))
    small = ("--set", "num_rounds=2", *SMALL[2:], "--set", "sampling.local_share=0", "--set", "dpo.optim.lr=0.01")
    with ServedModel(VLLM).load("tiny-sft", videos) as server:
        words = ("rounds", "tiny_rounds", *data, "--out", out_dir, *small, "--sampler", server.url)
        code, _, err = run(*words)
        assert code == 2, err
        name = f"{server.model}?fps=1.0&max_frames=20"
        assert f"avcap: round 1: {name} serves " in err and "tiny-sft (3 probes)" in err
        first = list(read_jsonl(out_dir / "round-1/captions.jsonl", Caption))
        assert len(first) == 3 * 6 and {one.text for one in first} <= set(server.said)
        assert {one.checkpoint for one in first} == {name}
        stale = err.splitlines()[-1]
        assert "serves other weights than" in stale and "likelier by" in stale
        assert stale.endswith(f"load {out_dir / 'round-1/checkpoint'} there, and run this again")
        assert not (out_dir / "round-2/captions.jsonl").exists()
        server.load(out_dir / "round-1/checkpoint", videos)
        code, out, err = run(*words)
        assert code == 0, err
        assert f"avcap: round 2: {server.model}" in err and "best: round" in err.splitlines()[-1]
        second = list(read_jsonl(out_dir / "round-2/captions.jsonl", Caption))
        assert {one.text for one in second} <= set(server.said)
    assert first == list(read_jsonl(out_dir / "round-1/captions.jsonl", Caption))  # nothing was sampled again
    for number in (1, 2):
        assert {path.name for path in (out_dir / f"round-{number}/adapter").iterdir()} >= {"adapter_config.json"}
    assert Path(out.strip().splitlines()[-1]).name in ("checkpoint", "tiny-sft")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("tiny_sft",), "avcap train tiny_sft"),
        (("tiny_round",), "tiny_rounds"),
        (("tiny_rounds", "--data", "x.jsonl"), "--held-out"),
        (("salmonn2_7b_rounds",), "give --data and --held-out"),
        (("tiny_rounds", "--set", "dpo.epoch=1"), "epochs"),
        (("status", "nowhere"), "avcap rounds run"),
    ],
)
def test_bad_input_is_one_line(run, words, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run("rounds", *words)
    assert code == 2 and not out and err.count("\n") == 1 and expected in err, err
