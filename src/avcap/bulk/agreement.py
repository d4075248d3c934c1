"""How far several captions of one clip say the same: what is told once in eight is less often true. No torch.

How well it ranks captions was measured on the synthetic world: docs/formats.md.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable

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


def agreement_with(samples: Iterable[Caption]) -> Callable[[Caption], float | None]:
    """Captions of some clips, several of each -> how far any other caption agrees with those of its clip.

    Args:
        samples: As `avcap sample` writes them; their runs of words are held in memory.

    Returns:
        A caption -> the mean share of runs that it has in common with each of them, 0 (nothing) to 1 (the same words);
        None where there is none. It is not compared with itself.
    """
    others: dict[str, dict[str, Runs]] = {}
    for sample in samples:
        others.setdefault(sample.sample_id, {})[sample.caption_id] = runs_of(sample.text)

    def agreement(caption: Caption) -> float | None:
        own = runs_of(caption.text)
        some = others.get(caption.sample_id, {}).items()
        values = [shared(own, runs) for caption_id, runs in some if caption_id != caption.caption_id]
        return round(sum(values) / len(values), 4) if values else None

    return agreement
