"""The one error that is the user's to mend, printed as one line without a traceback; and text made safe to print."""

import re


class UserError(Exception):
    """What was got, what was wanted, and what to do.

    >>> raise UserError("clip.mp4: 0 frames decoded, need >= 1; check the file with ffprobe")
    """


class MediaError(UserError):
    """A media file that cannot be used, with the reason."""


class RunError(UserError):
    """What every file of a run would meet: it ends the run, and is no row of it."""


class ModelError(RunError):
    """A checkpoint folder that cannot be run: no file that it is asked about would fare better."""


class WriteError(UserError):
    """A file or a folder that cannot be written, with the reason."""


# Controls but for line ends and tabs; marks that turn the direction of text; other ends of lines; halves of characters.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def visible(text: str) -> str:
    """Text from outside (names, captions, messages) -> the same with what would steer a terminal shown as \\x1b.

    >>> visible("a\\x1b]0;b\\a")
    'a\\\\x1b]0;b\\\\x07'
    """
    return _UNSEEN.sub(_escaped, text)


def visible_line(text: str) -> str:
    """The same for a name, which has one line."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
