"""One round's learning: preference pairs -> a fresh LoRA, trained by guided DPO against the model as it was; merged.

    log-probs of all pairs under the model as it is, kept in OUT/reference.jsonl
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

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from avcap.data.prompt import ChatStyle, encode_chat
from avcap.errors import UserError
from avcap.files.write import replacing
from avcap.model.captioning import CaptioningModel
from avcap.model.features import MediaFeatures, MediaTokens
from avcap.model.lora import LoraConfig, attach_lora, merge_lora
from avcap.records import PreferencePair
from avcap.train.anchor import Anchor, AnchorConfig
from avcap.train.loop import LoopConfig, LossOutput, run_loop
from avcap.train.losses import PreferenceConfig, check_fresh_start, preference_loss
from avcap.train.optim import OptimConfig
from avcap.train.reference import ReferenceStore, reference_logprobs, reference_policy
from avcap.train.shared_prompt import PairExample, pack, response_logprobs

MediaOf = Callable[[str], MediaFeatures]
"""Sample id -> its encoded video."""
ADAPTER = "adapter.safetensors"


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
class PreferConfig:
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
    anchor: AnchorConfig = field(default_factory=AnchorConfig)
    """Only with `full`: it holds weights, and a LoRA's own begin at nothing."""
    checkpoint_every: int = 20

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise UserError(f"got epochs={self.epochs} and batch_size={self.batch_size}, wanted at least 1 of each")


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """Pairs of one step, and questions to replay; step 0 is looked at closely."""

    step: int
    pairs: tuple[PreferencePair, ...]
    replay: tuple[ReplayItem, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PairBatches:
    """Step -> pairs, the same ones every time: each epoch in an order of its own; questions are drawn step by step."""

    pairs: Sequence[PreferencePair]
    batch_size: int
    seed: int
    replay: Sequence[ReplayItem] = ()
    replay_size: int = 0

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.pairs) / self.batch_size)

    def __call__(self, step: int) -> _Batch:
        epoch, place = divmod(step, self.steps_per_epoch)
        order = list(range(len(self.pairs)))
        random.Random(f"pairs/{self.seed}/{epoch}").shuffle(order)
        chosen = order[place * self.batch_size : (place + 1) * self.batch_size]
        rng = random.Random(f"replay/{self.seed}/{step}")
        replay = rng.sample(self.replay, min(self.replay_size, len(self.replay)))
        return _Batch(step=step, pairs=tuple(self.pairs[number] for number in chosen), replay=tuple(replay))


def prefer(
    model: CaptioningModel, tokenizer: PreTrainedTokenizerBase, *, pairs: Sequence[PreferencePair],
    media_of: MediaOf, config: PreferConfig, seed: int, out_dir: Path, title: str = "dpo",
    replay: Sequence[ReplayItem] = (), adapter: Path | None = None,
) -> None:  # fmt: skip
    """Learns the pairs in place. Stopped and called again with the same model, it goes on where it was.

    `adapter`: a LoRA to go on with instead of a fresh one; its reference is `model` without it. OUT/adapter.safetensors
    is this round's.
    """
    _check(config, replay=replay)
    encoder = _Encoder(model=model, tokenizer=tokenizer, media_of=media_of)
    out_dir.mkdir(parents=True, exist_ok=True)
    store = ReferenceStore(out_dir / "reference.jsonl", policy=reference_policy(model))
    batches = PairBatches(
        pairs=pairs, batch_size=config.batch_size, seed=seed, replay=replay,
        replay_size=config.replay.batch_size if config.replay.weight else 0,
    )  # fmt: skip
    _store_reference(model, encoder, store, pairs, batch_size=config.batch_size)
    _choose_what_learns(model, config, seed=seed, adapter=adapter)
    anchor = None
    if config.anchor.kind != "none":
        answer_losses = _replay_losses(model, encoder, replay) if config.anchor.kind == "ewc" else ()
        anchor = Anchor(model, config.anchor, answer_losses=answer_losses)

    def loss_fn(batch: _Batch) -> LossOutput:
        examples, media_tokens = encoder.pairs(batch.pairs, learn_aligners=config.train_aligners)
        logprobs = response_logprobs(model, pack(examples), media_tokens)
        output = preference_loss(logprobs, store.lookup(examples), config.loss)
        if batch.step == 0 and adapter is None:
            check_fresh_start(output, config.loss)
        terms = {}
        if batch.replay:
            terms["replay"] = config.replay.weight * _replay_loss(model, encoder, batch.replay)
        if anchor:
            terms["anchor"] = anchor.penalty()
        return _with_terms(output, terms)

    num_steps = config.epochs * batches.steps_per_epoch
    run_loop(
        model, make_batch=batches, loss_fn=loss_fn, optim=config.optim, out_dir=out_dir, title=title,
        config=LoopConfig(
            num_steps=num_steps, checkpoint_every=config.checkpoint_every, log_every=1, num_workers=0
        ),
        notes={"stage": "prefer", "seed": seed, "num_steps": num_steps, "num_pairs": len(pairs)},
    )  # fmt: skip
    if not config.full:
        with replacing(out_dir / ADAPTER) as aside:
            save_file(_lora_tensors(model), aside)
        merge_lora(model)


