"""Questions with known answers, asked of a model as it can answer them: by letter, or in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from avcap.data.qa_files import VideoQuestion, letters_of, letters_prompt
from avcap.data.request import Interval, Request
from avcap.evaluation.collect import collect_captions
from avcap.infer.captioner import Captioner
from avcap.infer.question_answering import Answerer
from avcap.judge.metrics.answers import GradedReply, is_right
from avcap.judge.metrics.letters import read_letter
from avcap.records import Caption, Decoding, Sample

MAX_ANSWER_TOKENS = 32


def answer_questions(
    captioner: Captioner,
    questions: Sequence[VideoQuestion],
    *,
    path: Path,
    request: Request | None = None,
    num_answers: int = 1,
) -> list["AnsweredQuestion"]:
    """Questions -> each with `num_answers` replies, which are also in the file."""
    if not questions:
        return []
    asked = ask_as_it_can(captioner, questions)
    request = request or Request(decoding=Decoding(max_new_tokens=MAX_ANSWER_TOKENS))
    found = collect_captions(captioner, [one.sample for one in asked], request, path=path, num_answers=num_answers)
    replies = iter(found)
    return [AnsweredQuestion(asked=one, replies=tuple(map(one.grade, islice(replies, num_answers)))) for one in asked]


@dataclass(frozen=True, kw_only=True)
class AskedQuestion:
    """A question in the form in which a model is asked it, and the right answer in that form."""

    question: VideoQuestion
    sample: Sample
    answer: str
    by_letter: bool
    """Its options are shown, and a letter is wanted."""

    def is_right(self, text: str) -> bool:
        """What the model wrote -> whether it is right."""
        if self.by_letter:
            return read_letter(text, self.question.options) == self.question.answer_index
        return is_right(text, self.question)

    def grade(self, caption: Caption) -> GradedReply:
        """What the model wrote -> the same, graded."""
        return GradedReply(text=caption.text, is_right=self.is_right(caption.text))


@dataclass(frozen=True, kw_only=True)
class AnsweredQuestion:
    """A question as it was asked, and what the model replied, once or several times."""

    asked: AskedQuestion
    replies: tuple[GradedReply, ...]


def ask_as_it_can(captioner: Captioner, questions: Sequence[VideoQuestion]) -> list[AskedQuestion]:
    """Questions -> what the captioner is asked; options are shown to a model that can name one by a letter."""
    knows_letters = Answerer(captioner).knows_letters
    return [_asked(question, by_letter=knows_letters and bool(question.options)) for question in questions]


def _asked(question: VideoQuestion, *, by_letter: bool) -> AskedQuestion:
    answer = question.answer
    if by_letter:
        assert question.answer_index is not None
        answer = letters_of(question)[question.answer_index]
    sample = Sample(
        sample_id=question.question_id,
        video=question.video,
        interval_s=question.interval_s,
        prompt=letters_prompt(question) if by_letter else question.text,
    )
    return AskedQuestion(question=question, sample=sample, answer=answer, by_letter=by_letter)


@dataclass(frozen=True, kw_only=True)
class AskedTogether:
    """Some questions about one video, or about one interval of it."""

    sample: Sample
    """Of the first of them."""
    turns: tuple[tuple[str, str], ...]
    """(prompt, right answer) pairs."""


def ask_together(asked: Sequence[AskedQuestion], *, most: int) -> list[AskedTogether]:
    """Questions -> those about the same video together, at most so many at a time."""
    by_video: dict[tuple[str, Interval | None], list[AskedQuestion]] = {}
    for one in asked:
        by_video.setdefault((one.sample.video, one.sample.interval_s), []).append(one)
    parts = (found[first : first + most] for found in by_video.values() for first in range(0, len(found), most))
    return [
        AskedTogether(sample=part[0].sample, turns=tuple((one.sample.prompt, one.answer) for one in part))
        for part in parts
    ]
