"""ugc-videocap: a caption is given 1 to 5 points for what is seen, what is heard and the details, against a reference.

The rules are theirs, the wording of the prompt is ours: each point counts 20 %, and the average is that of the three. A
reply without the three numbers is asked for again; then the caption is unscored (theirs counts it as 0 of 5).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from avcap.judge.protocols import prompts
from avcap.judge.protocols.protocol import Card
from avcap.judge.protocols.wording import Wordings, worded
from avcap.llm import json_reply
from avcap.llm.dialogue import MAX_TRIES, RETRY_TEMPERATURE, Dialogue, Failed, ask_until_valid
from avcap.llm.json_reply import BadReply
from avcap.llm.quoting import delimit
from avcap.llm.types import ChatRequest
from avcap.records import Unscored

ASPECTS = ("visual", "audio", "details")
BEST = 5
MAX_TOKENS = 256
SCHEMA = prompts.object_schema(**{name: {"type": "integer"} for name in ASPECTS})


@dataclass(frozen=True, kw_only=True)
class UgcCase:
    caption_id: str
    caption: str
    reference_caption: str


@dataclass(frozen=True, kw_only=True)
class UgcScore:
    """Points from 1 to 5."""

    caption_id: str
    visual: int
    audio: int
    details: int

    def percent(self, aspect: str) -> float:
        return 100.0 * float(getattr(self, aspect)) / BEST

    @property
    def average(self) -> float:
        return sum(map(self.percent, ASPECTS)) / len(ASPECTS)


@dataclass(frozen=True, kw_only=True)
class UgcVideoCap:
    """The protocol."""

    wordings: Wordings = field(default_factory=dict)

    @property
    def card(self) -> Card:
        example = UgcCase(caption_id="1", caption="A man waves.", reference_caption="A man waves and sings.")
        return Card(
            name="ugc-videocap",
            version=1,
            prompt_version=prompts.fingerprint(scores_request(example, wordings=self.wordings)),
            decoding=f"temperature 0; up to {MAX_TRIES} tries, the later ones at {RETRY_TEMPERATURE}",
            aggregation="means over videos of points times 20",
        )

    def dialogue(self, case: UgcCase, /) -> Dialogue[UgcScore | Unscored]:
        """A case -> its points; an empty caption has the fewest, and nobody is asked."""
        if not delimit(case.reference_caption, name="reference").body:
            return Unscored(caption_id=case.caption_id, reason="no reference caption")
        if not delimit(case.caption, name="caption").body:
            return UgcScore(caption_id=case.caption_id, visual=1, audio=1, details=1)
        found = yield from ask_until_valid(
            scores_request(case, wordings=self.wordings),
            read=lambda text: read_points(text, caption_id=case.caption_id),
        )
        if isinstance(found, Failed):
            return Unscored(caption_id=case.caption_id, reason=found.reason, reply=found.reply)
        return found

    def summarise(self, scores: Sequence[UgcScore], /) -> float | None:
        """Scores -> the average of all captions, 0 to 100."""
        return sum(score.average for score in scores) / len(scores) if scores else None


def scores_request(case: UgcCase, *, wordings: Wordings) -> ChatRequest:
    parts = {
        "caption": f"The caption:\n{delimit(case.caption, name='caption').text}",
        "reference_caption": f"The reference:\n{delimit(case.reference_caption, name='reference').text}",
    }
    return worded(prompts.UGC_SCORES, parts, wording=wordings.get("scores"), max_tokens=MAX_TOKENS, schema=SCHEMA)


def read_points(text: str, *, caption_id: str) -> UgcScore:
    """A reply {"visual": 4, "audio": 2, "details": 3} -> the points."""
    reply = json_reply.parse_object_or_python(text, schema=SCHEMA)
    points = {name: json_reply.take_count(reply, name, where="the reply", most=BEST) for name in ASPECTS}
    if not all(points.values()):
        raise BadReply(f"0 points for {min(points, key=points.__getitem__)}, expected 1 to {BEST}")
    return UgcScore(caption_id=caption_id, **points)
