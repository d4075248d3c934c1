"""Asking questions of a model: files, going on, errors, orders of options."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from avcap import Captioner
from avcap.data.qa_files import QuestionProblem, QuestionSet, VideoQuestion
from avcap.errors import UserError
from avcap.evaluation import evaluate_qa as stage
from avcap.evaluation.evaluate_qa import QaConfig, evaluate_qa
from avcap.infer.question_answering import Answerer
from avcap.judge.metrics.answers import Answer, AnswerError
from avcap.records import from_json


def asked(number: int, video: Path | str, *options: str, right: int = 0, **fields) -> VideoQuestion:
    return VideoQuestion(
        question_id=f"q{number}",
        video=str(video),
        kind="count",
        text="How many objects appear?",
        answer=options[right] if options else "two.",
        options=options,
        answer_index=right if options else None,
        **fields,
    )


def questions(*rows: VideoQuestion, problems: tuple[QuestionProblem, ...] = ()) -> QuestionSet:
    return QuestionSet(format="world", questions=rows, problems=problems)


def rows_of(out: Path) -> list[Answer | AnswerError]:
    lines = (out / "answers.jsonl").read_text().splitlines()
    return [from_json(line, AnswerError if '"error"' in line else Answer) for line in lines]


@pytest.fixture(scope="module")
def captioner(random_checkpoint):
    return Captioner(random_checkpoint)


def test_both_methods_and_every_question_that_has_no_answer(captioner, videos, tmp_path):
    (tmp_path / "broken.mp4").write_text("no video")
    asked_all = questions(
        asked(0, videos / "a.mp4", "one.", "two."),
        asked(1, videos / "a.mp4", "one.", "two.", "three.", right=1),
        asked(2, videos / "b.mp4"),
        asked(3, tmp_path / "broken.mp4", "one.", "two."),
        problems=(QuestionProblem(question_id="q9", video="gone.mp4", reason="no video called gone.mp4"),),
    )
    metrics = evaluate_qa(captioner, asked_all, config=QaConfig(), out_dir=tmp_path / "out")
    assert metrics.scoring == "texts"
    assert set(metrics.unanswered) == {"q3", "q9"} and "broken.mp4" in metrics.unanswered["q3"]
    # q0, q1, q2 are written, q2 has no options to compare
    assert metrics.by_method["generate"].by_kind["all"].num_questions == 3
    assert metrics.by_method["logprobs"].by_kind["all"].num_questions == 2
    by_key = {(row.question_id, row.method): row for row in rows_of(tmp_path / "out") if isinstance(row, Answer)}
    scored = by_key["q1", "logprobs"]
    assert len(scored.scores) == 3 and scored.choice == scored.scores.index(max(scored.scores))
    assert scored.is_right == (scored.choice == 1)
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written["by_method"]["generate"]["by_kind"]["all"]["chance"] == 0.25  # of "count", in the world
    assert written["num_questions"] == 4 and written["num_videos"] == 3


def test_a_stopped_run_goes_on_and_ends_with_the_same(captioner, videos, tmp_path, monkeypatch):
    asked_all = questions(*(asked(n, videos / name, "one.", "two.") for n, name in enumerate(["a.mp4", "b.mp4"])))
    whole = evaluate_qa(captioner, asked_all, config=QaConfig(), out_dir=tmp_path / "whole")
    lines = (tmp_path / "whole" / "answers.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == 4
    # killed while the rows of the second video were written: one of its two, and the beginning of the other
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "run.json").write_text((tmp_path / "whole" / "run.json").read_text())
    (tmp_path / "part" / "answers.jsonl").write_text("".join(lines[:3]) + lines[3][:20])
    seen = []
    monkeypatch.setattr(
        stage,
        "ask_about_clip",
        lambda answerer, clip, asked, *, ask=stage.ask_about_clip, **how: (
            seen.append(clip.path) or ask(answerer, clip, asked, **how)
        ),
    )
    again = evaluate_qa(captioner, asked_all, config=QaConfig(), out_dir=tmp_path / "part")
    assert again == whole and seen == [str(videos / "b.mp4")]
    assert evaluate_qa(captioner, asked_all, config=QaConfig(), out_dir=tmp_path / "part") == whole
    assert len(seen) == 1  # nothing left to ask


def test_errors_are_tried_again(captioner, videos, tmp_path):
    video = tmp_path / "late.mp4"
    asked_all = questions(asked(0, video, "one.", "two."))
    assert evaluate_qa(captioner, asked_all, config=QaConfig(), out_dir=tmp_path / "out").unanswered
    video.write_bytes((videos / "a.mp4").read_bytes())
    metrics = evaluate_qa(captioner, asked_all, config=QaConfig(), out_dir=tmp_path / "out")
    assert not metrics.unanswered and metrics.by_method["generate"].by_kind["all"].num_questions == 1
    assert all(isinstance(row, Answer) for row in rows_of(tmp_path / "out"))


def test_a_folder_of_another_run_is_an_error(captioner, videos, tmp_path):
    asked_all = questions(asked(0, videos / "a.mp4", "one.", "two."))
    evaluate_qa(captioner, asked_all, config=QaConfig(), out_dir=tmp_path)
    with pytest.raises(UserError, match="another configuration; use_audio: got True there, False here"):
        evaluate_qa(captioner, asked_all, config=QaConfig(use_audio=False), out_dir=tmp_path)
    (tmp_path / "answers.jsonl").write_text("nonsense\n")
    with pytest.raises(UserError, match="line 1: got no answer"):
        evaluate_qa(captioner, asked_all, config=QaConfig(), out_dir=tmp_path)


def test_an_interval_is_asked_about_by_itself(captioner, videos, tmp_path):
    whole = asked(0, videos / "c.mp4", "one.", "two.")
    asked_all = questions(whole, replace(whole, question_id="q1", interval_s=(1.0, 3.0)))
    evaluate_qa(captioner, asked_all, config=QaConfig(methods=("logprobs",)), out_dir=tmp_path)
    first, second = rows_of(tmp_path)
    assert first.scores != second.scores
    beyond = questions(replace(whole, interval_s=(1.0, 30.0)))
    metrics = evaluate_qa(captioner, beyond, config=QaConfig(), out_dir=tmp_path / "beyond")
    assert "which lasts 4.0 s" in metrics.unanswered["q0"]


def test_orders_do_not_matter_to_a_model_that_is_shown_none(captioner, videos, tmp_path):
    with pytest.raises(UserError, match="--rotate"):
        evaluate_qa(captioner, questions(asked(0, "a.mp4")), config=QaConfig(rotate=True), out_dir=tmp_path)


def prefer_letter(monkeypatch, letter: str) -> None:
    """Makes every model find one letter the likeliest, whatever it stands for."""
    shown = "ABC".index(letter)
    scores = [0.0 if index == shown else -1.0 for index in range(3)]
    monkeypatch.setattr(Answerer, "knows_letters", True)
    monkeypatch.setattr(Answerer, "letter_scores", lambda self, looked, asked: [scores for _ in asked])


def test_choices_and_scores_are_told_in_the_order_of_the_file(captioner, videos, tmp_path, monkeypatch):
    prefer_letter(monkeypatch, "B")
    asked_all = questions(asked(0, videos / "b.mp4", "one.", "two.", "three.", right=2))
    config = QaConfig(methods=("logprobs",), rotate=True)
    metrics = evaluate_qa(captioner, asked_all, config=config, out_dir=tmp_path)
    # turned by 0, 1, 2 the second place shows options 1, 2, 0
    rows = rows_of(tmp_path)
    assert [row.choice for row in rows] == [1, 2, 0] and [row.shown_choice for row in rows] == [1, 1, 1]
    assert [row.scores.index(0.0) for row in rows] == [1, 2, 0]
    assert [row.is_right for row in rows] == [False, True, False]
    of = metrics.by_method["logprobs"]
    assert of.rotated.accuracy.value == pytest.approx(1 / 3) and of.rotated.right_in_all.value == 0.0
    assert of.by_letter["B"].answered == 1.0 and of.by_kind["all"].num_questions == 1
