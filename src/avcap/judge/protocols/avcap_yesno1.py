"""avcap-yesno-1: one question for each event of a caption, answered by Yes or No. For models that fail at long replies.

    caption + event      -> is it told right?  yes: correct
                            no -> is it told at all?  yes: incorrect, no: missing
    events + statement   -> does it tell of one of them, or follow from them?  no: invented

What counts is the log-probability of the answer (yes_no.py) against a threshold, which `avcap judge calibrate` finds
for a model; without one it is 0. All questions about a caption have it as their beginning, and all about its statements
the list of events, so that a server reads either once. Statements come from a rule (claims.py), not from the model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from avcap.judge.protocols import prompts
from avcap.judge.protocols.avcap1 import event_list, summarise_verdicts, what_is_captioned
from avcap.judge.protocols.claims import Claim, split_claims
from avcap.judge.protocols.protocol import Card, ErrorRates
from avcap.judge.protocols.yes_no import has_logprobs, read_doubt, yes_no_request
from avcap.judge.types import Case
from avcap.llm.dialogue import Answer, Dialogue
from avcap.llm.json_reply import BadReply
from avcap.llm.quoting import Block, delimit, one_line
from avcap.llm.types import ChatRequest, NoReply
from avcap.records import Event, EventVerdict, InventedClaim, Sample, Unscored, Verdict


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Doubts (log p(No) - log p(Yes)) above which the answer to each of the three questions counts as No."""

    told_right: float = 0.0
    told_at_all: float = 0.0
    supported: float = 0.0

    def __str__(self) -> str:
        return f"{self.told_right:+.3f} {self.told_at_all:+.3f} {self.supported:+.3f}"


@dataclass(frozen=True, kw_only=True)
class EventDoubts:
    """What the model said of an event. `told_at_all` None: not asked, as it was told right."""

    event_id: str
    told_right: float
    told_at_all: float | None = None


@dataclass(frozen=True, kw_only=True)
class ClaimDoubt:
    claim: Claim
    supported: float


@dataclass(frozen=True, kw_only=True)
class YesNoDoubts:
    """All that the model said about a caption, before a threshold is laid on it."""

    caption_id: str
    events: tuple[EventDoubts, ...]
    claims: tuple[ClaimDoubt, ...] = ()
    has_logprobs: bool = True
    """False: at least one answer came without, and counts as certain."""


@dataclass(frozen=True, kw_only=True)
class AvcapYesNo1:
    """The protocol. `thresholds`: of a calibration."""

    thresholds: Thresholds = field(default_factory=Thresholds)

    @property
    def card(self) -> Card:
        wording = prompts.fingerprint(*_example())
        is_calibrated = self.thresholds != Thresholds()
        return Card(
            name="avcap-yesno-1",
            version=1,
            prompt_version=f"{wording} {self.thresholds}" if is_calibrated else wording,
            decoding=f"temperature 0; thresholds {self.thresholds if is_calibrated else '0, not calibrated'}",
            aggregation="sums over captions before dividing by the sum of events",
        )

    def dialogue(self, case: Case, /) -> Dialogue[Verdict | Unscored]:
        """A case -> its verdict, without judge and prompt version; nobody is asked about an empty caption."""
        doubts = yield from self.doubts(case)
        return doubts if isinstance(doubts, Unscored) else verdict_of(doubts, thresholds=self.thresholds)

    def doubts(self, case: Case, *, ask_all: bool = False) -> Dialogue[YesNoDoubts | Unscored]:
        """A case -> what the model says about it. `ask_all`: the second question about every event, to calibrate."""
        events = case.sample.events
        if not events:
            return Unscored(caption_id=case.caption_id, reason="the sample has no events")
        block = delimit(case.text, name="caption")
        if not block.body:
            missed = tuple(EventDoubts(event_id=e.event_id, told_right=1e9, told_at_all=1e9) for e in events)
            return YesNoDoubts(caption_id=case.caption_id, events=missed)
        claims = split_claims(block.body)
        asked = [right_request(event, sample=case.sample, block=block) for event in events]
        answers = yield [*asked, *(support_request(claim, sample=case.sample) for claim in claims)]
        try:
            told_right, supported = _doubts(answers[: len(events)]), _doubts(answers[len(events) :])
            doubtful = [i for i, doubt in enumerate(told_right) if ask_all or doubt > self.thresholds.told_right]
            again = yield [at_all_request(events[i], sample=case.sample, block=block) for i in doubtful]
            at_all = dict(zip(doubtful, _doubts(again), strict=True))
        except BadReply as error:
            return Unscored(caption_id=case.caption_id, reason=str(error))
        return YesNoDoubts(
            caption_id=case.caption_id,
            events=tuple(
                EventDoubts(event_id=event.event_id, told_right=told_right[i], told_at_all=at_all.get(i))
                for i, event in enumerate(events)
            ),
            claims=tuple(ClaimDoubt(claim=c, supported=doubt) for c, doubt in zip(claims, supported, strict=True)),
            has_logprobs=all(not isinstance(one, NoReply) and has_logprobs(one) for one in (*answers, *again)),
        )

    def summarise(self, scores: Sequence[Verdict], /) -> ErrorRates:
        return summarise_verdicts(scores)


