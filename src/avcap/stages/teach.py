"""What the language stages share: a model learns from lessons; which lessons and weights is the stage's to say."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from avcap.data.prompt import ChatStyle
from avcap.files.write import write_json
from avcap.model.captioning import CaptioningModel
from avcap.model.lora import LoraConfig, attach_lora, merge_lora
from avcap.train.corpus import CorpusBatches, CorpusConfig
from avcap.train.language import language_loss, right_answers
from avcap.train.lessons import Lesson, LessonBatch, LessonMix, QuestionMix, Teacher, TokenWeights, make_batch, only
from avcap.train.loop import LoopConfig, run_loop
from avcap.train.optim import OptimConfig
from avcap.train.tracks import TrackConfig, Tracks, load_tracks
from avcap.world.questions import question_kinds

NUM_HELD_OUT_LESSONS = 48  # of each kind
HELD_OUT_KINDS = ("slots", "seen", "heard", "interval")


@dataclass(frozen=True, kw_only=True)
class TeachConfig:
    """How a stage teaches from tracks of the world."""

    mix: LessonMix
    """Which kinds of lesson, after the slot steps."""
    question_mix: QuestionMix = field(default_factory=QuestionMix)
    """Which kinds of question, in lessons of questions."""
    slot_steps: int = 0
    """Steps at the start with slot lessons alone: nearly all they ask for is content, so it is learned soonest."""
    seed: int = 0
    batch_size: int = 32
    """Lessons a step."""
    alignment_weight: float = 1.0
    """Weight of the bag-of-words loss on media tokens; without it single attributes stay at chance for long."""
    weights: TokenWeights = field(default_factory=TokenWeights)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(num_steps=100, num_workers=0))
    optim: OptimConfig = field(default_factory=OptimConfig)
    tracks: TrackConfig = field(default_factory=TrackConfig)


@dataclass(frozen=True, kw_only=True)
class LessonBatches:
    """Step -> batch of lessons, the same one every time."""

    model: CaptioningModel
    tokenizer: PreTrainedTokenizerFast
    tracks: Tracks
    config: TeachConfig

    def __call__(self, step: int) -> LessonBatch:
        mix = LessonMix(slots=1.0) if step < self.config.slot_steps else self.config.mix
        rng = random.Random(f"lessons/{self.config.seed}/{step}")
        teacher = Teacher(tracks=self.tracks, mix=mix, question_mix=self.config.question_mix)
        return self.collate(teacher.lessons(self.config.batch_size, rng=rng))

    def collate(self, lessons: Sequence[Lesson]) -> LessonBatch:
        return make_batch(
            list(lessons), place_tokens=self.model.placeholders, tokenizer=self.tokenizer,
            chat=ChatStyle(**self.model.config.chat), weights=self.config.weights,
        )  # fmt: skip


def teach(
    model: CaptioningModel, tokenizer: PreTrainedTokenizerFast, *, stage: str, config: TeachConfig,
    tracks_dir: Path, out_dir: Path,
) -> None:  # fmt: skip
    """Trains whatever of `model` requires a gradient on lessons from the tracks of config.seed, in place."""
    tracks = load_tracks(tracks_dir, seed=config.seed, config=config.tracks)
    batches = LessonBatches(model=model, tokenizer=tokenizer, tracks=tracks, config=config)
    held_out = held_out_batches(batches, tracks_dir=tracks_dir)
    model.train()
    run_loop(
        model, make_batch=batches, config=config.loop, optim=config.optim,
        loss_fn=lambda batch: language_loss(
            model, batch, tokenizer=tokenizer, alignment_weight=config.alignment_weight
        ),
        out_dir=out_dir, title=stage, notes={"stage": stage, "seed": config.seed, "num_steps": config.loop.num_steps},
        evaluate=lambda: held_out_accuracy(model, tokenizer, held_out),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CorpusTeachConfig:
    """How a stage teaches from a corpus of videos with captions."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    seed: int = 0
    batch_size: int = 8
    """Samples a step."""
    lora: LoraConfig | None = None
    """LoRA on the language model; None: it is frozen and only the aligners train."""
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(num_steps=1000, num_workers=0))
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=2e-5, muon_lr=None, warmup_steps=30))


