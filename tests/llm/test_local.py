"""A model in this process as a chat: order, cache, and requests that it cannot take."""

from collections.abc import Sequence
from pathlib import Path

from avcap.errors import UserError
from avcap.llm.cache import ReplyCache
from avcap.llm.local import LocalChat
from avcap.llm.types import ChatRequest, Message, NoReply, Reply


class Parrot:
    """Says the last message again; refuses what is longer than 20 characters."""

    name, version = "parrot", "v1"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def answer(
        self,
        turns: Sequence[tuple[str, str]],
        *,
        max_tokens: int,
        temperature: float,
        seed: int,
        top_logprobs: int = 0,
    ) -> Reply:
        self.asked.append(turns[-1][1])
        if len(turns[-1][1]) > 20:
            raise UserError("too long")
        return Reply(
            text=f"{turns[-1][1]} {max_tokens} {temperature} {seed}", finished=False, input_tokens=3, output_tokens=4
        )


def request(text: str, **fields: int) -> ChatRequest:
    return ChatRequest(messages=(Message(role="user", content=text),), max_tokens=9, **fields)


def test_answers_come_in_order_and_as_they_are_drawn():
    model = Parrot()
    answers = LocalChat(model).ask(request(str(n)) for n in range(10**9))
    assert next(answers) == Reply(text="0 9 0.0 0", finished=False, input_tokens=3, output_tokens=4)
    assert next(answers).text == "1 9 0.0 0"
    assert model.asked == ["0", "1"]


def test_equal_requests_are_computed_once_and_attempts_are_seeds(tmp_path: Path):
    model, cache = Parrot(), ReplyCache(tmp_path / "cache.db")
    chat = LocalChat(model, cache=cache)
    asked = [request("a"), request("a", attempt=1), request("a")]
    assert (chat.estimate(asked).calls, chat.estimate(asked).money_usd) == (2, 0.0)
    assert [answer.text for answer in chat.ask(asked)] == ["a 9 0.0 0", "a 9 0.0 1", "a 9 0.0 0"]
    assert len(model.asked) == 2 and chat.estimate(asked).calls == 0
    model.version = "v2"
    assert len(list(chat.ask(asked))) == 3 and len(model.asked) == 4  # other weights: nothing is kept of them


def test_a_request_that_it_cannot_take_is_no_reply_and_not_kept(tmp_path: Path):
    model, cache = Parrot(), ReplyCache(tmp_path / "cache.db")
    long = request("x" * 21)
    assert list(LocalChat(model, cache=cache).ask([long, request("a"), long]))[::2] == [NoReply(reason="too long")] * 2
    assert len(cache) == 1 and len(model.asked) == 3
