"""The chat against a real HTTP server that answers like an OpenAI-compatible one, or misbehaves as its script says."""

import itertools
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from support import scripted_server as play
from support.scripted_server import Body, ScriptedServer

from avcap.errors import UserError
from avcap.llm import chat as chat_module
from avcap.llm.budget import Budget, Price, most_it_can_cost
from avcap.llm.cache import ReplyCache
from avcap.llm.chat import OPENAI_URL, OpenAIChat, open_chat, read_chat_spec
from avcap.llm.types import ChatRequest, Message, NoReply, Reply
from avcap.llm.wire import Failure, read_completion, retry_after_s, shown

SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
DOLLAR = {"tester": Price(input=1_000_000, output=1_000_000)}  # one US dollar a token


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_module, "FIRST_PAUSE_S", 0.01)


def request(text: str, **fields: Any) -> ChatRequest:
    return ChatRequest(messages=(Message(role="user", content=text),), max_tokens=10, **fields)


def requests(count: int) -> list[ChatRequest]:
    return [request(f"question {index}") for index in range(count)]


def echo(body: Body) -> str:
    """The reply names its question, so an answer that stands in the wrong place is seen."""
    return f"reply to {body['messages'][-1]['content']}"


def replies(count: int) -> list[Reply]:
    texts = [f"reply to question {index}" for index in range(count)]
    return [Reply(text=text, input_tokens=100, output_tokens=10) for text in texts]


def open_for(server: ScriptedServer, **settings: Any) -> OpenAIChat:
    return open_chat(f"openai:tester@{server.url}", **{"timeout_s": 20, **settings})


def ask_one(server: ScriptedServer, asked: ChatRequest | None = None, **settings: Any) -> Reply | NoReply:
    with open_for(server, **settings) as chat:
        return next(chat.ask([asked or request("question 0")]))


def test_replies_come_in_order_with_several_calls_in_flight():
    def answer(body: Body) -> str:
        number = int(body["messages"][0]["content"].split()[1])
        time.sleep(0.05 if number % 4 == 0 else 0.0)  # every fourth is overtaken by the others
        return echo(body)

    with ScriptedServer(answer=answer) as server, open_for(server, concurrency=4) as chat:
        assert list(chat.ask(requests(40))) == replies(40)
        assert chat.counts.calls == len(server.calls) == 40
        assert (chat.counts.input_tokens, chat.counts.output_tokens) == (40 * 100, 40 * 10)
    assert 2 <= server.most_at_once <= 4


def test_what_is_sent_is_the_request():
    asked = ChatRequest(
        messages=(Message(role="system", content="s"), Message(role="user", content="ü\ud800")),
        max_tokens=7,
        temperature=0.5,
        schema=SCHEMA,
    )
    with ScriptedServer() as server:
        ask_one(server, asked, api_key="sk-secret")
    [call] = server.calls
    assert call.body == {
        "model": "tester",
        "max_tokens": 7,
        "temperature": 0.5,
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "ü\ud800"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": SCHEMA}},
    }
    assert call.headers["Authorization"] == "Bearer sk-secret"


def test_an_endless_iterable_is_drawn_only_as_far_as_needed():
    drawn = 0

    def endless() -> Iterator[ChatRequest]:
        nonlocal drawn
        for drawn in itertools.count(1):
            yield request(f"question {drawn - 1}")

    with ScriptedServer(answer=echo) as server, open_for(server, concurrency=2) as chat:
        answers = chat.ask(endless())
        assert list(itertools.islice(answers, 30)) == replies(30)
        answers.close()
    assert drawn <= 30 + chat_module.LOOKAHEAD * 2


@pytest.mark.parametrize(
    "fault",
    [
        play.status(500),
        play.status(503),
        play.rate_limited(after=None),
        play.cut,
        play.garbage,
        play.wrong_schema,
        play.no_choices,
        play.huge,
    ],
    ids=["500", "503", "429", "cut", "garbage", "wrong schema", "no choices", "50 MB"],
)
def test_a_fault_is_asked_again_and_the_reply_is_right(fault: play.Play):
    with ScriptedServer(answer=echo, script=play.first(fault, fault)) as server, open_for(server) as chat:
        assert list(chat.ask(requests(2))) == replies(2)
    assert chat.counts.retries == 2 * 2


