"""What the answers of an OpenAI-compatible chat server mean; dialect.py says what is sent. No network here.

Everything that comes back is untrusted: each field is looked at before it is used.
"""

import email.utils
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from avcap.errors import visible
from avcap.llm.stream import is_stream, joined_stream
from avcap.llm.types import ChatRequest, Choice, Reply, TokenLogprobs

MOST_TOKENS = 10_000_000
"""No server counts more tokens than this for one call; larger counts are taken for nonsense."""
SHOWN_CHARACTERS = 200


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A call without a usable reply."""

    reason: str
    again: bool
    """Worth another try?"""
    billed: bool
    """May the server have charged for it?"""
    wait_s: float | None = None
    """How long the server wants to be left alone."""
    reached: bool = True
    """Was anybody there?"""
    is_reply: bool = False
    """Did it come as a whole reply, which the same request may well get again?"""


def read_completion(raw: bytes, *, sent_tokens: int = 0) -> Reply | Failure:
    """Body of a 200 response -> the reply in it, or what is wrong with it.

    `sent_tokens`: the fewest that the prompt can have, where that is to be checked (`fewest_tokens`).
    """
    if is_stream(raw):
        whole = joined_stream(raw)
        if whole is None:
            return Failure(reason="the stream broke off before its end", again=True, billed=True)
        raw = whole
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        return _unusable(f"a reply that is not JSON: {raw[:60]!r}")
    if isinstance(data, dict) and data.get("error"):
        return _unusable(f"an error with status 200: {error_message(raw)}")
    choices = data.get("choices") if isinstance(data, dict) else None
    if choices == []:
        return _unusable("a reply without choices")
    choice = choices[0] if isinstance(choices, list) else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return _unusable("JSON that is not a chat completion")
    finish, refusal = choice.get("finish_reason"), _refusal(message)
    if refusal or finish == "content_filter":
        # An answer, paid for: asking again would buy the same one.
        return Failure(reason=f"refused: {refusal or finish}", again=False, billed=True)
    text = _text_of(message, is_whole=finish != "length")
    if text is None and finish == "length":
        text = ""  # all of max_tokens went into reasoning
    if text is None:
        return _unusable(f"a message whose content is {type(message.get('content')).__name__}, not text")
    usage = data.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    if (counted := _counted_tokens(data, usage)) and counted < FAR_BELOW * sent_tokens:
        return Failure(
            reason=f"the server counted {counted:,} tokens of a prompt of about {sent_tokens:,}: it has cut it; "
            f"raise the server's context (num_ctx, --ctx-size, --max-model-len)",
            again=False,
            billed=True,
        )
    return Reply(
        text=_without_lone_surrogates(text),
        finished=finish != "length",
        input_tokens=_count(usage.get("prompt_tokens")),
        output_tokens=_count(usage.get("completion_tokens")),
        others=_others(choices or []),
        logprobs=_logprobs(choice),
        audio_tokens=_detail(usage, "audio_tokens"),
        visual_tokens=_detail(usage, "video_tokens", "image_tokens"),
    )


def _others(choices: list[Any]) -> tuple[Choice, ...]:
    """Choices -> the answers after the first; those that are none are left out, so the caller sees that they lack."""
    found = []
    for choice in choices[1:]:
        message = choice.get("message") if isinstance(choice, dict) else None
        finish = choice.get("finish_reason") if isinstance(choice, dict) else None
        if not isinstance(message, dict) or _refusal(message) or finish == "content_filter":
            continue
        text = _text_of(message, is_whole=finish != "length")
        if text is not None:
            found.append(Choice(text=_without_lone_surrogates(text), finished=finish != "length"))
    return tuple(found)


def _logprobs(choice: dict[str, Any]) -> tuple[TokenLogprobs, ...]:
    """A choice -> its tokens with their log-probabilities; empty where there are none, or they are not whole."""
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    try:
        return tuple(
            TokenLogprobs(
                token=str(one["token"]),
                logprob=float(one["logprob"]),
                top=tuple((str(each["token"]), float(each["logprob"])) for each in one.get("top_logprobs") or ()),
            )
            for one in content or ()
        )
    except (TypeError, KeyError, ValueError, AttributeError):
        return ()


def _detail(usage: dict[str, Any], *names: str) -> int | None:
    """Usage -> the sum of these counts of its prompt's details; None where it has none of them."""
    details = usage.get("prompt_tokens_details")
    told = [details[name] for name in names if details.get(name) is not None] if isinstance(details, dict) else []
    return sum(map(_count, told)) if told else None


