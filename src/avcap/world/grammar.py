"""The one place that knows how this world is put into words: a Claim becomes a clause, clauses become a caption.

A caption has one sentence for each second in which something happens, in time order:
`At 3s the red circle grows while a voice says "lemon tiger".` What is seen comes first; "while" joins it to what is
heard; "and" joins two sounds. Writing is exact. Reading, `read_caption`, is lenient: it takes paraphrases, other
orders of words and clauses without a time, and says which words it could not read. Standard library only.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from avcap.world.scene import (
    COLOURS,
    COUNTED_SOUNDS,
    MAX_SECONDS,
    PLACES,
    PLAIN_SOUNDS,
    SHAPES,
    WORDS,
    SoundAtom,
    VisualAtom,
)

VISUAL_KINDS = ("appear", "move", "recolour", "grow", "shrink", "vanish")
SOUND_KINDS = ("plain", "counted", "say")
VERBS = {
    "appear": "appears",
    "move": "moves",
    "recolour": "turns",
    "grow": "grows",
    "shrink": "shrinks",
    "vanish": "vanishes",
}
PLAIN_CLAUSES = {
    "flute": "a flute plays",
    "trumpet": "a trumpet plays",
    "piano": "a piano plays",
    "violin": "a violin plays",
    "guitar": "a guitar plays",
    "bird": "a bird sings",
    "telephone": "a telephone rings",
    "rain": "rain falls",
    "waves": "waves break",
    "helicopter": "a helicopter flies by",
    "applause": "people applaud",
    "cymbal": "a cymbal crashes",
}
COUNTED_CLAUSES = {"bell": "a bell rings", "drum": "a drum beats", "knock": "somebody knocks"}
COUNT_WORDS = ("once", "twice", "three times", "four times")
NOTHING = "Nothing happens."
RECAP = "Overall,"

_TOKEN = re.compile(r"[A-Za-z0-9-]+|[^\w\s]")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What one clause says, no more: "the red circle grows" has no place. None: not said.

    `count` and `name` are the sound's; `words` what the voice says. A caption's claims and a clip's true claims are
    the same type, so that "right" is `==`.
    """

    second: int | None
    kind: str
    colour: str | None = None
    shape: str | None = None
    place: str | None = None
    new_place: str | None = None
    new_colour: str | None = None
    name: str | None = None
    count: int | None = None
    words: tuple[str, ...] | None = None

    @property
    def is_visual(self) -> bool:
        return self.kind in VISUAL_KINDS

    @cached_property
    def content(self) -> "Claim":
        """The claim without its time."""
        return replace(self, second=None)


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """The claims that a caption tells in one sentence, all of one second: at most one visual, then the sounds."""

    second: int
    claims: tuple[Claim, ...]


def claim_of(atom: VisualAtom | SoundAtom) -> Claim:
    """An atom of a scene -> the claim that tells it fully."""
    if isinstance(atom, SoundAtom):
        return Claim(second=atom.second, kind=atom.kind, name=atom.name, count=atom.count, words=atom.words)
    return Claim(
        second=atom.second,
        kind=atom.kind,
        colour=atom.colour,
        shape=atom.shape,
        # Only where an object comes from or goes to is worth saying; the scene knows the place of every change.
        place=atom.place if atom.kind in ("appear", "move") else None,
        new_place=atom.new_place,
        new_colour=atom.new_colour,
    )


def clause_text(claim: Claim) -> str:
    """A full claim -> its clause, without time and full stop: "the red circle turns blue"."""
    if claim.kind == "say":
        assert claim.words, claim
        return f'a voice says "{" ".join(claim.words)}"'
    if claim.kind == "counted":
        assert claim.name and claim.count, claim
        return f"{COUNTED_CLAUSES[claim.name]} {COUNT_WORDS[claim.count - 1]}"
    if claim.kind == "plain":
        assert claim.name, claim
        return PLAIN_CLAUSES[claim.name]
    thing = f"{claim.colour} {claim.shape}"
    if claim.kind == "appear":
        return f"{with_article(thing)} appears in the {claim.place} corner"
    text = f"the {thing} {VERBS[claim.kind]}"
    if claim.kind == "move":
        return f"{text} from the {claim.place} corner to the {claim.new_place} corner"
    return f"{text} {claim.new_colour}" if claim.kind == "recolour" else text


