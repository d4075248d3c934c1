"""What is sent to an OpenAI-compatible chat server, and what its answer means. No network here.

Everything that comes back is untrusted: each field is looked at before it is used.
"""

import email.utils
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from avcap.llm.types import ChatRequest, Reply

MOST_TOKENS = 10_000_000
"""No server counts more tokens than this for one call; larger counts are taken for nonsense."""
SHOWN_CHARACTERS = 200


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """Which of the ways to say the same a server understands: found out from its refusals."""

    schema: bool = True
    max_tokens_field: str = "max_tokens"


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


def request_body(request: ChatRequest, *, model: str, dialect: Dialect) -> dict[str, Any]:
    """Request -> the JSON object to send."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        dialect.max_tokens_field: request.max_tokens,
        "temperature": request.temperature,
    }
    if request.schema is not None and dialect.schema:
        schema = {"name": "reply", "strict": True, "schema": request.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def plainer_dialect(dialect: Dialect, *, sent: dict[str, Any], message: str) -> Dialect | None:
    """What a server said when it refused a request -> a dialect without what it named, or None if it named nothing."""
    if "max_tokens" in sent and "max_completion_tokens" in message:
        return Dialect(schema=dialect.schema, max_tokens_field="max_completion_tokens")
    if "response_format" in sent and ("response_format" in message or "json_schema" in message):
        return Dialect(schema=False, max_tokens_field=dialect.max_tokens_field)
    return None


def read_completion(raw: bytes) -> Reply | Failure:
    """Body of a 200 response -> the reply in it, or what is wrong with it."""
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
    finish, text = choice.get("finish_reason"), message.get("content")
    if message.get("refusal") or finish == "content_filter":
        # An answer, paid for: asking again would buy the same one.
        return Failure(reason=f"refused: {shown(message.get('refusal') or finish)}", again=False, billed=True)
    if text is None and finish == "length":
        text = ""  # all of max_tokens went into reasoning
    if not isinstance(text, str):
        return _unusable(f"a message whose content is {type(text).__name__}, not text")
    usage = data.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Reply(
        text=_without_lone_surrogates(text), finished=finish != "length",
        input_tokens=_count(usage.get("prompt_tokens")), output_tokens=_count(usage.get("completion_tokens")),
    )  # fmt: skip


def error_message(raw: bytes) -> str:
    """Body of an error response -> what it says, short; whatever the body is."""
    try:
        error = json.loads(raw)["error"]
        text = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError, RecursionError):
        text = raw.decode("utf-8", "replace")
    return shown(text)


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
    """Anything a server said -> one short printable line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)[: 4 * SHOWN_CHARACTERS]).split())
    return line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 3] + "..."


def _unusable(reason: str) -> Failure:
    return Failure(reason=reason, again=True, billed=True)


def _count(value: object) -> int:
    """Token count as the server gave it -> the count; 0 where it gave none that could be one."""
    usable = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS
    return value if usable else 0  # type: ignore[return-value]


def _without_lone_surrogates(text: str) -> str:
    """JSON can carry halves of characters, which no file or database takes: they become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
