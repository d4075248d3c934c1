"""Every stage of both families on a GPU that is pretended: no tensor is left on the CPU, and it ends as on the CPU.

In float32: then what a stage learns must be the same as on the CPU, to rounding.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.pretended_device import pretended_gpu
from support.tiny_plus import write_tiny_plus
from support.toy_stages import (
    Letters,
    Stopped,
    corpus_values,
    finetune_by_heart,
    round_data_of,
    stop_after,
    toy_dpo,
    toy_rebirth,
    toy_rounds,
    write_corpus,
)

from avcap.config import override
from avcap.infer.captioner import Captioner
from avcap.recipes import RECIPES
from avcap.records import PreferencePair, read_jsonl
from avcap.runs.dpo_from_file import run_dpo_from_file
from avcap.runs.recipe import run_recipe
from avcap.stages.rebirth import rebirth
from avcap.stages.rounds import run_rounds
from avcap.train import loop


@pytest.fixture(scope="module")
def parents(random_checkpoint, videos, tmp_path_factory) -> dict[str, Path]:
    """Family -> a checkpoint that ends most of its captions."""
    folder = tmp_path_factory.mktemp("parents")
    untrained = {"salmonn2": random_checkpoint, "salmonn2_plus": write_tiny_plus(folder / "untrained")}
    return {name: finetune_by_heart(path, folder / name, videos=videos) for name, path in untrained.items()}


@pytest.fixture(params=["salmonn2", "salmonn2_plus"])
def parent(request, parents) -> Path:
    return parents[request.param]


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "model.safetensors")


def assert_close(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        # a step of AdamW is about the learning rate, 1e-3, whichever way rounding turns a gradient of nearly nothing
        assert torch.allclose(value, other[name], rtol=0, atol=6e-3), name
        assert (value - other[name]).abs().mean() < 1e-4, name


def check_on_gpu(run: Callable[[str, Path], Path], *, tmp_path: Path, start: Path) -> None:
    """`run(device, folder) -> checkpoint`: on both devices it learns the same, and stopped on the GPU it goes on."""
    on_cpu = weights(run("cpu", tmp_path / "cpu"))
    with pretended_gpu():
        on_gpu = weights(run("cuda", tmp_path / "gpu"))
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
            patch.setattr(loop, "_update", stop_after(2, loop._update))
            run("cuda", tmp_path / "stopped")
        resumed = weights(run("cuda", tmp_path / "stopped"))
    assert any(not on_cpu[name].equal(value) for name, value in weights(start).items() if name in on_cpu)
    assert_close(on_cpu, on_gpu)
    assert all(on_gpu[name].equal(resumed[name]) for name in on_gpu)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["salmonn2_7b_align", "salmonn2_7b_sft"])
def test_stages_on_real_videos(recipe, parent, videos, tmp_path):
    corpus = write_corpus(tmp_path / "corpus.jsonl", videos)

    def run(device: str, folder: Path) -> Path:
        values = corpus_values(corpus, device=device, dtype="float32")
        if recipe == "salmonn2_7b_sft":
            values |= {"finetune.lora.rank": 4, "finetune.lora.alpha": 8}
        else:
            values |= {"finetune.corpus.use_video": True}  # one of the videos is silent
        return run_recipe(recipe, override(RECIPES[recipe](), values), out_dir=folder, parent=parent)

    check_on_gpu(run, tmp_path=tmp_path, start=parent)
    rows = [json.loads(line) for line in (tmp_path / "gpu" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["held_out/num_samples"] == 1


@pytest.mark.slow
def test_rounds_and_dpo_from_a_file(parent, videos, tmp_path):
    def rounds(device: str, folder: Path) -> Path:
        config = toy_rounds(device=device, dtype="float32")
        run_rounds(parent, config=config, round_data=round_data_of(videos), judge=Letters(), out_dir=folder)
        return folder / "round-1" / "checkpoint"

    check_on_gpu(rounds, tmp_path=tmp_path, start=parent)
    pairs = list(read_jsonl(tmp_path / "gpu" / "round-1" / "pairs.jsonl", PreferencePair))
    assert pairs == list(read_jsonl(tmp_path / "cpu" / "round-1" / "pairs.jsonl", PreferencePair))

    def dpo(device: str, folder: Path) -> Path:
        return run_dpo_from_file(parent, pairs, config=toy_dpo(device=device, dtype="float32"), out_dir=folder)

    check_on_gpu(dpo, tmp_path=tmp_path / "dpo", start=parent)


@pytest.mark.slow
def test_rebirth(parent, videos, tmp_path):
    def run(device: str, folder: Path) -> Path:
        config = toy_rebirth(device=device, dtype="float32")
        return rebirth(parent, parent, config=config, round_data=round_data_of(videos), judge=Letters(), out_dir=folder)

    check_on_gpu(run, tmp_path=tmp_path, start=parent)


@pytest.mark.slow
def test_a_captioner_writes_the_same(parent, videos):
    expected = Captioner(parent, device="cpu").caption(videos / "a.mp4")
    with pretended_gpu():
        captioner = Captioner(parent, device="cuda", dtype=torch.float32)
        assert captioner.model.device.type == "cuda"
        assert captioner.caption(videos / "a.mp4") == expected