def short_text(claim: Claim) -> str:
    """A claim in as few words as name it: the places of an object are left out."""
    if claim.kind == "appear":
        return f"{with_article(f'{claim.colour} {claim.shape}')} appears"
    if claim.kind == "move":
        return f"the {claim.colour} {claim.shape} moves"
    return clause_text(claim)


def with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def join_clauses(claims: Iterable[Claim]) -> str:
    """Claims of one second -> one clause: "V while S and S"; without time and full stop."""
    claims = tuple(claims)
    seen = " and ".join(clause_text(claim) for claim in claims if claim.is_visual)
    heard = " and ".join(clause_text(claim) for claim in claims if not claim.is_visual)
    return " while ".join(part for part in (seen, heard) if part)


def caption_text(sentences: Iterable[Sentence], *, recap: tuple[Claim, ...] = ()) -> str:
    """Sentences -> a caption. `recap`: claims that a last sentence, "Overall, ...", says again."""
    lines = [f"At {sentence.second}s {join_clauses(sentence.claims)}." for sentence in sentences]
    if recap:
        lines.append(f"{RECAP} {' and '.join(clause_text(claim) for claim in recap)}.")
    return " ".join(lines) or NOTHING


def tokens(text: str) -> list[str]:
    """Text -> words and punctuation marks; "top-left" and "3s" are one word each."""
    return _TOKEN.findall(text)


def all_tokens() -> set[str]:
    """Every word and mark that a caption of this world can contain; from the grammar, not by sampling."""
    texts = [f"{RECAP} {NOTHING} while and At {clause_text(claim)}." for claim in _claims_with_every_value()]
    texts += [f"{second}s" for second in range(MAX_SECONDS + 1)]
    return {token for text in texts for token in tokens(text)}


def _claims_with_every_value() -> Iterator[Claim]:
    """Claims that together show every kind and every value of every attribute, though not every combination."""
    for kind in VISUAL_KINDS:
        for colour in COLOURS:
            for shape in SHAPES:
                for place in PLACES:
                    yield Claim(
                        second=0, kind=kind, colour=colour, shape=shape, place=place, new_place=place, new_colour=colour
                    )
    for name in PLAIN_SOUNDS:
        yield Claim(second=0, kind="plain", name=name)
    for name in COUNTED_SOUNDS:
        for count in range(1, len(COUNT_WORDS) + 1):
            yield Claim(second=0, kind="counted", name=name, count=count)
    for word in WORDS:
        yield Claim(second=0, kind="say", words=(word, word))


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A claim as a caption makes it. `timed`: its sentence says when; else it has the time that was said last."""

    claim: Claim
    timed: bool
    text: str


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a text says: its claims in order, the (sight, sound) pairs that "while" joins, and what makes no sense."""

    statements: tuple[Statement, ...]
    pairs: frozenset[tuple[Claim, Claim]]
    unread: tuple[str, ...]


