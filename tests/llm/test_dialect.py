"""Refusals in the words of many servers, over HTTP: the request is sent again without what was refused, and no more."""

import json
from pathlib import Path
from typing import Any

import pytest
from support import scripted_server as play
from support.scripted_server import ScriptedServer

from avcap.llm import chat as chat_module
from avcap.llm.budget import Budget, Price
from avcap.llm.cache import ReplyCache
from avcap.llm.chat import open_chat
from avcap.llm.types import ChatRequest, Message, NoReply, Reply

SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_module, "FIRST_PAUSE_S", 0.01)


def request(text: str = "q", **fields: Any) -> ChatRequest:
    messages = (Message(role="system", content="rules"), Message(role="user", content=text))
    return ChatRequest(messages=messages, max_tokens=10, **fields)


def refusing(has: Any, *, status: int, error: Any) -> play.Play:
    """A server that answers with this error as long as the request has something, and replies then."""

    def answer(stage: play.Stage) -> None:
        if has(stage.body):
            stage.send(json.dumps(error).encode(), status=status)
        else:
            play.reply(stage)

    return answer


def field(name: str) -> Any:
    return lambda body: name in body


def form(kind: str) -> Any:
    return lambda body: body.get("response_format", {}).get("type") == kind


def openai_error(message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def fastapi_error(*loc: str, message: str = "Extra inputs are not permitted") -> dict[str, Any]:
    return {"detail": [{"type": "extra_forbidden", "loc": ["body", *loc], "msg": message, "input": 0}]}


LITERAL = (
    "1 validation error: {'type': 'literal_error', 'loc': ('body', 'response_format', 'type'), 'msg': \"Input should "
    "be 'text' or 'json_object'\", 'input': 'json_schema'}"
)
TEMPERATURE = "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) is supported."

REFUSALS = [  # who says so, what it refuses, status, error, what is recorded
    ("OpenAI gpt-5", field("temperature"), 400, openai_error(TEMPERATURE, "temperature"), ("temperature",)),
    (
        "TGI",
        field("temperature"),
        422,
        {"error": "Input validation error: `temperature` must be strictly positive"},
        ("temperature",),
    ),
    ("param alone", field("temperature"), 400, openai_error("Unsupported value.", "temperature"), ("temperature",)),
    ("FastAPI", field("temperature"), 422, fastapi_error("temperature"), ("temperature",)),
    (
        "llama-cpp-python",
        form("json_schema"),
        500,
        openai_error(LITERAL),
        ("response_format: json_object with schema",),
    ),
    (
        "vLLM xgrammar",
        form("json_schema"),
        400,
        {"object": "error", "message": "The provided JSON schema contains features not supported by xgrammar."},
        ("response_format: json_object with schema",),
    ),
    (
        "DeepSeek",
        form("json_schema"),
        400,
        openai_error("This response_format type is unavailable now"),
        ("response_format: json_object with schema",),
    ),
    (
        "strict json_object",
        lambda body: body.get("response_format") not in (None, {"type": "json_object"}),
        400,
        openai_error("Unknown parameter: 'response_format.schema'", "response_format.schema"),
        ("response_format: json_object",),
    ),
    (
        "no structured output",
        field("response_format"),
        400,
        openai_error("guided decoding is not available"),
        ("response_format: text",),
    ),
    (
        "OpenAI o1",
        field("max_tokens"),
        400,
        openai_error("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", "max_tokens"),
        (),
    ),
    (
        "no limit at all",
        lambda body: "max_tokens" in body or "max_completion_tokens" in body,
        400,
        openai_error("Unsupported parameter: max_tokens, max_completion_tokens"),
        ("max_tokens",),
    ),
    ("seed", field("seed"), 400, openai_error("seed is not supported by this backend"), ("seed",)),
    ("log-probs", field("logprobs"), 400, openai_error("This model does not support logprobs"), ("logprobs",)),
    ("stop", field("stop"), 400, openai_error("Unsupported parameter: 'stop' is not supported", "stop"), ("stop",)),
    ("top_p", field("top_p"), 400, openai_error("`temperature` and `top_p` cannot both be specified"), ("top_p",)),
    ("kwargs", field("chat_template_kwargs"), 422, fastapi_error("chat_template_kwargs"), ("chat_template_kwargs",)),
    (
        "plain text",
        field("temperature"),
        400,
        "Bad Request",
        ("chat_template_kwargs", "logprobs", "seed", "stop", "temperature", "top_p", "response_format: text"),
    ),
]
OPTIONS = {"top_p": 0.9, "seed": 1, "stop": ["x"], "logprobs": True, "chat_template_kwargs": {"enable_thinking": False}}


NAMES = [row[0] for row in REFUSALS]


@pytest.mark.parametrize(("refused", "status", "error", "dropped"), [row[1:] for row in REFUSALS], ids=NAMES)
def test_a_refused_optional_part_is_left_out_and_nothing_else(refused, status, error, dropped, tmp_path: Path):
    asked = [request(f"q{index}", schema=SCHEMA, options=OPTIONS) for index in range(3)]
    cache = ReplyCache(tmp_path / "replies.db")
    script = play.always(refusing(refused, status=status, error=error))
    with ScriptedServer(script=script) as server:
        spec = f"openai:tester@{server.url}"
        with open_chat(spec, cache=cache, concurrency=1, timeout_s=20) as chat:
            assert all(isinstance(answer, Reply) for answer in chat.ask(asked))
            assert chat.dropped == dropped and set(chat.refusals) >= set(dropped)
        num_calls = len(server.calls)
        assert num_calls <= 3 + 4  # each step down is one call, once for all requests
        for call in server.calls:
            assert call.body["model"] == "tester"
            rules, question = call.body["messages"]
            assert rules["content"].startswith("rules") and question["role"] == "user"
        kept = server.calls[-1].body
        optional = {"temperature", *OPTIONS}
        assert optional - set(kept) == optional & set(dropped)
        # another run: the dialect and the replies are in the cache
        with open_chat(spec, cache=cache, timeout_s=20) as again:
            assert again.dropped == dropped
            assert all(isinstance(answer, Reply) for answer in again.ask(asked))
        assert len(server.calls) == num_calls


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "This model's maximum context length is 2048 tokens. However, your messages resulted in 9000 tokens."),
        (400, "'max_tokens' or 'max_completion_tokens' is too large: 4096. Your request has 1500 input tokens"),
        (400, "image input is not supported - hint: you may need to provide the mmproj"),
        (400, "System role not supported"),
        (400, "The model `x` does not exist"),
        (422, "Your input was rejected by our content policy"),
    ],
)
def test_what_is_no_matter_of_optional_parts_is_not_asked_again(status: int, message: str):
    with (
        ScriptedServer(script=play.always(play.status(status, message))) as server,
        open_chat(f"openai:tester@{server.url}", timeout_s=20) as chat,
    ):
        answer = next(chat.ask([request(schema=SCHEMA)]))
    assert answer == NoReply(reason=f"status {status}: {message}"[: len(f"status {status}: ") + 200])
    assert len(server.calls) == 1 and chat.dropped == ()


