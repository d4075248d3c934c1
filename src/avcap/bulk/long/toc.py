"""A table of contents: Markdown with the times of a video's windows or clips, and how each begins. No torch."""

from collections.abc import Sequence

from avcap.bulk.long.stitch import Stitched, first_sentence
from avcap.bulk.wording import without_openings

HEADLINE = 100
"""Characters."""


def table_of_contents(name: str, parts: Sequence[Stitched]) -> str:
    """A file's name and its parts in order -> Markdown; parts whose text is empty have no line."""
    lines = [f"- {clock(part.start_s)} {headline(part.text)}" for part in parts if part.text.strip()]
    return "\n".join([f"# {_escaped(name)}", "", *lines]) + "\n"


def headline(text: str) -> str:
    """A caption -> its first sentence, cut at a word, without what Markdown would take for marks."""
    sentence = " ".join(first_sentence(without_openings(text)).split())
    if len(sentence) > HEADLINE:
        sentence = sentence[: HEADLINE - 3].rsplit(" ", 1)[0].rstrip(" ,;:") + "..."
    return _escaped(sentence)


def clock(time_s: float) -> str:
    """
    >>> clock(3661.4)
    '01:01:01'
    """
    seconds = int(time_s)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _escaped(text: str) -> str:
    return "".join(f"\\{char}" if char in "\\`*_[]<>#|" else char for char in text)
