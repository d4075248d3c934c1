"""Captioners on the same samples: paired differences with intervals, and who wins how many videos. No torch.

The videos are drawn once for both runs of a pair, so what makes a video hard for everybody cancels.

    V videos  G groups  C counts of one run  K rates  R resamples
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from avcap.errors import UserError
from avcap.judge.metrics.bootstrap import NUM_RESAMPLES, Floats, Rate, divide, rates_of, resampled_sums
from avcap.judge.metrics.error_rates import RATES, Column, Scored, count_captions, rate_values
from avcap.records import Unscored


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a run was judged. Runs with different settings measure different things."""

    protocol: str
    judge: str
    prompt_version: str
    modality: str
    dropped: tuple[str, ...] = ()
    """What the judge's server refused and was asked without; known once it has been asked."""
    benchmark: str = ""
    """Whose data and rules, with their version; "" for captions and truth of one's own."""


@dataclass(frozen=True, kw_only=True)
class RateDifference:
    baseline: float | None
    run: float | None
    difference: Rate
    """Run minus baseline: below 0 the run has fewer errors."""
    sign_share: float | None
    """Share of the draws in which the difference has the other sign (0 counts half): small if the sign is sure.
    Twice this is about a two-sided p-value."""


@dataclass(frozen=True, kw_only=True)
class GroupComparison:
    rates: dict[str, RateDifference]
    """By the names of GroupMetrics."""
    won: Rate
    """Share of videos on which the run's total error is below the baseline's."""
    tied: Rate
    lost: Rate
    num_videos: int
    num_events: int


@dataclass(frozen=True, kw_only=True)
class PairComparison:
    """A run against the baseline, on the samples for which both have a verdict."""

    run: str
    baseline: str
    groups: dict[str, GroupComparison]
    """"global", "local", and their parts: "global seen", "local heard", ..."""
    num_paired: int
    only_in_baseline: tuple[str, ...]
    """Sample ids, here and below; none of them is in any number above."""
    only_in_run: tuple[str, ...]
    unscored: tuple[str, ...]
    """Both have a caption, and at least one of the two has no verdict."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Every run against the first."""

    baseline: str
    pairs: tuple[PairComparison, ...]
    mixed: tuple[str, ...]
    """In what the runs' settings differ; empty unless that was allowed."""


