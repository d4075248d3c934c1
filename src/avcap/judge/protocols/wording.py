"""A prompt out of a file in the place of ours: for those who have the published one.

rules, for the system's turn             {caption}, {events}, ... stand for what is judged; what the file does not
---                                      name is put behind it. A file without a line of three dashes is the rules
the question, for the user's turn        alone, or with a place in it the question alone.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avcap.errors import UserError
from avcap.judge.protocols import prompts
from avcap.llm.types import ChatRequest, Message
from avcap.texts.read import read_text

PLACES = ("about", "answer", "caption", "cloze", "events", "number", "options", "question", "reference_caption")
_PLACE = re.compile(r"\{(" + "|".join(PLACES) + r")\}")
_LINE = re.compile(r"^---\s*$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Wording:
    """A prompt: rules, and a question with places. `question` None: ours."""

    rules: str
    question: str | None = None


Wordings = Mapping[str, Wording]
"""What a request is for ("scores", "answer") -> its prompt, where it is not ours."""


def read_wording(path: Path) -> Wording:
    """A prompt file -> the prompt. UserError if there is nothing in it."""
    text = read_text(path, expected="a prompt as text")
    if not text.strip():
        raise UserError(f"{path}: got an empty file, expected a prompt")
    rules, *rest = _LINE.split(text, maxsplit=1)
    if rest:
        return Wording(rules=rules.strip(), question=rest[0].strip())
    return Wording(rules="", question=text.strip()) if _PLACE.search(text) else Wording(rules=text.strip())


def worded(
    ours: str, parts: Mapping[str, str], *, wording: Wording | None, max_tokens: int, **fields: Any
) -> ChatRequest:
    """Our rules, the named parts of a question, and another's prompt if there is one -> the request."""
    if wording is None:
        return prompts.request(ours, *(text for text in parts.values() if text), max_tokens=max_tokens, **fields)
    shown = wording.question or ""
    told = set(_PLACE.findall(shown))
    question = _PLACE.sub(lambda found: parts.get(found[1], found[0]), shown)
    rest = [text for name, text in parts.items() if name not in told and name != "number" and text]
    user = Message(role="user", content="\n\n".join(filter(None, [question, *rest])))
    messages = (Message(role="system", content=wording.rules), user) if wording.rules else (user,)
    request = prompts.request("", max_tokens=max_tokens, **fields)
    return ChatRequest(**{**vars(request), "messages": messages})
