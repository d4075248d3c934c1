"""Examples of several kinds, each with its share of every step."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from avcap.model.captioning import CaptioningModel
from avcap.train.answer_loss import answer_loss
from avcap.train.examples import AnswerBatch, Example, ExampleEncoder
from avcap.train.loop import LossOutput


@dataclass(kw_only=True)
class Mixture:
    """An ExampleSource (examples.py): kinds are drawn by their shares, and examples of a kind at random."""

    model: CaptioningModel
    tokenizer: PreTrainedTokenizerBase
    examples: Mapping[str, Sequence[Example]]
    """By kind."""
    shares: Mapping[str, float]
    """Of each kind; they are normalised over the kinds that have examples."""
    batch_size: int
    seed: int
    max_tokens: int | None = None

    def batches(self) -> Callable[[int], list[AnswerBatch]]:
        """-> step -> its microbatches."""
        encoder = ExampleEncoder(model=self.model, tokenizer=self.tokenizer)
        return lambda step: encoder.batches(self.draw(step), max_tokens=self.max_tokens)

    def draw(self, step: int) -> list[Example]:
        """Step -> its examples, the same ones every time."""
        rng = random.Random(f"rebirth/{self.seed}/{step}")
        shares = {kind: self.shares[kind] for kind, found in self.examples.items() if found}
        kinds = rng.choices(list(shares), weights=list(shares.values()), k=self.batch_size)
        return [rng.choice(self.examples[kind]) for kind in kinds]

    def loss(self, batch: AnswerBatch) -> LossOutput:
        """A microbatch -> its share of the step's loss."""
        return answer_loss(self.model, batch)

    def held_out(self) -> dict[str, float]:
        """Nothing: the whole model is measured afterwards."""
        return {}

    def leave(self, folder: Path) -> None:
        """Nothing: what is learned stands in files of the run."""
