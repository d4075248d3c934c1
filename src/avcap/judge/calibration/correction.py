"""What a captioner's true error rates are, judged by a judge whose mistakes were counted. No torch.

Labels: with M[i, j] = P(judged j | true i), the judged shares are q = p M, so the true ones are p = q M^-1; for two
labels this is the estimator of Rogan and Gladen, (q + specificity - 1) / (sensitivity + specificity - 1). Invented
claims: judged = recall * true + false_per_event * events, solved for true.

Both hold if the judge errs on the captions at hand as it did where it was calibrated. The interval draws the videos of
the run and those of the calibration again, so it includes how little is known of the judge.

    V videos  R resamples  i true label  j judged label
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from avcap.errors import UserError
from avcap.judge.calibration.agreement import Checked, confusion_of, sensitivity_and_specificity
from avcap.judge.metrics.bootstrap import LEVEL, NUM_RESAMPLES, Floats, Rate, divide, rates_of, resampled_sums
from avcap.judge.metrics.error_rates import Column, Scored, count_captions


@dataclass(frozen=True, kw_only=True)
class NoiseCounts:
    """What a judge did on the captions of one video whose truth is known; what a correction is made from."""

    video: str
    confusion: tuple[int, ...]
    """Events by true label, then by judged label, both in the order of LABELS: nine counts."""
    events_without_invented: int
    """Events of the captions that invent nothing, and how many claims the judge called invented there."""
    false_invented: int
    events_with_invented: int
    """The same of captions that invent something, and how many claims they truly invent."""
    judged_invented: int
    true_invented: int


@dataclass(frozen=True, kw_only=True)
class CorrectedRates:
    """The rates without the judge's mistakes; empty, with the reason, where no correction is valid."""

    valid: bool
    reason: str
    missing_rate: Rate
    hallucination_rate: Rate
    total_error_rate: Rate


def count_noise(checked: Iterable[Checked]) -> tuple[NoiseCounts, ...]:
    """Captions with true and judged labels -> counts by video."""
    sums: dict[str, Floats] = {}
    for one in checked:
        true, judged, num_events = len(one.truth.invented), len(one.judged.invented), len(one.truth.events)
        clean = [num_events, judged, 0, 0, 0] if true == 0 else [0, 0, num_events, judged, true]
        video = one.case.sample.video
        sums[video] = sums.get(video, 0) + np.array([*confusion_of(one).ravel(), *clean])
    return tuple(
        NoiseCounts(
            video=video,
            confusion=tuple(map(int, row[:9])),
            events_without_invented=int(row[9]),
            false_invented=int(row[10]),
            events_with_invented=int(row[11]),
            judged_invented=int(row[12]),
            true_invented=int(row[13]),
        )
        for video, row in sums.items()
    )


