"""Replies in pieces are what they would have been whole; half of one is no reply."""

import json

import pytest

from avcap.llm.stream import is_stream, joined_stream
from avcap.llm.types import Choice, Reply, TokenLogprobs
from avcap.llm.wire import Failure, read_completion


def event(text: str | None = None, *, index: int = 0, finish: str | None = None, **fields) -> dict:
    delta = {} if text is None else {"content": text}
    return {"choices": [{"index": index, "delta": delta, "finish_reason": finish}], **fields}


def stream(*events, end: bool = True) -> bytes:
    lines = [f"data: {json.dumps(one)}\n\n" for one in events]
    return "".join([*lines, "data: [DONE]\n\n" if end else ""]).encode()


USAGE = {
    "choices": [],
    "usage": {"prompt_tokens": 90, "completion_tokens": 2, "prompt_tokens_details": {"audio_tokens": 7}},
}


def test_pieces_are_joined_and_counted():
    raw = stream(event("A dog "), event("barks."), event(finish="stop"), USAGE)
    assert read_completion(raw) == Reply(text="A dog barks.", input_tokens=90, output_tokens=2, audio_tokens=7)


def test_each_answer_gets_its_own_pieces():
    raw = stream(event("a", index=1), event("b"), event("c", index=1, finish="length"), event(finish="stop"))
    assert read_completion(raw) == Reply(text="b", others=(Choice(text="ac", finished=False),))


@pytest.mark.parametrize(
    "raw",
    [
        stream(event("A dog "), end=False),
        stream(event("A dog "), event("barks.", index=1, finish="stop"), end=False),
        b'data: {"choices": [{"delta"',
        b": keep-alive\n\n",
    ],
)
def test_a_stream_that_breaks_off_is_a_failure(raw):
    assert is_stream(raw) and joined_stream(raw) is None
    outcome = read_completion(raw)
    assert isinstance(outcome, Failure) and outcome.again and "broke off" in outcome.reason


def test_the_end_may_be_missing_where_every_answer_has_one():
    assert read_completion(stream(event("x"), event(finish="stop"), end=False)) == Reply(text="x")


def test_thoughts_stay_apart_and_errors_are_errors():
    thought = {"choices": [{"index": 0, "delta": {"reasoning_content": "Hm"}}]}
    assert read_completion(stream(thought, event("B"), event(finish="stop"))) == Reply(text="B")
    outcome = read_completion(stream(event("A"), {"error": {"message": "out of memory"}}))
    assert isinstance(outcome, Failure) and "out of memory" in outcome.reason


def test_what_is_no_piece_is_passed_over():
    raw = b": ping\r\n\r\nevent: x\r\ndata: nonsense\r\n\r\ndata: 3\r\n\r\n" + stream(
        {"choices": "x"}, event("A", finish="stop")
    )
    assert read_completion(raw) == Reply(text="A")


def test_log_probabilities_and_several_answers_of_a_whole_reply():
    content = [
        {
            "token": "B",
            "logprob": -0.1,
            "top_logprobs": [{"token": "B", "logprob": -0.1}, {"token": "A", "logprob": -2}],
        }
    ]
    choices = [
        {"finish_reason": "stop", "message": {"content": "B"}, "logprobs": {"content": content}},
        {"finish_reason": "content_filter", "message": {"content": ""}},
        {"finish_reason": "stop", "message": {"content": "C"}},
    ]
    usage = {"prompt_tokens": 5, "prompt_tokens_details": {"video_tokens": 3, "image_tokens": 1}}
    reply = read_completion(json.dumps({"choices": choices, "usage": usage}).encode())
    assert reply == Reply(
        text="B",
        input_tokens=5,
        others=(Choice(text="C"),),
        visual_tokens=4,
        logprobs=(TokenLogprobs(token="B", logprob=-0.1, top=(("B", -0.1), ("A", -2.0))),),
    )
    assert [choice.text for choice in reply.choices] == ["B", "C"]