def test_a_guess_that_does_not_help_is_made_once_and_changes_nothing():
    with (
        ScriptedServer(script=play.always(play.status(400, "Bad Request"))) as server,
        open_chat(f"openai:tester@{server.url}", concurrency=1, timeout_s=20) as chat,
    ):
        answers = list(chat.ask([request(f"q{index}", schema=SCHEMA) for index in range(3)]))
    assert answers == [NoReply(reason="status 400: Bad Request")] * 3
    assert len(server.calls) == 2 + 1 + 1 and chat.dropped == ()


@pytest.mark.parametrize("message", ["TypeError: create() got an unexpected keyword argument", "jinja2 TemplateError"])
def test_an_error_that_every_try_would_meet_is_met_once(message: str):
    with (
        ScriptedServer(script=play.always(play.status(500, message))) as server,
        open_chat(f"openai:tester@{server.url}", timeout_s=20) as chat,
    ):
        assert isinstance(next(chat.ask([request()])), NoReply)
    assert len(server.calls) == 1


def test_a_budget_is_not_asked_without_a_limit():
    error = openai_error("Unsupported parameter: max_tokens, max_completion_tokens")
    has_limit = lambda body: "max_tokens" in body or "max_completion_tokens" in body  # noqa: E731
    with ScriptedServer(script=play.always(refusing(has_limit, status=400, error=error))) as server:
        prices = {"tester": Price(input=0, output=0)}
        with open_chat(f"openai:tester@{server.url}", budget=Budget(1.0), prices=prices, timeout_s=20) as chat:
            assert isinstance(next(chat.ask([request()])), NoReply)
    assert all(has_limit(call.body) for call in server.calls)


def test_replies_to_less_are_no_replies_to_more(tmp_path: Path):
    cache = ReplyCache(tmp_path / "replies.db")
    error = openai_error(TEMPERATURE, "temperature")
    with (
        ScriptedServer(script=play.always(refusing(field("temperature"), status=400, error=error))) as server,
        open_chat(f"openai:tester@{server.url}", cache=cache, timeout_s=20) as chat,
    ):
        whole = chat.key(request())
        list(chat.ask([request()]))
        assert cache.get(whole) is None and cache.get(chat.key(request())) is not None


# --- forms of a reply -------------------------------------------------------------------------------------------------


def message(**fields: Any) -> play.Play:
    content = fields.pop("content", None)
    return lambda stage: stage.send(play.completion(content, **fields))