def correct_rates(
    scored: Sequence[Scored], *, noise: Sequence[NoiseCounts], num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> CorrectedRates:
    """Judged captions of one kind (all global, or all local) and the judge's counted mistakes -> corrected rates.

    The rates can be corrected only if sensitivity + specificity > 1 for missing and for incorrect, and some invented
    claims are found: otherwise the judge tells nothing, which `reason` says.
    """
    run_VC = _run_counts(scored)
    noise_VC = np.array([_noise_row(counts) for counts in noise])
    if len(run_VC) < 2 or len(noise_VC) < 2:
        return _invalid(f"{len(run_VC)} video(s) judged and {len(noise_VC)} calibrated on, expected at least 2 of each")
    if reason := _why_not(noise_VC.sum(axis=0)):
        return _invalid(reason)
    value_3 = _corrected(run_VC.sum(axis=0), noise_C=noise_VC.sum(axis=0))
    run_RC = resampled_sums(run_VC, num_resamples=num_resamples, seed=seed)
    # Another seed: with the same one, equally many videos would be drawn alike, although they have nothing in common.
    noise_RC = resampled_sums(noise_VC, num_resamples=num_resamples, seed=seed + 1)
    resampled_R3 = _corrected(run_RC, noise_C=noise_RC)
    share_invalid = float(np.isnan(resampled_R3).any(axis=1).mean())
    if share_invalid > (1 - LEVEL) / 2:
        return _invalid(f"too few calibrated captions: {share_invalid:.0%} of the draws of videos allow no correction")
    missing, hallucination, total = rates_of(value_3, resampled_R3, num_videos_K=min(len(run_VC), len(noise_VC)))
    return CorrectedRates(
        valid=True, reason="", missing_rate=missing, hallucination_rate=hallucination, total_error_rate=total
    )


def _invalid(reason: str) -> CorrectedRates:
    nothing = Rate(value=None, low=None, high=None)
    return CorrectedRates(
        valid=False, reason=reason, missing_rate=nothing, hallucination_rate=nothing, total_error_rate=nothing
    )


def _run_counts(scored: Sequence[Scored]) -> Floats:
    """Judged captions -> events, missing, incorrect, invented of each video with a scored caption (V, 4)."""
    counts = count_captions(scored, parts_of=lambda *_: ())
    kinds = {group.kind for group, _ in counts}
    if len(kinds) > 1:
        raise UserError("got global and local captions, expected one kind: their rates differ; correct them apart")
    rows = [counts_C[: Column.INVENTED + 1] for counts_C in counts.values() if counts_C[Column.SCORED] > 0]
    return np.array(rows).reshape(-1, Column.INVENTED + 1)


def _noise_row(counts: NoiseCounts) -> list[int]:
    return [
        *counts.confusion,
        counts.events_without_invented,
        counts.false_invented,
        counts.events_with_invented,
        counts.judged_invented,
        counts.true_invented,
    ]


def _why_not(noise_C: Floats) -> str:
    """Counts -> why no correction can be made from them, or ""."""
    confusion_33 = noise_C[:9].reshape(3, 3)
    for label in ("missing", "incorrect"):
        sensitivity, specificity = sensitivity_and_specificity(confusion_33, label=label)
        if np.isnan(sensitivity + specificity):
            return f"no calibrated event, or every one, is truly {label}"
        if sensitivity + specificity <= 1:
            return (
                f"sensitivity + specificity for {label} events is {sensitivity + specificity:.2f}, expected more than "
                "1: the judge is no better than chance"
            )
    if np.isnan(_corrected(np.array([1.0, 0, 0, 0]), noise_C=noise_C)).any():
        return "the judge confuses the labels so much, or finds so few invented claims, that nothing can be inferred"
    return ""


def _corrected(run_C: Floats, *, noise_C: Floats) -> Floats:
    """Counts of a run (..., 4) and a judge (..., 14) -> missing, hallucination, total (..., 3); nan if impossible."""
    events = run_C[..., :1]
    judged_3 = divide(np.concatenate([events - run_C[..., 1:2] - run_C[..., 2:3], run_C[..., 1:3]], axis=-1), events)
    confusion_33 = noise_C[..., :9].reshape(*noise_C.shape[:-1], 3, 3)
    matrix_33 = divide(confusion_33, confusion_33.sum(axis=-1, keepdims=True))
    # For two labels the determinant is sensitivity + specificity - 1.
    usable = np.linalg.det(np.nan_to_num(matrix_33)) > 1e-6
    safe_33 = np.where(usable[..., None, None], matrix_33, np.eye(3))
    true_3 = np.linalg.solve(np.swapaxes(safe_33, -1, -2), judged_3[..., None])[..., 0]
    invented = _corrected_invented(divide(run_C[..., 3], events[..., 0]), noise_C=noise_C)
    missing, incorrect = np.clip(true_3[..., 1], 0, 1), np.clip(true_3[..., 2], 0, 1)
    hallucination = incorrect + np.maximum(invented, 0)
    rates_3 = np.stack([missing, hallucination, missing + hallucination], axis=-1)
    return np.where(usable[..., None], rates_3, np.nan)


def _corrected_invented(judged_rate: Floats, *, noise_C: Floats) -> Floats:
    """Claims judged invented per event -> truly invented per event; nan where the judge finds none."""
    clean_events, false, events, judged, true = np.moveaxis(noise_C[..., 9:], -1, 0)
    false_per_event = divide(false, clean_events)
    recall = divide(judged - false_per_event * events, true)
    return divide(judged_rate - false_per_event, np.where(recall > 1e-6, recall, 0.0))
