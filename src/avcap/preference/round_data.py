"""What rounds and rebirth learn from and are measured on: videos with events, and questions about them."""

from collections.abc import Sequence
from dataclasses import dataclass

from avcap.data.qa_files import VideoQuestion
from avcap.errors import UserError
from avcap.preference.clauses import ReadClauses, read_clauses
from avcap.records import Sample


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """Rendered clips to learn and to measure on, for models of the world: nothing of them was ever trained on."""

    num_clips: int = 300
    num_held_out: int = 60
    difficulty: str = "standard"
    seed: int = 100
    """The clips to measure on have the next one."""


@dataclass(frozen=True, kw_only=True)
class RoundData:
    """Videos with events, and questions about them: to learn on, and others to measure on."""

    samples: Sequence[Sample]
    held_out: Sequence[Sample]
    questions: Sequence[VideoQuestion] = ()
    held_out_questions: Sequence[VideoQuestion] = ()
    read_clauses: ReadClauses = read_clauses
    """How captions of these videos are read as clauses."""

    def check(self) -> None:
        """Raises UserError for samples that cannot be judged, or videos that are learned and measured on."""
        samples, held_out = self.samples, self.held_out
        if not samples or not held_out:
            raise UserError(
                f"got {len(samples)} samples to learn on, {len(held_out)} to measure on, expected some of each"
            )
        without = [sample.sample_id for sample in (*samples, *held_out) if not sample.events]
        if without:
            raise UserError(
                f"{len(without)} samples have no events, the first is {without[0]}; see avcap events extract"
            )
        learned = {sample.video for sample in samples} | {question.video for question in self.questions}
        measured = {sample.video for sample in held_out} | {one.video for one in self.held_out_questions}
        if both := learned & measured:
            raise UserError(
                f"{len(both)} videos are learned and measured on, the first is {min(both)}; keep them apart"
            )

    def describe_unguided(self) -> str:
        """-> how many samples can give no guidance; "" where all can."""
        num_without = sum(not sample.reference_caption for sample in self.samples)
        total = len(self.samples)
        return f"{num_without} of {total} samples have no reference caption: no guidance from them" * bool(num_without)
