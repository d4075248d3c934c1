"""What the language stages share: a model learns from lessons; which lessons and which weights is the stage's to say."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from avcap.data.prompt import ChatStyle
from avcap.model.salmonn2 import Salmonn2ForCaptioning
from avcap.train.language import language_loss
from avcap.train.lessons import Lesson, LessonBatch, LessonMix, Teacher, TokenWeights, make_batch
from avcap.train.loop import LoopConfig, run_loop
from avcap.train.optim import OptimConfig
from avcap.train.tracks import TrackConfig, Tracks, load_tracks


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Lessons of one mix, from where the phase before ended until `until_step`."""

    until_step: int
    mix: LessonMix


@dataclass(frozen=True, kw_only=True)
class TeachConfig:
    phases: tuple[Phase, ...]
    seed: int = 0
    batch_size: int = 32
    """Lessons a step."""
    alignment_weight: float = 1.0
    """Weight of the bag-of-words loss on media tokens; without it single attributes stay at chance for long."""
    weights: TokenWeights = field(default_factory=TokenWeights)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(num_steps=0, num_workers=0))
    optim: OptimConfig = field(default_factory=OptimConfig)
    tracks: TrackConfig = field(default_factory=TrackConfig)


@dataclass(frozen=True, kw_only=True)
class LessonBatches:
    """Step -> batch of lessons, the same one every time."""

    model: Salmonn2ForCaptioning
    tokenizer: PreTrainedTokenizerFast
    tracks: Tracks
    config: TeachConfig

    def __call__(self, step: int) -> LessonBatch:
        phase = next(phase for phase in self.config.phases if step < phase.until_step)
        rng = random.Random(f"lessons/{self.config.seed}/{step}")
        teacher = Teacher(tracks=self.tracks, mix=phase.mix)
        return self.collate(teacher.lessons(self.config.batch_size, rng=rng))

    def collate(self, lessons: Sequence[Lesson]) -> LessonBatch:
        return make_batch(
            list(lessons), place_tokens=self.model.placeholders, tokenizer=self.tokenizer,
            chat=ChatStyle(**self.model.config.chat), weights=self.config.weights,
        )  # fmt: skip


def teach(
    model: Salmonn2ForCaptioning, tokenizer: PreTrainedTokenizerFast, *, stage: str, config: TeachConfig,
    tracks_dir: Path, tracks_seed: int, out_dir: Path,
) -> None:  # fmt: skip
    """Trains whatever of `model` requires a gradient on lessons from the tracks, in place."""
    num_steps = config.phases[-1].until_step
    tracks = load_tracks(tracks_dir, seed=tracks_seed, config=config.tracks)
    batches = LessonBatches(model=model, tokenizer=tokenizer, tracks=tracks, config=config)
    held_out = held_out_batches(batches, tracks_dir=tracks_dir, tracks_seed=tracks_seed)
    model.train()
    run_loop(
        model, make_batch=batches, config=replace(config.loop, num_steps=num_steps), optim=config.optim,
        loss_fn=lambda batch: language_loss(
            model, batch, tokenizer=tokenizer, alignment_weight=config.alignment_weight
        ),
        out_dir=out_dir, title=stage, notes={"stage": stage, "seed": config.seed, "num_steps": num_steps},
        evaluate=lambda: held_out_accuracy(model, tokenizer, held_out),
    )  # fmt: skip


def held_out_batches(batches: LessonBatches, *, tracks_dir: Path, tracks_seed: int) -> dict[str, LessonBatch]:
    """One batch of clean lessons of each kind from tracks that are never taught."""
    tracks = load_tracks(tracks_dir, seed=tracks_seed, config=batches.config.tracks, held_out=True)
    result = {}
    for kind in ("slots", "seen", "heard", "interval", "questions"):
        rng = random.Random(f"held out/{kind}")
        teacher = Teacher(tracks=tracks, mix=LessonMix(**{kind: 1.0}))
        result[kind] = batches.collate(teacher.lessons(48, rng=rng))
    return result


@torch.no_grad()
def held_out_accuracy(
    model: Salmonn2ForCaptioning, tokenizer: PreTrainedTokenizerFast, held_out: dict[str, LessonBatch]
) -> dict[str, float]:
    """Teacher-forced accuracy by kind of lesson and of word."""
    model.eval()
    result = {}
    for kind, batch in held_out.items():
        metrics = language_loss(model, batch, tokenizer=tokenizer, alignment_weight=0.0).metrics
        result |= {f"held_out/{kind}/{name.removeprefix('accuracy/')}": value for name, value in metrics.items()}
    model.train()
    return result
