"""A caption is taken apart into the statements that can be asked about one by one: by rule, without a model. No torch.

    "At 3s the circle grows while a bell rings. Then it stops."
        -> "At 3s the circle grows", "At 3s a bell rings", "Then it stops"

Cut is at ends of sentences, semicolons, "while", and where "and", "then" or a comma with one of them begins a clause of
its own, which is known by its article or pronoun. What a sentence says of the time at its start goes with each part.
"""

import re
from dataclasses import dataclass

_SENTENCE_END = re.compile(r"(?<=[.!?;。！？])\s+|\n+|;\s*")
_CLAUSE_START = r"(?:an?|the|he|she|it|they|we|there|someone|somebody|people|another|one|two|three|his|her|their)\b"
_CUT = re.compile(
    rf"\s*,?\s+(?:while|whilst|meanwhile)\s+|\s*,?\s+(?:and|then|and then|but)\s+(?={_CLAUSE_START})", re.I
)
_TIME = re.compile(
    r"^(?:(?:at|from|between|after|around|by)\s+(?:second\s+)?\d[\d:.]*\s*(?:s|sec|seconds?)?"
    r"(?:\s*(?:to|and|-|–)\s*\d[\d:.]*\s*(?:s|sec|seconds?)?)?|\[?\d+:\d\d(?:\s*[-–]\s*\d+:\d\d)?\]?)\s*[,:]?\s+",
    re.I,
)
_SECONDS = re.compile(r"(?:(\d+):)?(\d+(?:\.\d+)?)")
LONGEST_CLAIM = 600
"""Characters of a sentence without an end that are still one statement; more are cut at a blank."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement of a caption, in the caption's words. `start_s`: when, where it begins with a time."""

    text: str
    start_s: float | None = None


def split_claims(text: str) -> tuple[Claim, ...]:
    """A caption -> its statements in order; those that are said twice in the same words only once."""
    claims: dict[str, Claim] = {}
    for sentence in _SENTENCE_END.split(text):
        time = _TIME.match(sentence.strip())
        opening, rest = (time[0], sentence.strip()[time.end() :]) if time else ("", sentence.strip())
        for part in _CUT.split(rest):
            for piece in _pieces(part.strip(" ,.!?;。！？")):
                claim = Claim(text=f"{opening}{piece}", start_s=_seconds(opening))
                claims.setdefault(claim.text.casefold(), claim)
    return tuple(claims.values())


def _pieces(part: str) -> list[str]:
    """A part of a sentence -> itself, in pieces if it is very long; nothing if it says nothing."""
    if not any(char.isalnum() for char in part):
        return []
    pieces = [""]
    for word in part.split():
        if len(pieces[-1]) + len(word) > LONGEST_CLAIM and pieces[-1]:
            pieces.append("")
        pieces[-1] = f"{pieces[-1]} {word}".strip()
    return pieces


def _seconds(opening: str) -> float | None:
    found = _SECONDS.search(opening)
    return None if found is None else 60.0 * int(found[1] or 0) + float(found[2])
