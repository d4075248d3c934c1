"""What a round asks its model: prompts and questions, drawn anew for each round, always the same for a seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from avcap.data.qa_files import VideoQuestion
from avcap.data.request import Request
from avcap.records import Decoding, Sample


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """What the model is asked for in a round."""

    num_prompts: int = 400
    """Prompts of a round, drawn anew for each."""
    local_share: float = 0.25
    """Share of them that ask about an interval."""
    captions_per_prompt: int = 8
    temperature: float = 0.7
    top_p: float = 1.0
    num_questions: tuple[int, ...] = (0,)
    """Questions to learn by preference, round by round; the last number holds for all rounds after it."""

    def draw_prompts(self, samples: Sequence[Sample], *, seed: int, round_number: int) -> list[Sample]:
        """All samples -> those of a round: about `local_share` of them ask about an interval."""
        rng = random.Random(f"prompts/{seed}/{round_number}")
        whole = [sample for sample in samples if sample.interval_s is None]
        local = [sample for sample in samples if sample.interval_s is not None]
        num_local = min(round(self.num_prompts * self.local_share), len(local))
        return rng.sample(whole, min(self.num_prompts - num_local, len(whole))) + rng.sample(local, num_local)

    def draw_questions(
        self, questions: Sequence[VideoQuestion], *, seed: int, round_number: int
    ) -> list[VideoQuestion]:
        """All questions -> those of a round."""
        rng = random.Random(f"questions/{seed}/{round_number}")
        num_questions = self.num_questions[min(round_number, len(self.num_questions)) - 1]
        return rng.sample(list(questions), min(num_questions, len(questions)))

    def request(self, *, max_new_tokens: int, seed: int, round_number: int) -> Request:
        """How the captions of a round are sampled: no answer of any round has the seed of another."""
        first = (seed * 1000 + round_number) * self.captions_per_prompt  # answer k draws from it + k
        decoding = Decoding(max_new_tokens=max_new_tokens, temperature=self.temperature, top_p=self.top_p, seed=first)
        return Request(decoding=decoding)
