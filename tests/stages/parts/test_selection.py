"""The rule that stops the rounds and picks the best of them."""

from dataclasses import replace

import pytest

from avcap.evaluation.held_out import RoundMetrics
from avcap.stages.parts.selection import StopConfig, decide, rejection_reason

START = RoundMetrics(
    round_number=0,
    total_error=0.5,
    global_error=0.5,
    local_error=0.5,
    missing=0.375,
    hallucination=0.125,
    repetition=0.125,
    truncated=0.0,
    words=50.0,
    distinct=0.5,
    perplexity=2.0,
    questions=0.75,
)


def test_limits_are_against_the_start_and_not_against_the_best_round_so_far():
    # Each round hallucinates 0.015 more than the one before it, and 0.03 > 0.02 in all.
    drift = [
        replace(
            START,
            round_number=round_number,
            total_error=0.5 - 0.1 * round_number,
            hallucination=0.125 + 0.015 * round_number,
        )
        for round_number in (1, 2)
    ]
    decision = decide([START, *drift], StopConfig())
    assert decision.best == 1 and decision.refused == {2: "hallucination +0.030 against the start, above +0.020"}


@pytest.mark.parametrize(
    ("at_limit", "beyond"),
    [
        ({"hallucination": 0.25}, {"hallucination": 0.26}),  # 0.25 - 0.125 = 0.125
        ({"repetition": 0.25}, {"repetition": 0.26}),
        ({"truncated": 0.125}, {"truncated": 0.13}),
        ({"words": 25.0}, {"words": 24.0}),  # 25 / 50 = 0.5
        ({"words": 75.0}, {"words": 76.0}),  # 75 / 50 = 1.5
        ({"distinct": 0.25}, {"distinct": 0.24}),  # 0.25 / 0.5 = 0.5
        ({"perplexity": 6.0}, {"perplexity": 6.1}),  # 6 / 2 = 3
        ({"questions": 0.625}, {"questions": 0.62}),  # 0.75 - 0.625 = 0.125
    ],
)
def test_a_limit_that_is_just_met_is_kept(at_limit, beyond):
    # Limits that floating-point numbers hold exactly.
    config = StopConfig(
        max_more_hallucination=0.125,
        max_more_repetition=0.125,
        max_more_truncated=0.125,
        min_words_ratio=0.5,
        max_words_ratio=1.5,
        min_distinct_ratio=0.5,
        max_perplexity_ratio=3.0,
        max_fewer_questions=0.125,
    )
    assert rejection_reason(replace(START, **at_limit), start=START, config=config) == ""
    assert rejection_reason(replace(START, **beyond), start=START, config=config) != ""


def test_a_gain_of_exactly_min_gain_is_a_new_best_and_patience_counts_from_it():
    config = StopConfig(min_gain=0.125, patience=2)
    totals = (0.375, 0.26, 0.375)  # 0.5 - 0.125; 0.115 less; 0 less
    rounds = [
        replace(START, round_number=round_number, total_error=total)
        for round_number, total in enumerate(totals, start=1)
    ]
    decisions = [decide([START, *rounds[:round_number]], config) for round_number in (1, 2, 3)]
    assert [(decision.best, decision.stopped) for decision in decisions] == [(1, False), (1, False), (1, True)]
