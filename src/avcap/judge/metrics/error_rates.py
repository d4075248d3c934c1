"""Verdicts -> error rates with intervals: of global and local captions, by modality, by time window. No torch.

    missing = sum(missing) / sum(events)      hallucination = sum(incorrect + invented) / sum(events)
    total   = missing + hallucination         repetition    = sum(repeated words) / sum(words)

Sums run over all captions before dividing (micro-average). Captions without a verdict are in no sum, only counted.

    V videos  G groups of captions or of their parts  C counts  K rates  R resamples
"""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from avcap.errors import UserError
from avcap.judge.metrics.bootstrap import NUM_RESAMPLES, Floats, Rate, divide, rates_of, resampled_sums
from avcap.judge.metrics.words import count_words
from avcap.judge.types import Case
from avcap.records import Event, EventLabel, InventedClaim, Modality, Sample, Unscored, Verdict

MODALITY_NAMES: dict[Modality, str] = {"visual": "visual", "audio": "audio", "both": "both"}
QUARTERS = ("0-25 %", "25-50 %", "50-75 %", "75-100 %")


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A caption and what the judge says of it."""

    case: Case
    verdict: Verdict | Unscored


@dataclass(frozen=True, kw_only=True)
class GroupMetrics:
    """Rates of a group of captions, or of a part of each (one modality, one time window).

    A part has errors but no words and no end of its own: its last three rates are empty, and its captions are those
    that have an event or an invented claim in it.
    """

    missing_rate: Rate
    incorrect_rate: Rate
    invented_rate: Rate
    hallucination_rate: Rate
    total_error_rate: Rate
    repetition_rate: Rate
    truncated_rate: Rate
    """Share of the captions that ran into the token limit; captions of which that is unknown do not count."""
    words_per_caption: Rate
    num_events: int
    num_captions: int
    num_videos: int
    """Videos with a scored caption."""
    num_scored: int
    num_unscored: int


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """None, or no entry: there is no such caption. By modality: "seen", "heard", "both"."""

    global_: GroupMetrics | None
    local: GroupMetrics | None
    by_modality: dict[str, GroupMetrics]
    by_modality_local: dict[str, GroupMetrics]
    by_window: dict[str, GroupMetrics]
    """Global captions by when an event begins: quarters of the video ("0-25 %"), and windows asked for ("0-10 s")."""
    num_invented_of_unknown_modality: int
    """These, and those without a time, are in the whole but in no part."""
    num_invented_without_time: int
    num_events_without_time: int
    num_videos_without_duration: int


def compute_metrics(
    scored: Sequence[Scored],
    *,
    durations_s: Mapping[str, float] | None = None,
    windows_s: Sequence[tuple[float, float]] = (),
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Metrics:
    """Captions with their verdicts -> rates with 95 % intervals over videos.

    `durations_s`: seconds by `sample.video`, for the quarters of the video. `windows_s`: more windows, half-open.
    """
    windows = _Windows(durations_s=durations_s or {}, windows_s=tuple(windows_s))

    def parts_of(sample: Sample, item: Event | InventedClaim) -> list[str]:
        return [*modality_part(sample, item), *(windows.parts_of(sample, item) if sample.interval_s is None else ())]

    counts = count_captions(scored, parts_of=parts_of)
    groups = sorted({group for group, _ in counts})
    videos = sorted({one.case.sample.video for one in scored})
    by_group = _group_metrics(
        counts.stack(groups, videos=videos), groups=groups, num_resamples=num_resamples, seed=seed
    )

    def parts(kind: str, *, names: Iterable[str]) -> dict[str, GroupMetrics]:
        return {name: by_group[Group(kind, name)] for name in names if Group(kind, name) in by_group}

    claims = [(one.case.sample, claim) for one in scored for claim in _invented(one)]
    whole_videos = [one.case.sample for one in scored if one.case.sample.interval_s is None]
    return Metrics(
        global_=by_group.get(Group("global", "")),
        local=by_group.get(Group("local", "")),
        by_modality=parts("global", names=MODALITY_NAMES.values()),
        by_modality_local=parts("local", names=MODALITY_NAMES.values()),
        by_window=parts("global", names=(*QUARTERS, *windows.names)),
        num_invented_of_unknown_modality=sum(claim.modality is None for _, claim in claims),
        num_invented_without_time=sum(claim.start_s is None for sample, claim in claims if sample.interval_s is None),
        num_events_without_time=sum(event.start_s is None for sample in whole_videos for event in sample.events),
        num_videos_without_duration=len({sample.video for sample in whole_videos} - set(durations_s or {})),
    )


def metrics_to_dict(metrics: Metrics) -> dict[str, Any]:
    """Metrics -> what metrics.json holds: {"global": {"missing_rate": {"value", "low", "high"}, ...}, ...}, no nan."""
    data = dataclasses.asdict(metrics)
    return {"global": data.pop("global_"), **data}


# --- counting ---------------------------------------------------------------------------------------------------------


class Column(IntEnum):
    """What is counted. A caption without a verdict adds to UNSCORED alone."""

    EVENTS = 0
    MISSING = 1
    INCORRECT = 2
    INVENTED = 3
    SCORED = 4
    UNSCORED = 5
    TEXTS = 6  # scored captions again, but of whole captions only: words belong to no part
    WORDS = 7
    REPEATED_WORDS = 8
    ENDINGS = 9  # captions of which is known whether the model ended them itself
    UNFINISHED = 10


class Group(NamedTuple):
    """Captions of one kind ("global", "local"); `part` is "" for all of each caption."""

    kind: str
    part: str


# Rate -> (what is summed above the line, below the line); the order is that of GroupMetrics.
RATES: dict[str, tuple[tuple[Column, ...], Column]] = {
    "missing_rate": ((Column.MISSING,), Column.EVENTS),
    "incorrect_rate": ((Column.INCORRECT,), Column.EVENTS),
    "invented_rate": ((Column.INVENTED,), Column.EVENTS),
    "hallucination_rate": ((Column.INCORRECT, Column.INVENTED), Column.EVENTS),
    "total_error_rate": ((Column.MISSING, Column.INCORRECT, Column.INVENTED), Column.EVENTS),
    "repetition_rate": ((Column.REPEATED_WORDS,), Column.WORDS),
    "truncated_rate": ((Column.UNFINISHED,), Column.ENDINGS),
    "words_per_caption": ((Column.WORDS,), Column.TEXTS),
}
_ABOVE_CK = np.array([[float(column in above) for above, _ in RATES.values()] for column in Column])
_BELOW_CK = np.array([[float(column == below) for _, below in RATES.values()] for column in Column])
_COLUMN_OF: dict[EventLabel, Column] = {"missing": Column.MISSING, "incorrect": Column.INCORRECT}

PartsOf = Callable[[Sample, Event | InventedClaim], Sequence[str]]


class Counts(dict[tuple[Group, str], Floats]):
    """(group, video) -> counts (C,)"""

    def stack(self, groups: Sequence[Group], *, videos: Sequence[str]) -> Floats:
        """(V, G, C); zeros where a video has nothing in a group."""
        nothing_C = np.zeros(len(Column))
        rows = [[self.get((group, video), nothing_C) for group in groups] for video in videos]
        return np.array(rows).reshape(len(videos), len(groups), len(Column))


def modality_part(_: Sample, item: Event | InventedClaim) -> list[str]:
    """An event or an invented claim -> the part of its modality, none if that is unknown."""
    return [] if item.modality is None else [MODALITY_NAMES[item.modality]]


def count_captions(scored: Iterable[Scored], *, parts_of: PartsOf = modality_part) -> Counts:
    """Captions with verdicts -> counts by group and video, of whole captions and of their parts."""
    counts = Counts()
    for one in scored:
        sample = one.case.sample
        kind = "global" if sample.interval_s is None else "local"
        for part, counts_C in _count_caption(one, parts_of=parts_of).items():
            key = Group(kind, part), sample.video
            counts[key] = counts[key] + counts_C if key in counts else counts_C
    return counts


def rate_values(counts_C: Floats) -> Floats:
    """Counts (..., C) -> rates (..., K) in the order of RATES; nan where there is nothing to divide by."""
    return divide(counts_C @ _ABOVE_CK, counts_C @ _BELOW_CK)


def _count_caption(one: Scored, *, parts_of: PartsOf) -> dict[str, Floats]:
    """A caption -> counts of "", the whole, and of each part in which it has an event or an invented claim."""
    sample = one.case.sample
    counts: dict[str, Floats] = defaultdict(lambda: np.zeros(len(Column)))
    if isinstance(one.verdict, Unscored):
        for part in {"", *(part for event in sample.events for part in parts_of(sample, event))}:
            counts[part][Column.UNSCORED] = 1
        return counts
    label_of = _labels(one.verdict, sample=sample)
    for event in sample.events:
        for part in ("", *parts_of(sample, event)):
            counts[part][Column.EVENTS] += 1
            if (label := label_of[event.event_id]) != "correct":
                counts[part][_COLUMN_OF[label]] += 1
    for claim in one.verdict.invented:
        for part in ("", *parts_of(sample, claim)):
            counts[part][Column.INVENTED] += 1
    for counts_C in counts.values():
        counts_C[Column.SCORED] = 1
    whole_C, words = counts[""], count_words(one.case.text)
    whole_C[[Column.TEXTS, Column.WORDS, Column.REPEATED_WORDS]] = 1, words.num_words, words.num_repeated
    whole_C[Column.ENDINGS] = one.case.finished is not None
    whole_C[Column.UNFINISHED] = one.case.finished is False
    return counts


def _labels(verdict: Verdict, *, sample: Sample) -> dict[str, EventLabel]:
    """Event id -> label, exactly one for each event of the sample; UserError if the verdict is about other events."""
    labels = {event.event_id: event.label for event in verdict.events}
    event_ids = {event.event_id for event in sample.events}
    if len(labels) != len(verdict.events) or len(event_ids) != len(sample.events):
        raise UserError(f"caption {verdict.caption_id!r}: an event id occurs twice; give each event an id of its own")
    if odd := sorted(labels.keys() ^ event_ids):
        where = "verdict, but not in the truth" if odd[0] in labels else "truth, but not in the verdict"
        raise UserError(
            f"caption {verdict.caption_id!r}: event {odd[0]!r} is in the {where} of sample {sample.sample_id!r}; "
            "judge it again with this truth"
        )
    return labels


def _invented(one: Scored) -> tuple[InventedClaim, ...]:
    return () if isinstance(one.verdict, Unscored) else one.verdict.invented


# --- windows ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Windows:
    """Which windows of its video an event begins in."""

    durations_s: Mapping[str, float]
    windows_s: tuple[tuple[float, float], ...]

    @property
    def names(self) -> list[str]:
        return [_window_name(window_s) for window_s in self.windows_s]

    def parts_of(self, sample: Sample, item: Event | InventedClaim) -> list[str]:
        if item.start_s is None:
            return []
        names = [_window_name((start, end)) for start, end in self.windows_s if start <= item.start_s < end]
        duration_s = self.durations_s.get(sample.video)
        if duration_s is not None and duration_s > 0:
            # An event on the very end belongs to the last quarter, as one does that a judge puts behind it.
            names.append(QUARTERS[min(max(int(4 * item.start_s / duration_s), 0), 3)])
        return names


def _window_name(window_s: tuple[float, float]) -> str:
    return f"{window_s[0]:g}-{window_s[1]:g} s"


# --- rates ------------------------------------------------------------------------------------------------------------


def _group_metrics(
    counts_VGC: Floats, *, groups: Sequence[Group], num_resamples: int, seed: int
) -> dict[Group, GroupMetrics]:
    """Counts -> rates of each group; all groups share the draws of videos."""
    totals_GC = counts_VGC.sum(axis=0)
    # A video without any scored caption has no part in the rates, and none in how far they could vary.
    drawn_VGC = counts_VGC[(counts_VGC[:, :, Column.SCORED] > 0).any(axis=1)]
    flat_VC = drawn_VGC.reshape(len(drawn_VGC), totals_GC.size)
    sums_RGC = resampled_sums(flat_VC, num_resamples=num_resamples, seed=seed).reshape(-1, *totals_GC.shape)
    metrics = {}
    for index, group in enumerate(groups):
        counts_VC, total_C = drawn_VGC[:, index], totals_GC[index]
        rates = rates_of(
            rate_values(total_C),
            rate_values(sums_RGC[:, index]),
            num_videos_K=(counts_VC @ _BELOW_CK > 0).sum(axis=0),
        )
        num_scored, num_unscored = int(total_C[Column.SCORED]), int(total_C[Column.UNSCORED])
        metrics[group] = GroupMetrics(
            **dict(zip(RATES, rates, strict=True)),
            num_events=int(total_C[Column.EVENTS]),
            num_captions=num_scored + num_unscored,
            num_videos=int((counts_VC[:, Column.SCORED] > 0).sum()),
            num_scored=num_scored,
            num_unscored=num_unscored,
        )
    return metrics
