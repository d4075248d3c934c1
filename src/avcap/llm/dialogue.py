"""Questions that follow from answers: a dialogue for each case, many dialogues at a time.

A *dialogue* is a generator. It yields the requests it wants answered, is sent their answers in order, and returns its
result; so a protocol reads top to bottom, as if it were alone with the model:

    def dialogue(case):
        (answer,) = yield [question_about(case)]
        return read(answer)
"""

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from avcap.llm.answer import answer_of
from avcap.llm.json_reply import BadReply
from avcap.llm.types import Chat, ChatRequest, NoReply, Reply

ResultT = TypeVar("ResultT")
ValueT = TypeVar("ValueT")
Answer = Reply | NoReply
Dialogue = Generator[Sequence[ChatRequest], Sequence[Answer], ResultT]

MAX_TRIES = 3
RETRY_TEMPERATURE = 0.3
"""At temperature 0 a model gives the same bad reply again."""
WINDOW = 256
"""Dialogues held open at once: bounds the memory, and is many times what a server has in flight."""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """No usable reply after all tries: why, and what the model said last."""

    reason: str
    reply: str = ""


def converse(dialogues: Iterable[Dialogue[ResultT]], *, chat: Chat, window: int = WINDOW) -> Iterator[ResultT]:
    """Dialogues -> their results, in order, each as soon as it and those before it are there.

    All first questions are asked as one batch, then all second ones, and so on, `window` dialogues at a time.
    """
    waiting = iter(dialogues)
    while batch := list(itertools.islice(waiting, window)):
        table = _Table(batch)
        num_told = 0
        while table.asking:
            asked = list(table.asking.items())
            answers = iter(chat.ask([request for _, requests in asked for request in requests]))
            for number, requests in asked:
                table.answer(number, list(itertools.islice(answers, len(requests))))
                while num_told in table.results:
                    yield table.results.pop(num_told)
                    num_told += 1
        for number in range(num_told, len(batch)):  # all of them, if nobody asked anything
            yield table.results.pop(number)


def side_by_side(dialogues: Sequence[Dialogue[ResultT]]) -> Dialogue[list[ResultT]]:
    """Dialogues that do not depend on each other -> one that asks their questions together."""
    table = _Table(dialogues)
    while table.asking:
        asked = list(table.asking.items())
        answers = iter((yield [request for _, requests in asked for request in requests]))
        for number, requests in asked:
            table.answer(number, list(itertools.islice(answers, len(requests))))
    return [table.results[number] for number in range(len(dialogues))]


class _Table(Generic[ResultT]):
    """Dialogues under way: what each is asking, and the results of those that have ended."""

    def __init__(self, dialogues: Sequence[Dialogue[ResultT]]):
        self.dialogues = dialogues
        self.asking: dict[int, Sequence[ChatRequest]] = {}
        self.results: dict[int, ResultT] = {}
        for index in range(len(dialogues)):
            self._go_on(index, None)

    def answer(self, number: int, received: Sequence[Answer]) -> None:
        """Gives a dialogue what it asked for."""
        requests = self.asking.pop(number)
        assert len(received) == len(requests), "a chat gave fewer answers than it was asked for"
        self._go_on(number, received)

    def _go_on(self, number: int, received: Sequence[Answer] | None) -> None:
        dialogue = self.dialogues[number]
        try:
            self.asking[number] = next(dialogue) if received is None else dialogue.send(received)
        except StopIteration as stop:
            self.results[number] = stop.value


def first_requests(dialogues: Iterable[Dialogue[ResultT]]) -> Iterator[ChatRequest]:
    """Dialogues -> all they ask before they know any answer, for an estimate of cost. They are closed unfinished."""
    for dialogue in dialogues:
        try:
            yield from next(dialogue)
        except StopIteration:
            continue  # needs no call
        dialogue.close()


def ask_until_valid(
    request: ChatRequest, *, read: Callable[[str], ValueT], max_tries: int = MAX_TRIES, attempt_step: int = 1
) -> Dialogue[ValueT | Failed]:
    """A request and what reads its reply (raising BadReply) -> what was read, or Failed after `max_tries` replies."""
    bad = Failed(reason="never asked")
    for index in range(max_tries):
        (answer,) = yield [request]
        if isinstance(answer, NoReply):
            return Failed(reason=answer.reason)  # the chat has tried again already
        try:
            return read(_whole(answer))
        except BadReply as error:
            bad = Failed(reason=f"{error} ({index + 1} replies)", reply=answer.text)
        request = replace(
            request,
            attempt=request.attempt + attempt_step,
            temperature=max(request.temperature, RETRY_TEMPERATURE),
            max_tokens=request.max_tokens if answer.finished else 2 * request.max_tokens,
        )
    return bad


def _whole(reply: Reply) -> str:
    """A reply -> the answer in it, without thoughts. Raises BadReply if it is not whole, or is nothing but thoughts."""
    if not reply.finished:
        raise BadReply("the reply was cut off at its token limit")
    answer = answer_of(reply.text)
    if answer.has_thoughts and not answer.text:
        raise BadReply("the reply is nothing but thoughts")
    return answer.text
