"""Captions and truth in every form become cases to judge; whatever finds no partner is named.

    truth file    --read_truth-->    Truth: samples with events
    caption files --read_captions--> WrittenCaption      both --match--> Intake: cases, failures, problems

A caption meets its sample by the sample's id, else by the name of the video (path, file name or stem) and the interval.
"""

import dataclasses
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from avcap.errors import UserError
from avcap.files.names import common_tail, disagree, longest_tail
from avcap.judge.inputs import external_rows
from avcap.judge.inputs.external_rows import Interval, Row
from avcap.judge.metrics.error_rates import Scored
from avcap.judge.types import Case
from avcap.llm.answer import answer_of
from avcap.records import Caption, CaptionError, Event, Modality, Sample, Unscored, WorldTruth, from_data
from avcap.texts.json_text import parse_json

LONGEST_PATH = 10_000  # parts: an id says more than any path
EVENT_TEXT_FIELDS = ("text", "event", "description")
SAMPLE_FIELDS = {f.name for f in dataclasses.fields(Sample)}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that was not used as it stands, or not at all: its kind, its name, and why."""

    kind: str
    name: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What is true of the videos. `worlds`, by video: of rendered clips everything is known."""

    samples: tuple[Sample, ...]
    folder: Path
    """Where the truth file lies: relative paths of videos are seen from here."""
    worlds: Mapping[str, WorldTruth] = field(default_factory=dict)
    durations_s: Mapping[str, float] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    @property
    def num_without_modality(self) -> int:
        """Events that do not say whether they are seen or heard."""
        return sum(event.modality is None for sample in self.samples for event in sample.events)

    def video_path(self, sample: Sample) -> str:
        """A sample -> where its file lies."""
        return str(self.folder / sample.video)


@dataclass(frozen=True, kw_only=True)
class WrittenCaption:
    """A caption as its writer left it. `text` None: there is none, and `error` says why."""

    where: str
    names: tuple[str, ...]
    text: str | None
    interval_s: Interval | None = None
    caption_id: str | None = None
    finished: bool | None = None
    duration_s: float | None = None
    error: str = ""
    is_padding: bool = False
    thoughts: Literal["", "cut out", "never ended"] = ""
    """What the writer thought before the caption, and stored with it, is no part of `text`."""


@dataclass(frozen=True, kw_only=True)
class Intake:
    """Captions that met their truth. Every caption is in one of the three, and every problem has a name."""

    cases: tuple[Case, ...]
    failures: tuple[Scored, ...] = ()
    """Samples that were to be captioned and were not: unscored before anybody is asked."""
    problems: tuple[Problem, ...] = ()
    needs_events: tuple[Sample, ...] = ()
    """Samples of which only a reference caption is known: a judge has to extract their events first."""
    durations_s: Mapping[str, float] = field(default_factory=dict)


# --- captions ---------------------------------------------------------------------------------------------------------


def read_captions(paths: Iterable[str | Path], *, text_field: str | None = None) -> Iterator[WrittenCaption]:
    """Files of captions, ours or anybody's -> the captions in them."""
    for path in paths:
        for row in external_rows.read_rows(path):
            yield _without_thoughts(_written_caption(row, text_field))


def _without_thoughts(caption: WrittenCaption) -> WrittenCaption:
    """A caption -> the same without the thoughts of the model that wrote it."""
    answer = answer_of(caption.text or "")
    if caption.text is None or answer.text == caption.text:
        return caption
    if answer.is_cut:
        return dataclasses.replace(caption, text=answer.text, finished=False, thoughts="never ended")
    return dataclasses.replace(caption, text=answer.text, thoughts="cut out" if answer.has_thoughts else "")


def _written_caption(row: Row, text_field: str | None) -> WrittenCaption:
    if "caption_id" in row.data and "checkpoint" in row.data:
        caption = _record(row, Caption)
        return WrittenCaption(
            where=row.where,
            names=(caption.sample_id, caption.video),
            text=caption.text,
            interval_s=caption.interval_s,
            caption_id=caption.caption_id,
            finished=caption.finished,
            duration_s=caption.duration_s,
        )
    if set(row.data) == {"sample_id", "video", "error"}:
        failed = _record(row, CaptionError)
        return WrittenCaption(
            where=row.where, names=(failed.sample_id, failed.video), text=None, error=failed.error or "no reason given"
        )
    finished = row.data.get("finished")
    return WrittenCaption(
        where=row.where,
        names=external_rows.names_of(row),
        text=external_rows.text_of(row, field=text_field),
        interval_s=external_rows.interval_of(row),
        error=f"{row.where}: got null for the caption",
        finished=finished if isinstance(finished, bool) else None,
        # the released 2+ test script fills up its batches with rows that it flags so
        is_padding=row.data.get("should_use") is False,
    )


