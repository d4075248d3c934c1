"""omni-cloze: blanks of a passage about a video are filled in from its caption alone, all of them in one call.

The rules are theirs, the wording of the prompt is ours. Each blank has options A to D, and E for what the caption does
not say. accuracy = right / blanks; score = (right - wrong) / blanks, where E is neither. A reply that does not fill in
every blank is asked for again; then the caption is unscored (theirs counts it as E throughout).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from avcap.judge.protocols import prompts
from avcap.judge.protocols.protocol import Card
from avcap.judge.protocols.wording import Wordings, worded
from avcap.llm import json_reply
from avcap.llm.dialogue import MAX_TRIES, RETRY_TEMPERATURE, Dialogue, Failed, ask_until_valid
from avcap.llm.json_reply import BadReply
from avcap.llm.quoting import delimit, one_line
from avcap.llm.types import ChatRequest
from avcap.records import Unscored

LETTERS = "ABCDE"
NOT_GIVEN = "E"
TOKENS_PER_BLANK, TOKENS_BESIDE = 32, 512
Outcome = Literal["right", "not given", "wrong"]


@dataclass(frozen=True, kw_only=True)
class Blank:
    """One blank: the texts of A to D, the right letter, and the modality that it needs, as the data names it."""

    options: tuple[str, ...]
    answer: str
    modality: str = ""


@dataclass(frozen=True, kw_only=True)
class ClozeCase:
    caption_id: str
    caption: str
    passage: str
    blanks: tuple[Blank, ...]


@dataclass(frozen=True, kw_only=True)
class FilledBlank:
    letter: str
    outcome: Outcome
    modality: str = ""


@dataclass(frozen=True, kw_only=True)
class ClozeScore:
    caption_id: str
    blanks: tuple[FilledBlank, ...]


@dataclass(frozen=True, kw_only=True)
class ClozeSummary:
    accuracy: float | None
    score: float | None
    num_blanks: int


@dataclass(frozen=True, kw_only=True)
class OmniCloze:
    """The protocol."""

    wordings: Wordings = field(default_factory=dict)

    @property
    def card(self) -> Card:
        return Card(
            name="omni-cloze",
            version=1,
            prompt_version=prompts.fingerprint(cloze_request(_example(), wordings=self.wordings)),
            decoding=f"temperature 0; up to {MAX_TRIES} tries, the later ones at {RETRY_TEMPERATURE}",
            aggregation="sums over captions before dividing by the sum of blanks",
        )

    def dialogue(self, case: ClozeCase, /) -> Dialogue[ClozeScore | Unscored]:
        """A case -> its filled blanks. An empty caption gives nothing, and nobody is asked."""
        if not case.blanks:
            return Unscored(caption_id=case.caption_id, reason="the passage has no blanks")
        if not delimit(case.caption, name="caption").body:
            return _score(case, [NOT_GIVEN] * len(case.blanks))
        found = yield from ask_until_valid(
            cloze_request(case, wordings=self.wordings), read=lambda text: read_letters(text, num=len(case.blanks))
        )
        if isinstance(found, Failed):
            return Unscored(caption_id=case.caption_id, reason=found.reason, reply=found.reply)
        return _score(case, found)

    def summarise(self, scores: Sequence[ClozeScore], /) -> ClozeSummary:
        outcomes = [blank.outcome for score in scores for blank in score.blanks]
        right, wrong, num = outcomes.count("right"), outcomes.count("wrong"), len(outcomes)
        return ClozeSummary(
            accuracy=right / num if num else None, score=(right - wrong) / num if num else None, num_blanks=num
        )


def _score(case: ClozeCase, letters: Sequence[str]) -> ClozeScore:
    return ClozeScore(
        caption_id=case.caption_id,
        blanks=tuple(
            FilledBlank(letter=letter, outcome=_outcome(letter, answer=blank.answer), modality=blank.modality)
            for letter, blank in zip(letters, case.blanks, strict=True)
        ),
    )


def _outcome(letter: str, *, answer: str) -> Outcome:
    if letter == answer:
        return "right"
    return "not given" if letter == NOT_GIVEN else "wrong"


def cloze_request(case: ClozeCase, *, wordings: Wordings) -> ChatRequest:
    """A case -> what is asked: caption first, then the passage and the options of its blanks."""
    lines = [f"{number}. {_listed(blank)}" for number, blank in enumerate(case.blanks, 1)]
    passage = f"The passage:\n{delimit(case.passage, name='passage').text}"
    parts = {
        "caption": f"The caption:\n{delimit(case.caption, name='caption').text}",
        "cloze": "\n".join([passage, f"The {len(lines)} blanks:", *lines]),
        "number": str(len(lines)),
    }
    if "cloze" not in wordings:
        del parts["number"]
    return worded(
        prompts.CLOZE,
        parts,
        wording=wordings.get("cloze"),
        max_tokens=TOKENS_BESIDE + TOKENS_PER_BLANK * len(lines),
        schema=prompts.object_schema(**{str(n): {"type": "string"} for n in range(1, len(lines) + 1)}),
    )


def _listed(blank: Blank) -> str:
    texts = [f"{letter}: {one_line(text)}" for letter, text in zip(LETTERS, blank.options, strict=False)]
    return "; ".join([*texts, f"{NOT_GIVEN}: not given"])


def read_letters(text: str, *, num: int) -> list[str]:
    """A reply {"1": "A: a dog", "2": "E"} -> the letters in order."""
    reply = json_reply.parse_object(text)
    letters = []
    for number in range(1, num + 1):
        said = json_reply.take_text(reply, str(number), where="the reply")
        letter = said.partition(":")[0].strip().upper()
        if letter not in LETTERS or len(letter) != 1:
            raise BadReply(f"blank {number} has {said[:40]!r}, expected a letter from A to {NOT_GIVEN}")
        letters.append(letter)
    if len(reply) > num:
        raise BadReply(f"{len(reply)} blanks, expected {num}")
    return letters


def _example() -> ClozeCase:
    blank = Blank(options=("a man", "a dog", "a cat", "a cow"), answer="A")
    return ClozeCase(caption_id="1", caption="A man waves.", passage="(1) waves.", blanks=(blank,))