def _doubts(answers: Sequence[Answer]) -> list[float]:
    """Answers -> their doubts. Raises BadReply for the first one that has none."""
    doubts = []
    for answer in answers:
        if isinstance(answer, NoReply):
            raise BadReply(answer.reason)
        doubts.append(read_doubt(answer))
    return doubts


def verdict_of(doubts: YesNoDoubts, *, thresholds: Thresholds) -> Verdict:
    """What the model said, and thresholds -> the verdict. An event whose second question was not asked is missing."""
    labels = []
    for event in doubts.events:
        is_untold = event.told_at_all is None or event.told_at_all > thresholds.told_at_all
        is_wrong = event.told_right > thresholds.told_right
        label = ("missing" if is_untold else "incorrect") if is_wrong else "correct"
        labels.append(EventVerdict(event_id=event.event_id, label=label))  # type: ignore[arg-type]
    invented = tuple(
        InventedClaim(text=one.claim.text, start_s=one.claim.start_s)
        for one in doubts.claims
        if one.supported > thresholds.supported
    )
    lacking = () if doubts.has_logprobs else ("logprobs",)
    return Verdict(caption_id=doubts.caption_id, events=tuple(labels), invented=invented, dropped=lacking)


# --- what is asked ----------------------------------------------------------------------------------------------------


def right_request(event: Event, *, sample: Sample, block: Block) -> ChatRequest:
    """An event and a caption -> is it told right?"""
    return _about_event(event, prompts.IS_TOLD_RIGHT, sample=sample, block=block)


def at_all_request(event: Event, *, sample: Sample, block: Block) -> ChatRequest:
    """An event and a caption -> is it told at all?"""
    return _about_event(event, prompts.IS_TOLD_AT_ALL, sample=sample, block=block)


def _about_event(event: Event, question: str, *, sample: Sample, block: Block) -> ChatRequest:
    caption = f"{what_is_captioned(sample)}\n{block.text}"
    line = prompts.event_line(None, event, text=one_line(event.text))
    return yes_no_request(prompts.YESNO_CAPTION, caption, f"The event: {line}\n{question}")


def support_request(claim: Claim, *, sample: Sample) -> ChatRequest:
    """A statement of a caption and all events -> do they support it?"""
    statement = delimit(claim.text, name="statement").text
    return yes_no_request(
        prompts.YESNO_STATEMENT, event_list(sample), f"The statement:\n{statement}\n{prompts.IS_SUPPORTED}"
    )


def _example() -> Iterator[ChatRequest]:
    """Requests that show all that avcap-yesno-1 can ask."""
    event = Event(event_id="1", text="a man waves", modality="visual", start_s=1.0, end_s=2.0)
    block = delimit("A man waves.", name="caption")
    for interval_s in (None, (1.0, 2.0)):
        sample = Sample(sample_id="1", video="1.mp4", prompt="", interval_s=interval_s, events=(event,))
        yield right_request(event, sample=sample, block=block)
        yield at_all_request(event, sample=sample, block=block)
        yield support_request(Claim(text="A man waves"), sample=sample)