def _record(row: Row, record_type: type) -> Any:
    try:
        return from_data(row.data, record_type)
    except UserError as error:
        raise UserError(f"{row.where}: {error}") from None


# --- truth ------------------------------------------------------------------------------------------------------------


def read_truth(path: str | Path) -> Truth:
    """File of WorldTruth, of Samples, or of anybody's events or reference captions -> Truth."""
    samples: dict[str, Sample] = {}
    worlds: dict[str, WorldTruth] = {}
    problems: list[Problem] = []
    for row in external_rows.read_rows(path):
        if "clip_id" in row.data and "scene" in row.data:
            world = _record(row, WorldTruth)
            worlds[world.video] = world
            found = world_samples(world)
        elif {"sample_id", "video", "prompt"} <= set(row.data) <= SAMPLE_FIELDS and _has_own_events(row):
            found = [_record(row, Sample)]
        else:
            found = [_external_sample(row)]
        for sample in found:
            if sample.sample_id in samples:
                problems.append(Problem(kind="duplicate truth", name=sample.sample_id, detail=f"{row.where}: left out"))
            samples.setdefault(sample.sample_id, sample)
    if not samples:
        raise UserError(f"{path}: got a file without a row, expected the truth of some videos")
    for sample in samples.values():
        problems += _problems_of_events(sample)
    return Truth(
        samples=tuple(samples.values()),
        folder=Path(path).parent,
        worlds=worlds,
        durations_s={video: world.duration_s for video, world in worlds.items()},
        problems=tuple(problems),
    )


def world_samples(world: WorldTruth) -> list[Sample]:
    """A rendered clip -> what can be asked about it: the whole clip, and its intervals."""
    whole = Sample(
        sample_id=world.clip_id,
        video=world.video,
        prompt="",
        reference_caption=world.reference_caption,
        events=world.events,
    )
    return [whole, *world.intervals]


def _has_own_events(row: Row) -> bool:
    """Whether a row that looks like a Sample has events as we write them."""
    events = row.data.get("events") or []
    return all(isinstance(event, dict) and {"event_id", "text", "modality"} <= set(event) for event in events)


def _external_sample(row: Row) -> Sample:
    """A row of somebody's truth -> its sample."""
    names = external_rows.names_of(row)
    extra = row.data.get("extra_info")
    events = row.data.get("events", extra.get("events") if isinstance(extra, dict) else None)
    reference_caption = external_rows.reference_caption_of(row)
    if events is None and reference_caption is None:
        raise UserError(
            f"{row.where}: got the fields {', '.join(row.data)}, expected events or a reference caption: events, "
            f"{', '.join(external_rows.REFERENCE_CAPTION_FIELDS)} or conversations"
        )
    if isinstance(events, str):  # a cell of a CSV file
        events = _events_in_cell(events, where=row.where)
    if not isinstance(events, list | None):
        raise UserError(f"{row.where}: got events as a {type(events).__name__}, expected a list of strings or objects")
    parsed = [_event(item, number=number, where=row.where) for number, item in enumerate(events or [], start=1)]
    interval_s = external_rows.interval_of(row)
    video = row.data.get("video", row.data.get("video_path", names[-1]))
    video = video[0] if isinstance(video, list) and video else video
    sample_id = names[0] if interval_s is None or "sample_id" in row.data else _interval_id(names[0], interval_s)
    return Sample(
        sample_id=sample_id,
        video=str(video),
        prompt="",
        interval_s=interval_s,
        reference_caption=reference_caption,
        events=tuple(parsed),
    )


def _events_in_cell(text: str, *, where: str) -> Any:
    try:
        return parse_json(text) if text.strip() else []
    except UserError:
        raise UserError(f"{where}: got events that are no JSON list ({text[:80]!r}), expected one") from None


