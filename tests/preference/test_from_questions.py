"""Replies to questions become pairs."""

import pytest

from avcap.judge.metrics.answers import GradedReply
from avcap.preference.from_questions import pair_from_replies
from avcap.records import Sample

QUESTION = Sample(sample_id="q", video="v.mp4", prompt="Who rings?", interval_s=(1.0, 3.0))


def pair(*texts: str, right: tuple[str, ...] = ("a bell", "the bell")):
    replies = [GradedReply(text=text, is_right=text in right) for text in texts]
    return pair_from_replies(QUESTION, answer="a bell", replies=replies, checkpoint="tiny@1")


def test_the_first_right_reply_is_chosen_and_the_most_frequent_wrong_one_rejected():
    found = pair("a drum", "a flute", "the bell", "a flute", "a bell")
    assert (found.chosen, found.rejected) == ("the bell", "a flute")
    assert (found.sample_id, found.video, found.prompt, found.interval_s, found.checkpoint) == (
        "q", "v.mp4", "Who rings?", (1.0, 3.0), "tiny@1",
    )  # fmt: skip


def test_where_no_reply_is_right_the_known_answer_is_chosen():
    assert pair("a drum").chosen == "a bell"


@pytest.mark.parametrize("texts", [("a bell",), ("", ""), ("", "a bell"), ()])
def test_without_a_wrong_reply_there_is_no_pair(texts):
    assert pair(*texts) is None  # silence is no reply
