"""Examples: media with prompts and the answers to learn; they become packed rows, in microbatches.

    Example --encode--> EncodedExample --divide, pack--> AnswerBatch, a microbatch of a step --answer_loss--> LossOutput

A step's loss is normalised by the target weight of the whole step, which every microbatch of it carries: so the sum of
their losses, and of their gradients, is that of one big batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import PreTrainedTokenizerBase

from avcap.data.prompt import ChatStyle, encode_branches
from avcap.model.captioning import CaptioningModel
from avcap.model.features import MediaFeatures
from avcap.model.lora import LoraConfig
from avcap.train.loop import LoopConfig, LossOutput, MakeBatch
from avcap.train.optim import OptimConfig
from avcap.train.packing import Branch, EncodedExample, PackedBatch, pack

Turn = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Example:
    """Media with prompts, each asked as if it were the only one, and their answers."""

    media: MediaFeatures | Callable[[], MediaFeatures]
    """Features, or what gives them when they are needed: a video that is still to be read."""
    turns: tuple[Turn, ...]
    """(prompt, answer) pairs."""
    weights: tuple[tuple[float, ...], ...] | None = None
    """Of the tokens of each answer, with what closes it, in the loss; None: all count 1."""
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class AnswerBatch:
    """A microbatch: some examples of a step as one row, and the target weight of the whole step."""

    packed: PackedBatch
    media: tuple[MediaFeatures, ...]
    step_weight: float

    def to(self, device: torch.device) -> "AnswerBatch":
        media = tuple(one.to(device) for one in self.media)
        return replace(self, packed=self.packed.to(device), media=media)


class FinetuneConfig(Protocol):
    """What learning from examples needs: how, and from which source."""

    @property
    def seed(self) -> int: ...
    @property
    def lora(self) -> LoraConfig | None: ...
    @property
    def loop(self) -> LoopConfig: ...
    @property
    def optim(self) -> OptimConfig: ...


class ExampleSource(Protocol):
    """Where a stage's examples come from, and what is learned of them; a stage does not ask which source it has."""

    def batches(self) -> MakeBatch:
        """-> step number -> the microbatches of that step, the same ones every time."""

    def loss(self, batch: Any) -> LossOutput:
        """A microbatch -> its share of the step's loss."""

    def held_out(self) -> dict[str, float]:
        """-> figures on examples that are never trained on; empty if there are none."""

    def leave(self, folder: Path) -> None:
        """Writes what is to be known of the examples after the run beside its other files."""


@dataclass(frozen=True, kw_only=True)
class ExampleEncoder:
    """Examples -> token ids for one model."""

    model: CaptioningModel
    tokenizer: PreTrainedTokenizerBase

    def encode(self, example: Example, media: MediaFeatures) -> EncodedExample:
        """An example and its features -> its ids; answers without `weights` count 1 a token."""
        chat = ChatStyle(**self.model.config.chat)
        row = encode_branches(self.tokenizer, example.turns, self.model.placeholders(media), chat)
        given = example.weights or (None,) * len(example.turns)
        branches = [
            Branch(ids=branch.ids, weights=_weights(branch.is_target, weights))
            for branch, weights in zip(row.branches, given, strict=True)
        ]
        return EncodedExample(sample_id=example.name, prompt_ids=row.shared_ids, branches=branches)

    def batches(self, examples: Sequence[Example], *, max_tokens: int | None) -> list[AnswerBatch]:
        """Examples of one step -> its microbatches of at most `max_tokens` each."""
        media = [read_media(example) for example in examples]
        encoded = [self.encode(*both) for both in zip(examples, media, strict=True)]
        return batches_of(encoded, media, max_tokens=max_tokens)


def _weights(is_target: Sequence[bool], weights: Sequence[float] | None) -> list[float]:
    """Which ids of a branch are targets, and the weights of those -> the weight of every id."""
    each = iter([1.0] * sum(is_target) if weights is None else weights)
    found = [next(each) if target else 0.0 for target in is_target]
    assert next(each, None) is None, "more weights than the answer has tokens"
    return found


def read_media(example: Example) -> MediaFeatures:
    """An example -> its features, read now if they were not."""
    return example.media if isinstance(example.media, MediaFeatures) else example.media()


def batches_of(
    encoded: Sequence[EncodedExample], media: Sequence[MediaFeatures], *, max_tokens: int | None
) -> list[AnswerBatch]:
    """Encoded examples of one step and their features -> its microbatches."""
    step_weight = sum(example.weight for example in encoded)
    return [
        AnswerBatch(packed=pack(encoded[part]), media=tuple(media[part]), step_weight=step_weight)
        for part in divide([example.num_tokens for example in encoded], max_tokens=max_tokens)
    ]


def divide(num_tokens: Sequence[int], *, max_tokens: int | None) -> list[slice]:
    """Tokens of each example -> slices of at most `max_tokens`, in order; a longer example stands alone.

    >>> divide([5, 3, 9, 2, 2], max_tokens=8)
    [slice(0, 2, None), slice(2, 3, None), slice(3, 5, None)]
    """
    if max_tokens is None:
        return [slice(0, len(num_tokens))]
    parts, first, total = [], 0, 0
    for index, number in enumerate(num_tokens):
        if index > first and total + number > max_tokens:
            parts.append(slice(first, index))
            first, total = index, 0
        total += number
    return [*parts, slice(first, len(num_tokens))]