def _event(item: Any, *, number: int, where: str) -> Event:
    """A string, or an object with a text and perhaps more -> an Event."""
    data = {"text": item} if isinstance(item, str) else item
    text = next((data[name] for name in EVENT_TEXT_FIELDS if name in data), None) if isinstance(data, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{where}: got the event {item!r}, expected a string or an object with a text"[:400])
    told = data.get("modality")
    modality: Modality | None = next((name for name in get_args(Modality) if name == told), None)
    if modality is None and told is not None:
        raise UserError(f"{where}: got the modality {told!r}, expected one of {', '.join(get_args(Modality))}")
    times = [data.get("start_s", data.get("start")), data.get("end_s", data.get("end"))]
    if any(isinstance(time_s, bool) or not isinstance(time_s, int | float | None) for time_s in times):
        raise UserError(f"{where}: got the times {times} of an event, expected seconds")
    start_s, end_s = (None if time_s is None else float(time_s) for time_s in times)
    event_id = str(data.get("event_id", data.get("id", f"e{number}")))
    return Event(event_id=event_id, text=text.strip(), modality=modality, start_s=start_s, end_s=end_s)


def _problems_of_events(sample: Sample) -> Iterator[Problem]:
    ids = Counter(event.event_id for event in sample.events)
    if twice := [event_id for event_id, count in ids.items() if count > 1]:
        raise UserError(f"{sample.sample_id}: got the event id {twice[0]!r} twice, expected each once; number them")
    texts = Counter((event.text.lower(), event.start_s) for event in sample.events)
    for (text, _), count in texts.items():
        if count > 1:
            detail = f"{count} times, and counted so: {text}"
            yield Problem(kind="duplicate event", name=sample.sample_id, detail=detail)


# --- matching ---------------------------------------------------------------------------------------------------------


def match(captions: Iterable[WrittenCaption], truth: Truth) -> Intake:
    """Captions and truth -> cases, in the order of the captions, and a name for everything that is none."""
    index = SampleIndex(truth.samples)
    cases: dict[str, Case] = {}
    failed: dict[str, Scored] = {}
    problems = list(truth.problems)
    taken: set[str] = set()
    durations_s = dict(truth.durations_s)
    for caption, sample in _find_all(captions, index):
        name = caption.names[0]
        if caption.is_padding:
            problems.append(Problem(kind="padding row", name=name, detail=f"{caption.where}: should_use is false"))
        elif isinstance(sample, str):
            problems.append(Problem(kind="unmatched caption", name=name, detail=f"{caption.where}: {sample}"))
        elif caption.text is None:
            failed[sample.sample_id] = _failure(sample, caption)
        elif sample.sample_id in cases:
            detail = f"{caption.where}: {sample.sample_id} has a caption already, and the first one is judged"
            problems.append(Problem(kind="duplicate caption", name=name, detail=detail))
        else:
            cases[sample.sample_id] = _case(sample, caption, taken=taken)
            taken.add(cases[sample.sample_id].caption_id)
            if caption.thoughts:
                detail = f"{caption.where}: thoughts {caption.thoughts}; what is left is judged"
                problems.append(Problem(kind="caption with thoughts", name=name, detail=detail))
            if caption.duration_s is not None:
                durations_s.setdefault(sample.video, caption.duration_s)
    failures = [failure for sample_id, failure in failed.items() if sample_id not in cases]
    needs_events = [case.sample for case in cases.values() if _is_untold(case.sample, truth)]
    problems += _problems_of_cases(cases.values(), needs_events=needs_events)
    problems += _left_over(truth.samples, met={**cases, **failed})
    _check_some(cases, failures, problems)
    return Intake(
        cases=tuple(cases.values()),
        failures=tuple(failures),
        problems=tuple(problems),
        needs_events=tuple(needs_events),
        durations_s=durations_s,
    )


def _is_untold(sample: Sample, truth: Truth) -> bool:
    """Whether a reference caption stands for the events. In a rendered clip, no events means that nothing happens."""
    return bool(sample.reference_caption) and not sample.events and sample.video not in truth.worlds


def _case(sample: Sample, caption: WrittenCaption, *, taken: set[str]) -> Case:
    """`taken`: ids that other cases have; verdicts are told apart by them, so a writer's id counts only once."""
    assert caption.text is not None
    caption_id = caption.caption_id
    if caption_id is None or caption_id in taken:
        caption_id = _digest(sample.sample_id, caption.text)
    return Case(caption_id=caption_id, sample=sample, text=caption.text, finished=caption.finished)


def _failure(sample: Sample, caption: WrittenCaption) -> Scored:
    caption_id = _digest(sample.sample_id, caption.error)
    return Scored(
        case=Case(caption_id=caption_id, sample=sample, text=""),
        verdict=Unscored(caption_id=caption_id, reason=f"no caption: {caption.error}"),
    )


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _problems_of_cases(cases: Iterable[Case], *, needs_events: Sequence[Sample]) -> Iterator[Problem]:
    untold = {sample.sample_id for sample in needs_events}
    for case in cases:
        if not case.text.strip():
            yield Problem(kind="empty caption", name=case.sample.sample_id, detail="judged: it misses every event")
        if not case.sample.events and case.sample.sample_id not in untold:
            detail = "there is nothing to miss: at most what the caption invents is counted"
            yield Problem(kind="sample without events", name=case.sample.sample_id, detail=detail)


def _left_over(samples: Iterable[Sample], *, met: Mapping[str, Any]) -> Iterator[Problem]:
    """Samples that nobody captioned; whole videos only where some were captioned, intervals likewise."""
    samples = list(samples)
    captioned = {sample.interval_s is None for sample in samples if sample.sample_id in met}
    for sample in samples:
        if sample.sample_id not in met and (sample.interval_s is None) in captioned:
            yield Problem(kind="sample without a caption", name=sample.sample_id)


def _check_some(cases: Mapping[str, Case], failures: Sequence[Scored], problems: Sequence[Problem]) -> None:
    if not cases and not failures:
        examples = "; ".join(f"{p.name} ({p.detail})" for p in problems if p.kind == "unmatched caption") or "none"
        raise UserError(
            f"got no caption of a sample of the truth, expected some; captions: {examples[:400]}; check that both "
            "files are about the same videos"
        )


def _find_all(
    captions: Iterable[WrittenCaption], index: "SampleIndex"
) -> Iterator[tuple[WrittenCaption, Sample | str]]:
    """Captions -> each with its sample, or why there is none.

    A caption of x/001.mp4 is none of y/001.mp4 if another one is; alone it may be, for files move between folders.
    """
    found = [(caption, index.find(caption)) for caption in captions]
    fits: dict[str, int] = {}
    for caption, sample in found:
        if isinstance(sample, Sample) and not caption.is_padding:
            fits[sample.sample_id] = max(fits.get(sample.sample_id, 0), index.fit(caption, sample)[0])
    for caption, sample in found:
        if isinstance(sample, Sample):
            fit, is_doubtful = index.fit(caption, sample)
            if is_doubtful and fit < fits.get(sample.sample_id, 0):
                yield caption, f"another caption has more of the path {sample.video}"
                continue
        yield caption, sample


class SampleIndex:
    """Samples by id, and by every spelling of their video's name with their interval."""

    def __init__(self, samples: Iterable[Sample]):
        self.by_id: dict[str, Sample] = {}
        self.by_place: dict[tuple[str, Interval | None], list[Sample]] = defaultdict(list)
        for sample in samples:
            self.by_id[sample.sample_id] = sample
            for name in external_rows.spellings(sample.video):
                self.by_place[name, _rounded(sample.interval_s)].append(sample)

    def find(self, caption: WrittenCaption) -> Sample | str:
        """A caption -> its sample, or why there is none."""
        for name in caption.names:
            sample = self.by_id.get(name)
            if sample and caption.interval_s in (None, sample.interval_s):
                return sample
        found = self._at(caption.names, caption.interval_s)
        if len(found) > 1:
            return f"{len(found)} samples have a video of that name: {found[0].sample_id}, {found[1].sample_id}, ..."
        if found:
            return found[0]
        if caption.interval_s is None:
            return "no video of that name is in the truth"
        return self._part(caption.names, caption.interval_s)

    def fit(self, caption: WrittenCaption, sample: Sample) -> tuple[int, bool]:
        """A caption and its sample -> (parts of the path they have in common, whether the parts before differ)."""
        if sample.sample_id in caption.names:
            return (LONGEST_PATH, False)
        best = max(caption.names, key=lambda name: common_tail(name, sample.video))
        return common_tail(best, sample.video), disagree(best, sample.video)

    def _at(self, names: Iterable[str], interval_s: Interval | None) -> list[Sample]:
        """The samples of the first spelling that has any: a whole path says more than a file name."""
        spelled = [external_rows.spellings(name) for name in names]
        deepest = max(map(len, spelled), default=0)
        for depth in range(deepest):
            for options in spelled:
                place = (options[min(depth, len(options) - 1)], _rounded(interval_s))
                if place in self.by_place:
                    # several folders may have a 001.mp4: that folder counts which the caption names, too
                    return longest_tail(options[0], self.by_place[place], name_of=lambda sample: sample.video)
        return []

    def _part(self, names: Iterable[str], interval_s: Interval) -> Sample | str:
        """The truth of an interval that has no sample of its own: the events of the whole video that begin in it."""
        whole = [self.by_id[name] for name in names if name in self.by_id] or self._at(names, None)
        if len(whole) != 1 or whole[0].interval_s is not None:
            return "no one video of that name is in the truth"
        sample = whole[0]
        if any(event.start_s is None for event in sample.events) or not sample.events:
            return "the truth has no such interval, and its events do not all tell their time"
        start_s, end_s = interval_s
        events = tuple(event for event in sample.events if start_s <= (event.start_s or 0.0) < end_s)
        return Sample(
            sample_id=_interval_id(sample.sample_id, interval_s),
            video=sample.video,
            prompt="",
            interval_s=interval_s,
            events=events,
        )


def _interval_id(name: str, interval_s: Interval) -> str:
    return f"{name}#t={interval_s[0]:g},{interval_s[1]:g}"


def _rounded(interval_s: Interval | None) -> Interval | None:
    return None if interval_s is None else (round(interval_s[0], 3), round(interval_s[1], 3))
