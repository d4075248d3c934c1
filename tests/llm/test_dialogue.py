"""Dialogues of different lengths go side by side, in order, and each gets its own answers."""

import pytest
from support.scripted_chat import ScriptedChat

from avcap.llm.dialogue import converse, first_requests, side_by_side
from avcap.llm.types import ChatRequest, Message


def question(text: str) -> ChatRequest:
    return ChatRequest(messages=(Message(role="user", content=text),), max_tokens=1)


def asking(name: str, *, turns: list[int]):
    """A dialogue that asks so many questions in each turn, and returns all answers."""
    audio = []
    for turn, num in enumerate(turns):
        answers = yield [question(f"{name}.{turn}.{index}") for index in range(num)]
        audio += [answer.text for answer in answers]
    return audio


def echo() -> ScriptedChat:
    return ScriptedChat(lambda request: request.messages[0].content)


def expected(name: str, turns: list[int]) -> list[str]:
    return [f"{name}.{turn}.{index}" for turn, num in enumerate(turns) for index in range(num)]


TURNS = {"a": [2, 1], "b": [], "c": [1, 0, 3], "d": [1]}


@pytest.mark.parametrize(("window", "batches"), [(4, [4, 1, 3]), (2, [2, 1, 2, 3])])
def test_answers_find_their_dialogue(window, batches):
    """All four at a time: 2 + 1 + 1, then 1 + 0, then 3. Two at a time: 2, 1; then 1 + 1, nothing, 3."""
    chat = echo()
    results = list(converse((asking(name, turns=turns) for name, turns in TURNS.items()), chat=chat, window=window))
    assert results == [expected(name, turns) for name, turns in TURNS.items()]
    assert chat.batches == batches


def test_side_by_side_is_one_dialogue():
    chat = echo()
    (results,) = converse([side_by_side([asking(name, turns=turns) for name, turns in TURNS.items()])], chat=chat)
    assert results == [expected(name, turns) for name, turns in TURNS.items()]
    assert chat.batches == [4, 1, 3]


def test_a_result_does_not_wait_for_those_behind_it():
    """Of a thousand cases the first is answered when one question has been asked."""
    chat = echo()
    results = converse((asking(str(index), turns=[1]) for index in range(1000)), chat=chat)
    assert next(results) == ["0.0.0"] and len(chat.asked) == 1


def test_first_requests_are_those_before_any_answer():
    asked = [request.messages[0].content for request in first_requests(asking(n, turns=t) for n, t in TURNS.items())]
    assert asked == ["a.0.0", "a.0.1", "c.0.0", "d.0.0"]