@pytest.mark.parametrize("fault", [play.hang, play.drip, play.drip_headers])
def test_a_call_past_its_deadline_is_asked_again(fault: play.Play):
    script = play.first(fault)
    with ScriptedServer(answer=echo, script=script) as server, open_for(server, timeout_s=1.0, max_retries=20) as chat:
        assert list(chat.ask(requests(2))) == replies(2)
    assert chat.counts.retries >= 2  # more where the machine is too busy to reply within the deadline


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (play.status(500), "status 500: scripted trouble (the last of 3 calls)"),
        (play.cut, "the connection broke"),
        (play.garbage, "a reply that is not JSON: b'<html>"),
        (play.wrong_schema, "JSON that is not a chat completion"),
        (play.no_choices, "a reply without choices"),
        (play.huge, "a reply of more than 1,000,000 bytes"),
        (play.compressed, "a reply of more than 1,000,000 bytes, or a compressed one"),
    ],
)
def test_a_fault_that_stays_is_no_reply_with_its_reason(fault: play.Play, reason: str):
    with ScriptedServer(script=play.always(fault)) as server:
        answer = ask_one(server, max_retries=2)
    assert isinstance(answer, NoReply) and answer.reason.startswith(reason), answer
    assert len(server.calls) == 3


@pytest.mark.parametrize("fault", [play.hang, play.drip, play.drip_headers])
def test_the_deadline_is_for_the_whole_call(fault: play.Play):
    with ScriptedServer(script=play.always(fault)) as server:
        began = time.monotonic()
        answer = ask_one(server, timeout_s=0.3, max_retries=1)
        seconds = time.monotonic() - began
    assert answer == NoReply(reason="no whole reply within 0.3 s (the last of 2 calls)")
    # 0.6 s and what a busy machine adds; dripping to the end would take 2 * 220 bytes * 0.5 s = 220 s.
    assert seconds < 60


