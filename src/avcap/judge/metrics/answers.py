"""Answers to questions: which option a reply means, and how many are right, with intervals over videos. No torch.

    accuracy = right answers / questions asked         a reply that names no option, or two, is wrong, and counted

A question without an answer (no video, a video that cannot be read) is in no accuracy; it is named and counted.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from avcap.data.qa_files import VideoQuestion, letters_of
from avcap.judge.metrics.bootstrap import Rate, ratio_rates
from avcap.judge.metrics.letters import read_letter as read_letter
from avcap.llm.answer import answer_of
from avcap.records import Question
from avcap.world import questions as world_questions

Method = Literal["generate", "logprobs"]
Scoring = Literal["letters", "texts"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One line of answers.jsonl: what a model answered. `choice`: the option that is meant, in the file's order.

    `rotation`: the options were shown turned by so many places, the first of them last. `scores`: log-probabilities of
    the options, in the file's order. `unknown_words`: words of the question that the model's vocabulary has not.
    """

    question_id: str
    video: str
    method: Method
    is_right: bool
    text: str = ""
    choice: int | None = None
    shown_choice: int | None = None
    rotation: int = 0
    scores: tuple[float, ...] = ()
    unknown_words: int = 0


@dataclass(frozen=True, kw_only=True)
class AnswerError:
    """A question that got no answer, with the reason."""

    question_id: str
    video: str
    error: str


# --- reading a reply in words; letters.py reads letters ---------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class GradedReply:
    """A reply to a question, and whether it is right."""

    text: str
    is_right: bool


def is_right(reply: str, question: VideoQuestion) -> bool:
    """A short answer in words -> is it the right one? Case, punctuation, articles and digits make no difference."""
    return _says(reply, question, question.answer)


def read_text(reply: str, question: VideoQuestion) -> int | None:
    """A short answer in words -> the index of the option that says the same; None if none does."""
    return next((index for index, option in enumerate(question.options) if _says(reply, question, option)), None)


def _says(reply: str, question: VideoQuestion, answer: str) -> bool:
    as_asked = Question(
        question_id=question.question_id, kind=question.kind, text=question.text, answer=answer, needs="both"
    )
    return world_questions.right(answer_of(reply).text, as_asked)


# --- figures ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class KindAccuracy:
    """`chance`: what guessing gets right; None where nobody knows."""

    accuracy: Rate
    chance: float | None
    num_questions: int
    num_right: int


@dataclass(frozen=True, kw_only=True)
class LetterBias:
    """How often a letter is answered, and how often it is right; far apart, the model prefers a place to an answer."""

    answered: float
    right: float


@dataclass(frozen=True, kw_only=True)
class RotatedAccuracy:
    """Accuracy over all orders that turning the options gives, and the share right in every one of them."""

    accuracy: Rate
    right_in_all: Rate
    num_answers: int


@dataclass(frozen=True, kw_only=True)
class MethodMetrics:
    """The answers of one method. `by_kind` "all" is all of them. `num_unread`: replies that name no option."""

    by_kind: dict[str, KindAccuracy]
    by_letter: dict[str, LetterBias]
    rotated: RotatedAccuracy | None
    num_unread: int
    num_with_unknown_words: int


@dataclass(frozen=True, kw_only=True)
class QaMetrics:
    """What metrics.json of a question answering run holds."""

    scoring: Scoring
    """How options are told to the model: by letters in the prompt, or not at all ("texts": it answers in words)."""
    by_method: dict[str, MethodMetrics]
    num_questions: int
    num_videos: int
    unanswered: dict[str, str]
    """Question id -> why it has no answer: no such video, a file that cannot be read, a row that cannot be asked."""


