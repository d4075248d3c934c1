"""What a reply means, and accuracies counted by hand."""

import pytest

from avcap.data.qa_files import VideoQuestion
from avcap.judge.metrics.answers import Answer, compute_qa_metrics, is_right, read_text


def question(number: int, *, kind: str = "count", video: str = "", options: int = 2, right: int = 0) -> VideoQuestion:
    texts = ("once.", "twice.", "three times.", "four times.")[:options]
    return VideoQuestion(
        question_id=f"q{number}",
        video=video or f"v{number}",
        kind=kind,
        text="How many times?",
        answer=texts[right] if texts else "once.",
        options=texts,
        answer_index=right if texts else None,
    )


def test_a_short_answer_may_be_written_in_several_ways():
    asked = question(0, options=4, right=1)
    assert is_right("Twice", asked) and is_right("two times.", asked) and not is_right("once", asked)
    assert is_right("<think>Once? No.</think>Twice", asked)
    assert (read_text("4 times", asked), read_text("often", asked)) == (3, None)


def answer(number: int, choice: int | None, *, of: VideoQuestion, rotation: int = 0, method="logprobs") -> Answer:
    return Answer(
        question_id=of.question_id,
        video=of.video,
        method=method,
        choice=choice,
        rotation=rotation,
        shown_choice=None if choice is None else (choice - rotation) % len(of.options),
        is_right=choice == of.answer_index,
        text="x",
    )


def test_accuracy_chance_and_letters():
    asked = [
        question(0, options=2),
        question(1, options=4, right=2),
        question(2, kind="where", options=4, right=1),
        question(3, kind="where", options=4, right=3),
    ]
    given = [answer(n, choice, of=q) for n, (q, choice) in enumerate(zip(asked, (0, 0, 1, None), strict=True))]
    metrics = compute_qa_metrics(asked, given, scoring="letters", unanswered={"q9": "gone"}, is_world=True)
    of = metrics.by_method["logprobs"]
    # right: q0 and q2 of 4; by kind 1 of 2 and 1 of 2
    assert of.by_kind["all"].accuracy.value == 0.5 and of.by_kind["all"].num_right == 2
    assert of.by_kind["count"].accuracy.value == of.by_kind["where"].accuracy.value == 0.5
    # two options and four: (1/2 + 1/4) / 2 = 0.375
    assert of.by_kind["count"].chance == 0.375 and of.by_kind["where"].chance == 0.25
    # three answers name an option: A twice, B once; right are A, C, B (q3 names none and is left out)
    assert of.by_letter["A"].answered == pytest.approx(2 / 3) and of.by_letter["A"].right == pytest.approx(1 / 3)
    assert of.by_letter["C"].answered == 0.0 and of.by_letter["C"].right == pytest.approx(1 / 3)
    assert (of.num_unread, of.rotated) == (1, None)
    assert metrics.unanswered == {"q9": "gone"} and metrics.num_videos == 4


def test_intervals_are_over_videos_and_not_over_questions():
    # 2 videos with 50 questions each, all right in one and all wrong in the other: anything from 0 to 1 is possible
    asked = [question(n, video=f"v{n % 2}") for n in range(100)]
    given = [answer(n, n % 2, of=q) for n, q in enumerate(asked)]
    metrics = compute_qa_metrics(asked, given, scoring="letters", unanswered={}, is_world=False)
    rate = metrics.by_method["logprobs"].by_kind["all"].accuracy
    assert (rate.value, rate.low, rate.high) == (0.5, 0.0, 1.0)


def test_a_model_that_prefers_a_letter_is_found_by_turning_the_options():
    asked = [question(n, options=4, right=n % 4) for n in range(8)]
    always_a = [answer(n, rotation, of=q, rotation=rotation) for n, q in enumerate(asked) for rotation in range(4)]
    metrics = compute_qa_metrics(asked, always_a, scoring="letters", unanswered={}, is_world=False)
    of = metrics.by_method["logprobs"]
    assert of.by_letter["A"].answered == 1.0 and of.by_letter["A"].right == 0.25
    # "A" is each option once in the four orders: right in one of four, and never in all
    assert of.rotated.accuracy.value == 0.25 and of.rotated.right_in_all.value == 0.0
    assert of.rotated.num_answers == 32


def test_in_words_chance_is_that_of_the_world_and_other_words_are_not_unread():
    asked = [question(0, options=4), question(1, options=0)]
    given = [
        answer(0, None, of=asked[0], method="generate"),
        Answer(question_id="q1", video="v1", method="generate", is_right=True, text="once"),
    ]
    of = compute_qa_metrics(asked, given, scoring="texts", unanswered={}, is_world=True).by_method["generate"]
    assert of.by_kind["count"].chance == 0.25  # one of four counts, whether options were drawn for it or not
    assert of.num_unread == 0
    elsewhere = compute_qa_metrics(asked, given, scoring="texts", unanswered={}, is_world=False)
    assert elsewhere.by_method["generate"].by_kind["count"].chance is None
