"""What is said to a language model and what comes back, whoever runs it. No torch.

ChatRequest --Chat--> Reply | NoReply
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol


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
    options: dict[str, Any] = field(default_factory=dict)
    """Further fields of the body, all optional: top_p, seed, stop, logprobs, ... (dialect.OPTIONAL)."""


def described(request: ChatRequest) -> dict[str, Any]:
    """Request -> all that is asked, as plain values, for hashes. Without `options` where there are none."""
    data = asdict(request)
    return data if request.options else {name: value for name, value in data.items() if name != "options"}


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

    @property
    def dropped(self) -> tuple[str, ...]:
        """Optional parts of requests that the server refuses, and that it is asked without."""

    def ask(self, requests: Iterable[ChatRequest]) -> Iterator[Reply | NoReply]:
        """One answer for each request, in order. Requests are drawn as they are needed: an endless iterable is fine."""
