"""Captions of windows that overlap -> the same without what two of them tell of the overlap. No torch.

    ... A dog runs to the door.          |  The dog runs to a door. It barks twice. ...
                                        ->  ... A dog runs to the door.  |  It barks twice. ...

Only sentences near the border are compared, for what happens twice is told twice: in a window of 60 s with an overlap
of 6 s, those of the last and the first sixth of the text, and one more.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from avcap.records import CaptionWindow

NEAR = 1.5
"""How many times the overlap's share of a window is compared: captions keep no exact pace."""
SAME_SHARE, SAME_OF_ALL = 0.75, 0.5
"""Two sentences tell one event if so much of the shorter one, and of both together, is in both."""
LEAST_SHARED = 3
MUCH_MORE = 1.3
"""A sentence with so many times the words of its double takes its place."""
_END = re.compile(r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<=[.!?])[\"”)]?\s+|\n+")
_WORD = re.compile(r"[^\W_]+(?:[.:']\w+)*")
_NUMBERS = {"two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twice", "once", "thrice"}
_COMMON_WORDS = """
a an the and or but of to in on at by for from with into onto over as is are was were be been being it its this that
these those there here he she they his her their him them then now while again who which one some s video scene
"""
_COMMON = frozenset(_COMMON_WORDS.split())


@dataclass(frozen=True, kw_only=True)
class Stitched:
    """What is left of a window's text."""

    start_s: float
    end_s: float
    text: str
    num_doubled: int = 0
    """Sentences that the window before had told."""


def stitch(windows: Sequence[CaptionWindow]) -> list[Stitched]:
    """Windows in order -> their texts, with each event of an overlap once."""
    texts = [_sentences(window.text) for window in windows]
    doubled = [0] * len(windows)
    for index in range(1, len(windows)):
        before, here = windows[index - 1], windows[index]
        overlap_s = before.end_s - here.start_s
        if overlap_s > 0:
            near_before = _near(texts[index - 1], overlap_s / max(before.end_s - before.start_s, 1e-9))
            near_here = _near(texts[index], overlap_s / max(here.end_s - here.start_s, 1e-9))
            doubled[index] = _drop_doubled(texts[index - 1], texts[index], near_before, near_here)
    return [
        Stitched(start_s=window.start_s, end_s=window.end_s, text=" ".join(text), num_doubled=count)
        for window, text, count in zip(windows, texts, doubled, strict=True)
    ]


def whole_text(parts: Sequence[Stitched]) -> str:
    """Stitched windows -> one text: a paragraph for each that has something left."""
    return "\n\n".join(part.text for part in parts if part.text)


def _sentences(text: str) -> list[str]:
    return [piece.strip() for piece in _END.split(text) if piece and piece.strip()]


def _near(text: Sequence[str], share: float) -> int:
    """How many sentences at one end of a text may tell of the overlap."""
    return min(len(text), math.ceil(NEAR * share * len(text)) + 1)


def _drop_doubled(before: list[str], here: list[str], near_before: int, near_here: int) -> int:
    """Takes what `before` tells at its end out of the beginning of `here`, in place -> how many sentences."""
    first = len(before) - near_before
    taken: set[int] = set()
    for index in range(near_here - 1, -1, -1):
        for place in range(len(before) - 1, first - 1, -1):
            if place not in taken and is_same_event(before[place], here[index]):
                if len(_words(here[index])) > MUCH_MORE * len(_words(before[place])):
                    before[place] = here[index]
                taken.add(place)
                del here[index]
                break
    return len(taken)


def is_same_event(one: str, other: str) -> bool:
    """Whether two sentences tell one event: one says all that the other does, or they differ in words that may vary.

    >>> is_same_event("A dog runs to the door.", "The dog is running to a door, barking.")
    True
    >>> is_same_event("A red circle appears at the left.", "A blue circle appears at the left.")
    False
    """
    ours, theirs = _words(one), _words(other)
    if not ours or not theirs:
        return ours == theirs
    mine, yours = set(ours), set(theirs)
    numbers, others = _numbers(mine), _numbers(yours)
    if numbers and others and numbers != others:
        return False
    both, fewer = mine & yours, min(len(mine), len(yours))
    if len(both) < SAME_OF_ALL * len(mine | yours):
        return False
    if len(both) == fewer:
        return fewer > 1 or mine == yours
    contradicts = any((mine - yours) & kind and (yours - mine) & kind for kind in _KINDS)
    has_one_subject = ours[0] in yours and theirs[0] in mine
    return has_one_subject and not contradicts and len(both) >= max(LEAST_SHARED, SAME_SHARE * fewer)


def _words(sentence: str) -> list[str]:
    """A sentence -> its words but the commonest, each without its ending, in order."""
    return [_stem(word) for word in _WORD.findall(sentence.lower()) if word not in _COMMON]


def _numbers(words: set[str]) -> set[str]:
    return {word for word in words if word[0].isdigit() or word in _NUMBERS}


def _stem(word: str) -> str:
    """ "running", "runs" -> "run", "closes" -> "clos": enough to compare what one model wrote twice."""
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and word not in _NUMBERS:
            word = word[: -len(ending)]
            word = word[:-1] if len(word) > 3 and word[-1] == word[-2] else word
            break
    return word.removesuffix("e") if word not in _NUMBERS else word


def first_sentence(text: str) -> str:
    """A text -> its first sentence; "" of an empty one."""
    return next(iter(_sentences(text)), "")


_KINDS = [
    frozenset(map(_stem, words.split()))
    for words in (
        "red orange yellow green blue cyan purple violet pink brown black white gray grey gold silver",
        "man woman boy girl child person",
        "left right top bottom upper lower center middle front back",
        "small large big little tall short",
        "open close start stop enter leave rise fall grow shrink appear vanish disappear",
    )
]
"""Words of one kind contradict each other: where two sentences differ in them, they tell two events."""
