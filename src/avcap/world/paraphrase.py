"""The same caption in other words: what it tells, and what is wrong with it, stays exactly the same.

A string search is a perfect judge of the world's own sentences; of these it is none. The oracle judges each of them as
it judges the plain caption (tests/world/test_paraphrase.py). Standard library only.

| style | "At 3s the red circle grows while a bell rings once. At 5s the red circle vanishes." |
|---|---|
| vocabulary | At 3s the red circle becomes larger as a bell rings once. At 5s the red circle disappears. |
| order | A bell rings once while the red circle grows at 3s. The red circle vanishes at 5s. |
| merged | At 3s the red circle grows while a bell rings once, and at 5s the red circle vanishes. |
| split | At 3s the red circle grows. At the same time a bell rings once. At 5s the red circle vanishes. |
| relative | At 3s the red circle grows while a bell rings once. Two seconds later the red circle vanishes. |
| omitted | At 3s the red circle grows while a bell rings once. At 5s it vanishes. |
| mixed | some of all |
"""

import random
import re
from dataclasses import dataclass

from avcap.errors import UserError
from avcap.world import grammar
from avcap.world.grammar import Claim

PLAIN, MIXED = "plain", "mixed"
WAYS = ("vocabulary", "order", "merged", "split", "relative", "omitted")
STYLES = (PLAIN, *WAYS, MIXED)
_SHARE = 0.6
"""Of the sentences that allow a way, those that are told in it, in the style `mixed`."""

_OTHER_WORDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"\bgrows\b", ("becomes larger", "gets bigger", "expands")),
    (r"\bshrinks\b", ("becomes smaller", "gets smaller")),
    (r"\bvanishes\b", ("disappears", "goes away")),
    (r"\bappears\b", ("shows up", "emerges", "pops up")),
    (r"\bmoves\b", ("slides", "glides", "travels")),
    (r"\bturns\b", ("becomes", "changes to", "changes color to")),
    (r"\bsomebody\b", ("someone",)),
    (r"\btelephone\b", ("phone",)),
    (r"\bpeople applaud\b", ("the audience claps", "the crowd applauds")),
    (r"\b(top|bottom)-(left|right)\b", (r"\1 \2",)),
    (r"\btop (left|right)\b", (r"upper \1",)),
    (r"\bbottom (left|right)\b", (r"lower \1",)),
    (r"\bwhile\b", ("as", "whilst")),
    (r"\bthree times\b", ("thrice",)),
)
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True, kw_only=True)
class _Told:
    """A sentence of the plain caption. `second` None: a recap, which is left as it is."""

    second: int | None
    claims: tuple[Claim, ...]
    text: str


def paraphrase(caption: str, *, style: str, rng: random.Random) -> str:
    """A caption of the world's grammar, clean or with planted errors -> the same in a style. UserError for another."""
    if style not in STYLES:
        raise UserError(f"got the style {style}, expected one of {', '.join(STYLES)}")
    if style == PLAIN:
        return caption

    def takes(way: str) -> bool:
        return style == way or (style == MIXED and rng.random() < _SHARE)

    sentences: list[str] = []
    before: int | None = None
    thing: tuple[str | None, str | None] | None = None
    for told in _sentences(caption):
        if told.second is None:
            sentences.append(told.text)
            continue
        seen, thing = _seen(told.claims, thing=thing, omits=takes("omitted"))
        heard = " and ".join(grammar.clause_text(claim) for claim in told.claims if not claim.is_visual)
        is_later = before is not None and 0 < told.second - before < len(_NUMBERS)
        when = f"At {told.second}s"
        if is_later and takes("relative"):
            gap = told.second - (before or 0)
            when = f"{_NUMBERS[gap].capitalize()} second{'s' if gap > 1 else ''} later"
        body = _body(seen, heard, splits=takes("split"), turns=takes("order"))
        ends_with_time = when.startswith("At") and ". " not in body and takes("order")
        sentence = f"{body[0].upper()}{body[1:]} at {told.second}s" if ends_with_time else f"{when} {body}"
        if sentences and before is not None and not ends_with_time and takes("merged") and _can_grow(sentences[-1]):
            sentences[-1] = f"{sentences[-1]}, and {sentence[0].lower()}{sentence[1:]}"
        else:
            sentences.append(sentence)
        before = told.second
    text = " ".join(f"{sentence.rstrip('.')}." for sentence in sentences)
    return _in_other_words(text, rng=rng) if takes("vocabulary") else text


def _sentences(caption: str) -> list[_Told]:
    told = []
    for text in re.findall(r"[^.]+\.", caption):
        reading = grammar.read_caption(text)
        seconds = {statement.claim.second for statement in reading.statements}
        second = next(iter(seconds)) if len(seconds) == 1 and not reading.unread else None
        claims = tuple(statement.claim for statement in reading.statements)
        told.append(_Told(second=second, claims=claims, text=text.strip()))
    return told


def _seen(
    claims: tuple[Claim, ...], *, thing: tuple[str | None, str | None] | None, omits: bool
) -> tuple[str, tuple[str | None, str | None] | None]:
    """The claims of a sentence and what was seen last -> (its visual clauses, what is seen last now)."""
    clauses = []
    for claim in claims:
        if claim.is_visual:
            text = grammar.clause_text(claim)
            if omits and thing == (claim.colour, claim.shape) and claim.kind != "appear":
                text = text.replace(f"the {claim.colour} {claim.shape}", "it", 1)
            clauses.append(text)
            thing = (claim.colour, claim.shape)
    return " and ".join(clauses), thing


def _body(seen: str, heard: str, *, splits: bool, turns: bool) -> str:
    if not seen or not heard:
        return seen or heard
    if splits:
        return f"{seen}. At the same time {heard}"
    return f"{heard} while {seen}" if turns else f"{seen} while {heard}"


def _can_grow(sentence: str) -> bool:
    """One sentence with its time at its beginning, of at most two seconds."""
    return ". " not in sentence and sentence.startswith("At ") and sentence.count(", and at ") < 1


def _in_other_words(text: str, *, rng: random.Random) -> str:
    for pattern, others in _OTHER_WORDS:
        # one at a time, so that a caption does not always say the same
        text = re.sub(pattern, lambda found, others=others: found.expand(rng.choice(others)), text)  # type: ignore[misc]
    return text
