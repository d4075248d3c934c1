"""The whole method on a tiny salmonn2_plus model: it learns the captions of a few videos, then to prefer other ones."""

import json

import pytest
import torch
from safetensors.torch import load_file
from support.tiny_plus import SETTINGS, write_tiny_plus

from avcap.data.qa_files import VideoQuestion
from avcap.data.request import Request
from avcap.infer.captioner import Captioner
from avcap.infer.settings import CaptionerSettings, write_settings
from avcap.model.checkpoint.load import load
from avcap.model.lora import LoraConfig
from avcap.preference.round_data import RoundData
from avcap.preference.select import PairConfig
from avcap.records import (
    Caption,
    Decoding,
    Event,
    EventVerdict,
    PreferencePair,
    Sample,
    Verdict,
    read_jsonl,
)
from avcap.stages.dpo import dpo
from avcap.stages.parts.finetune import Run
from avcap.stages.rebirth import RebirthConfig, RebirthMix, rebirth
from avcap.stages.rounds import RoundsConfig, SamplingConfig, run_rounds
from avcap.stages.sft import SftConfig, train_sft
from avcap.train.answer_loss import answer_loss
from avcap.train.corpus import Corpus, CorpusConfig, CorpusFinetuneConfig
from avcap.train.loop import LoopConfig
from avcap.train.losses import PreferenceConfig
from avcap.train.optim import OptimConfig
from avcap.train.preference_steps import DpoConfig, ReplayConfig

