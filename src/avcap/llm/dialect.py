"""Which optional parts of a request a server takes: found out from its refusals. No network here.

Servers differ in what they refuse, and in how they say so (400, 422 or 500; a sentence, a field's name, a validation
error). Any refusal of an optional part is answered by asking once without it. Never left out are the messages, with the
rules in them, the model, and what is to be looked at: an answer to less would be an answer to another question.

| refused | asked instead |
|---|---|
| `max_tokens` | `max_completion_tokens`, then no limit (with a budget: no further try) |
| `response_format` json_schema | json_object with the schema, json_object (schema in both prompts), plain text |
| `temperature`, and each of `ChatRequest.options` | the same without it |
| something, without a word what | once without all of these |
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from avcap.llm.types import ChatRequest, Message

ReplyForm = Literal["json_schema", "json_object with schema", "json_object", "text"]
REPLY_FORMS: tuple[ReplyForm, ...] = get_args(ReplyForm)
LIMITS: tuple[str | None, ...] = ("max_tokens", "max_completion_tokens", None)
SCHEMA_SENTENCE = "Your reply is one JSON object that fits this JSON schema:"
REFUSALS = (400, 422, 500, 501)

OPTIONAL: dict[str, re.Pattern[str]] = {
    name: re.compile(pattern, re.IGNORECASE)
    for name, pattern in {
        "n": r"[`'\"]n[`'\"]|\bn ?(?:=|>|must|is|should|has)|(?:completion|several|multiple) choices?|best_of",
        "logprobs": r"log[ _-]?prob",
        "top_logprobs": r"log[ _-]?prob",
        "logit_bias": r"logit[ _]?bias",
        "chat_template_kwargs": r"chat_template_kwargs|template[ _]kwargs|enable_thinking",
        "enable_thinking": r"enable_thinking|thinking",
        "reasoning_effort": r"reasoning[ _.]?effort|reasoning",
        "mm_processor_kwargs": r"mm_processor_kwargs|processor[ _]kwargs",
        "media_io_kwargs": r"media_io_kwargs",
        "use_audio_in_video": r"use_audio_in_video",
        "modalities": r"\bmodalities\b",
        "seed": r"\bseed\b",
        "stop": r"[`'\"]stop[`'\"]|\bstop (?:sequence|word|token|string)|parameter:? stop\b|\bstop (?:is|are) not",
        "min_p": r"\bmin[ _]p\b",
        "top_p": r"\btop[ _]p\b",
        "top_k": r"\btop[ _]k\b",
        "presence_penalty": r"presence[ _]penalty",
        "frequency_penalty": r"frequency[ _]penalty",
        "repetition_penalty": r"repetition[ _]penalty",
        "limit": r"max_(?:completion_|output_|new_)?tokens",
        "response_format": r"response[ _]?format|json[ _-]?(?:schema|object|mode)|structured[ _]?output|guided|grammar|"
        r"outlines|\bschema\b|regex|additionalProperties|constrained|\bstrict\b",
        "temperature": r"temperature|greedy|do_sample",
    }.items()
}
"""Optional parts, those whose loss changes the answer least first -> how refusals of them name them."""

_ABOUT_THE_INPUT = re.compile(
    r"context (?:length|window|size)|too (?:long|many tokens)|tokens['`\"]?(?: or ['`\"]?\w+['`\"]?)? is too large|"
    r"maximum (?:context|input|number of tokens)|exceeds? the|reduce the length",
    re.IGNORECASE,
)
_NEVER_LEFT_OUT = re.compile(
    r"\b(?:images?|audio|videos?|media|multi-?modal|vision|mmproj)\b|system (?:role|prompt|message)|roles? must|"
    r"content policy|safety|moderation|model .{0,80}(?:not found|does not exist|not loaded)|\bquota\b|\bbilling\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a server is asked. The default is all that a request has."""

    limit_field: str | None = "max_tokens"
    reply_form: ReplyForm = "json_schema"
    left_out: tuple[str, ...] = ()

    @property
    def dropped(self) -> tuple[str, ...]:
        """What of a request is not sent, or otherwise, in words for a record. Another name for a limit is the same."""
        form = () if self.reply_form == "json_schema" else (f"response_format: {self.reply_form}",)
        return (*self.left_out, *form, *(("max_tokens",) if self.limit_field is None else ()))

    def dropped_from(self, request: ChatRequest) -> tuple[str, ...]:
        """The same, of what this request has: one without a schema is the same with and without a form of replies."""
        has_schema = request.schema is not None
        return tuple(
            part
            for part in self.dropped
            if part in ("temperature", "max_tokens")
            or part in request.options
            or (has_schema and part.startswith("response_format"))
        )


