"""What is done to a caption's text before a trainer reads it: one line, no opening phrase, a trigger word. No torch."""

import re
from dataclasses import dataclass

from avcap.errors import UserError

_THING = r"(?:video\ clip|video|clip|footage|animation|image|picture|film|scene|recording|audio)"
_VERB = r"(?:shows|depicts|features|captures|highlights|introduces|presents|displays|portrays|showcases)"
_OPENING = re.compile(
    rf"""\s*(?:
        (?:this|the)\ (?:short\ )?{_THING}\ {_VERB}(?:\ that)?\b
      | (?:in|throughout)\ (?:this|the)\ (?:short\ )?{_THING}\ ?,(?:\ we\ (?:can\ )?(?:see|hear)(?:\ that)?\b)?
      | (?:(?:video\ )?caption|description)\s*:
      | (?:sure|certainly|of\ course)\s*[,!.]
      | here(?:\ is|'s|’s)\ (?:a|an|the|your)\ [^.:\n]{{0,80}}:
    )\s*""",
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True, kw_only=True)
class Wording:
    """What the options --one-line, --trigger and --strip-openings ask for."""

    one_line: bool = False
    trigger: str | None = None
    """Put in front, once."""
    strip_openings: bool = False

    def __post_init__(self) -> None:
        if self.trigger is not None and (not self.trigger.strip() or "\n" in self.trigger or "\r" in self.trigger):
            raise UserError(f"got --trigger {self.trigger!r}, expected a word or a few, on one line")

    def apply(self, text: str) -> str:
        """A model's text -> what is written. An empty text stays empty."""
        text = text.strip()
        if self.strip_openings:
            text = without_openings(text)
        if self.one_line:
            text = one_line(text)
        return with_trigger(text, self.trigger)


def one_line(text: str) -> str:
    """Text -> the same in one line: a line's end is where some readers begin another caption."""
    return " ".join(text.split())


def without_openings(text: str) -> str:
    """
    >>> without_openings("Caption: In this video, we see the dog. It barks.")
    'The dog. It barks.'
    """
    rest = text.strip()
    while (found := _OPENING.match(rest)) and rest[found.end() :].strip(" .,:;"):
        rest = rest[found.end() :].lstrip(" ,:;")
    return rest[:1].upper() + rest[1:] if len(rest) < len(text.strip()) else rest


def with_trigger(text: str, trigger: str | None) -> str:
    """Text -> the trigger word before it, unless it begins with it already."""
    if trigger is None or not text:
        return text
    trigger = trigger.strip()
    if re.match(rf"{re.escape(trigger)}(?!\w)", text):
        return text
    return f"{trigger} {text}"
