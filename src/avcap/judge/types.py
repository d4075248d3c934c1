"""What judging is made of: a case to judge, and a judge of atomic events. No torch.

    Case --EventJudge--> Verdict | Unscored      (an LLM judge in between: ChatRequest --Chat--> Reply | NoReply)

`Verdict | Unscored` is a type, so nobody averages a failure by accident.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from avcap.records import Sample, Unscored, Verdict


@dataclass(frozen=True, kw_only=True)
class Case:
    """One caption and what is true of its video, or of its interval: `sample.events`."""

    caption_id: str
    sample: Sample
    text: str
    finished: bool | None = None
    """Whether the model ended the caption itself; None where its writer does not say."""


class EventJudge(Protocol):
    """Labels every event of a case, and finds what the caption invents."""

    @property
    def name(self) -> str:
        """Who judges: "oracle", "openai:gpt-4.1", "local:NAME"."""

    @property
    def prompt_version(self) -> str:
        """What was asked of it, as a short hash; "" for the oracle."""

    def judge(self, cases: Sequence[Case]) -> Iterator[Verdict | Unscored]:
        """One answer for each case, in order, as soon as it and those before it are there."""