def request_body(request: ChatRequest, *, model: str, dialect: Dialect) -> dict[str, Any]:
    """Request -> the JSON object to send."""
    texts = [message.content for message in request.messages]
    has_form = request.schema is not None and dialect.reply_form != "text"
    if has_form and dialect.reply_form != "json_schema":
        texts[0] += f"\n\n{SCHEMA_SENTENCE}\n{json.dumps(request.schema)}"
    messages = [
        {"role": message.role, "content": _content(message, text)}
        for message, text in zip(request.messages, texts, strict=True)
    ]
    body: dict[str, Any] = {"model": model, "messages": messages}
    if dialect.limit_field is not None:
        body[dialect.limit_field] = request.max_tokens
    optional = {"temperature": request.temperature, **request.options}
    body |= {name: value for name, value in optional.items() if name not in dialect.left_out}
    if request.schema is not None and has_form:
        body["response_format"] = _reply_format(request.schema, dialect.reply_form)
    return body


def _content(message: Message, text: str) -> str | list[Mapping[str, Any]]:
    """A message and its text -> the text alone, or behind the message's parts."""
    return [*(part.body for part in message.parts), {"type": "text", "text": text}] if message.parts else text


def _reply_format(schema: Mapping[str, Any], form: ReplyForm) -> dict[str, Any]:
    if form == "json_schema":
        return {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": schema}}
    return {"type": "json_object", **({"schema": schema} if form == "json_object with schema" else {})}


def plainer(
    dialect: Dialect, *, sent: Mapping[str, Any], message: str, fields: Sequence[str] = (), keep_limit: bool = False
) -> Dialect | None:
    """What a server said when it refused a request -> a dialect without the first part it named; None: it named none.

    `fields`: names that the refusal gives apart from its sentence. `keep_limit`: a reply must not be without limit.
    """
    if _ABOUT_THE_INPUT.search(message):
        return None
    by_field = [part for part in OPTIONAL if part in fields or (part == "limit" and set(fields) & set(LIMITS))]
    by_sentence = [part for part, pattern in OPTIONAL.items() if pattern.search(message)]
    for part in (*by_field, *by_sentence):
        if (found := _without(part, dialect, sent=sent, message=message)) is None:
            continue
        return None if keep_limit and found.limit_field is None else found
    return None


def _without(part: str, dialect: Dialect, *, sent: Mapping[str, Any], message: str) -> Dialect | None:
    """A dialect without one part, or with its next form; None if the request had no such part."""
    if part == "limit":
        names_other = dialect.limit_field == "max_tokens" and "max_completion_tokens" in message
        if dialect.limit_field is None or not (names_other or "max_tokens" in message or "tokens" in message):
            return None
        return dataclasses.replace(dialect, limit_field=LIMITS[LIMITS.index(dialect.limit_field) + 1])
    if part not in sent:
        return None
    if part == "response_format":
        return dataclasses.replace(dialect, reply_form=REPLY_FORMS[REPLY_FORMS.index(dialect.reply_form) + 1])
    return dataclasses.replace(dialect, left_out=tuple(sorted({*dialect.left_out, part})))


def barest(dialect: Dialect, *, sent: Mapping[str, Any], message: str) -> Dialect | None:
    """A refusal that names no optional part -> a dialect without any; None if it is about something else."""
    if _ABOUT_THE_INPUT.search(message) or _NEVER_LEFT_OUT.search(message):
        return None
    left_out = {part for part in sent if part in OPTIONAL and part != "response_format"}
    bare = dataclasses.replace(dialect, left_out=tuple(sorted({*dialect.left_out, *left_out})))
    if "response_format" in sent:
        bare = dataclasses.replace(bare, reply_form="text")
    return None if bare == dialect else bare


def joined(first: Dialect, second: Dialect) -> Dialect:
    """Two dialects -> the one that leaves out what either does."""
    return Dialect(
        limit_field=LIMITS[max(LIMITS.index(first.limit_field), LIMITS.index(second.limit_field))],
        reply_form=REPLY_FORMS[max(REPLY_FORMS.index(first.reply_form), REPLY_FORMS.index(second.reply_form))],
        left_out=tuple(sorted({*first.left_out, *second.left_out})),
    )


def to_text(dialect: Dialect) -> str:
    return json.dumps(dataclasses.asdict(dialect))


def from_text(text: str) -> Dialect:
    """What `to_text` wrote -> the dialect; the default for what another version wrote."""
    try:
        data = json.loads(text)
        dialect = Dialect(**{**data, "left_out": tuple(data["left_out"])})
    except (ValueError, TypeError, KeyError):
        return Dialect()
    return dialect if dialect.limit_field in LIMITS and dialect.reply_form in REPLY_FORMS else Dialect()
