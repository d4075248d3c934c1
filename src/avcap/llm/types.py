"""What is said to a language model and what comes back, whoever runs it. No torch.

ChatRequest --Chat--> Reply | NoReply
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol


@dataclass(frozen=True, kw_only=True)
class Part:
    """What stands before a message's text: video, audio, an image, or a text between them.

    Attributes:
        body: What is sent, as plain values.
        digest: sha256 of all that `body` says; it stands for the body in keys of the cache.
        tokens: About how many tokens a model makes of it.
        most_tokens: No model makes more.
    """

    body: Mapping[str, Any]
    digest: str
    tokens: int = 0
    most_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str
    parts: tuple[Part, ...] = ()
    """Sent before the text."""


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
    """Request -> all that is asked, as plain values, for hashes. Options and parts only where there are some."""
    plain = tuple(replace(message, parts=()) for message in request.messages)
    data = asdict(replace(request, messages=plain))
    for message, told in zip(request.messages, data["messages"], strict=True):
        del told["parts"]
        if message.parts:
            told["parts"] = [part.digest for part in message.parts]
    return data if request.options else {name: value for name, value in data.items() if name != "options"}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of several answers to one request."""

    text: str
    finished: bool = True


@dataclass(frozen=True, kw_only=True)
class TokenLogprobs:
    """A token of an answer with its log-probability, and the likeliest tokens in its place with theirs."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reply:
    text: str
    finished: bool = True
    """False: cut off at max_tokens."""
    input_tokens: int = 0
    output_tokens: int = 0
    others: tuple[Choice, ...] = ()
    """The answers after the first, of a request with the option n above 1."""
    logprobs: tuple[TokenLogprobs, ...] = ()
    """Of the first answer, of a request with the option logprobs."""
    audio_tokens: int | None = None
    """Tokens of audio that the server says it read; None: it does not say."""
    visual_tokens: int | None = None
    """Of video and images."""

    @property
    def choices(self) -> tuple[Choice, ...]:
        """All answers."""
        return (Choice(text=self.text, finished=self.finished), *self.others)


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
