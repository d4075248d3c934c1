"""A language model in this process as the chat that an LLM judge asks, with the same cache as a server's.

LocalChat(LocalLLM(folder), cache=...)        LocalLLM: infer/local_chat.py, which has torch; this file has not
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from avcap.errors import UserError
from avcap.llm.budget import Estimate, Price, estimate
from avcap.llm.cache import ReplyCache, reply_key
from avcap.llm.types import ChatRequest, NoReply, Reply, TokenLogprobs

POLL_S = 0.1
"""How often a reply that another process is computing is looked for."""


class TextModel(Protocol):
    """A language model in this process; infer/local_chat.py has one."""

    @property
    def name(self) -> str:
        """Short name, for reports."""

    @property
    def version(self) -> str:
        """Says which weights these are: equal versions answer alike."""

    def answer(
        self,
        turns: Sequence[tuple[str, str]],
        *,
        max_tokens: int,
        temperature: float,
        seed: int,
        top_logprobs: int = 0,
    ) -> "TextAnswer":
        """(role, text) of each message -> the next one. UserError for a request that it cannot take."""


class TextAnswer(Protocol):
    @property
    def text(self) -> str: ...
    @property
    def finished(self) -> bool: ...
    @property
    def input_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def logprobs(self) -> tuple[TokenLogprobs, ...]: ...


class LocalChat:
    """A language model in this process as a chat, one request after the other, with the same cache as a server's."""

    def __init__(self, model: TextModel, *, cache: ReplyCache | None = None) -> None:
        self.name = f"local:{model.name}"
        self.dropped: tuple[str, ...] = ()
        self._model, self._cache = model, cache

    def key(self, request: ChatRequest) -> str:
        """Request -> its key in the cache."""
        return reply_key(request, server="local", model=self._model.version)

    def estimate(self, requests: Iterable[ChatRequest]) -> Estimate:
        """Requests -> what asking them would take; it costs no money."""
        cache = self._cache
        return estimate(
            requests,
            model=self.name,
            price=Price(input=0.0, output=0.0),
            key=self.key,
            is_cached=lambda key: cache is not None and cache.get(key) is not None,
        )

    def ask(self, requests: Iterable[ChatRequest]) -> Iterator[Reply | NoReply]:
        """One answer for each request, in order."""
        return map(self._answer, requests)

    def _answer(self, request: ChatRequest) -> Reply | NoReply:
        if self._cache is None:
            return self._compute(request)
        key = self.key(request)
        while (kept := self._cache.claim(key)) is False:
            time.sleep(POLL_S)
        if isinstance(kept, Reply):
            return kept
        try:
            answer = self._compute(request)
            if isinstance(answer, Reply):
                self._cache.put(key, answer, model=self.name)
        finally:
            self._cache.release(key)
        return answer

    def _compute(self, request: ChatRequest) -> Reply | NoReply:
        turns = [(message.role, message.content) for message in request.messages]
        try:
            answer = self._model.answer(
                turns,
                max_tokens=request.max_tokens,
                temperature=request.temperature,
                seed=request.attempt,
                top_logprobs=int(request.options.get("top_logprobs", 0)) if request.options.get("logprobs") else 0,
            )
        except UserError as error:
            return NoReply(reason=str(error))
        return Reply(
            text=answer.text,
            finished=answer.finished,
            input_tokens=answer.input_tokens,
            output_tokens=answer.output_tokens,
            logprobs=answer.logprobs,
        )
