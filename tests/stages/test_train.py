"""Recipes at a few steps each, from nothing to checkpoints: they resume bit for bit, and refuse what would mix runs."""

import functools
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import ASSETS
from support.here_and_now import HereAndNow
from support.pretended_device import pretended_gpu
from torch import Tensor

from avcap.config import override
from avcap.curriculum import feature_tracks, perception, source
from avcap.errors import UserError
from avcap.infer.captioner import Captioner
from avcap.infer.world_fit import fit_world_check
from avcap.model.checkpoint.load import load
from avcap.recipes import RECIPES
from avcap.records import Lineage, Sample, from_json, write_jsonl
from avcap.runs import recipe as running
from avcap.runs.recipe import run_recipe
from avcap.stages import base
from avcap.train import corpus as corpus_module
from avcap.train.corpus import Corpus, CorpusConfig

EXAMPLES = {
    "finetune.batch_size": 2,
    "finetune.second_steps": 1,
    "finetune.loop.num_steps": 3,
    "finetune.loop.checkpoint_every": 1,
    "finetune.loop.evaluate_every": 0,
    "finetune.feature_tracks.num_tracks": 2,
    "finetune.feature_tracks.num_held_out": 2,
    "finetune.feature_tracks.difficulty": "easy",
}
BASE = (
    EXAMPLES
    | {
        f"{part}.loop.{name}": value
        for part in ("vision", "audio", "second_phase")
        for name, value in (("num_steps", 2), ("checkpoint_every", 1), ("evaluate_every", 0))
    }
    | {"second_phase.batch_size": 2}
)
FROZEN = ("vision_tower.", "audio_encoder.", "audio_aligner.qformer.")  # once pretrain_encoders has trained them


