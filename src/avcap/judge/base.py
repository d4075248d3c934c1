"""What judging is made of: a case to judge, a judge of atomic events, and the chat that an LLM judge asks. No torch.

    Case --EventJudge--> Verdict | Unscored          (an LLM judge: Case -> ChatRequest --Chat--> Reply | NoReply)

`Verdict | Unscored` is a type, so nobody averages a failure by accident.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

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


@dataclass(frozen=True, kw_only=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """One question to a language model; equal requests have equal answers, from the cache."""

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    attempt: int = 0
    """Asks the same again: a second try, or one of several runs, has an answer of its own in the cache."""
    schema: dict[str, Any] | None = None
    """JSON schema of the reply, for servers that can hold a model to it."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    text: str
    finished: bool = True
    """False: cut off at max_tokens."""
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class NoReply:
    """The model could not be asked, or did not answer, after all tries."""

    reason: str


class Chat(Protocol):
    """A language model that answers many requests, several at a time."""

    @property
    def name(self) -> str: ...

    def ask(self, requests: Iterable[ChatRequest]) -> Iterator[Reply | NoReply]:
        """One answer for each request, in order. Requests are drawn as they are needed: an endless iterable is fine."""
