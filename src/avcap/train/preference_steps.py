"""A step of guided DPO: its packed parts, the loss of each, and the log-probs of the reference policy."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from avcap.errors import UserError
from avcap.model.captioning import CaptioningModel
from avcap.model.features import MediaFeatures
from avcap.model.lora import LoraConfig
from avcap.records import PreferencePair
from avcap.train.compute import mixed_precision
from avcap.train.loop import LossOutput
from avcap.train.losses import PreferenceConfig, StepSize, preference_loss
from avcap.train.optim import OptimConfig
from avcap.train.packing import PackedBatch, pack, response_logprobs
from avcap.train.pair_examples import PairBatches, PairEncoder, ReplayItem
from avcap.train.ref_logprobs import RefLogprobStore, ref_logprobs
from avcap.train.weight_regularizer import WeightRegularizer, WeightRegularizerConfig

FRESH_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.1}
"""In nats of reward: 16-bit sums over other neighbours in a batch differ by so much."""


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """Questions with their right answers, learned beside the pairs."""

    weight: float = 0.0
    """Of their cross-entropy, per token; 0: none are replayed."""
    batch_size: int = 16
    """Questions a step."""


@dataclass(frozen=True, kw_only=True)
class DpoConfig:
    """How a round learns from its pairs."""

    loss: PreferenceConfig = field(default_factory=PreferenceConfig)
    lora: LoraConfig = field(default_factory=lambda: LoraConfig(dropout=0.0))
    full: bool = False
    """All layers of the language model learn, and no LoRA."""
    train_aligners: bool = False
    """The aligners learn with the LoRA; they have no proxy of their own."""
    epochs: int = 2
    """Times that every pair is seen."""
    batch_size: int = 16
    """Pairs a step."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(lr=2e-5, muon_lr=None, warmup_steps=3, decay_fraction=1.0)
    )
    """It decays to 0 within the round: with a constant rate, rounds swing between shorter and longer captions."""
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    weight_regularizer: WeightRegularizerConfig = field(default_factory=WeightRegularizerConfig)
    """Only with `full`: it holds weights, and a LoRA's own begin at nothing."""
    checkpoint_every: int = 20
    max_tokens: int | None = None
    """Most tokens of a microbatch, of which a step may have several; None: a step is one."""
    checkpoint_activations: bool = False
    """Compute the layers of the language model once more in the backward pass: more time, much less memory."""

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise UserError(f"max_tokens: got {self.max_tokens}, expected 1 or more, or null for whole steps at once")
        if self.epochs < 1 or self.batch_size < 1:
            raise UserError(f"got epochs={self.epochs} and batch_size={self.batch_size}, expected at least 1 of each")

    def check(self, *, has_questions: bool) -> None:
        """Raises UserError where fields that are good each do not go together, or need questions to be replayed."""
        regularizer = self.weight_regularizer
        if regularizer.kind != "none" and not (self.full and regularizer.weight > 0):
            raise UserError(
                f"got the weight regularizer {regularizer.kind} with weight {regularizer.weight} and "
                f"full={self.full}, expected a weight above 0 and full=true"
            )
        if (self.replay.weight or self.weight_regularizer.kind == "ewc") and not has_questions:
            raise UserError(
                "got replay.weight above 0, or the weight regularizer ewc, and no questions; expected some with answers"
            )


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Some pairs, or some questions, of a step as a packed row: what is read in one go."""

    packed: PackedBatch
    media: tuple[MediaFeatures, ...]

    def to(self, device: torch.device) -> Self:
        return replace(self, packed=self.packed.to(device), media=tuple(one.to(device) for one in self.media))


@dataclass(frozen=True, kw_only=True)
class _PairPart(_Part):
    """`size`: what the whole step has. The first part of a step carries what is no pair's: the weight regularizer."""

    step: int
    is_first: bool
    size: StepSize

    def loss(self, learner: "DpoLearner") -> LossOutput:
        model, config = learner.model, learner.config
        logprobs = response_logprobs(model, self.packed, model.align_batch(self.media))
        ref_logprobs = learner.store.lookup(self.packed.examples, device=model.device)
        output = preference_loss(logprobs, ref_logprobs, config.loss, step=self.size)
        if self.step == 0 and learner.is_fresh:
            check_fresh_start(output, config.loss, tolerance=FRESH_TOLERANCE[model.dtype])
        if learner.weight_regularizer is None or not self.is_first:
            return output
        penalty = learner.weight_regularizer.penalty()
        return replace(
            output, loss=output.loss + penalty, metrics=output.metrics | {"weight_regularizer": penalty.item()}
        )


