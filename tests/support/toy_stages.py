"""Stages of both families at toy size: a corpus of three videos, a judge that any text can please, a few steps each."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from avcap.data.qa_files import VideoQuestion
from avcap.infer.settings import read_settings, write_settings
from avcap.model.checkpoint.load import load
from avcap.model.lora import LoraConfig
from avcap.preference.caption_filter import QualityConfig
from avcap.preference.round_data import RoundData
from avcap.preference.select import PairConfig
from avcap.records import Event, EventVerdict, Sample, Verdict, write_jsonl
from avcap.runs.dpo_from_file import DpoFromFileConfig
from avcap.stages.parts.finetune import freeze_encoders
from avcap.stages.rebirth import RebirthConfig
from avcap.stages.rounds import RoundsConfig, SamplingConfig
from avcap.train.answer_loss import answer_loss
from avcap.train.corpus import Corpus, CorpusConfig
from avcap.train.loop import LoopConfig
from avcap.train.optim import OptimConfig
from avcap.train.preference_steps import DpoConfig, ReplayConfig

LABELS = {"a": "a red circle appears", "b": "a bell rings twice", "silent": "a blue square moves"}
EVENTS = tuple(Event(event_id=str(i), text=f"letter {letter}", modality="visual") for i, letter in enumerate("aeiou"))
LORA = LoraConfig(rank=4, alpha=8, dropout=0.0)
OPTIM = OptimConfig(lr=1e-3, muon_lr=None, warmup_steps=1)
DPO = DpoConfig(
    lora=LORA,
    epochs=3,
    batch_size=2,
    optim=OPTIM,
    replay=ReplayConfig(weight=0.1, batch_size=2),
    max_tokens=60,
    checkpoint_activations=True,
    checkpoint_every=1,
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


def samples_of(videos: Path, *names: str) -> list[Sample]:
    return [
        Sample(
            sample_id=name, video=str(videos / f"{name}.mp4"), prompt="", events=EVENTS, reference_caption=LABELS[name]
        )
        for name in names
    ]


def round_data_of(videos: Path) -> RoundData:
    def question(name: str) -> VideoQuestion:
        return VideoQuestion(
            question_id=f"q-{name}", video=str(videos / f"{name}.mp4"), kind="what", text="what is it?", answer="cat"
        )

    return RoundData(
        samples=samples_of(videos, "a", "b"),
        held_out=samples_of(videos, "silent"),
        questions=[question("a"), question("b")],
        held_out_questions=[question("silent")],
    )


def write_corpus(path: Path, videos: Path) -> Path:
    samples = samples_of(videos, *LABELS)
    write_jsonl(path, [Sample(**{**vars(sample), "prompt": "What happens?"}) for sample in samples])
    return path


def finetune_by_heart(parent: Path, folder: Path, *, videos: Path, num_steps: int = 40) -> Path:
    """A checkpoint -> one that has learned the captions of the corpus, and to end them."""
    model, tokenizer = load(parent)
    file = write_corpus(folder.parent / "corpus.jsonl", videos)
    config = CorpusConfig(files=(str(file),), fps=2.0)
    (batch,) = Corpus(model=model, tokenizer=tokenizer, config=config, batch_size=3, seed=0).step(0)
    freeze_encoders(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(num_steps):
        optimizer.zero_grad()
        answer_loss(model, batch).loss.backward()
        optimizer.step()
    shutil.copytree(parent, folder)
    model.requires_grad_(True).save_pretrained(folder)
    write_settings(folder, replace(read_settings(parent), max_new_tokens=30))
    return folder


def corpus_values(corpus: Path, **loop: Any) -> dict[str, Any]:
    """-> overrides of a recipe on real videos: three steps in microbatches, the layers computed twice."""
    values = {"num_steps": 3, "checkpoint_every": 1, "max_tokens": 60, "checkpoint_activations": True} | loop
    return {
        "finetune.corpus.files": [str(corpus)],
        "finetune.corpus.num_held_out": 1,
        "finetune.batch_size": 2,
        "finetune.optim.lr": 1e-3,
        "finetune.optim.warmup_steps": 1,
    } | {f"finetune.loop.{name}": value for name, value in values.items()}


def toy_rounds(*, num_rounds: int = 1, **fields: Any) -> RoundsConfig:
    return RoundsConfig(
        num_rounds=num_rounds,
        guidance=(0.1,),
        dpo=DPO,
        sampling=SamplingConfig(num_prompts=4, local_share=0.0, captions_per_prompt=32, temperature=2.0),
        pairs=PairConfig(rule="best_vs_worst", min_gap=0.01, min_length_ratio=0.01, max_length_ratio=100.0),
        **fields,
    )


def toy_dpo(**fields: Any) -> DpoFromFileConfig:
    return DpoFromFileConfig(dpo=replace(DPO, replay=ReplayConfig()), **fields)


def toy_rebirth(**loop: Any) -> RebirthConfig:
    values = {"num_steps": 3, "num_workers": 0, "checkpoint_every": 1, "max_tokens": 60} | loop
    anything = QualityConfig(max_repeated_clauses=1000, min_words_ratio=0.0, must_be_finished=False)
    return RebirthConfig(lora=LORA, batch_size=2, optim=OPTIM, loop=LoopConfig(**values), quality=anything)


class Stopped(Exception):
    """What a run is stopped with."""


def stop_after(number: int, of: Callable) -> Callable:
    """A function -> the same, which stops the run when it is called for the number-th time."""
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            raise Stopped
        return of(*args, **kwargs)

    return wrapped