@pytest.mark.parametrize(
    ("played", "text"),
    [
        (message(content=[{"type": "text", "text": "ye"}, {"type": "text", "text": "s"}]), "yes"),
        (message(content=[{"type": "thinking", "thinking": [{"text": "hm"}]}, {"type": "text", "text": "yes"}]), "yes"),
        (message(reasoning_content="yes"), "yes"),
        (message(content="", reasoning="yes"), "yes"),
        (message(content="yes", reasoning_content="hm"), "yes"),
        (message(tool_calls=[{"function": {"name": "reply", "arguments": '{"a": 1}'}}]), '{"a": 1}'),
        (message(function_call={"name": "reply", "arguments": {"a": 1}}), '{"a": 1}'),
        (message(reasoning_content="hm", finish="length"), ""),
    ],
)
def test_the_text_of_a_reply_is_found_wherever_it_is(played: play.Play, text: str):
    with (
        ScriptedServer(script=play.always(played)) as server,
        open_chat(f"openai:tester@{server.url}", timeout_s=20) as chat,
    ):
        answer = next(chat.ask([request()]))
    assert isinstance(answer, Reply) and answer.text == text and len(server.calls) == 1


def test_what_is_paid_for_and_never_usable_is_bought_three_times():
    with (
        ScriptedServer(script=play.always(message(content=None))) as server,
        open_chat(f"openai:tester@{server.url}", timeout_s=20) as chat,
    ):
        assert isinstance(next(chat.ask([request()])), NoReply)
    assert len(server.calls) == 3


# --- prompts that a server cuts ---------------------------------------------------------------------------------------

LONG = "The man in the red coat opens the door and walks in. " * 500  # 26,500 characters


def usage(prompt_tokens: int, **more: Any) -> play.Play:
    def answer(stage: play.Stage) -> None:
        data = json.loads(play.completion("yes"))
        timings = more.pop("timings", None)
        data |= {"usage": {"prompt_tokens": prompt_tokens, "completion_tokens": 1, **more}}
        data |= {"timings": timings} if timings else {}
        stage.send(json.dumps(data).encode())

    return answer


@pytest.mark.parametrize(
    ("text", "played", "is_cut"),
    [
        (LONG, usage(2048), True),
        (LONG, usage(5400), False),
        (LONG, usage(0), False),  # a server without counts
        (LONG, play.completion, False),
        (LONG, usage(100, prompt_tokens_details={"cached_tokens": 5300}), False),
        (LONG, usage(100, timings={"cache_n": 5300, "prompt_n": 100}), False),
        (LONG, usage(100, total_tokens=5401), False),
        ("short", usage(1), False),
        (" " * 30_000 + "=" * 30_000, usage(40), False),  # runs are few tokens
        ("漢字仮名" * 2000, usage(2500), False),
    ],
)
def test_a_prompt_that_the_server_cut_has_no_reply(text: str, played: Any, is_cut: bool):
    if played is play.completion:
        bare = json.dumps({"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}).encode()
        played = lambda stage: stage.send(bare)  # noqa: E731
    with (
        ScriptedServer(script=play.always(played)) as server,
        open_chat(f"openai:tester@{server.url}", timeout_s=20) as chat,
    ):
        answer = next(chat.ask([request(text)]))
    assert len(server.calls) == 1
    if is_cut:
        assert isinstance(answer, NoReply) and "raise the server's context" in answer.reason
        assert answer.reason.startswith("the server counted 2,048 tokens of a prompt of about 6,6")  # 26,500 / 4
    else:
        assert isinstance(answer, Reply)


# --- secrets and redirections -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lead", [0, 150, 180, 193, 700, 795])
def test_no_beginning_of_the_key_is_shown(lead: int):
    key = "sk-proj-0123456789abcdef"
    with (
        ScriptedServer(script=play.always(play.status(400, "x" * lead + f" {key}"))) as server,
        open_chat(f"openai:tester@{server.url}", api_key=key, timeout_s=20) as chat,
    ):
        answer = next(chat.ask([request()]))
    assert isinstance(answer, NoReply) and key[:8] not in answer.reason
    assert ("[key]" in answer.reason) == (lead < 195)


def test_a_key_that_the_server_shows_a_part_of():
    from avcap.llm.wire import without_secret

    key = "sk-proj-0123456789abcdef"
    assert without_secret(f"{key[:12]}... and {key} and {key[:7]}", secret=key) == "[key]... and [key] and sk-proj"
    assert without_secret("abc", secret=None) == "abc"


def test_a_redirection_says_where_to():
    def moved(stage: play.Stage) -> None:
        stage.send(b"", status=307, Location="http://other.example/v1/chat/completions")

    from avcap.errors import UserError

    with (
        ScriptedServer(script=play.always(moved)) as server,
        open_chat(f"openai:tester@{server.url}", timeout_s=20) as chat,
        pytest.raises(UserError) as raised,
    ):
        list(chat.ask([request()]))
    assert "status 307, a redirection to http://other.example/v1/chat/completions" in str(raised.value)