def teach_corpus(
    model: CaptioningModel, tokenizer: PreTrainedTokenizerFast, *, stage: str, config: CorpusTeachConfig,
    out_dir: Path,
) -> None:  # fmt: skip
    """Trains in place, on a corpus, what of `model` requires a gradient, and a LoRA if configured, which is merged."""
    batches = CorpusBatches(
        model=model, tokenizer=tokenizer, config=config.corpus, batch_size=config.batch_size, seed=config.seed
    )
    torch.manual_seed(config.seed)
    if config.lora:
        attach_lora(model, config.lora)
    model.train()
    # The batches encode as they are made, with this very model: another process would need a copy of it.
    loop = replace(config.loop, num_workers=0)
    run_loop(
        model, make_batch=batches, config=loop, optim=config.optim, out_dir=out_dir, title=stage,
        loss_fn=lambda batch: language_loss(model, batch, tokenizer=tokenizer, alignment_weight=0.0),
        notes={"stage": stage, "seed": config.seed, "num_steps": loop.num_steps},
        evaluate=(lambda: _corpus_loss(model, tokenizer, batches)) if batches.held_out else None,
    )  # fmt: skip
    if config.lora:
        merge_lora(model)
    if batches.unreadable:
        write_json(out_dir / "unreadable.json", {"unreadable": batches.unreadable})


@torch.no_grad()
def _corpus_loss(
    model: CaptioningModel, tokenizer: PreTrainedTokenizerFast, batches: CorpusBatches
) -> dict[str, float]:
    """Mean answer loss of the held-out samples that can be read, one by one: they differ in length by a lot."""
    model.eval()
    readable = filter(None, (batches.readable([sample]) for sample in batches.held_out))
    losses = [language_loss(model, batch, tokenizer=tokenizer, alignment_weight=0.0).loss.item() for batch in readable]
    model.train()
    mean = {"held_out/loss": sum(losses) / len(losses)} if losses else {}
    return mean | {"held_out/num_samples": len(losses)}


def held_out_batches(batches: LessonBatches, *, tracks_dir: Path) -> dict[str, LessonBatch]:
    """One batch of clean lessons of each kind, and of each kind of question, from tracks that are never taught."""
    tracks = load_tracks(tracks_dir, seed=batches.config.seed, config=batches.config.tracks, held_out=True)
    teachers = {kind: Teacher(tracks=tracks, mix=LessonMix(**{kind: 1.0})) for kind in HELD_OUT_KINDS}
    for kind in question_kinds():
        teachers[f"questions/{kind}"] = Teacher(
            tracks=tracks, mix=LessonMix(questions=1.0), question_mix=only(kind), questions_per_lesson=2
        )
    return {
        kind: batches.collate(teacher.lessons(NUM_HELD_OUT_LESSONS, rng=random.Random(f"held out/{kind}")))
        for kind, teacher in teachers.items()
    }


@torch.no_grad()
def held_out_accuracy(
    model: CaptioningModel, tokenizer: PreTrainedTokenizerFast, held_out: dict[str, LessonBatch]
) -> dict[str, float]:
    """Teacher-forced accuracy by kind of lesson and of word; for a kind of question, the share of right answers."""
    model.eval()
    result: dict[str, float] = {}
    for kind, batch in held_out.items():
        if kind in HELD_OUT_KINDS:
            metrics = language_loss(model, batch, tokenizer=tokenizer, alignment_weight=0.0).metrics
            result |= {f"held_out/{kind}/{name.removeprefix('accuracy/')}": value for name, value in metrics.items()}
        else:
            result[f"held_out/{kind}"] = right_answers(model, batch)
    model.train()
    return result
