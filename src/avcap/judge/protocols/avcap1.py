"""avcap-1: a language model labels every event of a caption, and quotes the caption for what it says.

A reply counts only if it is whole: every event labelled once, the counts those of the lists, and every quotation found
in the caption. Otherwise the same is asked again; after the last try the caption is Unscored, with the last reply.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from avcap.judge.protocols import prompts
from avcap.judge.protocols.protocol import CaptionProtocol, Card, ErrorRates, error_rates
from avcap.judge.protocols.wording import Wordings, worded
from avcap.judge.types import Case
from avcap.llm import json_reply
from avcap.llm.dialogue import MAX_TRIES, RETRY_TEMPERATURE, Dialogue, Failed, ask_until_valid, converse
from avcap.llm.json_reply import BadReply
from avcap.llm.quoting import Block, delimit, one_line
from avcap.llm.types import Chat, ChatRequest
from avcap.records import Event, EventVerdict, InventedClaim, Sample, Unscored, Verdict

LABELS = ("correct", "missing", "incorrect")
MODALITIES = ("visual", "audio", "both", None)
TOKENS_PER_EVENT = 64  # its line of the reply, quotation included
TOKENS_BESIDE_EVENTS = 1024

SCHEMA = prompts.object_schema(
    events=prompts.list_schema(
        prompts.object_schema(
            id={"type": "integer"}, label={"type": "string", "enum": list(LABELS)}, quote={"type": "string"}
        )
    ),
    invented=prompts.list_schema(
        prompts.object_schema(
            text={"type": "string"},
            modality={"type": ["string", "null"], "enum": list(MODALITIES)},
            time_s={"type": ["number", "null"]},
        )
    ),
    counts=prompts.object_schema(**{name: {"type": "integer"} for name in (*LABELS, "invented")}),
)


@dataclass(frozen=True, kw_only=True)
class Avcap1:
    """The protocol avcap-1: one call for a caption, however many events it has. `max_tries` calls at most."""

    max_tries: int = MAX_TRIES
    wordings: Wordings = field(default_factory=dict)

    @property
    def card(self) -> Card:
        return Card(
            name="avcap-1",
            version=1,
            prompt_version=prompts.fingerprint(*_example(self.wordings)),
            decoding=f"temperature 0; up to {self.max_tries} tries, the later ones at {RETRY_TEMPERATURE}",
            aggregation="sums over captions before dividing by the sum of events",
        )

    def dialogue(self, case: Case, /) -> Dialogue[Verdict | Unscored]:
        """A case -> its verdict, without judge and prompt version.

        An empty caption misses everything: nobody is asked. Nor is anybody about a sample without events.
        """
        events = case.sample.events
        if not events:
            return Unscored(caption_id=case.caption_id, reason="the sample has no events")
        block = delimit(case.text, name="caption")
        if not block.body:
            missed = tuple(EventVerdict(event_id=event.event_id, label="missing") for event in events)
            return Verdict(caption_id=case.caption_id, events=missed)
        found = yield from ask_until_valid(
            judge_request(case, block=block, wordings=self.wordings),
            read=lambda text: read_verdict(text, case=case, block=block),
            max_tries=self.max_tries,
        )
        if isinstance(found, Failed):
            return Unscored(caption_id=case.caption_id, reason=found.reason, reply=found.reply)
        return found

    def summarise(self, scores: Sequence[Verdict], /) -> ErrorRates:
        return summarise_verdicts(scores)


def summarise_verdicts(verdicts: Sequence[Verdict]) -> ErrorRates:
    """Verdicts of a set of captions -> rates: sums before dividing."""
    labels = [event.label for verdict in verdicts for event in verdict.events]
    return error_rates(
        num_captions=len(verdicts),
        num_events=len(labels),
        missing=labels.count("missing"),
        incorrect=labels.count("incorrect"),
        invented=sum(len(verdict.invented) for verdict in verdicts),
    )


class LLMJudge:
    """A language model as a judge of atomic events (types.EventJudge), by avcap-1 or another protocol of verdicts."""

    def __init__(self, chat: Chat, *, protocol: CaptionProtocol[Case, Verdict, ErrorRates] | None = None):
        self.protocol = protocol or Avcap1()
        self._chat = chat

    @property
    def name(self) -> str:
        return self._chat.name

    @property
    def prompt_version(self) -> str:
        return self.protocol.card.prompt_version

    def judge(self, cases: Sequence[Case]) -> Iterator[Verdict | Unscored]:
        """Cases -> one answer for each, in order."""
        card = self.protocol.card
        for result in converse((self.protocol.dialogue(case) for case in cases), chat=self._chat):
            if isinstance(result, Verdict):
                dropped = tuple(dict.fromkeys((*self._chat.dropped, *result.dropped)))
                yield replace(
                    result,
                    judge=self.name,
                    prompt_version=card.prompt_version,
                    judge_protocol=card.name,
                    dropped=dropped,
                )
            else:
                yield result


def omissions_of(case: Case) -> tuple[str, ...]:
    """A case -> what of its caption the model is not shown: repetitions, and what is beyond its length."""
    return delimit(case.text, name="caption").omissions


def judge_request(case: Case, *, block: Block, wordings: Wordings) -> ChatRequest:
    """A case and its delimited caption -> what is asked."""
    parts = {"events": event_list(case.sample), "about": what_is_captioned(case.sample), "caption": block.text}
    return worded(
        prompts.JUDGE,
        parts,
        wording=wordings.get("judge"),
        max_tokens=TOKENS_BESIDE_EVENTS + TOKENS_PER_EVENT * len(case.sample.events),
        schema=SCHEMA,
    )


def event_list(sample: Sample) -> str:
    """A sample -> its events as a numbered list, from 1."""
    lines = [
        prompts.event_line(number, event, text=one_line(event.text)) for number, event in enumerate(sample.events, 1)
    ]
    return "\n".join([f"The {len(lines)} events:", *lines])


def what_is_captioned(sample: Sample) -> str:
    """A sample -> a line that says what the caption is of."""
    if sample.interval_s is None:
        return "The caption of the whole video:"
    start_s, end_s = sample.interval_s
    return f"The caption of the video from {start_s:g} s to {end_s:g} s:"


def read_verdict(text: str, *, case: Case, block: Block) -> Verdict:
    """A reply -> the verdict. Raises BadReply for a reply that is not whole, contradicts itself or misquotes."""
    reply = json_reply.parse_object(text, schema=SCHEMA)
    labels = _read_labels(json_reply.take_list(reply, "events", where="the reply"), case=case, block=block)
    invented = tuple(
        _read_invented(item, block=block, where=f"invented claim {number}")
        for number, item in enumerate(json_reply.take_list(reply, "invented", where="the reply"), 1)
    )
    if len({claim.text for claim in invented}) < len(invented):
        raise BadReply("an invented claim is listed twice")
    said = json_reply.take(reply, "counts", where="the reply")
    counted = {label: list(labels.values()).count(label) for label in LABELS} | {"invented": len(invented)}
    for name, count in counted.items():
        if (got := json_reply.take_count(said, name, where="the counts")) != count:
            raise BadReply(f"the counts say {got} {name}, the lists {count}")
    ids = [event.event_id for event in case.sample.events]
    events = tuple(EventVerdict(event_id=event_id, label=labels[number]) for number, event_id in enumerate(ids, 1))
    return Verdict(caption_id=case.caption_id, events=events, invented=invented)


def _read_labels(items: list[Any], *, case: Case, block: Block) -> dict[int, Any]:
    """The reply's events -> number of an event -> its label."""
    labels: dict[int, Any] = {}
    for position, item in enumerate(items, 1):
        number = json_reply.take_count(item, "id", where=f"item {position} of the events")
        where = f"event {number}"
        if not 1 <= number <= len(case.sample.events):
            raise BadReply(f"{where} is not in the list of {len(case.sample.events)}")
        label = json_reply.take_choice(item, "label", where=where, choices=LABELS)
        if number in labels:
            raise BadReply(f"{where} is labelled twice: {labels[number]} and {label}")
        labels[number] = label
        _check_quote(json_reply.take(item, "quote", where=where), label=label, block=block, where=where)
    if lacking := [number for number in range(1, len(case.sample.events) + 1) if number not in labels]:
        raise BadReply(f"{len(lacking)} events without a label, the first being event {lacking[0]}")
    return labels


