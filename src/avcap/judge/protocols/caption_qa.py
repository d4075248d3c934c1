"""caption-qa: multiple-choice questions about a video, answered by a language model that has only its caption.

The rules are theirs (Daily-Omni and WorldSense from captions), the wording of the prompt is ours: the answer is a
letter, or N/A where the caption does not say, which counts as wrong. A reply that is neither is asked for again, five
times in all, and then counts as N/A, too. Accuracy is right answers / questions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from avcap.judge.protocols import prompts
from avcap.judge.protocols.protocol import Card
from avcap.judge.protocols.wording import Wordings, worded
from avcap.llm.dialogue import RETRY_TEMPERATURE, Dialogue, Failed, ask_until_valid, side_by_side
from avcap.llm.json_reply import BadReply
from avcap.llm.quoting import delimit, one_line
from avcap.llm.types import ChatRequest
from avcap.records import Unscored

MAX_TRIES = 5
MAX_TOKENS = 64
NOT_SAID = "N/A"
LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True, kw_only=True)
class ChoiceQuestion:
    """`answer`: the right letter."""

    text: str
    options: tuple[str, ...]
    answer: str
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class CaptionQaCase:
    caption_id: str
    caption: str
    questions: tuple[ChoiceQuestion, ...]


@dataclass(frozen=True, kw_only=True)
class ChosenAnswer:
    """A letter or N/A. `failed`: why there is none; the question is then in no mean."""

    letter: str
    is_right: bool
    kind: str = ""
    failed: str = ""


@dataclass(frozen=True, kw_only=True)
class CaptionQaScore:
    caption_id: str
    answers: tuple[ChosenAnswer, ...]


@dataclass(frozen=True, kw_only=True)
class CaptionQa:
    """The protocol."""

    wordings: Wordings = field(default_factory=dict)

    @property
    def card(self) -> Card:
        question = ChoiceQuestion(text="Who waves?", options=("a man", "a dog"), answer="A")
        return Card(
            name="caption-qa",
            version=1,
            prompt_version=prompts.fingerprint(
                question_request(question, caption="A man waves.", wordings=self.wordings)
            ),
            decoding=f"temperature 0; up to {MAX_TRIES} tries, the later ones at {RETRY_TEMPERATURE}",
            aggregation="right answers / questions, over all videos together",
        )

    def dialogue(self, case: CaptionQaCase, /) -> Dialogue[CaptionQaScore | Unscored]:
        """A case -> its answers, all asked together; an empty caption answers nothing, and nobody is asked."""
        if not case.questions:
            return Unscored(caption_id=case.caption_id, reason="the video has no questions")
        answers = yield from side_by_side([self._answer(one, caption=case.caption) for one in case.questions])
        if all(answer.failed for answer in answers):
            return Unscored(caption_id=case.caption_id, reason=f"no answer to any question: {answers[0].failed}")
        return CaptionQaScore(caption_id=case.caption_id, answers=tuple(answers))

    def _answer(self, question: ChoiceQuestion, *, caption: str) -> Dialogue[ChosenAnswer]:
        letter: str | Failed = NOT_SAID
        if delimit(caption, name="caption").body:
            request = question_request(question, caption=caption, wordings=self.wordings)
            letter = yield from ask_until_valid(
                request, read=lambda text: read_choice(text, num_options=len(question.options)), max_tries=MAX_TRIES
            )
        if isinstance(letter, Failed) and not letter.reply:  # nobody answered, which says nothing about the caption
            return ChosenAnswer(letter="", is_right=False, kind=question.kind, failed=letter.reason)
        chosen = NOT_SAID if isinstance(letter, Failed) else letter
        return ChosenAnswer(letter=chosen, is_right=chosen == question.answer, kind=question.kind)

    def summarise(self, scores: Sequence[CaptionQaScore], /) -> float | None:
        """Scores -> accuracy over all questions."""
        answers = [answer for score in scores for answer in score.answers if not answer.failed]
        return sum(answer.is_right for answer in answers) / len(answers) if answers else None


def question_request(question: ChoiceQuestion, *, caption: str, wordings: Wordings) -> ChatRequest:
    options = [f"{letter}. {one_line(text)}" for letter, text in zip(LETTERS, question.options, strict=False)]
    parts = {
        "caption": f"The caption:\n{delimit(caption, name='caption').text}",
        "question": f"Question: {one_line(question.text)}",
        "options": "\n".join(options),
    }
    return worded(prompts.CAPTION_QA, parts, wording=wordings.get("answer"), max_tokens=MAX_TOKENS)


def read_choice(text: str, *, num_options: int) -> str:
    """A reply -> a letter of the options, or N/A. Raises BadReply for anything else."""
    said = text.strip().strip("*().: \n").upper()
    if said in (NOT_SAID, "NA", "NOT GIVEN"):
        return NOT_SAID
    letter = said[:1]
    if letter in LETTERS[:num_options] and letter and (len(said) == 1 or not said[1].isalnum()):
        return letter
    raise BadReply(f"the reply is {text.strip()[:40]!r}, expected a letter or {NOT_SAID}")