def compare(
    runs: Mapping[str, Sequence[Scored]],
    *,
    settings: Mapping[str, Setting] | None = None,
    allow_mixed: bool = False,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Judged runs by name -> every later one against the first, paired by sample id.

    Raises UserError if protocol, judge, prompt version, modality or the truth differ, unless `allow_mixed`. Judge and
    prompt version are read from the verdicts; protocol and modality only from `settings`.
    """
    if len(runs) < 2:
        raise UserError(f"got {len(runs)} run(s), expected at least 2; name the folders of two evaluations")
    names = list(runs)
    by_sample = {name: _by_sample(runs[name], name=name) for name in names}
    mixed = _differences_of_settings(runs, settings=settings) + _differences_of_truth(by_sample)
    if mixed and not allow_mixed:
        raise UserError(f"the runs cannot be compared: {'; '.join(mixed)}; judge them alike, or allow mixed runs")
    baseline = names[0]
    pairs = []
    for name in names[1:]:
        paired = _pair(by_sample[name], baseline=by_sample[baseline])
        groups = _compare_groups(paired, num_resamples=num_resamples, seed=seed)
        pairs.append(
            PairComparison(
                run=name,
                baseline=baseline,
                groups=groups,
                num_paired=len(paired.run),
                only_in_baseline=paired.only_in_baseline,
                only_in_run=paired.only_in_run,
                unscored=paired.unscored,
            )
        )
    return Comparison(baseline=baseline, pairs=tuple(pairs), mixed=tuple(mixed))


def comparison_to_dict(comparison: Comparison) -> dict[str, Any]:
    """Comparison -> plain JSON, no nan."""
    return dataclasses.asdict(comparison)


# --- what may be compared ---------------------------------------------------------------------------------------------


def _by_sample(scored: Sequence[Scored], *, name: str) -> dict[str, Scored]:
    by_sample: dict[str, Scored] = {}
    for one in scored:
        sample_id = one.case.sample.sample_id
        if other := by_sample.get(sample_id):
            raise UserError(
                f"{name}: captions {other.case.caption_id!r} and {one.case.caption_id!r} are both of sample "
                f"{sample_id!r}, expected one caption of each; leave one out"
            )
        by_sample[sample_id] = one
    return by_sample


def _differences_of_settings(
    runs: Mapping[str, Sequence[Scored]], *, settings: Mapping[str, Setting] | None
) -> list[str]:
    """What differs between the runs, or within one, in words."""
    found: dict[str, dict[str, set[str]]] = {"judge": {}, "prompt version": {}, "protocol": {}, "modality": {}}
    for name, scored in runs.items():
        verdicts = [one.verdict for one in scored if not isinstance(one.verdict, Unscored)]
        found["judge"][name] = {verdict.judge for verdict in verdicts}
        found["prompt version"][name] = {verdict.prompt_version for verdict in verdicts}
        if settings is not None:
            setting = settings[name]
            found["judge"][name].add(setting.judge)
            found["prompt version"][name].add(setting.prompt_version)
            found["protocol"][name] = {setting.protocol}
            found["modality"][name] = {setting.modality}
    return [
        f"{what} is {', '.join(f'{_listed(values)} in {name}' for name, values in by_run.items())}"
        for what, by_run in found.items()
        if len(set().union(*by_run.values())) > 1
    ]


def _listed(values: set[str]) -> str:
    return " and ".join(repr(value) for value in sorted(values))


def _differences_of_truth(by_sample: Mapping[str, Mapping[str, Scored]]) -> list[str]:
    """Samples whose events are not the same in all runs: named by the first, and counted."""
    baseline, *others = by_sample
    differ = sorted(
        (sample_id, name)
        for name in others
        for sample_id, one in by_sample[name].items()
        if sample_id in by_sample[baseline] and _truth(one) != _truth(by_sample[baseline][sample_id])
    )
    if not differ:
        return []
    sample_id, name = differ[0]
    return [f"{len(differ)} sample(s) have other events, the first {sample_id!r} in {name}"]


def _truth(one: Scored) -> tuple[Any, ...]:
    return one.case.sample.interval_s, one.case.sample.events


# --- one pair ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Paired:
    """The samples that both runs have a verdict for, in one order, and the ids of those left out."""

    run: tuple[Scored, ...]
    baseline: tuple[Scored, ...]
    only_in_baseline: tuple[str, ...]
    only_in_run: tuple[str, ...]
    unscored: tuple[str, ...]


def _pair(run: Mapping[str, Scored], *, baseline: Mapping[str, Scored]) -> _Paired:
    common = sorted(run.keys() & baseline.keys())
    unscored = [
        sample_id for sample_id in common if any(isinstance(x[sample_id].verdict, Unscored) for x in (run, baseline))
    ]
    paired = [sample_id for sample_id in common if sample_id not in set(unscored)]
    return _Paired(
        run=tuple(_of_video(run[i], baseline[i].case.sample.video) for i in paired),
        baseline=tuple(baseline[i] for i in paired),
        only_in_baseline=tuple(sorted(baseline.keys() - run.keys())),
        only_in_run=tuple(sorted(run.keys() - baseline.keys())),
        unscored=tuple(unscored),
    )


def _of_video(one: Scored, video: str) -> Scored:
    """The same, under the baseline's name of the video: two runs may have found it in different folders."""
    return replace(one, case=replace(one.case, sample=replace(one.case.sample, video=video)))


def _compare_groups(paired: _Paired, *, num_resamples: int, seed: int) -> dict[str, GroupComparison]:
    """Paired captions -> comparisons by group; all of them share the draws of videos."""
    run, baseline = count_captions(paired.run), count_captions(paired.baseline)
    groups = sorted({group for group, _ in (*run, *baseline)})
    videos = sorted({one.case.sample.video for one in paired.baseline})
    counts_VGC = np.concatenate([side.stack(groups, videos=videos) for side in (run, baseline)], axis=2)
    outcomes_VG3 = _outcomes(counts_VGC)
    all_VGC = np.concatenate([counts_VGC, outcomes_VG3], axis=2)
    flat_VC = all_VGC.reshape(len(videos), all_VGC[0].size if videos else 0)
    sums_RC = resampled_sums(flat_VC, num_resamples=num_resamples, seed=seed)
    sums_RGC = sums_RC.reshape(num_resamples, *all_VGC.shape[1:])
    return {
        f"{group.kind} {group.part}".strip(): _compare_group(all_VGC[:, index], sums_RC=sums_RGC[:, index])
        for index, group in enumerate(groups)
    }


def _outcomes(counts_VGC: Floats) -> Floats:
    """Counts of run and baseline -> 1 for won, tied or lost by total error (V, G, 3); zeros where neither has a say."""
    run_VG, baseline_VG = (_total_errors(side) for side in np.split(counts_VGC, 2, axis=2))
    present_VG = (counts_VGC[..., Column.SCORED] + counts_VGC[..., len(Column) + Column.SCORED]) > 0
    signs_VG = np.sign(np.round(run_VG - baseline_VG, 9))  # equal shares such as 1/3 and 2/6 must tie
    return np.stack([(signs_VG == sign) & present_VG for sign in (-1, 0, 1)], axis=2).astype(np.float64)


def _total_errors(counts: Floats) -> Floats:
    """Counts (..., C) -> errors / events; errors alone where there is no event to miss."""
    errors = counts[..., [Column.MISSING, Column.INCORRECT, Column.INVENTED]].sum(axis=-1)
    return errors / np.maximum(counts[..., Column.EVENTS], 1)


def _compare_group(counts_VC: Floats, *, sums_RC: Floats) -> GroupComparison:
    """Counts of run, baseline and outcomes, and their resampled sums -> the comparison of one group."""
    size = len(Column)
    total_C = counts_VC.sum(axis=0)
    run_K, baseline_K = rate_values(total_C[:size]), rate_values(total_C[size : 2 * size])
    difference_RK = rate_values(sums_RC[:, :size]) - rate_values(sums_RC[:, size : 2 * size])
    num_videos = int(counts_VC[:, 2 * size :].sum())
    differences = rates_of(run_K - baseline_K, difference_RK, num_videos_K=num_videos)
    outcomes_3, outcomes_R3 = total_C[2 * size :], sums_RC[:, 2 * size :]
    won, tied, lost = rates_of(
        outcomes_3 / num_videos, divide(outcomes_R3, outcomes_R3.sum(axis=1, keepdims=True)), num_videos_K=num_videos
    )
    rates = {
        name: RateDifference(
            run=_number(run_K[k]),
            baseline=_number(baseline_K[k]),
            difference=differences[k],
            sign_share=None if differences[k].low is None else _sign_share(difference_RK[:, k]),
        )
        for k, name in enumerate(RATES)
    }
    num_events = int(total_C[size + Column.EVENTS])
    return GroupComparison(rates=rates, won=won, tied=tied, lost=lost, num_videos=num_videos, num_events=num_events)


def _sign_share(difference_R: Floats) -> float:
    exists_R = difference_R[~np.isnan(difference_R)]
    ties = (exists_R == 0).mean() / 2
    return float(min((exists_R < 0).mean(), (exists_R > 0).mean()) + ties)


def _number(value: np.float64) -> float | None:
    return None if np.isnan(value) else float(value)
