"""The world as a source of examples: examples drawn from its tracks, and how a stage learns from them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from transformers import PreTrainedTokenizerFast

from avcap.curriculum.examples import (
    ExampleMix,
    ExampleSampler,
    QuestionMix,
    TokenWeights,
    WorldExample,
    WorldExampleBatch,
    make_batches,
    only,
)
from avcap.curriculum.feature_tracks import FeatureTrackConfig, FeatureTracks, load_feature_tracks, make_feature_tracks
from avcap.curriculum.loss import example_loss, right_answers
from avcap.model.captioning import CaptioningModel
from avcap.model.encoder_hash import encoder_hash
from avcap.model.lora import LoraConfig
from avcap.train.compute import device_of, mixed_precision
from avcap.train.examples import ExampleEncoder
from avcap.train.loop import LoopConfig, LossOutput
from avcap.train.optim import OptimConfig
from avcap.world.questions import question_kinds

NUM_HELD_OUT_EXAMPLES = 48  # of each kind
HELD_OUT_KINDS = ("seconds", "visual", "audio", "interval")


@dataclass(frozen=True, kw_only=True)
class WorldFinetuneConfig:
    """How a stage learns from tracks of the world."""

    mix: ExampleMix
    """Which kinds of example, after the steps of seconds."""
    question_mix: QuestionMix = field(default_factory=QuestionMix)
    """Which kinds of question, in examples of questions."""
    second_steps: int = 0
    """Steps at the start with examples of seconds alone: nearly all they ask for is content, so it is learned first."""
    seed: int = 0
    batch_size: int = 32
    """Examples a step."""
    alignment_weight: float = 1.0
    """Weight of the bag-of-words loss on media tokens; without it single attributes stay at chance for long."""
    weights: TokenWeights = field(default_factory=TokenWeights)
    lora: LoraConfig | None = None
    """LoRA on the language model; None: it learns itself, or is frozen, as the stage says."""
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(num_steps=100, num_workers=0))
    optim: OptimConfig = field(default_factory=OptimConfig)
    feature_tracks: FeatureTrackConfig = field(default_factory=FeatureTrackConfig)

    knows_world: ClassVar[bool] = True
    """Whether what is learned is the world: then the model's settings say so."""

    def source(
        self, model: CaptioningModel, tokenizer: PreTrainedTokenizerFast, *, encoders: Path, shared_dir: Path
    ) -> "Curriculum":
        """-> examples for this model, from tracks in `shared_dir`, which the encoders in the folder `encoders` make."""
        torch.set_num_threads(1)  # matrices this small lose more to a second thread's start than it gives
        feature_tracks_dir = shared_dir / f"feature-tracks-{encoder_hash(model)}-{self.seed}"
        make_feature_tracks(encoders, feature_tracks_dir, seed=self.seed, config=self.feature_tracks)
        return Curriculum(model=model, tokenizer=tokenizer, feature_tracks_dir=feature_tracks_dir, config=self)


@dataclass(frozen=True, kw_only=True)
class WorldExampleBatches:
    """Step -> microbatches of examples, the same ones every time."""

    encoder: ExampleEncoder
    feature_tracks: FeatureTracks
    config: WorldFinetuneConfig

    def __call__(self, step: int) -> list[WorldExampleBatch]:
        mix = ExampleMix(seconds=1.0) if step < self.config.second_steps else self.config.mix
        rng = random.Random(f"lessons/{self.config.seed}/{step}")
        sampler = ExampleSampler(feature_tracks=self.feature_tracks, mix=mix, question_mix=self.config.question_mix)
        return self.collate(sampler.examples(self.config.batch_size, rng=rng))

    def collate(self, examples: Sequence[WorldExample]) -> list[WorldExampleBatch]:
        config = self.config
        return make_batches(examples, encoder=self.encoder, weights=config.weights, max_tokens=config.loop.max_tokens)


class Curriculum:
    """An ExampleSource (train.examples): examples, the same ones for the same seed."""

    def __init__(
        self,
        *,
        model: CaptioningModel,
        tokenizer: PreTrainedTokenizerFast,
        feature_tracks_dir: Path,
        config: WorldFinetuneConfig,
    ) -> None:
        self.model, self.tokenizer, self.config = model, tokenizer, config
        feature_tracks = load_feature_tracks(feature_tracks_dir, seed=config.seed, config=config.feature_tracks)
        encoder = ExampleEncoder(model=model, tokenizer=tokenizer)
        self._batches = WorldExampleBatches(encoder=encoder, feature_tracks=feature_tracks, config=config)
        self._held_out = held_out_batches(self._batches, feature_tracks_dir=feature_tracks_dir)

    def batches(self) -> WorldExampleBatches:
        return self._batches

    def loss(self, batch: WorldExampleBatch) -> LossOutput:
        return self._loss(batch, alignment_weight=self.config.alignment_weight)

    def _loss(self, batch: WorldExampleBatch, *, alignment_weight: float) -> LossOutput:
        return example_loss(self.model, batch, tokenizer=self.tokenizer, alignment_weight=alignment_weight)

    @torch.no_grad()
    def held_out(self) -> dict[str, float]:
        """Teacher-forced accuracy by kind of example and of word; of a kind of question, the share of right answers."""
        self.model.eval()
        result: dict[str, float] = {}
        for kind, batch in self._held_out.items():
            with mixed_precision(self.model):
                moved = batch.to(device_of(self.model))
                if kind in HELD_OUT_KINDS:
                    metrics = self._loss(moved, alignment_weight=0.0).metrics
                    names = {name: name.removeprefix("accuracy/") for name in metrics}
                    result |= {f"held_out/{kind}/{names[name]}": value for name, value in metrics.items()}
                else:
                    result[f"held_out/{kind}"] = right_answers(self.model, moved)
        self.model.train()
        return result

    def leave(self, folder: Path) -> None:
        """Nothing: examples are known from the configuration."""


def held_out_batches(batches: WorldExampleBatches, *, feature_tracks_dir: Path) -> dict[str, WorldExampleBatch]:
    """One batch of clean examples of each kind and of each kind of question, from tracks that nothing learns from."""
    feature_tracks = load_feature_tracks(
        feature_tracks_dir, seed=batches.config.seed, config=batches.config.feature_tracks, held_out=True
    )
    samplers = {
        kind: ExampleSampler(feature_tracks=feature_tracks, mix=ExampleMix(**{kind: 1.0})) for kind in HELD_OUT_KINDS
    }
    for kind in question_kinds():
        samplers[f"questions/{kind}"] = ExampleSampler(
            feature_tracks=feature_tracks,
            mix=ExampleMix(questions=1.0),
            question_mix=only(kind),
            questions_per_example=2,
        )
    return {
        kind: make_batches(
            sampler.examples(NUM_HELD_OUT_EXAMPLES, rng=random.Random(f"held out/{kind}")),
            encoder=batches.encoder,
            weights=batches.config.weights,
        )[0]
        for kind, sampler in samplers.items()
    }