def test_a_huge_reply_is_not_taken_in():
    taken = 0

    def counted_huge(stage: play.Stage) -> None:
        nonlocal taken
        stage.send(b"", length=play.HUGE_BYTES)
        try:
            for _ in range(play.HUGE_BYTES // 65_536):
                taken += stage.handler.wfile.write(b" " * 65_536)
        except OSError:
            stage.handler.close_connection = True

    with ScriptedServer(script=play.always(counted_huge)) as server:
        assert isinstance(ask_one(server, max_retries=0), NoReply)
    # 1 MB is read; what lies beyond fits into the buffers of two sockets (a few MB each).
    assert taken < 20_000_000


@pytest.mark.parametrize("code", [400, 413, 422])
def test_a_request_that_the_server_refuses_is_not_sent_again(code: int):
    with ScriptedServer(script=play.always(play.status(code, "context too long"))) as server:
        assert ask_one(server) == NoReply(reason=f"status {code}: context too long")
    assert len(server.calls) == 1


def test_a_refusal_is_no_reply_and_not_bought_twice():
    with ScriptedServer(script=play.always(play.refusal)) as server:
        assert ask_one(server) == NoReply(reason="refused: I cannot judge this.")
    assert len(server.calls) == 1


@pytest.mark.parametrize(
    ("fault", "todo"),
    [
        (play.status(401, "bad key sk-secret"), "set OPENAI_API_KEY"),
        (play.status(404), "check the name"),
        (play.status(302), "name the address"),
        (play.status(429, kind="insufficient_quota"), "quota"),
    ],
    ids=["401", "404", "302", "quota"],
)
def test_what_every_call_would_meet_ends_the_run(fault: play.Play, todo: str):
    with ScriptedServer(script=play.always(fault)) as server:
        chat = open_for(server, api_key="sk-secret", concurrency=2)
        with chat, pytest.raises(UserError) as raised:
            list(chat.ask(requests(50)))
    assert todo in str(raised.value) and server.url in str(raised.value)
    assert "sk-secret" not in str(raised.value)
    assert len(server.calls) <= 2 * 2  # those in flight, not 50


def test_replies_before_the_end_of_a_run_are_kept(tmp_path: Path):
    def script(body: Body, times: int) -> play.Play:
        return play.status(401) if body["messages"][0]["content"] == "last" else play.reply

    cache = ReplyCache(tmp_path / "cache.db")
    with ScriptedServer(answer=echo, script=script) as server, open_for(server, cache=cache, concurrency=1) as chat:
        with pytest.raises(UserError):
            list(chat.ask([*requests(3), request("last")]))
        assert [cache.get(chat.key(asked)) for asked in requests(3)] == replies(3)


def test_a_server_that_is_not_there_ends_the_run():
    with ScriptedServer() as server:
        url = server.url  # closed now: nobody listens there
    with open_chat(f"openai:tester@{url}", max_retries=1) as chat, pytest.raises(UserError, match="start it"):
        list(chat.ask(requests(3)))


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_waited_for(form: str):
    def limited(stage: play.Stage) -> None:
        # HTTP dates have whole seconds: 2 s from now is between 1 and 2 s away.
        after = "1" if form == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        play.rate_limited(after=after)(stage)

    with ScriptedServer(script=play.first(limited)) as server:
        assert isinstance(ask_one(server), Reply)
    first, second = sorted(call.at_s for call in server.calls)
    assert second - first >= 1.0


def test_a_server_that_expects_hours_is_left_alone():
    with ScriptedServer(script=play.always(play.rate_limited(after="7200"))) as server:
        assert ask_one(server) == NoReply(reason="status 429: slow down")
    assert len(server.calls) == 1


def test_retry_after_in_all_its_forms():
    noon = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
    assert retry_after_s("7") == 7.0 and retry_after_s("0.5") == 0.5 and retry_after_s("-3") == 0.0
    assert retry_after_s("Thu, 01 Jan 2026 12:00:30 GMT", now=noon) == 30.0
    assert retry_after_s("Thu, 01 Jan 2026 11:00:00 GMT", now=noon) == 0.0  # past: now
    assert [retry_after_s(value) for value in (None, "soon", "nan", "inf", "")] == [None] * 5


def test_pauses_grow_and_are_spread():
    with ScriptedServer() as server, open_for(server) as chat:
        pauses = [[chat._pause_before_next(tries, asked_for_s=None) for _ in range(200)] for tries in (1, 2, 3, 50)]
    # 0.01 s doubles with each try (0.01, 0.02, 0.04), up to 30 s, times 0.5 to 1
    for drawn, whole in zip(pauses, (0.01, 0.02, 0.04, 30.0), strict=True):
        assert whole / 2 <= min(drawn) < 0.6 * whole and 0.9 * whole < max(drawn) <= whole


def test_structured_output_falls_back_once_and_remembers():
    server = ScriptedServer(answer=echo, script=play.always(play.no_schema))
    with server, open_for(server, concurrency=1) as chat:
        assert chat.schema_refusal is None
        assert list(chat.ask(replace(asked, schema=SCHEMA) for asked in requests(5))) == replies(5)
        assert "not supported" in chat.schema_refusal
    # the first request in all three forms and without; the other four without
    assert ["response_format" in call.body for call in server.calls] == [True] * 3 + [False] * 5


def test_structured_output_falls_back_with_many_in_flight():
    with ScriptedServer(answer=echo, script=play.always(play.no_schema)) as server, open_for(server) as chat:
        assert list(chat.ask(replace(asked, schema=SCHEMA) for asked in requests(40))) == replies(40)
    assert sum("response_format" in call.body for call in server.calls) <= 3 * 8  # those that were in flight at once


def test_a_server_that_expects_the_newer_name_of_max_tokens_gets_it():
    def newer(stage: play.Stage) -> None:
        if "max_tokens" in stage.body:
            stage.send_error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        else:
            play.reply(stage)

    with ScriptedServer(script=play.always(newer)) as server:
        assert isinstance(ask_one(server), Reply)
    assert server.calls[-1].body["max_completion_tokens"] == 10


def test_equal_requests_are_paid_once(tmp_path: Path):
    cache = ReplyCache(tmp_path / "cache.db")
    with ScriptedServer(answer=echo) as server, open_for(server, cache=cache) as chat:
        assert list(chat.ask(requests(5) * 20)) == replies(5) * 20
        assert list(chat.ask(requests(5))) == replies(5)
    assert set(server.paid.values()) == {1} and len(server.calls) == 5
    assert (cache.misses, cache.hits) == (5, 95 + 5)


def test_another_attempt_is_another_request(tmp_path: Path):
    cache = ReplyCache(tmp_path / "cache.db")
    with ScriptedServer(answer=echo) as server, open_for(server, cache=cache) as chat:
        list(chat.ask(request("question 0", attempt=attempt) for attempt in (0, 1, 0, 1)))
    assert len(server.calls) == 2


def test_no_reply_is_never_kept(tmp_path: Path):
    cache = ReplyCache(tmp_path / "cache.db")
    with ScriptedServer(answer=echo, script=play.first(play.refusal)) as server, open_for(server, cache=cache) as chat:
        assert isinstance(next(chat.ask(requests(1))), NoReply)
        assert len(cache) == 0
        assert list(chat.ask(requests(1))) == replies(1)


def test_leaving_early_keeps_what_is_in_flight(tmp_path: Path):
    arrived = threading.Semaphore(0)

    def slow(body: Body) -> str:
        arrived.release()
        time.sleep(0.3)
        return echo(body)

    cache = ReplyCache(tmp_path / "cache.db")
    with ScriptedServer(answer=slow) as server, open_for(server, cache=cache, concurrency=4) as chat:
        answers = chat.ask(requests(100))
        assert next(answers) == replies(1)[0]
        answers.close()
        # All that was sent is paid for, and all that is paid for is kept.
        assert len(cache) == server.paid.total() == len(server.calls) < 20


def test_closing_the_chat_first_is_no_error():
    with ScriptedServer(answer=echo) as server:
        with open_for(server) as chat:
            answers = chat.ask(requests(100))
            assert next(answers) == replies(1)[0]
        answers.close()
        chat.close()
    assert len(server.calls) < 100


def test_a_budget_is_never_exceeded_and_the_rest_is_named():
    # One US dollar a token: a call can cost what stands in `most`, and costs 100 + 10 as the server counts.
    with ScriptedServer(answer=echo, script=lambda body, times: small_reply) as server:
        most = most_it_can_cost(request("question 0"), price=DOLLAR["tester"])
        assert most == len("question 0") + 8 + 10  # bytes, the message's frame, max_tokens
        budget = Budget(100.0)
        with open_for(server, budget=budget, prices=DOLLAR, concurrency=8) as chat:
            answers = list(chat.ask(requests(10) * 3))
    # Each call costs 12 + 3 = 15 and needs 28 free: after 5 calls 75 are spent, 25 are free, and it ends.
    assert sum(isinstance(answer, Reply) for answer in answers) == len(server.calls) == 5
    assert budget.spent_usd == chat.counts.spent_usd == 5 * 15
    refused = [answer for answer in answers if isinstance(answer, NoReply)]
    assert len(refused) == 25 == chat.counts.no_replies
    reason = "budget: the call can cost $28.0000, $75.0000 of $100.00 are spent"
    assert {answer.reason for answer in refused} == {reason}


def small_reply(stage: play.Stage) -> None:
    stage.send(play.completion("yes", tokens=(12, 3)))


@pytest.mark.parametrize(
    ("fault", "charged"), [(play.status(500), False), (play.cut, True), (play.garbage, True), (play.hang, True)]
)
def test_a_call_that_may_have_been_charged_counts_in_full(fault: play.Play, charged: bool):
    budget = Budget(1000.0)
    with ScriptedServer(script=play.always(fault)) as server:
        ask_one(server, budget=budget, prices=DOLLAR, max_retries=1, timeout_s=0.3)
    assert budget.spent_usd == (2 * 28 if charged else 0)


def test_a_reply_without_token_counts_costs_the_most_it_can():
    budget = Budget(1000.0)
    uncounted = lambda stage: stage.send(play.completion("yes", tokens=(0, 0)))  # noqa: E731
    with ScriptedServer(script=play.always(uncounted)) as server:
        ask_one(server, budget=budget, prices=DOLLAR)
    assert budget.spent_usd == 28


def test_the_estimate_sends_nothing_and_knows_the_cache(tmp_path: Path):
    cache = ReplyCache(tmp_path / "cache.db")
    prices = {"tester": Price(input=2.0, output=8.0)}
    with ScriptedServer() as server, open_for(server, cache=cache, prices=prices) as chat:
        list(chat.ask(requests(1)))
        told = chat.estimate([*requests(5), *requests(5)])
    assert (told.calls, told.cached) == (4, 1 + 5)
    # "question 1": 10 bytes -> 3 tokens, and 8 around the message
    assert (told.input_tokens, told.output_tokens_max) == (4 * 11, 4 * 10)
    assert told.money_usd == pytest.approx((44 * 2.0 + 40 * 8.0) / 1e6)
    assert len(server.calls) == 1


@pytest.mark.parametrize(
    ("spec", "model", "url"),
    [
        ("openai:gpt-4.1", "gpt-4.1", OPENAI_URL),
        ("openai:Qwen/Qwen2.5-7B@http://localhost:8000/v1/", "Qwen/Qwen2.5-7B", "http://localhost:8000/v1"),
        ("openai:@cf/meta/llama@https://gate.example/ai/v1", "@cf/meta/llama", "https://gate.example/ai/v1"),
    ],
)
def test_specs(spec: str, model: str, url: str):
    parsed = read_chat_spec(spec)
    assert (parsed.model, parsed.url) == (model, url)


@pytest.mark.parametrize(
    "spec",
    [
        "openai:",
        "gpt-4.1",
        "openai:m@ftp://host/v1",
        "openai:m@localhost:8000/v1",
        "openai:m@file:///etc/passwd",
        "openai:m@http://",
        "openai:m@https://me:sk-secret@host/v1",
        "openai:m@https://host/v1?key=sk-secret",
        "openai:m@sk-secret",
        "openai:two words",
        "openai:m@http://host:port/v1",
    ],
)
def test_bad_specs_are_refused_without_showing_a_secret(spec: str):
    with pytest.raises(UserError, match=r"expected openai:MODEL|OPENAI_API_KEY") as raised:
        read_chat_spec(spec)
    assert "sk-secret" not in str(raised.value)


def test_settings_are_checked_before_anything_is_sent():
    with pytest.raises(UserError, match="set OPENAI_API_KEY"):
        open_chat("openai:gpt-4.1")
    with pytest.raises(UserError, match="--prices"):
        open_chat("openai:m@http://localhost/v1", budget=Budget(1.0))
    with pytest.raises(UserError, match="characters that no key has") as raised:
        open_chat("openai:m@http://localhost/v1", api_key="sk-secret\n")
    assert "sk-secret" not in str(raised.value)
    for setting in ({"concurrency": 0}, {"timeout_s": 0.0}, {"timeout_s": float("nan")}, {"max_retries": -1}):
        with pytest.raises(UserError, match="expected"):
            open_chat("openai:m@http://localhost/v1", **setting)


@pytest.mark.parametrize("content", ["x", "", "\x00\n\t", "ü漢\U0001f600", "a" * 100_000])
def test_any_text_survives_the_way_and_the_cache(content: str, tmp_path: Path):
    cache = ReplyCache(tmp_path / "cache.db")
    with ScriptedServer(answer=lambda body: content) as server:
        assert ask_one(server, cache=cache).text == content
        assert ask_one(server, cache=cache).text == content
    assert len(server.calls) == 1


def test_half_a_character_is_replaced():
    answer = read_completion(play.completion("a\ud800b"))
    assert isinstance(answer, Reply) and answer.text == "a\ufffdb"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{}",
        b'{"choices": null}',
        b'{"choices": [null]}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": {"content": 7}}]}',
        b"[" * 100_000,
        b'{"error": {"message": "overloaded"}}',
        b'{"choices": [{"message": {"content": null}}]}',
        b"1" * 10_000,
    ],
)
def test_what_is_no_completion_is_a_failure(raw: bytes):
    outcome = read_completion(raw)
    assert isinstance(outcome, Failure) and outcome.again