@dataclass(frozen=True, kw_only=True)
class _ReplayPart(_Part):
    """`num_step_tokens`: of all answers that the step replays."""

    num_step_tokens: int

    def loss(self, learner: "DpoLearner") -> LossOutput:
        """Questions -> cross-entropy of their right answers, per token."""
        model, weight = learner.model, learner.config.replay.weight
        with torch.no_grad():
            media_tokens = model.align_batch(self.media)
        answers = [one.target for one in response_logprobs(model, self.packed, media_tokens) if one.target]
        total, num_tokens = -torch.stack([answer.total for answer in answers]).sum(), sum(a.num_tokens for a in answers)
        return LossOutput(
            loss=weight * (total / self.num_step_tokens),
            metrics={"replay": weight * total.item() / num_tokens},
            weight=num_tokens,
        )


@dataclass(frozen=True, kw_only=True)
class DpoLearner:
    """Step -> its parts; a part -> its share of the loss."""

    model: CaptioningModel
    encoder: "PairEncoder"
    batches: PairBatches
    store: RefLogprobStore
    config: DpoConfig
    weight_regularizer: WeightRegularizer | None
    is_fresh: bool
    """Nothing was learned before the first step: policy and reference policy are the same."""

    def parts(self, step: int) -> list[_Part]:
        examples, media = self.encoder.pairs(self.batches.pairs_of(step))
        size = StepSize(num_pairs=len(examples), num_guided_tokens=sum(len(one.target_ids or ()) for one in examples))
        found: list[_Part] = [
            _PairPart(packed=pack(examples[part]), media=media[part], step=step, is_first=part.start == 0, size=size)
            for part in self.encoder.divide(examples)
        ]
        items = self.batches.replay_of(step)
        if items:
            examples, media = self.encoder.questions(items)
            num_tokens = sum(len(one.target_ids or ()) for one in examples)
            found += [
                _ReplayPart(packed=pack(examples[part]), media=media[part], num_step_tokens=num_tokens)
                for part in self.encoder.divide(examples)
            ]
        return found

    def loss(self, part: _PairPart | _ReplayPart) -> LossOutput:
        return part.loss(self)


def make_weight_regularizer(
    model: CaptioningModel, encoder: "PairEncoder", replay: Sequence[ReplayItem], *, config: DpoConfig
) -> WeightRegularizer | None:
    if config.weight_regularizer.kind == "none":
        return None
    answer_losses = _replay_losses(model, encoder, replay) if config.weight_regularizer.kind == "ewc" else ()
    return WeightRegularizer(model, config.weight_regularizer, answer_losses=answer_losses)


def _replay_losses(
    model: CaptioningModel, encoder: "PairEncoder", items: Sequence[ReplayItem], *, most: int = 200
) -> Iterator[Tensor]:
    """Questions, up to `most` -> -log p of the right answer of one after the other."""
    for item in items[:most]:
        examples, media = encoder.questions([item])
        with mixed_precision(model):
            packed = pack(examples).to(model.device)
            (found,) = response_logprobs(model, packed, model.align_batch(media))
        assert found.target is not None
        yield -found.target.total


def store_ref_logprobs(
    model: CaptioningModel,
    encoder: "PairEncoder",
    store: RefLogprobStore,
    pairs: Sequence[PreferencePair],
    *,
    batch_size: int,
) -> None:
    """Computes what the store lacks."""
    for first in range(0, len(pairs), batch_size):
        examples, media = encoder.pairs(pairs[first : first + batch_size])
        lacking = store.missing(examples)
        examples, media = [examples[index] for index in lacking], tuple(media[index] for index in lacking)
        for part in encoder.divide(examples) if examples else []:
            with torch.no_grad(), mixed_precision(model):
                media_tokens = model.align_batch(media[part])
            store.add(examples[part], ref_logprobs(model, examples[part], media_tokens))


def with_guidance(config: DpoConfig, weight: float) -> DpoConfig:
    """The same with this weight of the cross-entropy on reference captions."""
    return replace(config, loss=replace(config.loss, guidance_weight=weight))


def check_fresh_start(output: LossOutput, config: PreferenceConfig, *, tolerance: float = 1e-3) -> None:
    """The loss of a round's first step; raises UserError unless policy and reference policy are still one and the same.

    Then every margin is 0: dpo is ln 2, ipo is 1 / (2 beta)^2. Anything else: stale reference log-probs, dropout, or a
    LoRA that was not fresh. `tolerance` is in nats of reward; bfloat16 needs more.
    """
    if config.loss == "sft" or "preference" not in output.metrics:
        return
    expected = math.log(2) if config.loss == "dpo" else (1 / (2 * config.beta)) ** 2
    names = ("rewards/chosen", "rewards/rejected")
    if any(not abs(output.metrics[name]) <= tolerance for name in names):
        rewards = ", ".join(f"{name} {output.metrics[name]:.4g}" for name in names)
        raise UserError(
            f"first step of the round: preference loss {output.metrics['preference']:.4f}, {rewards}; expected "
            f"{expected:.4f} and rewards of 0, since nothing is learned yet: the reference log-probs are not this "
            "model's, or dropout is on"
        )
