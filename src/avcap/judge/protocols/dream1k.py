"""dream-1k: AutoDQ, the protocol of DREAM-1K. How many events of each caption follow from the other one.

The rules are theirs, the wording of the prompts is ours. Both captions are put in lower case, double quotes in single
ones. For a video with reference events G and events P extracted from the caption (at most 10):

    recall = events of G that the caption entails / |G|      precision = events of P that the reference entails / |P|

Only "entailment" counts, in both directions; an empty list scores 1. Precision and recall are averaged over the videos
of each source, then over sources; F1 is taken from these averages and is not an average of F1s. A video with a reply
that cannot be read in ten tries is left out, and here it is counted.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from avcap.judge.protocols import prompts
from avcap.judge.protocols.protocol import Card
from avcap.judge.protocols.wording import Wordings, worded
from avcap.llm import json_reply
from avcap.llm.dialogue import RETRY_TEMPERATURE, Dialogue, Failed, ask_until_valid, side_by_side
from avcap.llm.json_reply import BadReply
from avcap.llm.quoting import delimit, one_line
from avcap.llm.types import ChatRequest
from avcap.records import Unscored

MOST_EVENTS = 10
MAX_TRIES = 10
MAX_TOKENS = 1024
RELATIONS = ("entailment", "neutral", "contradiction")

EVENTS_SCHEMA = prompts.object_schema(events=prompts.list_schema({"type": "string"}))
RELATIONS_SCHEMA = prompts.object_schema(
    relations=prompts.list_schema(
        prompts.object_schema(id={"type": "integer"}, relation={"type": "string", "enum": list(RELATIONS)})
    )
)


@dataclass(frozen=True, kw_only=True)
class DreamCase:
    """A caption and the reference. `reference_caption_events` None: they are extracted from the reference caption."""

    caption_id: str
    source: str
    caption: str
    reference_caption: str
    reference_caption_events: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class DreamScore:
    caption_id: str
    source: str
    recall: float
    precision: float
    reference_caption_events: tuple[str, ...]
    caption_events: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PrecisionRecall:
    """Means over `num` videos, or over `num` sources."""

    precision: float
    recall: float
    num: int

    @property
    def f1(self) -> float:
        """The harmonic mean; 0 if both are 0."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


@dataclass(frozen=True, kw_only=True)
class DreamSummary:
    """`overall` is None without a scored video. `over_videos` is the mean that VLMEvalKit gives instead."""

    overall: PrecisionRecall | None
    over_videos: PrecisionRecall | None
    by_source: dict[str, PrecisionRecall]


@dataclass(frozen=True, kw_only=True)
class Dream1k:
    """The protocol."""

    wordings: Wordings = field(default_factory=dict)

    @property
    def card(self) -> Card:
        return Card(
            name="dream-1k",
            version=1,
            prompt_version=prompts.fingerprint(*_example(self.wordings)),
            decoding=f"temperature 0; up to {MAX_TRIES} tries, the later ones at {RETRY_TEMPERATURE}",
            aggregation="means over the videos of a source, then over sources; F1 of these",
        )

    def dialogue(self, case: DreamCase, /) -> Dialogue[DreamScore | Unscored]:
        """A case -> precision and recall: the events of both captions first, then both relations together."""
        caption, reference_caption = _plain(case.caption), _plain(case.reference_caption)
        if not delimit(reference_caption, name="description").body:
            return Unscored(caption_id=case.caption_id, reason="no reference caption")
        found = yield from side_by_side(
            [self._events_of(caption), self._given_or_found(case, reference_caption=reference_caption)]
        )
        if failed := [one for one in found if isinstance(one, Failed)]:
            return _unscored(case, failed[0])
        of_caption, of_reference_caption = (one for one in found if not isinstance(one, Failed))
        shares = yield from side_by_side(
            [self._entailed(of_reference_caption, by=caption), self._entailed(of_caption, by=reference_caption)]
        )
        if failed := [share for share in shares if isinstance(share, Failed)]:
            return _unscored(case, failed[0])
        recall, precision = (share for share in shares if not isinstance(share, Failed))
        return DreamScore(
            caption_id=case.caption_id,
            source=case.source,
            recall=recall,
            precision=precision,
            reference_caption_events=of_reference_caption,
            caption_events=of_caption,
        )

    def _given_or_found(self, case: DreamCase, *, reference_caption: str) -> Dialogue[tuple[str, ...] | Failed]:
        if case.reference_caption_events is not None:
            return tuple(map(_plain, case.reference_caption_events))
        return (yield from self._events_of(reference_caption))

    def _events_of(self, description: str) -> Dialogue[tuple[str, ...] | Failed]:
        """A description -> its key events. One that says nothing has none, and nobody is asked."""
        if not delimit(description, name="description").body:
            return ()
        return (
            yield from ask_until_valid(
                events_request(description, wordings=self.wordings), read=read_events, max_tries=MAX_TRIES
            )
        )

    def _entailed(self, events: tuple[str, ...], *, by: str) -> Dialogue[float | Failed]:
        """Events and a description -> the share of them that follows from it; 1 of no events, 0 of no description."""
        if not events:
            return 1.0
        if not delimit(by, name="description").body:
            return 0.0
        relations = yield from ask_until_valid(
            relation_request(events, description=by, wordings=self.wordings),
            read=lambda text: read_relations(text, num_events=len(events)),
            max_tries=MAX_TRIES,
        )
        return relations if isinstance(relations, Failed) else relations.count("entailment") / len(events)

    def summarise(self, scores: Sequence[DreamScore], /) -> DreamSummary:
        groups: defaultdict[str, list[DreamScore]] = defaultdict(list)
        for score in scores:
            groups[score.source].append(score)
        by_source = {source: _mean(group) for source, group in sorted(groups.items())}
        if not scores:
            return DreamSummary(overall=None, over_videos=None, by_source={})
        return DreamSummary(overall=_mean(list(by_source.values())), over_videos=_mean(scores), by_source=by_source)


