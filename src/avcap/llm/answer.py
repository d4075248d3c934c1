"""What a language model says in the end, without what it thinks before. Standard library only.

    answer_of("<think>Maybe A? No.</think>\n\nB")  ->  Answer(text="B", has_thoughts=True)

Models put thoughts into the text in many ways, and servers lose a part of the marks: the opening tag stands in the
prompt and not in the reply (DeepSeek-R1), a limit cuts the thoughts before they end, special tokens are left out.
One table names the marks; a reply that is one JSON object is left as it is, whatever its strings hold.
"""

import json
import re
from dataclasses import dataclass

_TAGS = "think|thinking|thoughts?|reasoning|reflection|analysis|scratchpad|inner_monologue|seed:think|mm:think"
_MARKS = re.compile(
    "|".join(
        (
            rf"(?P<open_tag><(?P<name>{_TAGS})>)|(?P<close_tag></(?:{_TAGS})>)",
            r"(?P<open_mistral>\[THINK\])|(?P<close_mistral>\[/THINK\])",
            r"(?P<open_kimi>◁think▷)|(?P<close_kimi>◁/think▷)",
            r"(?P<open_sky><\|begin_of_thought\|>)|(?P<close_sky><\|end_of_thought\|>)",
            r"(?P<open_cohere><\|START_THINKING\|>)|(?P<close_cohere><\|END_THINKING\|>)",
            r"(?P<open_gemma><\|channel>\s*(?:thought|analysis))|(?P<close_gemma><channel\|>)",
            r"(?P<open_med><unused94>\s*thought)|(?P<close_med><unused95>)",
        )
    ),
    re.IGNORECASE,
)
"""Opening and closing marks of thoughts, by family."""

_CHANNEL = re.compile(
    r"<\|channel\|>\s*(\w+)[^<]*<\|message\|>(.*?)(?=<\|(?:end|return|call|start|channel)\|>|\Z)", re.DOTALL
)
_BARE_CHANNELS = re.compile(r"\A\s*analysis.*?assistant\s*final(?=[^a-z])|\A\s*analysis.*?assistantfinal", re.DOTALL)
_GRANITE = re.compile(r"\A\s*Here is my thought process:.*?Here is my response:\s*", re.DOTALL)
_WRAPPED = re.compile(
    r"<(?P<tag>answer|final_answer)>(.*?)(?:</(?P=tag)>|\Z)"
    r"|<\|begin_of_solution\|>(.*?)(?:<\|end_of_solution\|>|\Z)|<\|START_RESPONSE\|>(.*?)(?:<\|END_RESPONSE\|>|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_ENDS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|end|>",
    "<|return|>",
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<end_of_turn>",
)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`is_cut`: the text ends within thoughts, so what is left may be no answer at all."""

    text: str
    has_thoughts: bool = False
    is_cut: bool = False


def answer_of(text: str) -> Answer:
    """A reply, or a caption that somebody stored with all of it -> the answer in it. Idempotent."""
    if _is_object(text):
        return Answer(text=text)
    spoken = _without_channels(text) or _without_sections(text)
    found = [match.groups()[1:] for match in _WRAPPED.finditer(spoken.text)]
    wrapped = [next(part for part in parts if part is not None) for parts in found]
    answer = _without_ends(wrapped[-1] if wrapped else spoken.text)
    if answer == text:
        return Answer(text=text)
    return Answer(text=answer.strip(), has_thoughts=spoken.has_thoughts, is_cut=spoken.is_cut)


def _without_ends(text: str) -> str:
    """Text -> text without the special tokens that some servers leave behind it."""
    bare = text.rstrip()
    while end := next((token for token in _ENDS if bare.endswith(token)), None):
        text = bare = bare.removesuffix(end).rstrip()
    return text


def _is_object(text: str) -> bool:
    """Whether the whole text is one JSON object."""
    if not text.lstrip().startswith("{"):
        return False
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _without_channels(text: str) -> Answer | None:
    """Text in the channels of gpt-oss, with its special tokens or without -> the final channel; None for other text."""
    channels = _CHANNEL.findall(text)
    if channels:
        said = [content for name, content in channels if name == "final"]
        return Answer(text=said[-1] if said else "", has_thoughts=len(said) < len(channels), is_cut=not said)
    for pattern in (_BARE_CHANNELS, _GRANITE):
        if found := pattern.match(text):
            return Answer(text=text[found.end() :], has_thoughts=True)
    return None


def _without_sections(text: str) -> Answer:
    """Text -> text without its sections of thoughts.

    A section ends at the first closing mark of its family: thoughts may well speak of tags. A closing mark that
    nothing has opened ends thoughts that began before the reply did.
    """
    kept: list[str] = []
    position, inside, found = 0, "", False
    for mark in _MARKS.finditer(text):
        kind, _, family = str(mark.lastgroup if mark.lastgroup != "name" else "open_tag").partition("_")
        if kind == "open" and not inside:
            kept.append(text[position : mark.start()])
            inside = family
        elif kind == "close" and inside in ("", family):
            kept = kept if inside else []
            inside = ""
        else:
            continue
        position, found = mark.end(), True
    if not inside:
        kept.append(text[position:])
    return Answer(text="".join(kept), has_thoughts=found, is_cut=bool(inside))
