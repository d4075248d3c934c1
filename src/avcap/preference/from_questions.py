"""Questions that a model answers wrong now and then become preference pairs. No torch."""

from collections import Counter
from collections.abc import Sequence

from avcap.judge.metrics.answers import GradedReply
from avcap.records import PreferencePair, Sample


def pair_from_replies(
    question: Sample, *, answer: str, replies: Sequence[GradedReply], checkpoint: str
) -> PreferencePair | None:
    """A question (its prompt) and a model's replies -> a right one against its most frequent wrong one.

    Args:
        question: Its video, interval and prompt.
        answer: The right answer, which is chosen where no reply is right.
        replies: Several replies of the model to it; silence counts as none.
        checkpoint: The model.

    Returns:
        The pair, or None where no reply is wrong.
    """
    wrong = Counter(reply.text for reply in replies if not reply.is_right and reply.text)
    if not wrong:
        return None
    return PreferencePair(
        sample_id=question.sample_id,
        video=question.video,
        prompt=question.prompt,
        chosen=next((reply.text for reply in replies if reply.is_right), answer),
        rejected=wrong.most_common(1)[0][0],
        interval_s=question.interval_s,
        checkpoint=checkpoint,
    )