def _check(config: PreferConfig, *, replay: Sequence[ReplayItem]) -> None:
    """UserError where fields that are good each do not go together."""
    if config.anchor.kind != "none" and not (config.full and config.anchor.weight > 0):
        raise UserError(
            f"got the anchor {config.anchor.kind} with weight {config.anchor.weight} and full={config.full}, wanted a "
            "weight above 0 and full=true"
        )
    if (config.replay.weight or config.anchor.kind == "ewc") and not replay:
        raise UserError("got replay.weight above 0, or the anchor ewc, and no questions; wanted some with answers")


def _choose_what_learns(
    model: CaptioningModel, config: PreferConfig, *, seed: int, adapter: Path | None
) -> None:
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
        for aligner in (model.vision_aligner, model.sound_aligner):
            aligner.requires_grad_(True)
    # Dropout would make the policy another one than its reference before anything is learned.
    model.eval()


def _lora_tensors(model: CaptioningModel) -> dict[str, Tensor]:
    return {name: param.detach().contiguous() for name, param in model.named_parameters() if "lora_" in name}


def _with_terms(output: LossOutput, terms: dict[str, Tensor]) -> LossOutput:
    """The same with more terms in the loss, each logged under its name."""
    metrics = output.metrics | {name: term.item() for name, term in terms.items()}
    return replace(output, loss=output.loss + sum(terms.values()), metrics=metrics)


def _replay_loss(model: CaptioningModel, encoder: "_Encoder", items: Sequence[ReplayItem]) -> Tensor:
    """Questions -> cross-entropy of their right answers, per token."""
    examples, media_tokens = encoder.questions(items)
    answers = [found.reference for found in response_logprobs(model, pack(examples), media_tokens) if found.reference]
    return -torch.stack([answer.total for answer in answers]).sum() / sum(answer.num_tokens for answer in answers)


def _replay_losses(
    model: CaptioningModel, encoder: "_Encoder", items: Sequence[ReplayItem], *, most: int = 200
) -> Iterator[Tensor]:
    """Questions, up to `most` -> -log p of the right answer of one after the other."""
    for item in items[:most]:
        examples, media_tokens = encoder.questions([item])
        (found,) = response_logprobs(model, pack(examples), media_tokens)
        assert found.reference is not None
        yield -found.reference.total


def _store_reference(
    model: CaptioningModel, encoder: "_Encoder", store: ReferenceStore, pairs: Sequence[PreferencePair],
    *, batch_size: int,
) -> None:  # fmt: skip
    """Computes what the store lacks."""
    for first in range(0, len(pairs), batch_size):
        examples, media_tokens = encoder.pairs(pairs[first : first + batch_size])
        lacking = {id(example) for example in store.missing(examples)}
        wanted = [both for both in zip(examples, media_tokens, strict=True) if id(both[0]) in lacking]
        if wanted:
            found = [example for example, _ in wanted]
            store.add(found, reference_logprobs(model, found, [tokens for _, tokens in wanted]))


@dataclass(frozen=True, kw_only=True)
class _Encoder:
    """Pairs and questions -> token ids and aligned media."""

    model: CaptioningModel
    tokenizer: PreTrainedTokenizerBase
    media_of: MediaOf

    def pairs(
        self, pairs: Sequence[PreferencePair], *, learn_aligners: bool = False
    ) -> tuple[list[PairExample], list[MediaTokens]]:
        media = [self.media_of(pair.sample_id) for pair in pairs]
        examples = [self._pair(pair, self.model.placeholders(one)) for pair, one in zip(pairs, media, strict=True)]
        with torch.set_grad_enabled(learn_aligners):
            return examples, self.model.align_batch(media)

    def questions(self, items: Sequence[ReplayItem]) -> tuple[list[PairExample], list[MediaTokens]]:
        media = [self.media_of(item.sample_id) for item in items]
        examples = [self._question(item, self.model.placeholders(one)) for item, one in zip(items, media, strict=True)]
        with torch.no_grad():
            return examples, self.model.align_batch(media)

    def _pair(self, pair: PreferencePair, media_ids: Sequence[int]) -> PairExample:
        prompt_ids, chosen_ids = self._split(pair.prompt, pair.chosen, media_ids)
        reference = pair.reference_caption
        return PairExample(
            sample_id=pair.sample_id, prompt_ids=prompt_ids, chosen_ids=chosen_ids,
            rejected_ids=self._split(pair.prompt, pair.rejected, media_ids)[1],
            reference_ids=self._split(pair.prompt, reference, media_ids)[1] if reference else None,
        )  # fmt: skip

    def _question(self, item: ReplayItem, media_ids: Sequence[int]) -> PairExample:
        prompt_ids, answer_ids = self._split(item.prompt, item.answer, media_ids)
        return PairExample(sample_id=item.sample_id, prompt_ids=prompt_ids, reference_ids=answer_ids)

    def _split(self, prompt: str, answer: str, media_ids: Sequence[int]) -> tuple[list[int], list[int]]:
        """Prompt and answer -> their token ids, the answer's with what closes it."""
        chat = ChatStyle(**self.model.config.chat)
        ids, is_target = encode_chat(self.tokenizer, [(prompt, answer)], media_ids, chat)
        first = is_target.index(True)
        return ids[:first], ids[first:]


def with_guidance(config: PreferConfig, weight: float) -> PreferConfig:
    """The same with this weight of the cross-entropy on reference captions."""
    return replace(config, loss=replace(config.loss, guidance_weight=weight))