LABELS = {"a": "a red cat sits", "b": "two dogs bark", "silent": "the sea"}
PREFERRED = {"a": "a blue cat", "b": "one dog", "silent": "the sand"}
PROMPT = SETTINGS.prompts.global_caption
FRAMES = {"fps": SETTINGS.fps, "max_frames": SETTINGS.max_frames}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, videos):
    path = tmp_path_factory.mktemp("corpus") / "train.json"
    rows = [
        {
            "id": name,
            "video": str(videos / f"{name}.mp4"),
            "conversations": [{"from": "human", "value": f"<video>\n{PROMPT}"}, {"from": "gpt", "value": label}],
        }
        for name, label in LABELS.items()
    ]
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    return write_tiny_plus(tmp_path_factory.mktemp("plus") / "untrained")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, untrained, corpus):
    """A checkpoint that has learned the corpus by heart, and the losses on the way."""
    model, tokenizer = load(untrained)
    config = CorpusConfig(files=(str(corpus),), **FRAMES)
    (batch,) = Corpus(model=model, tokenizer=tokenizer, config=config, batch_size=3, seed=0).step(0)
    model.vision_tower.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(60):
        loss = answer_loss(model, batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    folder = tmp_path_factory.mktemp("plus") / "trained"
    save(model, tokenizer, folder)
    return folder, losses


def save(model, tokenizer, folder) -> None:
    model.requires_grad_(True).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_settings(folder, CaptionerSettings(prompts=SETTINGS.prompts, max_new_tokens=30, **FRAMES))


def captions(folder, videos) -> dict[str, str]:
    captioner = Captioner(folder)
    return {name: captioner.caption(videos / f"{name}.mp4").text for name in LABELS}


def test_captions_are_learned_by_heart(trained, videos):
    folder, losses = trained
    assert losses[0] > 3 and losses[-1] < 0.02
    assert captions(folder, videos) == LABELS


@pytest.mark.slow
def test_preferences_are_learned_by_heart(trained, videos, tmp_path):
    parent, _ = trained
    captioner = Captioner(parent)
    request = Request(decoding=Decoding(max_new_tokens=1))
    samples = [Sample(sample_id=name, video=str(videos / f"{name}.mp4"), prompt=PROMPT) for name in LABELS]
    media = {video.sample.sample_id: video.encoded.media for video in captioner.encode(samples, request)}
    pairs = [
        PreferencePair(
            sample_id=name,
            video=str(videos / f"{name}.mp4"),
            prompt=PROMPT,
            chosen=PREFERRED[name],
            rejected=LABELS[name],
            reference_caption=PREFERRED[name],
            margin=1.0,
        )
        for name in LABELS
    ]
    dpo(
        captioner.model,
        captioner.tokenizer,
        pairs=pairs,
        media_of=media.__getitem__,
        config=DpoConfig(
            loss=PreferenceConfig(guidance_weight=1.0),
            lora=LoraConfig(rank=16, alpha=32, dropout=0.0),
            epochs=80,
            batch_size=3,
            optim=OptimConfig(lr=1e-2, muon_lr=None, warmup_steps=3, decay_fraction=1.0),
        ),
        seed=0,
        out_dir=tmp_path / "train",
    )
    lines = [json.loads(line) for line in (tmp_path / "train" / "metrics.jsonl").read_text().splitlines()]
    rows = [line for line in lines if "loss" in line]
    assert rows[0]["loss"] > 0.69  # ln 2 and the cross-entropy: nothing is preferred yet
    assert rows[-1]["loss"] < 0.1
    save(captioner.model, captioner.tokenizer, tmp_path / "preferred")
    assert captions(tmp_path / "preferred", videos) == PREFERRED


def test_fine_tuning_on_a_corpus_moves_aligners_and_the_lora_alone(untrained, corpus, tmp_path):
    model, tokenizer = load(untrained)
    before = load_file(untrained / "model.safetensors")
    finetune = CorpusFinetuneConfig(
        corpus=CorpusConfig(files=(str(corpus),), **FRAMES),
        batch_size=2,
        loop=LoopConfig(num_steps=2, num_workers=0),
        lora=LoraConfig(rank=4, alpha=8, dropout=0.0),
        optim=OptimConfig(lr=1e-3, muon_lr=None, warmup_steps=0),
    )
    run = Run(model=model, tokenizer=tokenizer, out_dir=tmp_path / "out", parent=untrained)
    train_sft(run, SftConfig(finetune=finetune))
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    frozen = ("vision_tower.", "audio_encoder.")
    assert not {name for name in moved if name.startswith(frozen)}
    assert "vision_aligner.mlp.0.weight" in moved and "audio_aligner.query_tokens" in moved
    language_model = {name.split(".")[-2] for name in moved if name.startswith("language_model.")}
    assert language_model == {"q_proj", "k_proj", "v_proj"}


# --- rounds and rebirth: the same stages, another family --------------------------------------------------------------

EVENTS = tuple(Event(event_id=str(i), text=f"letter {letter}", modality="visual") for i, letter in enumerate("aeiou"))
ROUND_OPTIM = OptimConfig(lr=1e-3, muon_lr=None, warmup_steps=1)
ROUNDS = RoundsConfig(
    num_rounds=2,
    guidance=(0.1,),
    sampling=SamplingConfig(num_prompts=4, local_share=0.0, captions_per_prompt=32, temperature=2.0),
    pairs=PairConfig(rule="best_vs_worst", min_gap=0.01, min_length_ratio=0.01, max_length_ratio=100.0),
    dpo=DpoConfig(
        lora=LoraConfig(rank=4, alpha=8, dropout=0.0),
        epochs=2,
        batch_size=2,
        optim=ROUND_OPTIM,
        replay=ReplayConfig(weight=0.1, batch_size=2),
    ),
)


class Letters:
    """A judge that any text can please: an event is told if its letter is in the caption."""

    name, prompt_version = "letters", ""

    def judge(self, cases):
        for case in cases:
            told = [event.text[-1] in case.text.lower() for event in case.sample.events]
            labels = [
                EventVerdict(event_id=event.event_id, label="correct" if hit else "missing")
                for event, hit in zip(case.sample.events, told, strict=True)
            ]
            yield Verdict(
                caption_id=case.caption_id,
                events=tuple(labels),
                invented=(),
                repeated=(),
                judge=self.name,
                prompt_version="",
            )


@pytest.fixture(scope="module")
def round_data(videos):
    def sample(name: str) -> Sample:
        return Sample(
            sample_id=name, video=str(videos / f"{name}.mp4"), prompt="", events=EVENTS, reference_caption=LABELS[name]
        )

    def question(name: str) -> VideoQuestion:
        return VideoQuestion(
            question_id=f"q-{name}", video=str(videos / f"{name}.mp4"), kind="what", text="what is it?", answer="cat"
        )

    return RoundData(
        samples=[sample("a"), sample("b")],
        held_out=[sample("silent")],
        questions=[question("a"), question("b")],
        held_out_questions=[question("silent")],
    )


@pytest.mark.slow
def test_rounds_then_rebirth(trained, round_data, tmp_path):
    parent, _ = trained
    run_rounds(parent, config=ROUNDS, round_data=round_data, judge=Letters(), out_dir=tmp_path / "rounds")
    first, last = (tmp_path / "rounds" / f"round-{number}" for number in (1, 2))
    steps = [json.loads(line) for line in (first / "train" / "metrics.jsonl").read_text().splitlines()]
    assert abs(steps[0]["rewards/margins"]) < 1e-4 < steps[-1]["rewards/margins"]  # among equals at first
    assert list(read_jsonl(last / "pairs.jsonl", PreferencePair))
    before, after = (load_file(folder / "model.safetensors") for folder in (parent, last / "checkpoint"))
    changed = {name for name in before if not before[name].equal(after[name])}
    assert before.keys() == after.keys() and changed
    assert all(name.startswith("language_model.model.layers.") for name in changed)

    config = RebirthConfig(
        mix=RebirthMix(), full=True, batch_size=2, optim=ROUND_OPTIM, loop=LoopConfig(num_steps=2, num_workers=0)
    )
    final = rebirth(
        parent, last / "checkpoint", config=config, round_data=round_data, judge=None, out_dir=tmp_path / "rebirth"
    )
    assert len(list(read_jsonl(tmp_path / "rebirth" / "pool.jsonl", Caption))) == 2
    reborn = load_file(final / "model.safetensors")
    frozen = [name for name in before if name.startswith(("vision_tower.", "audio_encoder."))]
    assert frozen and all(reborn[name].equal(before[name]) for name in frozen)
    assert any(not reborn[name].equal(before[name]) for name in before)