def test_a_reply_that_was_cut_off_says_so():
    assert read_completion(play.completion("abc", finish="length")) == Reply(
        text="abc", finished=False, input_tokens=100, output_tokens=10
    )
    assert read_completion(play.completion(None, finish="length")).text == ""  # all of it went into reasoning


@pytest.mark.parametrize("count", [-1, True, 1.5, "many", 10**30, None])
def test_nonsense_token_counts_are_none(count: Any):
    answer = read_completion(play.completion("x", tokens=(count, 10)))
    assert (answer.input_tokens, answer.output_tokens) == (0, 10)


def test_what_a_server_says_is_one_short_printable_line():
    assert shown("a\x1b[31m\n\n b\u202e") == r"a\x1b[31m b\u202e"
    assert len(shown("x" * 10_000)) == 200


def test_the_obeying_server_obeys_only_what_it_sees():
    block, order = re.compile(r"<c>.*?</c>"), re.compile("OBEY")
    answer = play.obeying(lambda body: "honest", block=block, order=order, forged="forged")
    body = lambda text: {"messages": [{"content": text}]}  # noqa: E731
    assert answer(body("judge <c>OBEY</c>")) == "honest"
    assert answer(body("judge <c>a</c>OBEY</c>")) == "forged"


def test_replies_that_come_slower_than_asked_are_told_with_what_to_do():
    with ScriptedServer(answer=echo, script=play.first(play.hang)) as server:
        with open_for(server, timeout_s=0.3, concurrency=4, max_retries=0) as chat:
            list(chat.ask(requests(2)))
            assert "2 of 2 calls took more than half of the limit of 0.3 s with 4 at the same time" in chat.advice
            assert "--concurrency 1, and a larger --timeout" in chat.advice
        with open_for(server, timeout_s=30, concurrency=1) as chat:
            list(chat.ask(requests(2)))
            assert chat.advice == ""
