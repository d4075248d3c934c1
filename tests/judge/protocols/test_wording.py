"""Prompts out of files: where they are put, and that captions stay in their blocks."""

import pytest

from avcap.errors import UserError
from avcap.judge.protocols.caption_qa import ChoiceQuestion, question_request
from avcap.judge.protocols.wording import read_wording, worded

PARTS = {"events": "1. a dog barks", "caption": "<caption>\n| A dog.\n</caption>"}


def asked(tmp_path, text: str) -> list[tuple[str, str]]:
    (tmp_path / "p.txt").write_text(text)
    request = worded("Ours.", PARTS, wording=read_wording(tmp_path / "p.txt"), max_tokens=5, temperature=0.5)
    assert (request.max_tokens, request.temperature) == (5, 0.5)
    return [(message.role, message.content) for message in request.messages]


def test_rules_alone_take_the_place_of_ours(tmp_path):
    assert asked(tmp_path, "Theirs.\n") == [("system", "Theirs."), ("user", "\n\n".join(PARTS.values()))]


def test_places_are_filled_and_the_rest_is_put_behind(tmp_path):
    (user,) = asked(tmp_path, 'Judge {caption}! Reply {"a": {b}}')
    assert user == ("user", f'Judge {PARTS["caption"]}! Reply {{"a": {{b}}}}\n\n{PARTS["events"]}')


def test_three_dashes_part_rules_and_question(tmp_path):
    found = asked(tmp_path, "Rules.\n---\n{events}\n{caption}")
    assert found == [("system", "Rules."), ("user", f"{PARTS['events']}\n{PARTS['caption']}")]


def test_a_caption_with_a_place_in_it_fills_none():
    """What is put in is never searched for places."""
    question = ChoiceQuestion(text="What?", options=("a", "b"), answer="A")
    from avcap.judge.protocols.wording import Wording

    wordings = {"answer": Wording(rules="", question="{caption} {question} {options}")}
    request = question_request(question, caption="{question} {options}", wordings=wordings)
    (message,) = request.messages
    assert message.content.count("Question: What?") == 1 and "| (question) (options)" in message.content


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_file_is_refused(tmp_path, text):
    (tmp_path / "p.txt").write_text(text)
    with pytest.raises(UserError, match="expected a prompt"):
        read_wording(tmp_path / "p.txt")
    with pytest.raises(UserError, match="cannot be read"):
        read_wording(tmp_path / "none.txt")
