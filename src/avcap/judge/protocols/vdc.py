"""vdc: VDCscore. Questions about a video are answered from its caption alone, and the answers are scored.

The rules are theirs, the wording of the prompts is ours. Two calls for each question: an answer from the caption, then
(yes or no, 0 to 5) for it against the right answer. For a video: accuracy = yes / questions, score = mean score.

The *official* aggregate takes the mean over videos whose accuracy and score are both not 0, because of a condition in
the released script; so a caption that answers nothing raises the mean. The *strict* one keeps these videos.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from avcap.judge.protocols import prompts
from avcap.judge.protocols.protocol import Card
from avcap.judge.protocols.wording import Wordings, worded
from avcap.llm import json_reply
from avcap.llm.answer import answer_of
from avcap.llm.dialogue import MAX_TRIES, RETRY_TEMPERATURE, Dialogue, Failed, ask_until_valid, side_by_side
from avcap.llm.json_reply import BadReply
from avcap.llm.quoting import delimit, one_line
from avcap.llm.types import ChatRequest, NoReply, Reply
from avcap.records import Unscored

MAX_TOKENS = 256
THINKING_TOKENS = 4096
"""The room of a second try, where all of the first went into thoughts."""
BEST_SCORE = 5
NO_CAPTION = "The description is empty."

SCORE_SCHEMA = prompts.object_schema(correct={"type": "string", "enum": ["yes", "no"]}, score={"type": "integer"})


@dataclass(frozen=True, kw_only=True)
class QuestionAnswer:
    question: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class VdcCase:
    """A caption and the questions that it should answer. `aspect`: camera, short, background, main object, detailed."""

    caption_id: str
    aspect: str
    caption: str
    questions: tuple[QuestionAnswer, ...]


@dataclass(frozen=True, kw_only=True)
class AnswerScore:
    """What the judge gave an answer."""

    answer: str
    is_correct: bool
    score: int


@dataclass(frozen=True, kw_only=True)
class VdcScore:
    """`answers`: one for each question; Failed where the judge gave none, and then the question is in no mean."""

    caption_id: str
    aspect: str
    answers: tuple[AnswerScore | Failed, ...]

    @property
    def scored(self) -> list[AnswerScore]:
        return [answer for answer in self.answers if isinstance(answer, AnswerScore)]

    @property
    def accuracy(self) -> float:
        return sum(answer.is_correct for answer in self.scored) / len(self.scored)

    @property
    def score(self) -> float:
        return sum(answer.score for answer in self.scored) / len(self.scored)


@dataclass(frozen=True, kw_only=True)
class VdcMeans:
    """Means over `num_videos`; None without any."""

    accuracy: float | None
    score: float | None
    num_videos: int


@dataclass(frozen=True, kw_only=True)
class VdcAspect:
    """Both aggregates of one aspect, and the number of questions without a usable reply."""

    official: VdcMeans
    strict: VdcMeans
    num_questions_failed: int


@dataclass(frozen=True, kw_only=True)
class VdcSummary:
    by_aspect: dict[str, VdcAspect]


@dataclass(frozen=True, kw_only=True)
class Vdc:
    """The protocol."""

    wordings: Wordings = field(default_factory=dict)

    @property
    def card(self) -> Card:
        return Card(
            name="vdc",
            version=1,
            prompt_version=prompts.fingerprint(*_example(self.wordings)),
            decoding=f"temperature 0, {MAX_TOKENS} tokens; up to {MAX_TRIES} tries of scoring, the later ones at "
            f"{RETRY_TEMPERATURE}",
            aggregation="means over videos; official: without those of accuracy or score 0; strict: with them",
        )

    def dialogue(self, case: VdcCase, /) -> Dialogue[VdcScore | Unscored]:
        """A case -> its scores: all questions are answered together, then all answers are scored together."""
        if not case.questions:
            return Unscored(caption_id=case.caption_id, reason="the case has no questions")
        answers = yield from side_by_side(
            [_judge_question(one, caption=case.caption, wordings=self.wordings) for one in case.questions]
        )
        failed = [answer for answer in answers if isinstance(answer, Failed)]
        if len(failed) == len(answers):
            reason = f"no question could be scored; the last: {failed[-1].reason}"
            return Unscored(caption_id=case.caption_id, reason=reason, reply=failed[-1].reply)
        return VdcScore(caption_id=case.caption_id, aspect=case.aspect, answers=tuple(answers))

    def summarise(self, scores: Sequence[VdcScore], /) -> VdcSummary:
        groups: defaultdict[str, list[VdcScore]] = defaultdict(list)
        for score in scores:
            groups[score.aspect].append(score)
        return VdcSummary(by_aspect={aspect: _summarise_aspect(group) for aspect, group in sorted(groups.items())})


def _summarise_aspect(group: Sequence[VdcScore]) -> VdcAspect:
    return VdcAspect(
        official=_means([video for video in group if video.accuracy and video.score]),
        strict=_means(group),
        num_questions_failed=sum(len(video.answers) - len(video.scored) for video in group),
    )


def _means(videos: Sequence[VdcScore]) -> VdcMeans:
    num = len(videos)
    return VdcMeans(
        accuracy=sum(video.accuracy for video in videos) / num if num else None,
        score=sum(video.score for video in videos) / num if num else None,
        num_videos=num,
    )


def _judge_question(pair: QuestionAnswer, *, caption: str, wordings: Wordings) -> Dialogue[AnswerScore | Failed]:
    """A question and a caption -> what the caption's answer is worth. An empty caption answers nothing, unasked."""
    if not delimit(caption, name="description").body:
        return AnswerScore(answer=NO_CAPTION, is_correct=False, score=0)
    request = answer_request(pair, caption=caption, wordings=wordings)
    (reply,) = yield [request]
    if isinstance(reply, Reply) and not reply.finished and not answer_of(reply.text).text.strip():
        # all of the limit went into thoughts
        (reply,) = yield [replace(request, max_tokens=THINKING_TOKENS, attempt=request.attempt + 1)]
    if isinstance(reply, NoReply):
        return Failed(reason=reply.reason)
    answer = answer_of(reply.text).text.strip()  # one that was cut off is scored as far as it goes
    if not answer:
        return Failed(reason="the answer from the caption is empty", reply=reply.text)
    request = score_request(pair, answer=answer, wordings=wordings)
    return (yield from ask_until_valid(request, read=lambda text: read_score(text, answer=answer)))


