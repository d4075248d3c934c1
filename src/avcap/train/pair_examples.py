"""Preference pairs and replayed questions of each step, as token ids and encoded media."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from avcap.data.prompt import ChatIds, ChatStyle, encode_chat
from avcap.model.captioning import CaptioningModel
from avcap.model.features import MediaFeatures
from avcap.records import PreferencePair
from avcap.train.examples import divide
from avcap.train.packing import PairExample

MediaOf = Callable[[str], MediaFeatures]
"""Sample id -> its encoded video."""


@dataclass(frozen=True, kw_only=True)
class ReplayItem:
    """A question about a sample and its right answer."""

    sample_id: str
    prompt: str
    answer: str


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


@dataclass(frozen=True, kw_only=True)
class PairEncoder:
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
        chosen, target = self._encode(pair.prompt, pair.chosen, media_ids), pair.reference_caption
        return PairExample(
            sample_id=pair.sample_id,
            prompt_ids=chosen.prompt_ids,
            chosen_ids=chosen.answer_ids,
            rejected_ids=self._encode(pair.prompt, pair.rejected, media_ids).answer_ids,
            target_ids=self._encode(pair.prompt, target, media_ids).answer_ids if target else None,
        )

    def _question(self, item: ReplayItem, media_ids: Sequence[int]) -> PairExample:
        found = self._encode(item.prompt, item.answer, media_ids)
        return PairExample(sample_id=item.sample_id, prompt_ids=found.prompt_ids, target_ids=found.answer_ids)

    def _encode(self, prompt: str, answer: str, media_ids: Sequence[int]) -> ChatIds:
        """Prompt and answer -> their token ids, the answer's with what closes it."""
        return encode_chat(self.tokenizer, [(prompt, answer)], media_ids, ChatStyle(**self.model.config.chat))