def _check_quote(quote: Any, *, label: str, block: Block, where: str) -> None:
    if not isinstance(quote, str):
        raise BadReply(f"the quotation for {where} is not a text")
    if label == "missing" and quote.strip():
        raise BadReply(f"{where} is missing and yet quoted")
    if label != "missing" and not json_reply.is_quoted(quote, source=block.body):
        raise BadReply(f"the quotation for {where} ({label}) is not in the caption")


def _read_invented(item: Any, *, block: Block, where: str) -> InventedClaim:
    claim = InventedClaim(
        text=json_reply.take_text(item, "text", where=where),
        modality=json_reply.take_choice(item, "modality", where=where, choices=MODALITIES),
        start_s=json_reply.take_seconds(item, "time_s", where=where),
    )
    if not json_reply.is_quoted(claim.text, source=block.body):
        raise BadReply(f"the quotation of {where} is not in the caption")
    return claim


def _example(wordings: Wordings) -> Iterator[ChatRequest]:
    """Requests that show all that avcap-1 can ask."""
    event = Event(event_id="1", text="a man waves", modality="visual", start_s=1.0, end_s=2.0)
    for interval_s in (None, (1.0, 2.0)):
        sample = Sample(sample_id="1", video="1.mp4", prompt="", interval_s=interval_s, events=(event,))
        case = Case(caption_id="1", sample=sample, text="A man waves.")
        yield judge_request(case, block=delimit(case.text, name="caption"), wordings=wordings)