def _text_of(message: dict[str, Any], *, is_whole: bool) -> str | None:
    """A message -> the text of its answer, wherever the server put it; None if there is none.

    Content, as text or in parts; else the arguments of tool calls; else, of a reply that ended by itself, what was
    taken for reasoning: servers that look for thoughts and find no end of them put the whole reply there.
    """
    content = _joined_parts(message.get("content"))
    if content is not None and content.strip():
        return content
    calls = message.get("tool_calls")
    calls = [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    arguments = [call.get("arguments") for call in (*calls, message.get("function_call")) if isinstance(call, dict)]
    told = [one if isinstance(one, str) else json.dumps(one) for one in arguments if isinstance(one, str | dict)]
    if told:
        return "\n".join(told)
    for name in ("reasoning_content", "reasoning"):
        if is_whole and (reasoning := _joined_parts(message.get(name))):
            return reasoning
    return content


def _joined_parts(content: object) -> str | None:
    """Content as text, or as a list of parts of which those of thoughts are left out -> text; None for all else."""
    if isinstance(content, str) or content is None:
        return content
    if not isinstance(content, list):
        return None
    texts = [part if isinstance(part, str) else part.get("text") for part in content if isinstance(part, str | dict)]
    return "".join(text for text in texts if isinstance(text, str)) if content else None


def _refusal(message: dict[str, Any]) -> str:
    """A message -> why the model does not answer, or ""."""
    content = message.get("content")
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    told = [message.get("refusal"), *(part.get("refusal") for part in parts)]
    return next((str(one) for one in told if one), "")


# --- was the prompt cut? ----------------------------------------------------------------------------------------------

FAR_BELOW = 0.6
"""No tokenizer in use makes fewer tokens of a text than this share of a quarter of its characters."""
LEAST_CHECKED_TOKENS = 1500
"""Shorter prompts are not checked: every server takes them, and what a template adds or a cache saves would count."""


def fewest_tokens(request: ChatRequest) -> int:
    """Request -> a quarter of its characters, runs of blanks and of one character shortened; 0 for a short prompt."""
    text = "\n".join(message.content for message in request.messages)
    tokens = len(_RUNS.sub(r"\1\1", text)) // 4
    return tokens if tokens >= LEAST_CHECKED_TOKENS else 0


_RUNS = re.compile(r"(\s|\W|.)\1{2,}", re.DOTALL)


def _counted_tokens(data: dict[str, Any], usage: dict[str, Any]) -> int:
    """What the server says it read, with all that it may have taken from a cache; 0 if it does not say."""
    total = _count(usage.get("total_tokens")) - _count(usage.get("completion_tokens"))
    counted = max(_count(usage.get("prompt_tokens")), total)
    details, timings = usage.get("prompt_tokens_details"), data.get("timings")
    kept = [
        details.get("cached_tokens") if isinstance(details, dict) else 0,
        timings.get("cache_n") if isinstance(timings, dict) else 0,
        *(usage.get(name) for name in ("prompt_cache_hit_tokens", "cache_read_input_tokens", "cached_tokens")),
        usage.get("cache_creation_input_tokens"),
    ]
    return counted + sum(map(_count, kept)) if counted else 0


# --- errors -----------------------------------------------------------------------------------------------------------


def error_message(raw: bytes) -> str:
    """Body of an error response -> what it says, uncut; whatever the body is. "" where it says nothing.

    {"error": {"message": ...}} (OpenAI, vLLM, llama.cpp), {"error": "..."} (Ollama, TGI), {"message": ...} (older vLLM
    and SGLang), {"detail": "..." or [{"loc": [...], "msg": ...}]} (FastAPI).
    """
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        return raw.decode("utf-8", "replace")
    found = data.get("error", data.get("detail", data.get("message"))) if isinstance(data, dict) else data
    if isinstance(found, dict):
        found = found.get("message", found)
    if isinstance(found, list):
        items = [item for item in found if isinstance(item, dict)]
        found = "; ".join(f"{_dotted(item.get('loc'))}: {item.get('msg')}" for item in items) or found
    return found if isinstance(found, str) else json.dumps(data if found is None else found)


def _dotted(place: object) -> str:
    return ".".join(map(str, place)) if isinstance(place, list) else str(place)


def named_fields(raw: bytes) -> tuple[str, ...]:
    """Body of an error response -> the fields that it names apart from its sentence ("param", "loc")."""
    try:
        data = json.loads(raw)
        error = data.get("error")
        detail = data.get("detail")
    except (ValueError, AttributeError, RecursionError):
        return ()
    told = [error.get("param")] if isinstance(error, dict) else [data.get("param")]
    for item in detail if isinstance(detail, list) else ():
        told += item["loc"] if isinstance(item, dict) and isinstance(item.get("loc"), list) else []
    return tuple(part for one in told if isinstance(one, str) for part in re.split(r"[.\[\]]", one) if part)


_ALWAYS_SO = re.compile(
    r"validation error|input should be|not supported|unsupported|does not support|unexpected keyword|extra inputs|"
    r"unrecogni[sz]ed|unknown (?:field|parameter|argument)|invalid (?:value|argument|parameter|request)|templateerror|"
    r"jinja|typeerror|valueerror|keyerror|attributeerror|must be (?:a|an|one of|strictly|positive|in|between)\b",
    re.IGNORECASE,
)


def is_always_so(message: str) -> bool:
    """Whether an error of the server itself (500) is about the request, so that the same request meets it each time."""
    return bool(_ALWAYS_SO.search(message))


def error_code(raw: bytes) -> str:
    """Body of an error response -> the code in it ("insufficient_quota"), or ""."""
    try:
        return str(json.loads(raw)["error"]["code"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def retry_after_s(value: str | None, *, now: datetime | None = None) -> float | None:
    """Retry-After header, in seconds or as a date -> seconds from now, 0 or more; None where it says nothing."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = email.utils.parsedate_to_datetime(value)
        except ValueError:
            return None
        if moment.tzinfo is None:  # "-0000": a moment in UTC
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - (now or datetime.now(UTC))).total_seconds()
    # `not (x >= 0)` would let "nan" and "inf" through.
    return max(0.0, seconds) if abs(seconds) < 1e9 else None


def shown(text: object) -> str:
    """Anything a server said -> one short line without control characters."""
    line = visible(" ".join(str(text)[: 4 * SHOWN_CHARACTERS].split()))
    return line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 3] + "..."


SHORTEST_SECRET = 8


def without_secret(text: str, *, secret: str | None) -> str:
    """Text -> text in which the secret, and every beginning of it of 8 characters or more, is "[key]"."""
    if not secret:
        return text
    head = secret[:SHORTEST_SECRET]
    parts = text.split(head)
    rest = secret[len(head) :]
    return "[key]".join([parts[0], *(part[_num_common(part, rest) :] for part in parts[1:])])


def _num_common(first: str, second: str) -> int:
    """How many characters two texts begin with alike."""
    num = 0
    while num < min(len(first), len(second)) and first[num] == second[num]:
        num += 1
    return num


def _unusable(reason: str) -> Failure:
    return Failure(reason=reason, again=True, billed=True, is_reply=True)


def _count(value: object) -> int:
    """Token count as the server gave it -> the count; 0 where it gave none that could be one."""
    usable = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS
    return value if usable else 0  # type: ignore[return-value]


def _without_lone_surrogates(text: str) -> str:
    """JSON can carry halves of characters, which no file or database takes: they become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
