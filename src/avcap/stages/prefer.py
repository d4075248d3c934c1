"""One round's learning: preference pairs -> a fresh LoRA, trained by guided DPO against the model as it was; merged.

    log-probs of all pairs under the model as it is, kept in OUT/reference.jsonl
    -> LoRA with B = 0: the first loss is that of equals (ln 2), checked
    -> packed rows [prompt | chosen | rejected | reference caption], the video read once
    -> merged in float32: the next round's reference policy

Paper (arXiv 2410.06682), section 3: multi-round DPO on a LoRA proxy, guided by cross-entropy on the ground truth.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from avcap.data.prompt import ChatStyle, encode_chat
from avcap.errors import UserError
from avcap.model.features import MediaFeatures, MediaTokens
from avcap.model.lora import LoraConfig, attach_lora, merge_lora
from avcap.model.salmonn2 import Salmonn2ForCaptioning
from avcap.records import PreferencePair
from avcap.train.loop import LoopConfig, LossOutput, run_loop
from avcap.train.losses import PreferenceConfig, check_fresh_start, preference_loss
from avcap.train.optim import OptimConfig
from avcap.train.reference import ReferenceStore, reference_logprobs, reference_policy
from avcap.train.shared_prompt import PairExample, pack, response_logprobs

MediaOf = Callable[[PreferencePair], MediaFeatures]


@dataclass(frozen=True, kw_only=True)
class PreferConfig:
    """How a round learns from its pairs."""

    loss: PreferenceConfig = field(default_factory=PreferenceConfig)
    lora: LoraConfig = field(default_factory=lambda: LoraConfig(dropout=0.0))
    epochs: int = 2
    """Times that every pair is seen."""
    batch_size: int = 16
    """Pairs a step."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(lr=2e-5, muon_lr=None, warmup_steps=3, decay_fraction=1.0)
    )
    """It decays to 0 within the round: with a constant rate, rounds swing between shorter and longer captions."""
    checkpoint_every: int = 20

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise UserError(f"got epochs={self.epochs} and batch_size={self.batch_size}, wanted at least 1 of each")


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """Pairs of one step; step 0 is looked at closely."""

    step: int
    pairs: tuple[PreferencePair, ...]


@dataclass(frozen=True, kw_only=True)
class PairBatches:
    """Step -> pairs, the same ones every time: each epoch in an order of its own."""

    pairs: Sequence[PreferencePair]
    batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.pairs) / self.batch_size)

    def __call__(self, step: int) -> _Batch:
        epoch, place = divmod(step, self.steps_per_epoch)
        order = list(range(len(self.pairs)))
        random.Random(f"pairs/{self.seed}/{epoch}").shuffle(order)
        chosen = order[place * self.batch_size : (place + 1) * self.batch_size]
        return _Batch(step=step, pairs=tuple(self.pairs[number] for number in chosen))


def prefer(
    model: Salmonn2ForCaptioning, tokenizer: PreTrainedTokenizerBase, *, pairs: Sequence[PreferencePair],
    media_of: MediaOf, config: PreferConfig, seed: int, out_dir: Path, title: str = "dpo",
) -> None:  # fmt: skip
    """Learns the pairs in place. Stopped and called again with the same model, it goes on where it was."""
    encoder = _Encoder(model=model, tokenizer=tokenizer, media_of=media_of)
    out_dir.mkdir(parents=True, exist_ok=True)
    store = ReferenceStore(out_dir / "reference.jsonl", policy=reference_policy(model))
    batches = PairBatches(pairs=pairs, batch_size=config.batch_size, seed=seed)
    _store_reference(model, encoder, store, pairs, batch_size=config.batch_size)
    model.requires_grad_(False)
    torch.manual_seed(seed)  # the LoRA's A
    attach_lora(model, config.lora)
    # Dropout would make the policy another one than its reference before anything is learned.
    model.eval()

    def loss_fn(batch: _Batch) -> LossOutput:
        examples, media_tokens = encoder(batch.pairs)
        logprobs = response_logprobs(model, pack(examples), media_tokens)
        output = preference_loss(logprobs, store.lookup(examples), config.loss)
        if batch.step == 0:
            check_fresh_start(output, config.loss)
        return output

    num_steps = config.epochs * batches.steps_per_epoch
    run_loop(
        model, make_batch=batches, loss_fn=loss_fn, optim=config.optim, out_dir=out_dir, title=title,
        config=LoopConfig(
            num_steps=num_steps, checkpoint_every=config.checkpoint_every, log_every=1, num_workers=0
        ),
        notes={"stage": "prefer", "seed": seed, "num_steps": num_steps, "num_pairs": len(pairs)},
    )  # fmt: skip
    merge_lora(model)


def _store_reference(
    model: Salmonn2ForCaptioning, encoder: "_Encoder", store: ReferenceStore, pairs: Sequence[PreferencePair],
    *, batch_size: int,
) -> None:  # fmt: skip
    """Computes what the store lacks."""
    for first in range(0, len(pairs), batch_size):
        examples, media_tokens = encoder(pairs[first : first + batch_size])
        lacking = {id(example) for example in store.missing(examples)}
        wanted = [both for both in zip(examples, media_tokens, strict=True) if id(both[0]) in lacking]
        if wanted:
            found = [example for example, _ in wanted]
            store.add(found, reference_logprobs(model, found, [tokens for _, tokens in wanted]))


@dataclass(frozen=True, kw_only=True)
class _Encoder:
    """Pairs -> token ids and aligned media; the aligners are frozen in preference rounds."""

    model: Salmonn2ForCaptioning
    tokenizer: PreTrainedTokenizerBase
    media_of: MediaOf

    def __call__(self, pairs: Sequence[PreferencePair]) -> tuple[list[PairExample], list[MediaTokens]]:
        media = [self.media_of(pair) for pair in pairs]
        examples = [self._example(pair, self.model.placeholders(one)) for pair, one in zip(pairs, media, strict=True)]
        with torch.no_grad():
            return examples, self.model.align_batch(media)

    def _example(self, pair: PreferencePair, media_ids: Sequence[int]) -> PairExample:
        chat = ChatStyle(**self.model.config.chat)

        def split(answer: str) -> tuple[list[int], list[int]]:
            ids, is_target = encode_chat(self.tokenizer, [(pair.prompt, answer)], media_ids, chat)
            first = is_target.index(True)
            return ids[:first], ids[first:]

        prompt_ids, chosen_ids = split(pair.chosen)
        return PairExample(
            sample_id=pair.sample_id, prompt_ids=prompt_ids, chosen_ids=chosen_ids,
            rejected_ids=split(pair.rejected)[1],
            reference_ids=split(pair.reference_caption)[1] if pair.reference_caption else None,
        )  # fmt: skip


def with_guidance(config: PreferConfig, weight: float) -> PreferConfig:
    """The same with this weight of the cross-entropy on reference captions."""
    return replace(config, loss=replace(config.loss, guidance_weight=weight))
