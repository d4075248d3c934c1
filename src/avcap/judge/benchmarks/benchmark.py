"""What a benchmark is: data of theirs, rules of theirs, and numbers of captions with intervals over videos. No torch.

    data file --read--> BenchmarkItem
    caption --make_case--> case --protocol--> score --tally--> shares --rates--> numbers

A share is (above, below) of a name; the number of a name is the sum of the ones over the sum of the others. What is no
ratio of sums (F1, the median run) is made of such numbers by `rates`.

    V videos  C columns  R resamples
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avcap.judge.metrics.bootstrap import NUM_RESAMPLES, Floats, Rate, divide, rates_of, resampled_sums
from avcap.judge.protocols.avcap_yesno1 import Thresholds
from avcap.judge.protocols.protocol import CaptionProtocol
from avcap.judge.protocols.wording import Wordings
from avcap.judge.types import Case
from avcap.records import Sample

RULES_THEIRS = "rules theirs, wording ours: not comparable with published tables"
PROMPT_GIVEN = "rules theirs, prompt from a file: comparable with published tables only if judge and prompt are theirs"

Shares = Mapping[str, tuple[float, float]]
Numbers = dict[str, Floats]


@dataclass(frozen=True, kw_only=True)
class BenchmarkItem:
    """One video of a benchmark. `sample`: what captions are matched with; `about`: all else that judging needs."""

    sample: Sample
    about: Any = None


@dataclass(frozen=True, kw_only=True)
class AskedBy:
    """How the judge is asked: a --judge-protocol for benchmarks of events, and prompts that are not ours."""

    judge_protocol: str = ""
    wordings: Wordings
    thresholds: Thresholds | None = None


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Data and rules. `prompts`: what it asks for, by the names of --prompt-file; the first is asked most."""

    name: str
    version: int
    about: str
    """One line: what it reports."""
    read: Callable[[Path], tuple[BenchmarkItem, ...]]
    protocol: Callable[[AskedBy], CaptionProtocol[Any, Any, Any]]
    make_case: Callable[[Case, Any], Any]
    """A caption that met its item, and the item's `about` -> a case of the protocol."""
    tally: Callable[[Any], Shares]
    rates: Callable[[Numbers], Numbers]
    prompts: tuple[str, ...] = ()
    judge_protocols: tuple[str, ...] = ()
    """Those that it can be asked by; none: it has a way of its own."""
    needs_events: bool = False
    """Events are taken from the reference caption where the data has none."""

    @property
    def title(self) -> str:
        return f"{self.name}-{self.version}"


@dataclass(frozen=True, kw_only=True)
class CaptionShares:
    """What one caption adds to the numbers of a benchmark: a line of shares.jsonl."""

    caption_id: str
    sample_id: str
    video: str
    shares: dict[str, Any]
    """Name -> [above, below]."""
    benchmark: str = ""
    judge_protocol: str = ""
    judge: str = ""
    prompt_version: str = ""


def unchanged(numbers: Numbers) -> Numbers:
    """For benchmarks whose numbers are ratios of sums."""
    return numbers


def benchmark_values(benchmark: Benchmark, captions: Sequence[CaptionShares]) -> dict[str, float]:
    """Captions' shares -> every number; nan without anything below."""
    names = _names(captions)
    values = benchmark.rates(_numbers(_counts(captions, names=names).sum(axis=0), names=names))
    return {name: float(value) for name, value in values.items()}


def benchmark_rates(
    benchmark: Benchmark, captions: Sequence[CaptionShares], *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> dict[str, Rate]:
    """Captions' shares -> every number with its 95 % interval over videos."""
    names = _names(captions)
    counts_VC = _counts(captions, names=names)
    values = benchmark.rates(_numbers(counts_VC.sum(axis=0), names=names))
    sums_RC = resampled_sums(counts_VC, num_resamples=num_resamples, seed=seed)
    drawn = benchmark.rates(_numbers(sums_RC, names=names))
    return _as_rates(values, drawn, num_videos=len(counts_VC))


def compare_rates(
    benchmark: Benchmark,
    run: Sequence[CaptionShares],
    *,
    baseline: Sequence[CaptionShares],
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, Rate]:
    """Two runs on the same samples -> run minus baseline for every number; videos are drawn for both together."""
    common = {one.sample_id for one in run} & {one.sample_id for one in baseline}
    sides = [
        sorted((one for one in side if one.sample_id in common), key=lambda one: one.sample_id)
        for side in (run, baseline)
    ]
    names = _names([*sides[0], *sides[1]])
    videos = [one.video for one in sides[1]]
    both_VC = np.concatenate([_counts(side, names=names, videos=videos) for side in sides], axis=1)
    sums_RC = resampled_sums(both_VC, num_resamples=num_resamples, seed=seed)
    values = [benchmark.rates(_numbers(part, names=names)) for part in np.split(both_VC.sum(axis=0), 2)]
    drawn = [benchmark.rates(_numbers(part, names=names)) for part in np.split(sums_RC, 2, axis=1)]
    return _as_rates(
        {name: values[0][name] - values[1][name] for name in values[0]},
        {name: drawn[0][name] - drawn[1][name] for name in drawn[0]},
        num_videos=len(both_VC),
    )


def _names(captions: Sequence[CaptionShares]) -> list[str]:
    return list(dict.fromkeys(name for one in captions for name in one.shares))


def _counts(captions: Sequence[CaptionShares], *, names: Sequence[str], videos: Sequence[str] | None = None) -> Floats:
    """Captions -> sums by video, above and below of each name (V, C). `videos`: another name of each one's video."""
    videos = videos if videos is not None else [one.video for one in captions]
    rows = {video: row for row, video in enumerate(dict.fromkeys(videos))}
    counts_VC = np.zeros((len(rows), 2 * len(names)))
    column_of = {name: 2 * column for column, name in enumerate(names)}
    for one, video in zip(captions, videos, strict=True):
        for name, share in one.shares.items():
            counts_VC[rows[video], column_of[name] : column_of[name] + 2] += share
    return counts_VC


def _numbers(sums: Floats, *, names: Sequence[str]) -> Numbers:
    """Sums (..., C) -> name -> ratio (...); nan without anything below."""
    return {name: divide(sums[..., 2 * column], sums[..., 2 * column + 1]) for column, name in enumerate(names)}


def _as_rates(values: Numbers, drawn: Numbers, *, num_videos: int) -> dict[str, Rate]:
    names = list(values)
    if not names:
        return {}
    values_K = np.array([float(values[name]) for name in names])
    drawn_RK = np.stack([drawn[name] for name in names], axis=1)
    return dict(zip(names, rates_of(values_K, drawn_RK, num_videos_K=num_videos), strict=True))
