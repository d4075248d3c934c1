"""Questions with known answers: asked by letter of a model that knows letters, in words of others; kept on disk."""

from dataclasses import replace
from pathlib import Path

import pytest

from avcap.cli.round_data import questions_of
from avcap.data.qa_files import VideoQuestion
from avcap.evaluation.questions import answer_questions, ask_as_it_can, ask_together
from avcap.infer.captioner import Captioner
from avcap.infer.question_answering import Answerer
from avcap.judge.inputs.ingest import read_truth

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner("tiny-sft")


@pytest.mark.slow
def test_questions_are_answered_in_order_and_kept(captioner, tmp_path):
    questions = questions_of(read_truth(EXAMPLES / "truth.jsonl"), None)
    path = tmp_path / "answers.jsonl"
    found = answer_questions(captioner, questions, path=path)
    replies = [reply for one in found for reply in one.replies]
    assert [one.asked.question for one in found] == questions and len(replies) == len(questions)
    assert sum(reply.is_right for reply in replies) / len(replies) > 0.6
    before = path.read_bytes()
    assert answer_questions(captioner, questions, path=path) == found and path.read_bytes() == before
    assert answer_questions(captioner, [], path=path) == []


def test_a_model_that_knows_letters_is_shown_options_and_learns_the_letter(captioner, monkeypatch):
    question = VideoQuestion(
        question_id="q",
        video="a.mp4",
        kind="k",
        text="What rings?",
        answer="a bell",
        options=("a dog", "a bell"),
        answer_index=1,
    )
    (plain,) = ask_as_it_can(captioner, [question])  # the tiny vocabulary has no letters
    assert (plain.sample.prompt, plain.answer, plain.is_right("a bell")) == ("What rings?", "a bell", True)
    monkeypatch.setattr(Answerer, "knows_letters", True)
    (shown,) = ask_as_it_can(captioner, [question])
    assert "B. a bell" in shown.sample.prompt and shown.answer == "B"
    assert shown.is_right(shown.answer) and not shown.is_right("A")
    # a question without options has no letter to name, and is asked as ever
    plain, shown = ask_as_it_can(captioner, [replace(question, options=(), answer_index=None), question])
    assert (plain.sample.prompt, plain.answer, plain.is_right("a bell")) == ("What rings?", "a bell", True)
    assert shown.by_letter and not plain.by_letter


def test_questions_about_one_video_are_asked_together_as_many_as_may_be(captioner):
    def question(name: str, video: str) -> VideoQuestion:
        return VideoQuestion(question_id=name, video=video, kind="k", text=f"{name}?", answer=name.upper())

    asked = ask_as_it_can(captioner, [question(name, name[0]) for name in ("a1", "b1", "a2", "a3")])
    together = ask_together(asked, most=2)
    assert [one.turns for one in together] == [(("a1?", "A1"), ("a2?", "A2")), (("a3?", "A3"),), (("b1?", "B1"),)]
    assert [one.sample.video for one in together] == ["a", "a", "b"]
