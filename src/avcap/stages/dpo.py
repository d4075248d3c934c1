"""One round's learning: preference pairs -> a fresh LoRA, trained by guided DPO against the model as it was; merged.

    log-probs of all pairs under the model as it is, kept in OUT/ref_logprobs.jsonl
    -> LoRA with B = 0: the first loss is that of equals (ln 2), checked
    -> packed rows [prompt | chosen | rejected | reference caption], the video read once
    -> merged in float32: the next round's reference policy

Paper (arXiv 2410.06682), section 3: multi-round DPO on a LoRA proxy, guided by cross-entropy on the ground truth. What
is beyond it: questions replayed beside the pairs, so that answering them is not forgotten.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from avcap.data.prompt import ChatStyle, encode_chat
from avcap.errors import UserError
from avcap.files.write import replacing
from avcap.model.captioning import CaptioningModel
from avcap.model.features import MediaFeatures
from avcap.model.lora import LoraConfig, attach_lora, merge_lora
from avcap.records import PreferencePair
from avcap.train.compute import checkpoint_activations, keep_trained_in_float32, mixed_precision, round_trained
from avcap.train.examples import divide
from avcap.train.loop import LoopConfig, LossOutput, run_loop
from avcap.train.losses import PreferenceConfig, StepSize, check_fresh_start, preference_loss
from avcap.train.optim import OptimConfig
from avcap.train.packing import PackedBatch, PairExample, pack, response_logprobs
from avcap.train.ref_logprobs import RefLogprobStore, ref_logprobs, ref_policy
from avcap.train.weight_regularizer import WeightRegularizer, WeightRegularizerConfig

MediaOf = Callable[[str], MediaFeatures]
"""Sample id -> its encoded video."""
ADAPTER = "adapter.safetensors"
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
class ReplayItem:
    """A question about a sample and its right answer."""

    sample_id: str
    prompt: str
    answer: str


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


@dataclass(frozen=True, kw_only=True)
class PairBatches:
    """Step -> pairs and questions, the same every time: each epoch in an order of its own; questions step by step."""

    pairs: Sequence[PreferencePair]
    batch_size: int
    seed: int
    replay: Sequence[ReplayItem] = ()
    replay_size: int = 0

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.pairs) / self.batch_size)

    def pairs_of(self, step: int) -> list[PreferencePair]:
        epoch, place = divmod(step, self.steps_per_epoch)
        order = list(range(len(self.pairs)))
        random.Random(f"pairs/{self.seed}/{epoch}").shuffle(order)
        chosen = order[place * self.batch_size : (place + 1) * self.batch_size]
        return [self.pairs[number] for number in chosen]

    def replay_of(self, step: int) -> list[ReplayItem]:
        rng = random.Random(f"replay/{self.seed}/{step}")
        return rng.sample(self.replay, min(self.replay_size, len(self.replay)))


def dpo(
    model: CaptioningModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    pairs: Sequence[PreferencePair],
    media_of: MediaOf,
    config: DpoConfig,
    seed: int,
    out_dir: Path,
    title: str = "dpo",
    replay: Sequence[ReplayItem] = (),
    adapter: Path | None = None,
) -> None:
    """Learns the pairs in place. Stopped and called again with the same model, it goes on where it was.

    `adapter`: a LoRA to go on with instead of a fresh one; its reference is `model` without it. OUT/adapter.safetensors
    is this round's.
    """
    _check(config, replay=replay)
    dtype = model.dtype
    out_dir.mkdir(parents=True, exist_ok=True)
    store = RefLogprobStore(out_dir / "ref_logprobs.jsonl", policy=ref_policy(model))
    batches = PairBatches(
        pairs=pairs,
        batch_size=config.batch_size,
        seed=seed,
        replay=replay,
        replay_size=config.replay.batch_size if config.replay.weight else 0,
    )
    encoder = _Encoder(model=model, tokenizer=tokenizer, media_of=media_of, max_tokens=config.max_tokens)
    _store_ref_logprobs(model, encoder, store, pairs, batch_size=config.batch_size)
    _choose_what_learns(model, config, seed=seed, adapter=adapter)
    learner = _Learner(
        model=model,
        encoder=encoder,
        batches=batches,
        store=store,
        config=config,
        is_fresh=adapter is None,
        weight_regularizer=_weight_regularizer(model, encoder, replay, config=config),
    )
    num_steps = config.epochs * batches.steps_per_epoch
    run_loop(
        model,
        make_batch=learner.parts,
        loss_fn=learner.loss,
        optim=config.optim,
        out_dir=out_dir,
        title=title,
        config=LoopConfig(num_steps=num_steps, checkpoint_every=config.checkpoint_every, log_every=1, num_workers=0),
        notes={"stage": "dpo", "seed": seed, "num_steps": num_steps, "num_pairs": len(pairs)},
    )
    if not config.full:
        with replacing(out_dir / ADAPTER) as aside:
            save_file(_lora_tensors(model), aside)
        merge_lora(model)
    round_trained(model, dtype=dtype)


def _check(config: DpoConfig, *, replay: Sequence[ReplayItem]) -> None:
    """UserError where fields that are good each do not go together."""
    regularizer = config.weight_regularizer
    if regularizer.kind != "none" and not (config.full and regularizer.weight > 0):
        raise UserError(
            f"got the weight regularizer {regularizer.kind} with weight {regularizer.weight} and "
            f"full={config.full}, expected a weight above 0 and full=true"
        )
    if (config.replay.weight or config.weight_regularizer.kind == "ewc") and not replay:
        raise UserError(
            "got replay.weight above 0, or the weight regularizer ewc, and no questions; expected some with answers"
        )


def _choose_what_learns(model: CaptioningModel, config: DpoConfig, *, seed: int, adapter: Path | None) -> None:
    """A LoRA, fresh or gone on with, or all layers; and the aligners if wanted."""
    model.requires_grad_(False)
    torch.manual_seed(seed)  # the LoRA's A
    if config.full:
        model.language_model.model.layers.requires_grad_(True)
    else:
        attach_lora(model, config.lora)
    if adapter is not None:
        with torch.no_grad():
            for name, tensor in load_file(adapter).items():
                model.get_parameter(name).copy_(tensor)
    if config.train_aligners:
        for aligner in (model.vision_aligner, model.audio_aligner):
            aligner.requires_grad_(True)
    keep_trained_in_float32(model)
    # Dropout would make the policy another one than its reference before anything is learned.
    model.eval()
    if config.checkpoint_activations:
        checkpoint_activations(model)


def _lora_tensors(model: CaptioningModel) -> dict[str, Tensor]:
    return {name: param.detach().contiguous() for name, param in model.named_parameters() if "lora_" in name}


# --- steps ------------------------------------------------------------------------------------------------------------


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

    def loss(self, learner: "_Learner") -> LossOutput:
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

    def loss(self, learner: "_Learner") -> LossOutput:
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
class _Learner:
    """Step -> its parts; a part -> its share of the loss."""

    model: CaptioningModel
    encoder: "_Encoder"
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


def _weight_regularizer(
    model: CaptioningModel, encoder: "_Encoder", replay: Sequence[ReplayItem], *, config: DpoConfig
) -> WeightRegularizer | None:
    if config.weight_regularizer.kind == "none":
        return None
    answer_losses = _replay_losses(model, encoder, replay) if config.weight_regularizer.kind == "ewc" else ()
    return WeightRegularizer(model, config.weight_regularizer, answer_losses=answer_losses)


def _replay_losses(
    model: CaptioningModel, encoder: "_Encoder", items: Sequence[ReplayItem], *, most: int = 200
) -> Iterator[Tensor]:
    """Questions, up to `most` -> -log p of the right answer of one after the other."""
    for item in items[:most]:
        examples, media = encoder.questions([item])
        with mixed_precision(model):
            packed = pack(examples).to(model.device)
            (found,) = response_logprobs(model, packed, model.align_batch(media))
        assert found.target is not None
        yield -found.target.total


def _store_ref_logprobs(
    model: CaptioningModel,
    encoder: "_Encoder",
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


@dataclass(frozen=True, kw_only=True)
class _Encoder:
    """Pairs and questions -> token ids and encoded media."""

    model: CaptioningModel
    tokenizer: PreTrainedTokenizerBase
    media_of: MediaOf
    max_tokens: int | None

    def pairs(self, pairs: Sequence[PreferencePair]) -> tuple[list[PairExample], tuple[MediaFeatures, ...]]:
        media = tuple(self.media_of(pair.sample_id) for pair in pairs)
        return [self._pair(*both) for both in zip(pairs, map(self.model.placeholders, media), strict=True)], media

    def questions(self, items: Sequence[ReplayItem]) -> tuple[list[PairExample], tuple[MediaFeatures, ...]]:
        media = tuple(self.media_of(item.sample_id) for item in items)
        return [self._question(*both) for both in zip(items, map(self.model.placeholders, media), strict=True)], media

    def divide(self, examples: Sequence[PairExample]) -> list[slice]:
        """Examples of a step -> those of each microbatch."""
        return divide([example.num_tokens for example in examples], max_tokens=self.max_tokens)

    def _pair(self, pair: PreferencePair, media_ids: Sequence[int]) -> PairExample:
        prompt_ids, chosen_ids = self._split(pair.prompt, pair.chosen, media_ids)
        target = pair.reference_caption
        return PairExample(
            sample_id=pair.sample_id,
            prompt_ids=prompt_ids,
            chosen_ids=chosen_ids,
            rejected_ids=self._split(pair.prompt, pair.rejected, media_ids)[1],
            target_ids=self._split(pair.prompt, target, media_ids)[1] if target else None,
        )

    def _question(self, item: ReplayItem, media_ids: Sequence[int]) -> PairExample:
        prompt_ids, answer_ids = self._split(item.prompt, item.answer, media_ids)
        return PairExample(sample_id=item.sample_id, prompt_ids=prompt_ids, target_ids=answer_ids)

    def _split(self, prompt: str, answer: str, media_ids: Sequence[int]) -> tuple[list[int], list[int]]:
        """Prompt and answer -> their token ids, the answer's with what closes it."""
        chat = ChatStyle(**self.model.config.chat)
        ids, is_target = encode_chat(self.tokenizer, [(prompt, answer)], media_ids, chat)
        first = is_target.index(True)
        return ids[:first], ids[first:]


def with_guidance(config: DpoConfig, weight: float) -> DpoConfig:
    """The same with this weight of the cross-entropy on reference captions."""
    return replace(config, loss=replace(config.loss, guidance_weight=weight))