def _mean(items: Sequence[DreamScore] | Sequence[PrecisionRecall]) -> PrecisionRecall:
    return PrecisionRecall(
        precision=sum(item.precision for item in items) / len(items),
        recall=sum(item.recall for item in items) / len(items),
        num=len(items),
    )


def _unscored(case: DreamCase, failed: Failed) -> Unscored:
    return Unscored(caption_id=case.caption_id, reason=failed.reason, reply=failed.reply)


def _plain(text: str) -> str:
    return text.lower().replace('"', "'")


def events_request(description: str, *, wordings: Wordings) -> ChatRequest:
    parts = {"caption": delimit(description, name="description").text}
    return worded(
        prompts.DREAM_EVENTS, parts, wording=wordings.get("events"), max_tokens=MAX_TOKENS, schema=EVENTS_SCHEMA
    )


def relation_request(events: tuple[str, ...], *, description: str, wordings: Wordings) -> ChatRequest:
    lines = [f"{number}. {one_line(event)}" for number, event in enumerate(events, 1)]
    parts = {
        "caption": delimit(description, name="description").text,
        "events": "\n".join([f"The {len(lines)} events:", *lines]),
    }
    return worded(
        prompts.DREAM_RELATION,
        parts,
        wording=wordings.get("relation"),
        max_tokens=MAX_TOKENS + 32 * len(events),
        schema=RELATIONS_SCHEMA,
    )


def read_events(text: str) -> tuple[str, ...]:
    """A reply -> at most ten events."""
    events = json_reply.take_list(json_reply.parse_object(text, schema=EVENTS_SCHEMA), "events", where="the reply")
    if not all(isinstance(event, str) and event.strip() for event in events):
        raise BadReply("an event is not a text")
    if len(events) > MOST_EVENTS:
        raise BadReply(f"{len(events)} events, expected at most {MOST_EVENTS}")
    return tuple(_plain(event.strip()) for event in events)


def read_relations(text: str, *, num_events: int) -> list[str]:
    """A reply -> the relation of each event, in order."""
    relations: dict[int, Any] = {}
    reply = json_reply.parse_object(text, schema=RELATIONS_SCHEMA)
    for item in json_reply.take_list(reply, "relations", where="the reply"):
        number = json_reply.take_count(item, "id", where="a relation", most=num_events)
        if number in relations:
            raise BadReply(f"event {number} has two relations")
        relations[number] = json_reply.take_choice(item, "relation", where=f"event {number}", choices=RELATIONS)
    if sorted(relations) != list(range(1, num_events + 1)):
        raise BadReply(f"relations of {len(relations)} events, expected those of 1 to {num_events}")
    return [relations[number] for number in range(1, num_events + 1)]


def _example(wordings: Wordings) -> Iterator[ChatRequest]:
    yield events_request("a man waves.", wordings=wordings)
    yield relation_request(("a man waves",), description="a man waves.", wordings=wordings)
