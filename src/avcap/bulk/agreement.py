"""How far several captions of one clip say the same: what is told once in eight is less often true. No torch.

Measured on the synthetic world (docs/formats.md): of all columns without ground truth it ranks captions best.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from avcap.records import Caption

RUN = 3
"""Words of a run that two captions may share."""
_WORD = re.compile(r"\w+(?:[-'’]\w+)*")

Runs = Counter[tuple[str, ...]]


def runs_of(text: str, *, length: int = RUN) -> Runs:
    """Text -> its runs of so many words, and how often each stands in it; of a shorter text, all of it."""
    words = tuple(_WORD.findall(text.casefold()))
    length = min(length, len(words))
    return Counter(words[start : start + length] for start in range(len(words) - length + 1) if words)


def shared(first: Runs, second: Runs) -> float:
    """Runs of two texts -> the share that both have, 0 to 1: twice what they share over what they have.

    >>> shared(runs_of("a red square grows"), runs_of("a red square shrinks"))
    0.5
    """
    num = first.total() + second.total()
    return 2 * (first & second).total() / num if num else 1.0


def agreements(captions: Sequence[Caption], samples: Iterable[Caption]) -> list[float | None]:
    """Captions and others of the same samples -> for each the mean share of runs with the others; None without any.

    Args:
        captions: N captions.
        samples: Captions to compare them with; a caption is not compared with itself.

    Returns:
        N values from 0 (nothing in common) to 1 (the same words).
    """
    others: dict[str, dict[str, Runs]] = {}
    for sample in samples:
        others.setdefault(sample.sample_id, {})[sample.caption_id] = runs_of(sample.text)
    return [_agreement(caption, others.get(caption.sample_id, {})) for caption in captions]


def _agreement(caption: Caption, others: Mapping[str, Runs]) -> float | None:
    own = runs_of(caption.text)
    values = [shared(own, runs) for caption_id, runs in others.items() if caption_id != caption.caption_id]
    return round(sum(values) / len(values), 4) if values else None