# Applied in this order, to lower-case text: "becomes bigger" has to be seen before "becomes".
_SYNONYMS = tuple(
    (re.compile(rf"\b(?:{pattern})\b", re.ASCII), word)
    for pattern, word in (
        (r"(?:gets|becomes) (?:bigger|larger)|expands", "grows"),
        (r"(?:gets|becomes) smaller", "shrinks"),
        (r"disappears|goes away", "vanishes"),
        (r"(?:shows|comes|pops) up|emerges", "appears"),
        (r"slides|glides|travels|goes", "moves"),
        (r"becomes|changes (?:colou?r )?(?:in)?to|turns (?:in)?to", "turns"),
        (r"someone", "somebody"),
        (r"phone", "telephone"),
        (r"(?:people|audience|crowd) (?:claps?|applauds?)|applause", "people applaud"),
        (r"(top|upper)[ -]left", "top-left"),
        (r"(top|upper)[ -]right", "top-right"),
        (r"(bottom|lower)[ -]left", "bottom-left"),
        (r"(bottom|lower)[ -]right", "bottom-right"),
        (r"whilst|as(?! well)", "while"),
        (r"thrice", "three times"),
    )
)
# Joined before sentences are split: "A. At the same time B" is "A while B".
_SAME_TIME = re.compile(r"[.;!?]+\s*(?:at the same time|simultaneously)\b,?")
_COUNTED = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_LATER = re.compile(rf"\b({'|'.join(_COUNTED)}|\d{{1,4}}) seconds? later\b,?")
_SAID_TIME = re.compile(r"@(\+?)(\d+)")
_PRONOUN = re.compile(r"it (?=\w)")
_QUOTED = re.compile(r'"([^".;!?\n]*)([.;!?,]?)"')
# "at 3s", "at second 3", "at 3 seconds", "3.0 s", "at 3", but not "3 times".
_TIME = re.compile(
    r"(?:\bat\s+|\bin\s+)?(?:\bsecond\s+(\d{1,4})\b|\b(\d{1,4})(?:\.\d+)?\s*(?:s|sec|seconds?)\b)"
    r"|\bat\s+(\d{1,4})(?:\.\d+)?\b(?!\s*times?)",
    re.ASCII,
)
_RECAP_OPENING = re.compile(r"^\s*(?:overall|in summary|in short|to sum up)\b")
_SILENT = re.compile(
    r"\b(?:an?|the|corner|of|screen|frame|picture|image|small|medium|large|also|next|finally|meanwhile|suddenly"
    r"|as well|again|overall)\b"
)
_NOTHING = re.compile(r"nothing(?: \w+){0,3}")