@pytest.fixture(scope="module", autouse=True)
def small():
    """Everything that is not a dial of the recipes, small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_tracks, "TRACKS_PER_SHARD", 2)
        patch.setattr(feature_tracks, "end_with_parent", lambda: None)
        patch.setattr(feature_tracks, "ProcessPoolExecutor", HereAndNow)
        patch.setattr(base, "ProcessPoolExecutor", HereAndNow)
        patch.setattr(perception, "NUM_HELD_OUT_BATCHES", 1)
        patch.setattr(source, "NUM_HELD_OUT_EXAMPLES", 2)
        patch.setattr(running, "fit_world_check", functools.partial(fit_world_check, num_scenes=12))
        yield


def run(name: str, values: dict, out_dir: Path, parent: Path | None = None) -> Path:
    return run_recipe(name, override(RECIPES[name](), values), out_dir=out_dir, parent=parent)


@pytest.fixture(scope="module")
def tiny_base(small, tmp_path_factory) -> Path:
    """The checkpoint folder of a run that nothing stopped."""
    return run("tiny_base", BASE, tmp_path_factory.mktemp("whole") / "base")


def weights(checkpoint: Path) -> dict[str, Tensor]:
    return load_file(checkpoint / "model.safetensors")


def are_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def stop_at(module, name: str, *, call: int, monkeypatch) -> None:
    """Makes the `call`-th call of module.name end the run as Ctrl-C does."""
    original, calls = getattr(module, name), 0

    def stopping(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, stopping)


@pytest.mark.slow
def test_tiny_base_ends_with_a_checkpoint_that_captions(tiny_base, videos):
    caption = Captioner(tiny_base).caption(videos / "b.mp4", max_new_tokens=4)
    assert caption.seen.frames == 2 and caption.seen.audio_tokens == 4
    assert caption.prompt == "Describe the video in detail." and caption.checkpoint.startswith("base@")
    assert caption.in_world is not None  # it knows what its world looks like
    lineage = from_json((tiny_base / "lineage.json").read_text(), Lineage)
    assert (lineage.stage, lineage.parent, lineage.recipe, lineage.seed) == ("base", None, "tiny_base", 0)


@pytest.mark.slow
def test_tiny_base_trained_its_parts(tiny_base):
    fresh, trained = weights(tiny_base.parent / "start"), weights(tiny_base)
    for part in ("vision_tower.", "audio_encoder.", "vision_aligner.", "audio_aligner.", "language_model."):
        names = [name for name in fresh if name.startswith(part)]
        assert any(not torch.equal(fresh[name], trained[name]) for name in names), part
    encoders = weights(tiny_base.parent / "encoders")  # what pretrain_encoders ended with: frozen from then on
    frozen = [name for name in encoders if name.startswith(FROZEN)]
    assert frozen and all(torch.equal(encoders[name], trained[name]) for name in frozen)


@pytest.mark.slow
def test_stopped_while_seeing_and_while_learning_words_it_ends_the_same(tiny_base, tmp_path, monkeypatch):
    for module, name, call in ((perception, "attribute_loss", 2), (source, "example_loss", 3)):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stop_at(module, name, call=call, monkeypatch=patch)
            run("tiny_base", BASE, tmp_path / "base")
        assert not (tmp_path / "base" / "checkpoint").exists()
    assert are_equal(weights(run("tiny_base", BASE, tmp_path / "base")), weights(tiny_base))
    # and once more when all is done: nothing is trained again, nothing changes
    assert are_equal(weights(run("tiny_base", BASE, tmp_path / "base")), weights(tiny_base))


@pytest.mark.slow
def test_another_configuration_in_the_same_folder_is_refused(tiny_base):
    with pytest.raises(UserError, match="begun with another configuration"):
        run("tiny_base", BASE | {"finetune.loop.num_steps": 4}, tiny_base.parent)
    with pytest.raises(UserError, match="begun with another configuration"):
        run("tiny_base", BASE | {"seed": 1}, tiny_base.parent)


@pytest.mark.slow
def test_parents_that_are_missing_or_too_many_are_refused(tiny_base, tmp_path):
    with pytest.raises(UserError, match="tiny_base starts from nothing"):
        run("tiny_base", BASE, tmp_path / "base", parent=tiny_base)
    with pytest.raises(UserError, match="tiny_sft goes on from a checkpoint"):
        run("tiny_sft", EXAMPLES, tmp_path / "sft")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_tiny_sft_goes_on_from_the_base_and_its_seed_matters(tiny_base, tmp_path):
    first = run("tiny_sft", EXAMPLES, tmp_path / "first", parent=tiny_base)
    second = run("tiny_sft", EXAMPLES | {"seed": 1}, tmp_path / "second", parent=tiny_base)
    before, one, other = weights(tiny_base), weights(first), weights(second)
    assert not are_equal(before, one) and not are_equal(one, other)
    frozen = [name for name in before if name.startswith(FROZEN)]
    assert frozen and all(torch.equal(before[name], one[name]) for name in frozen)
    lineage = from_json((first / "lineage.json").read_text(), Lineage)
    assert (lineage.stage, lineage.parent, lineage.seed) == ("sft", "base", 0)  # a name: paths do not travel
    assert len(list(tmp_path.glob("feature-tracks-*"))) == 2  # the tracks of a seed are its own


@pytest.mark.slow
def test_tiny_align_trains_the_audio_branch_alone(tiny_base, tmp_path):
    values = {name: value for name, value in EXAMPLES.items() if name != "finetune.second_steps"}
    before, after = weights(tiny_base), weights(run("tiny_align", values, tmp_path / "align", parent=tiny_base))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("audio_aligner.") for name in changed)


def corpus(path: Path, *videos: Path) -> str:
    samples = [
        Sample(sample_id=video.stem, video=str(video), prompt="What happens?", reference_caption=f"It is {video.stem}.")
        for video in videos
    ]
    write_jsonl(path, samples)
    return str(path)


CORPUS = {
    "finetune.batch_size": 1,
    "finetune.loop.num_steps": 2,
    "finetune.loop.checkpoint_every": 1,
    "finetune.optim.lr": 1e-2,
    "finetune.optim.warmup_steps": 1,
}


@pytest.mark.slow
def test_a_corpus_trains_a_lora_on_a_released_checkpoint_and_merges_it(videos, tmp_path, monkeypatch):
    released = ASSETS / "v1_av_31s"
    config = override(
        RECIPES["salmonn2_7b_sft"](),
        CORPUS
        | {
            "finetune.corpus.files": [corpus(tmp_path / "list.jsonl", videos / "a.mp4", videos / "b.mp4")],
            "finetune.lora.rank": 2,
            "finetune.lora.alpha": 4,
        },
    )
    checkpoint = run_recipe("salmonn2_7b_sft", config, out_dir=tmp_path / "sft", parent=released)
    before, after = dict(load(released)[0].named_parameters()), dict(load(checkpoint)[0].named_parameters())
    assert set(before) == set(after)  # merged: no adapter is left
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    in_language_model = {name for name in changed if name.startswith("language_model.")}
    assert {name.rsplit(".", 2)[1] for name in in_language_model} == {"q_proj", "k_proj", "v_proj"}
    assert all(name.startswith(("audio_aligner.", "vision_aligner.")) for name in changed - in_language_model)
    assert changed - in_language_model

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # and it resumes, dropout and all
        stop_at(corpus_module, "answer_loss", call=2, monkeypatch=patch)
        run_recipe("salmonn2_7b_sft", config, out_dir=tmp_path / "stopped", parent=released)
    resumed = run_recipe("salmonn2_7b_sft", config, out_dir=tmp_path / "stopped", parent=released)
    assert are_equal(weights(resumed), weights(checkpoint))


def test_held_out_videos_that_cannot_be_read_end_no_run(random_checkpoint, videos, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    # the order of the seed decides which sample is held out: take one that holds out the broken one
    file = corpus(tmp_path / "list.jsonl", videos / "b.mp4", tmp_path / "broken.mp4")
    model, tokenizer = load(random_checkpoint)
    settings = CorpusConfig(files=(file,), num_held_out=1)
    seed = next(
        seed
        for seed in range(100)
        if Corpus(model=model, tokenizer=tokenizer, config=settings, batch_size=1, seed=seed)
        .held_out_samples[0]
        .sample_id
        == "broken"
    )
    values = CORPUS | {
        "finetune.corpus.files": [file],
        "finetune.corpus.num_held_out": 1,
        "seed": seed,
        "finetune.lora.rank": 2,
    }
    run("salmonn2_7b_sft", values, tmp_path / "sft", parent=random_checkpoint)
    rows = [json.loads(line) for line in (tmp_path / "sft" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["held_out/num_samples"] == 0 and "held_out/loss" not in rows[-1]
    report = json.loads((tmp_path / "sft" / "unreadable.json").read_text())
    assert [Path(path).name for path in report["unreadable"]] == ["broken.mp4"]


@pytest.mark.slow
def test_the_world_is_learned_on_a_gpu_as_on_a_cpu(tiny_base, tmp_path):
    values = EXAMPLES | {
        "finetune.loop.evaluate_every": 1,
        "finetune.loop.max_tokens": 200,
        "finetune.loop.dtype": "float32",
    }
    on_cpu = weights(run("tiny_sft", values, tmp_path / "cpu", parent=tiny_base))
    with pretended_gpu():
        on_gpu = weights(run("tiny_sft", values, tmp_path / "gpu", parent=tiny_base))  # device: the GPU that is there
        run("tiny_base", BASE, tmp_path / "base")  # pretrain_encoders included
    for name, value in on_cpu.items():
        # Muon and AdamW take steps of about their rates, 1e-3 and 3e-3, also where a gradient is nearly nothing
        assert torch.allclose(value, on_gpu[name], rtol=0, atol=2e-2), name
        assert (value - on_gpu[name]).abs().mean() < 1e-3, name
    figures = [json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[-1]) for name in ("cpu", "gpu")]
    assert figures[0]["held_out/audio/answer_loss"] == pytest.approx(figures[1]["held_out/audio/answer_loss"], rel=1e-2)