def answer_request(pair: QuestionAnswer, *, caption: str, wordings: Wordings) -> ChatRequest:
    parts = {
        "caption": f"The description:\n{delimit(caption, name='description').text}",
        "question": f"Question: {one_line(pair.question)}",
    }
    return worded(prompts.VDC_ANSWER, parts, wording=wordings.get("answer"), max_tokens=MAX_TOKENS)


def score_request(pair: QuestionAnswer, *, answer: str, wordings: Wordings) -> ChatRequest:
    parts = {
        "question": f"Question: {one_line(pair.question)}",
        "reference_caption": f"The right answer: {one_line(pair.answer)}",
        "answer": f"The answer to be scored:\n{delimit(answer, name='answer').text}",
    }
    return worded(prompts.VDC_SCORE, parts, wording=wordings.get("score"), max_tokens=MAX_TOKENS, schema=SCORE_SCHEMA)


def read_score(text: str, *, answer: str) -> AnswerScore:
    """A reply -> the score. "yes" with 0 is a contradiction; "no" with some points is not."""
    reply = json_reply.parse_object_or_python(text, schema=SCORE_SCHEMA)
    said = "pred" if "correct" not in reply and "pred" in reply else "correct"  # "pred": as their prompt has it
    is_correct = json_reply.take_choice(reply, said, where="the reply", choices=("yes", "no")) == "yes"
    score = json_reply.take_count(reply, "score", where="the reply", most=BEST_SCORE)
    if is_correct and score == 0:
        raise BadReply("correct, and yet 0 points")
    return AnswerScore(answer=answer, is_correct=is_correct, score=score)


def _example(wordings: Wordings) -> Iterator[ChatRequest]:
    pair = QuestionAnswer(question="Who waves?", answer="A man.")
    yield answer_request(pair, caption="A man waves.", wordings=wordings)
    yield score_request(pair, answer="A man.", wordings=wordings)
