"""What is counted in verdicts, whoever wrote the captions and whoever judged them. Standard library only."""

from collections.abc import Iterable

from avcap.records import ErrorCounts, Verdict


def count_errors(verdict: Verdict) -> ErrorCounts:
    """A Verdict -> how many of each kind."""
    labels = [event.label for event in verdict.events]
    return ErrorCounts(
        num_events=len(labels),
        missing=labels.count("missing"),
        incorrect=labels.count("incorrect"),
        invented=len(verdict.invented),
        repeated=len(verdict.repeated),
    )


def total_error(verdicts: Iterable[Verdict]) -> float:
    """Verdicts -> (missing + incorrect + invented) / events, summed over all before dividing; nan without events."""
    counts = [count_errors(verdict) for verdict in verdicts]
    num_events = sum(count.num_events for count in counts)
    num_errors = sum(count.missing + count.incorrect + count.invented for count in counts)
    return num_errors / num_events if num_events else float("nan")
