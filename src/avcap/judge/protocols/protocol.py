"""What every protocol of judging captions has: a card that says how it was done, a dialogue for a case, a summary.

    cases --dialogue--> scores, or Unscored --summarise--> summary

| name | module | case | score |
|---|---|---|---|
| avcap-1 | `llm_judge` | Case | Verdict |
| testset-gpt | `testset_gpt` | Case | SevenRuns |
| dream-1k | `dream1k` | DreamCase | DreamScore |
| vdc | `vdc` | VdcCase | VdcScore |

Numbers of two protocols, two prompt versions or two judges are not comparable; the card is what tells them apart.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from avcap.llm.dialogue import Dialogue, converse, first_requests
from avcap.llm.types import Chat, ChatRequest
from avcap.records import Unscored

CaseT = TypeVar("CaseT", contravariant=True)
ScoreT = TypeVar("ScoreT")
SummaryT = TypeVar("SummaryT", covariant=True)


@dataclass(frozen=True, kw_only=True)
class Card:
    """What must be equal for two numbers to be comparable, besides the judge."""

    name: str
    version: int
    prompt_version: str
    decoding: str
    aggregation: str


class CaptionProtocol(Protocol[CaseT, ScoreT, SummaryT]):
    """A way to judge captions with a language model."""

    @property
    def card(self) -> Card: ...

    def dialogue(self, case: CaseT, /) -> Dialogue[ScoreT | Unscored]:
        """A case -> what is asked about it, and in the end its score."""

    def summarise(self, scores: Sequence[ScoreT], /) -> SummaryT:
        """Scores -> the numbers that the protocol reports."""


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[ScoreT, SummaryT]):
    """All that a protocol gives for a set of cases."""

    card: Card
    judge: str
    summary: SummaryT
    scores: tuple[ScoreT, ...]
    unscored: tuple[Unscored, ...]


def run_protocol(
    protocol: CaptionProtocol[CaseT, ScoreT, SummaryT], cases: Iterable[CaseT], *, chat: Chat
) -> Outcome[ScoreT, SummaryT]:
    """A protocol, cases and a language model -> scores and their summary; what has no score is kept with its reason."""
    scores: list[ScoreT] = []
    unscored: list[Unscored] = []
    for result in converse((protocol.dialogue(case) for case in cases), chat=chat):
        if isinstance(result, Unscored):
            unscored.append(result)
        else:
            scores.append(result)
    return Outcome(
        card=protocol.card,
        judge=chat.name,
        summary=protocol.summarise(scores),
        scores=tuple(scores),
        unscored=tuple(unscored),
    )


def opening_requests(
    protocol: CaptionProtocol[CaseT, ScoreT, SummaryT], cases: Iterable[CaseT]
) -> Iterator[ChatRequest]:
    """All that a protocol asks before it knows an answer, for an estimate of cost.

    That is all of `avcap-1` and `testset-gpt` short of retries, two of the three calls of `dream-1k` and half of `vdc`.
    """
    return first_requests(protocol.dialogue(case) for case in cases)


@dataclass(frozen=True, kw_only=True)
class ErrorRates:
    """Errors of captions, summed over all before dividing by the sum of events; None without events."""

    num_captions: int
    num_events: int
    missing_rate: float | None
    incorrect_rate: float | None
    invented_rate: float | None

    @property
    def hallucination_rate(self) -> float | None:
        return _sum(self.incorrect_rate, self.invented_rate)

    @property
    def total_error_rate(self) -> float | None:
        return _sum(self.missing_rate, self.hallucination_rate)


def _sum(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first + second


def error_rates(*, num_captions: int, num_events: int, missing: int, incorrect: int, invented: int) -> ErrorRates:
    """Counts of a set of captions -> rates."""

    def rate(count: int) -> float | None:
        return count / num_events if num_events else None

    return ErrorRates(
        num_captions=num_captions,
        num_events=num_events,
        missing_rate=rate(missing),
        incorrect_rate=rate(incorrect),
        invented_rate=rate(invented),
    )
