"""Reference captions become atomic events, by a language model; a person's corrections are kept and applied again.

    samples --extract--> samples with events --apply_corrections--> samples with the events that a person stands for

Corrections are a JSONL file that lives longer than the events. Each names its event by id and by the text it had
(`was`), so that one made for other events is found out and reported, never applied to the wrong fact.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from avcap.errors import UserError
from avcap.judge.protocols import prompts
from avcap.llm import json_reply
from avcap.llm.dialogue import MAX_TRIES, Dialogue, Failed, ask_until_valid, converse
from avcap.llm.json_reply import BadReply
from avcap.llm.quoting import Block, delimit
from avcap.llm.types import Chat, ChatRequest
from avcap.records import Event, Modality, Sample, read_jsonl

MAX_REFERENCE_CAPTION_CHARS = 100_000
MAX_EVENT_CHARS = 400
MODALITIES = ("visual", "audio", "both")
_SECONDS = {"type": ["number", "null"]}
SCHEMA = prompts.object_schema(
    events=prompts.list_schema(
        prompts.object_schema(
            text={"type": "string"},
            modality={"type": "string", "enum": list(MODALITIES)},
            start_s=_SECONDS,
            end_s=_SECONDS,
        )
    )
)


# --- extracting -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ExtractionError:
    """A sample whose events could not be had, why, and what the model said last."""

    sample_id: str
    reason: str
    reply: str = ""


def extract(samples: Iterable[Sample], *, chat: Chat) -> Iterator[Sample | ExtractionError]:
    """Samples with reference captions -> the same with events, in order. A sample that has events keeps them."""
    return converse((extraction(sample) for sample in samples), chat=chat)


def extraction(sample: Sample) -> Dialogue[Sample | ExtractionError]:
    """One sample -> its dialogue, for an estimate of cost (dialogue.first_requests)."""
    if sample.events:
        return sample
    block = delimit(sample.reference_caption or "", name="caption", max_chars=MAX_REFERENCE_CAPTION_CHARS)
    if not block.body:
        return ExtractionError(sample_id=sample.sample_id, reason="neither events nor a reference caption")
    if block.is_cut:
        reason = f"a reference caption of more than {MAX_REFERENCE_CAPTION_CHARS:,} characters"
        return ExtractionError(sample_id=sample.sample_id, reason=reason)
    found = yield from ask_until_valid(extraction_request(block), read=read_events, max_tries=MAX_TRIES)
    if isinstance(found, Failed):
        return ExtractionError(sample_id=sample.sample_id, reason=found.reason, reply=found.reply)
    return replace(sample, events=found)


def extraction_request(block: Block) -> ChatRequest:
    # A token is about four characters, and an event repeats names and brings its braces: four times the caption.
    question = f"The reference caption:\n{block.text}"
    return prompts.request(prompts.EXTRACT_EVENTS, question, max_tokens=1024 + len(block.body), schema=SCHEMA)


def prompt_version() -> str:
    """What events extracted today were asked with."""
    return prompts.fingerprint(extraction_request(delimit("A man waves.", name="caption")))


def read_events(text: str) -> tuple[Event, ...]:
    """A reply -> events, duplicates merged, numbered e1, e2, ... in the order of the caption. Raises BadReply."""
    items = json_reply.take_list(json_reply.parse_object(text, schema=SCHEMA), "events", where="the reply")
    merged = merge_duplicates([_read_event(item, where=f"event {number}") for number, item in enumerate(items, 1)])
    if not merged:
        raise BadReply("no events in a caption that says something")
    return tuple(replace(event, event_id=f"e{number}") for number, event in enumerate(merged, 1))


def _read_event(item: Any, *, where: str) -> Event:
    text = " ".join(json_reply.take_text(item, "text", where=where).split())
    if len(text) > MAX_EVENT_CHARS or not _key(text):
        raise BadReply(f"{where} is no single fact: {len(text)} characters")
    start_s, end_s = (json_reply.take_seconds(item, key, where=where) for key in ("start_s", "end_s"))
    if start_s is not None and end_s is not None and end_s < start_s:
        raise BadReply(f"{where} ends before it begins")
    modality = json_reply.take_choice(item, "modality", where=where, choices=MODALITIES)
    return Event(event_id="", text=text, modality=modality, start_s=start_s, end_s=end_s)


def merge_duplicates(events: Sequence[Event]) -> list[Event]:
    """Events -> those that say something new. Equal words but for articles and "is", at times that do not differ."""
    merged: list[Event] = []
    for event in events:
        for position, earlier in enumerate(merged):
            if _key(earlier.text) == _key(event.text) and _may_be_one(earlier, event):
                merged[position] = _joined(earlier, event)
                break
        else:
            merged.append(event)
    return merged


def _key(text: str) -> tuple[str, ...]:
    words = re.findall(r"\w+", text.casefold())
    return tuple(word for word in words if word not in {"a", "an", "the", "is", "are", "was", "were"})


def _may_be_one(first: Event, second: Event) -> bool:
    return all(
        None in (one, other) or one == other
        for one, other in ((first.start_s, second.start_s), (first.end_s, second.end_s))
    )


def _joined(first: Event, second: Event) -> Event:
    """Seen and heard are "both"; a time that one of them has is kept."""
    return replace(
        first,
        modality=first.modality if first.modality == second.modality else "both",
        start_s=second.start_s if first.start_s is None else first.start_s,
        end_s=second.end_s if first.end_s is None else first.end_s,
    )


# --- a person's corrections -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Correction:
    """One line of a corrections file: what a person changed in the events of a sample.

    | action | what it needs |
    |---|---|
    | edit | event_id, text: the new text |
    | delete | event_id |
    | add | text, modality; event_id, start_s, end_s if wanted |
    | modality | event_id, modality |
    | time | event_id, start_s and end_s, null for a time that is not known |

    `was`: the event's text when it was corrected. Without it a correction of e3 is applied to whatever e3 is.
    """

    sample_id: str
    action: Literal["edit", "delete", "add", "modality", "time"]
    event_id: str | None = None
    was: str | None = None
    text: str | None = None
    modality: Modality | None = None
    start_s: float | None = None
    end_s: float | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Corrected:
    """Samples with corrected events. `stale`: corrections of events that are not there any more, in words."""

    samples: tuple[Sample, ...]
    num_applied: int = 0
    stale: tuple[str, ...] = ()
    elsewhere: int = 0
    """Corrections of samples that are not among these; only with `partial`."""


NEEDED = {
    "edit": ("event_id", "text"),
    "delete": ("event_id",),
    "add": ("text", "modality"),
    "modality": ("event_id", "modality"),
    "time": ("event_id",),
}


def read_corrections(path: str | Path) -> tuple[Correction, ...]:
    """Corrections file -> corrections, in the order in which they are applied. Raises UserError."""
    corrections = tuple(read_jsonl(path, Correction))
    for number, correction in enumerate(corrections, 1):
        where = f"{path}, correction {number} ({correction.action} in {correction.sample_id})"
        for name in NEEDED[correction.action]:
            value = getattr(correction, name)
            if value is None or not value.strip():
                raise UserError(f"{where}: got no {name!r}; expected {', '.join(NEEDED[correction.action])}")
        start_s, end_s = correction.start_s, correction.end_s
        if start_s is not None and end_s is not None and end_s < start_s:
            raise UserError(f"{where}: got start_s {start_s:g} and end_s {end_s:g}; expected an end after its start")
    return corrections


def apply_corrections(
    samples: Sequence[Sample], *, corrections: Iterable[Correction], partial: bool = False
) -> Corrected:
    """Samples and corrections -> corrected samples, and which corrections are stale.

    UserError for a sample or an event that nobody knows. `partial`: these samples are a part of those that were
    corrected, so that corrections of others are counted instead.
    """
    by_id = {sample.sample_id: sample for sample in samples}
    stale, num_applied, elsewhere = [], 0, 0
    for correction in corrections:
        sample = by_id.get(correction.sample_id)
        if sample is None and partial:
            elsewhere += 1
            continue
        if sample is None:
            raise UserError(
                f"a correction is of sample {correction.sample_id!r}, which is none of the {len(by_id)} samples; "
                "mend its sample_id, or say that these samples are only a part"
            )
        changed = _apply(correction, sample=sample)
        if changed is None:
            what = f"{correction.action} of {correction.event_id}, which was {correction.was!r}"
            stale.append(f"{sample.sample_id}: {what}")
        else:
            by_id[sample.sample_id], num_applied = changed, num_applied + 1
    corrected = tuple(by_id[sample.sample_id] for sample in samples)
    return Corrected(samples=corrected, num_applied=num_applied, stale=tuple(stale), elsewhere=elsewhere)


def _apply(correction: Correction, *, sample: Sample) -> Sample | None:
    """A correction and its sample -> the sample corrected, or None if the correction is stale."""
    if correction.action == "add":
        return replace(sample, events=(*sample.events, _added(correction, sample=sample)))
    position = _position(correction, sample=sample)
    if position is None:
        return None
    new = _CHANGES[correction.action](correction, sample.events[position])
    return replace(sample, events=(*sample.events[:position], *new, *sample.events[position + 1 :]))


_CHANGES: dict[str, Callable[[Correction, Event], tuple[Event, ...]]] = {
    "edit": lambda correction, event: (replace(event, text=correction.text or event.text),),
    "delete": lambda correction, event: (),
    "modality": lambda correction, event: (replace(event, modality=correction.modality or event.modality),),
    "time": lambda correction, event: (replace(event, start_s=correction.start_s, end_s=correction.end_s),),
}


def _position(correction: Correction, *, sample: Sample) -> int | None:
    """Where the corrected event stands: the id with the text it had, else the one event that has this text."""
    ids = [event.event_id for event in sample.events]
    texts = [event.text for event in sample.events]
    if correction.was is None:
        if correction.event_id not in ids:
            raise UserError(
                f"a correction is of event {correction.event_id!r} of sample {sample.sample_id!r}; expected one of "
                f"{', '.join(ids) or 'its 0 events'}"
            )
        return ids.index(correction.event_id)
    same = [at for at, text in enumerate(texts) if text == correction.was]
    if by_id := [at for at in same if ids[at] == correction.event_id]:
        return by_id[0]
    return same[0] if len(same) == 1 else None


def _added(correction: Correction, *, sample: Sample) -> Event:
    ids = {event.event_id for event in sample.events}
    if correction.event_id in ids:
        raise UserError(
            f"a correction adds event {correction.event_id!r} to sample {sample.sample_id!r}, which has one of that "
            "id; give it another, or none"
        )
    free = next(name for number in range(1, len(ids) + 2) if (name := f"added-{number}") not in ids)
    assert correction.text is not None and correction.modality is not None
    return Event(
        event_id=correction.event_id or free,
        text=correction.text,
        modality=correction.modality,
        start_s=correction.start_s,
        end_s=correction.end_s,
    )


def corrections_between(before: Sample, *, after: Sample) -> tuple[Correction, ...]:
    """A sample, and the same as a person left it in an editor -> the corrections that lead from one to the other."""
    old = {event.event_id: event for event in before.events}
    new = {event.event_id: event for event in after.events}
    if len(new) < len(after.events):
        raise UserError(f"sample {after.sample_id!r}: two events have the same event_id; give each an id of its own")

    def correction(action: Any, event: Event, **fields: Any) -> Correction:
        return Correction(sample_id=before.sample_id, action=action, event_id=event.event_id, **fields)

    found = [correction("delete", event, was=event.text) for event_id, event in old.items() if event_id not in new]
    for event_id, event in new.items():
        was = old.get(event_id)
        times = {"start_s": event.start_s, "end_s": event.end_s}
        if was is None:
            found.append(correction("add", event, text=event.text, modality=event.modality, **times))
            continue
        if event.modality != was.modality:
            found.append(correction("modality", event, was=was.text, modality=event.modality))
        if (event.start_s, event.end_s) != (was.start_s, was.end_s):
            found.append(correction("time", event, was=was.text, **times))
        if event.text != was.text:  # last: the others name the event by its old text
            found.append(correction("edit", event, was=was.text, text=event.text))
    return tuple(found)
