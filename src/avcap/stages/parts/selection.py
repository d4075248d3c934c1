"""The selection of preference rounds: the rule that stops them and picks the best, from metrics of held-out videos."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from avcap.evaluation.held_out import RoundMetrics


@dataclass(frozen=True, kw_only=True)
class StopConfig:
    """When the rounds end, and which rounds may be the best: those that got better without getting strange."""

    patience: int = 2
    """Rounds in a row without a new best, after which the rounds end; 1 would be fooled by rounds that swing."""
    min_gain: float = 0.005
    """By how much total error must fall to be a new best."""
    max_more_hallucination: float = 0.02
    """All limits are against the model that the rounds began with."""
    max_more_repetition: float = 0.02
    max_more_truncated: float = 0.02
    min_words_ratio: float = 0.6
    max_words_ratio: float = 1.8
    min_distinct_ratio: float = 0.7
    """Distinct 4-grams of all captions together: text that gets the same everywhere loses them."""
    max_perplexity_ratio: float = 3.0
    """Perplexity of the captions under the model that the rounds began with: text that it would never write."""
    max_fewer_questions: float = 0.02
    """Questions: the share of held-out questions answered right may not fall by more."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    best: int
    reason: str
    refused: dict[int, str]
    """Rounds that could not be the best, and why."""
    stopped: bool
    """Whether no further round is worth its cost."""


def decide(all_metrics: Sequence[RoundMetrics], config: StopConfig) -> Decision:
    """Metrics of rounds 0, 1, ... -> the best so far, and whether to stop.

    A round is a new best if its total error is lower by min_gain than the best before it, and nothing that error rates
    do not see has gone wrong. Rounds that swing are no reason to stop before `patience` of them in a row are no better.
    """
    start, best = all_metrics[0], all_metrics[0]
    refused: dict[int, str] = {}
    for round_metrics in all_metrics[1:]:
        if why := rejection_reason(round_metrics, start=start, config=config):
            refused[round_metrics.round_number] = why
        elif round_metrics.total_error <= best.total_error - config.min_gain:
            best = round_metrics
    since = all_metrics[-1].round_number - best.round_number
    stopped = since >= config.patience
    reason = f"total error {best.total_error:.3f}, {best.total_error - start.total_error:+.3f} against the start" + (
        f"; {since} rounds since without a better one" if since else ""
    )
    return Decision(best=best.round_number, reason=reason, refused=refused, stopped=stopped)


def rejection_reason(round_metrics: RoundMetrics, *, start: RoundMetrics, config: StopConfig) -> str:
    """A round -> why it may not be the best although its total error may be low, or ""."""
    limits = (
        ("hallucination", round_metrics.hallucination - start.hallucination, config.max_more_hallucination),
        ("repetition", round_metrics.repetition - start.repetition, config.max_more_repetition),
        ("captions that never end", round_metrics.truncated - start.truncated, config.max_more_truncated),
    )
    for name, more, limit in limits:
        if more > limit:
            return f"{name} {more:+.3f} against the start, above {limit:+.3f}"
    ratios = (
        ("words of a caption", round_metrics.words, start.words, config.min_words_ratio, config.max_words_ratio),
        ("distinct 4-grams", round_metrics.distinct, start.distinct, config.min_distinct_ratio, math.inf),
        ("perplexity", round_metrics.perplexity, start.perplexity, 0.0, config.max_perplexity_ratio),
    )
    for name, now, before, least, most in ratios:
        if now is not None and before and not least <= now / before <= most:
            return f"{name}: {now / before:.2f} times as at the start, outside {least:g} to {most:g}"
    if round_metrics.questions is not None and start.questions is not None:
        fewer = start.questions - round_metrics.questions
        if fewer > config.max_fewer_questions:
            return f"questions answered right {-fewer:+.3f} against the start, below {-config.max_fewer_questions:+.3f}"
    return ""