_W = "[a-z0-9-]+"
_THING = rf"(?:(?P<colour>{_W}) )?(?P<shape>{_W})"
_CLAIM_PATTERNS = {
    kind: re.compile(pattern)
    for kind, pattern in {
        "appear": rf"{_THING} appears(?: (?:(?:in|at|on|near) )?(?P<place>{_W}))?",
        "move": rf"{_THING} moves(?: from (?P<place>{_W}))?(?: (?:in)?to (?P<new_place>{_W}))?",
        "recolour": rf"{_THING} turns(?: from {_W})?(?: (?:to )?(?P<new_colour>{_W}))?",
        "grow": rf"{_THING} grows",
        "shrink": rf"{_THING} shrinks",
        "vanish": rf"{_THING} vanishes",
        "say": r"(?:voice|somebody|person|man|woman) (?:says|speaks)(?: (?P<words>.+))?",
        "counted": r"(?P<name>bell|drum|somebody|knock)(?: [a-z]+){1,3}?(?: (?P<count>once|twice|\w+ times?))?",
        "plain": r"(?P<name>[a-z]+) (?:plays|sings|rings|falls|breaks?|flies by|applaud|crashes|is heard|can be heard)",
    }.items()
}
_NUMBERS = {"once": 1, "twice": 2, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
_NAMES = {"people": "applause", "somebody": "knock"}


def read_caption(text: str) -> Reading:
    """Any text -> the claims that can be read from it. Never raises; a clause without a time has the last one said."""
    statements: list[Statement] = []
    pairs: set[tuple[Claim, Claim]] = set()
    unread: list[str] = []
    last_second: int | None = None
    last_thing = ""
    for sentence in re.split(r"[.;!?\n]+", _normalised(text)):
        # A recap speaks of the whole clip, not of the last second.
        inherited = None if _RECAP_OPENING.match(sentence) else last_second
        sides: list[list[Claim]] = [[]]
        for second, timed, part in _timed_parts(sentence, inherited):
            last_second = second if timed else last_second
            for i, side in enumerate(re.split(r"\bwhile\b", part)):
                sides += [[]] if i else []
                for said in _phrases(side):
                    phrase = _PRONOUN.sub(f"the {last_thing} ", said, count=1) if last_thing else said
                    claim = _read_claim(phrase, second)
                    if claim is None:
                        unread.append(phrase)
                        continue
                    last_thing = f"{claim.colour} {claim.shape}" if claim.colour and claim.shape else last_thing
                    statements.append(Statement(claim=claim, timed=timed, text=phrase))
                    sides[-1].append(claim)
        pairs |= set(_joined_pairs(sides))
    return Reading(statements=tuple(statements), pairs=frozenset(pairs), unread=tuple(unread))


def _normalised(text: str) -> str:
    """Text -> lower case, synonyms replaced, "@3" for every time, and each quotation as one word: _lemon_tiger."""
    text = re.sub("[“”„«»]", '"', text.lower()).replace("@", " ").replace("_", " ")
    text = _SAME_TIME.sub(" while", text)
    text = _QUOTED.sub(lambda match: f"_{'_'.join(re.findall(_W, match[1]))}{match[2]}", text)
    for pattern, word in _SYNONYMS:
        text = pattern.sub(word, text)
    text = _LATER.sub(lambda match: f" @+{_number_of(match[1])} ", text)
    text = _absolute(_TIME.sub(lambda match: f" @{int(match[1] or match[2] or match[3])} ", text))
    return re.sub(r"[\"':()*]", " ", text)


def _number_of(word: str) -> int:
    return int(word) if word.isdigit() else _COUNTED.index(word)


def _absolute(text: str) -> str:
    """ "@3 ... @+2" -> "@3 ... @5"; a time that follows none is left out."""
    last: int | None = None

    def second(match: re.Match[str]) -> str:
        nonlocal last
        if match[1] and last is None:
            return " "
        last = int(match[2]) + (last or 0 if match[1] else 0)
        return f"@{last}"

    return _SAID_TIME.sub(second, text)


def _timed_parts(sentence: str, inherited: int | None) -> Iterator[tuple[int | None, bool, str]]:
    """A sentence -> its parts, each with its second and whether the sentence itself says it.

    In "at 3s A, at 4s B" a time goes before what happens; in "A at 3s while B at 4s" it comes after.
    """
    first, *rest = re.split(r"@(\d+)", sentence)
    seconds, texts = [int(second) for second in rest[::2]], rest[1::2]
    time_comes_first = not seconds or not first.strip(" ,") or bool(re.search(r"(?:,|\b(?:and|then|while))\s*$", first))
    if time_comes_first:
        yield inherited, False, first
        yield from ((second, True, part) for second, part in zip(seconds, texts, strict=True))
    else:
        seconds.append(seconds[-1])
        yield from ((second, True, part) for second, part in zip(seconds, [first, *texts], strict=True))


def _phrases(text: str) -> Iterator[str]:
    """A part of a sentence -> the phrases in it that should each be a clause."""
    for phrase in re.split(r",|\band\b|\bthen\b", text):
        phrase = " ".join(phrase.split())
        core = " ".join(_SILENT.sub(" ", phrase).split())
        if re.search(r"\w", core) and not _NOTHING.fullmatch(core):
            yield phrase


def _read_claim(phrase: str, second: int | None) -> Claim | None:
    """A phrase -> its claim, with None for what it leaves out; None if it is no clause of this world."""
    core = " ".join(_SILENT.sub(" ", phrase).split())
    for kind, pattern in _CLAIM_PATTERNS.items():
        if match := pattern.fullmatch(core):
            said: dict[str, str | None] = match.groupdict()
            name = said.get("name")
            return Claim(
                second=second,
                kind=kind,
                colour=said.get("colour"),
                shape=said.get("shape"),
                place=said.get("place"),
                new_place=said.get("new_place"),
                new_colour=said.get("new_colour"),
                name=_NAMES.get(name, name) if name else None,
                count=_read_count(said.get("count")),
                words=tuple(re.findall(_W, said.get("words") or "")) or None,
            )
    return None


def _read_count(text: str | None) -> int | None:
    word = (text or "").split(" ")[0]
    return int(word) if re.fullmatch("[0-9]{1,4}", word) else _NUMBERS.get(word)


def _joined_pairs(sides: list[list[Claim]]) -> Iterator[tuple[Claim, Claim]]:
    """The claims between the "while"s of a sentence -> (sight, sound) of one second on different sides of a "while"."""
    for i, side in enumerate(sides):
        for other in sides[:i] + sides[i + 1 :]:
            for sight in side:
                for sound in other:
                    if sight.is_visual and not sound.is_visual and sight.second == sound.second:
                        yield sight, sound
