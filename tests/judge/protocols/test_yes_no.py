"""Answers of Yes or No as doubts: which tokens count, and what is no answer."""

import math

import pytest

from avcap.judge.protocols.yes_no import CERTAIN, MAX_TOKENS, OPTIONS, as_reply, read_doubt, yes_no_request
from avcap.llm.json_reply import BadReply
from avcap.llm.types import Reply, TokenLogprobs


def token(said: str, **top: float) -> TokenLogprobs:
    """A token and the probabilities of what could stand in its place."""
    listed = tuple((word.replace("_", " "), math.log(p)) for word, p in top.items())
    return TokenLogprobs(token=said, logprob=dict(listed).get(said, -1.0), top=listed)


def test_what_is_asked_has_one_word_of_room_and_log_probabilities():
    request = yes_no_request("Rules.", "The caption.", "Is it so?")
    assert [message.content for message in request.messages] == ["Rules.", "The caption.\n\nIs it so?"]
    assert (request.max_tokens, request.temperature, request.schema) == (MAX_TOKENS, 0.0, None)
    assert request.options == OPTIONS and OPTIONS["logprobs"] and OPTIONS["top_logprobs"] == 20


def test_a_doubt_is_the_difference_of_the_log_probabilities():
    # ln(0.8 / 0.1) = ln 8 = 2.079
    assert read_doubt(Reply(text="No", logprobs=(token("No", No=0.8, Yes=0.1),))) == pytest.approx(math.log(8))
    assert read_doubt(as_reply("Yes", doubt=-1.5)) == pytest.approx(-1.5)


def test_spellings_of_a_word_add_up():
    said = token("Yes", Yes=0.4, _yes=0.2, YES=0.1, No=0.2, no=0.05, Maybe=0.05)
    # (0.2 + 0.05) / (0.4 + 0.2 + 0.1) = 0.25 / 0.7
    assert read_doubt(Reply(text="Yes", logprobs=(said,))) == pytest.approx(math.log(0.25 / 0.7))
    words = TokenLogprobs(token="ĠNo", logprob=math.log(0.6), top=(("ĠNo", math.log(0.6)), ("▁Yes", math.log(0.3))))
    assert read_doubt(Reply(text=" No", logprobs=(words,))) == pytest.approx(math.log(2))


def test_marks_before_the_word_are_passed_over():
    reply = Reply(text="**No**", logprobs=(token("**", **{"**": 1.0}), token("No", No=0.5, Yes=0.25)))
    assert read_doubt(reply) == pytest.approx(math.log(2))


def test_a_word_that_is_not_listed_is_at_most_as_likely_as_the_last_that_is():
    said = token("Yes", Yes=0.9, Sure=0.05, The=0.01)
    # p(No) <= 0.01
    assert read_doubt(Reply(text="Yes", logprobs=(said,))) == pytest.approx(math.log(0.01 / 0.9))


@pytest.mark.parametrize(
    ("text", "doubt"), [("No.", CERTAIN), ("yes", -CERTAIN), ("<think>Hm.</think>\n**No**", CERTAIN)]
)
def test_without_log_probabilities_the_word_counts(text, doubt):
    assert read_doubt(Reply(text=text)) == doubt


@pytest.mark.parametrize(
    "reply",
    [
        Reply(text="Maybe"),
        Reply(text=""),
        Reply(text="<think>", logprobs=(token("<think>", **{"<think>": 0.99, "The": 0.01}),)),
        Reply(text="...", logprobs=(token("...", **{"...": 1.0}),)),
    ],
)
def test_what_is_no_answer_is_told(reply):
    with pytest.raises(BadReply):
        read_doubt(reply)
