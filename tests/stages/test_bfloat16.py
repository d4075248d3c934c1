"""Stages in bfloat16 on a CPU: they run and learn; what learns is in float32 meanwhile, checkpoints are bfloat16."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.tiny_plus import write_tiny_plus
from support.toy_stages import (
    Letters,
    corpus_values,
    finetune_by_heart,
    round_data_of,
    toy_rebirth,
    toy_rounds,
    write_corpus,
)

from avcap.config import override
from avcap.recipes import RECIPES
from avcap.runs.recipe import run_recipe
from avcap.stages.rebirth import rebirth
from avcap.stages.rounds import run_rounds


@pytest.fixture(scope="module")
def parents(random_checkpoint, videos, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("parents")
    untrained = {"salmonn2": random_checkpoint, "salmonn2_plus": write_tiny_plus(folder / "untrained")}
    return {name: finetune_by_heart(path, folder / name, videos=videos) for name, path in untrained.items()}


@pytest.fixture(params=["salmonn2", "salmonn2_plus"])
def parent(request, parents) -> Path:
    return parents[request.param]


def losses(folder: Path, name: str = "loss") -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row[name] for row in rows if name in row]


def assert_bfloat16(checkpoint: Path, *, state: Path) -> None:
    assert {tensor.dtype for tensor in load_file(checkpoint / "model.safetensors").values()} == {torch.bfloat16}
    (step,) = (state / "checkpoints").glob("step-*")
    for name in ("model", "optimizer"):
        tensors = load_file(step / f"{name}.safetensors")
        assert {tensor.dtype for key, tensor in tensors.items() if not key.endswith("_rng")} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize("full", [False, True])
def test_fine_tuning(full, parent, videos, tmp_path):
    corpus = write_corpus(tmp_path / "corpus.jsonl", videos)
    values = corpus_values(corpus, num_steps=25, log_every=1, dtype="bfloat16", device="cpu")
    values |= {"finetune.optim.lr": 3e-3, "finetune.batch_size": 3, "finetune.corpus.num_held_out": 0}
    labels = [line.replace("appears", "bounces") for line in corpus.read_text().splitlines()]  # what is not known yet
    corpus.write_text("".join(line + "\n" for line in labels))
    config = RECIPES["salmonn2_7b_sft"]()
    if full:
        config = replace(config, finetune=replace(config.finetune, lora=None), full=True)
    else:
        values |= {"finetune.lora.rank": 4, "finetune.lora.alpha": 8}
    checkpoint = run_recipe("sft", override(config, values), out_dir=tmp_path / "sft", parent=parent)
    found = losses(tmp_path / "sft")
    assert found[-1] < 0.5 * found[0]
    assert_bfloat16(checkpoint, state=tmp_path / "sft")


@pytest.mark.slow
def test_rounds(parent, videos, tmp_path):
    config = toy_rounds(dtype="bfloat16", device="cpu")
    run_rounds(parent, config=config, round_data=round_data_of(videos), judge=Letters(), out_dir=tmp_path)
    folder = tmp_path / "round-1"
    found = losses(folder / "train", "preference")
    assert found[0] == pytest.approx(0.6931, abs=0.05) and found[-1] < found[0]  # ln 2, to rounding, and then less
    assert_bfloat16(folder / "checkpoint", state=folder / "train")


@pytest.mark.slow
def test_rebirth(parent, videos, tmp_path):
    config = toy_rebirth(num_steps=25, log_every=1, dtype="bfloat16", device="cpu")
    checkpoint = rebirth(parent, parent, config=config, round_data=round_data_of(videos), judge=None, out_dir=tmp_path)
    found = losses(tmp_path / "train")
    assert sum(found[-5:]) < sum(found[:5])
    assert_bfloat16(checkpoint, state=tmp_path / "train")
