"""Questions with known answers: asked by letter of a model that knows letters, in words of others; kept on disk."""

from dataclasses import replace
from pathlib import Path

import pytest

from avcap.cli.round_data import questions_of
from avcap.data.qa_files import VideoQuestion
from avcap.infer.captioner import Captioner
from avcap.infer.question_answering import Answerer
from avcap.judge.inputs.ingest import read_truth
from avcap.stages.parts.questions import answer_questions, ask_as_it_can

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner("tiny-sft")


@pytest.mark.slow
def test_questions_are_answered_in_order_and_kept(captioner, tmp_path):
    questions = questions_of(read_truth(EXAMPLES / "truth.jsonl"), None)
    path = tmp_path / "answers.jsonl"
    found = answer_questions(captioner, questions, path=path)
    assert len(found) == len(questions) and sum(right for _, right in found) / len(found) > 0.6
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
