"""What rounds and rebirth learn from and are measured on: videos with events, and questions about them."""

from collections.abc import Sequence
from dataclasses import dataclass

from avcap.data.qa_files import VideoQuestion
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