def compute_qa_metrics(
    questions: Sequence[VideoQuestion],
    answers: Iterable[Answer],
    *,
    scoring: Scoring,
    unanswered: dict[str, str],
    is_world: bool,
) -> QaMetrics:
    """Questions and answers -> accuracies with 95 % intervals over videos. `is_world`: its own chance levels hold."""
    by_method: dict[Method, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_method[answer.method].append(answer)
    of_id = {question.question_id: question for question in questions}

    def chance_of(method: Method) -> Callable[[VideoQuestion], float | None]:
        in_words = scoring == "texts" and method == "generate"

        def chance(question: VideoQuestion) -> float | None:
            if question.options and not in_words:
                return 1 / len(question.options)
            return world_questions.chance(question.kind) if is_world else None

        return chance

    return QaMetrics(
        scoring=scoring,
        by_method={
            method: _method_metrics(of_id, found, scoring=scoring, chance_of=chance_of(method))
            for method, found in sorted(by_method.items())
        },
        num_questions=len(questions),
        num_videos=len({question.video for question in questions}),
        unanswered=unanswered,
    )


def qa_metrics_to_dict(metrics: QaMetrics) -> dict[str, Any]:
    """Metrics -> plain JSON."""
    return asdict(metrics)


def _method_metrics(
    of_id: dict[str, VideoQuestion],
    answers: list[Answer],
    *,
    scoring: Scoring,
    chance_of: Callable[[VideoQuestion], float | None],
) -> MethodMetrics:
    plain = [answer for answer in answers if answer.rotation == 0]
    kinds = ["all", *sorted({of_id[answer.question_id].kind for answer in plain})]
    rates = accuracies(plain, groups=[_of_kind(kind, of_id) for kind in kinds])
    by_kind = {}
    for kind, rate in zip(kinds, rates, strict=True):
        of_kind = [answer for answer in plain if _of_kind(kind, of_id)(answer)]
        chances = [chance_of(of_id[answer.question_id]) for answer in of_kind]
        known = [chance for chance in chances if chance is not None]
        by_kind[kind] = KindAccuracy(
            accuracy=rate,
            chance=sum(known) / len(known) if known and len(known) == len(chances) else None,
            num_questions=len(of_kind),
            num_right=sum(answer.is_right for answer in of_kind),
        )
    with_options = [answer for answer in plain if of_id[answer.question_id].options]
    return MethodMetrics(
        by_kind=by_kind,
        by_letter=_letter_bias(of_id, with_options),
        rotated=_rotated(answers) if any(answer.rotation for answer in answers) else None,
        # told nothing of the options, a model may well answer with something that is none of them
        num_unread=sum(answer.choice is None for answer in with_options if scoring == "letters" or not answer.text),
        num_with_unknown_words=sum(answer.unknown_words > 0 for answer in plain),
    )


def _of_kind(kind: str, of_id: dict[str, VideoQuestion]) -> Callable[[Answer], bool]:
    return lambda answer: kind in ("all", of_id[answer.question_id].kind)


def accuracies(answers: Sequence[Answer], *, groups: Sequence[Callable[[Answer], bool]]) -> list[Rate]:
    """Answers and groups of them -> the accuracy of each group, with an interval over videos."""
    videos = {video: index for index, video in enumerate(dict.fromkeys(answer.video for answer in answers))}
    right_VK, asked_VK = np.zeros((len(videos), len(groups))), np.zeros((len(videos), len(groups)))
    for answer in answers:
        for k, belongs in enumerate(groups):
            if belongs(answer):
                asked_VK[videos[answer.video], k] += 1
                right_VK[videos[answer.video], k] += answer.is_right
    return ratio_rates(right_VK, asked_VK)


def _letter_bias(of_id: dict[str, VideoQuestion], answers: list[Answer]) -> dict[str, LetterBias]:
    """Shares of all answers that name an option, by the letter under which it was shown."""
    named = [answer for answer in answers if answer.shown_choice is not None]
    if not named:
        return {}
    letters = max((letters_of(of_id[answer.question_id]) for answer in named), key=len)
    return {
        letter: LetterBias(
            answered=sum(answer.shown_choice == index for answer in named) / len(named),
            right=sum(of_id[answer.question_id].answer_index == index for answer in named) / len(named),
        )
        for index, letter in enumerate(letters)
    }


def _rotated(answers: list[Answer]) -> RotatedAccuracy:
    by_question: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_question[answer.question_id].append(answer)
    in_all = [
        Answer(
            question_id=question_id,
            video=found[0].video,
            method=found[0].method,
            is_right=all(answer.is_right for answer in found),
        )
        for question_id, found in by_question.items()
    ]
    (accuracy,) = accuracies(answers, groups=[lambda _: True])
    (right_in_all,) = accuracies(in_all, groups=[lambda _: True])
    return RotatedAccuracy(accuracy=accuracy, right_in_all=right_in_all, num_answers=len(answers))
