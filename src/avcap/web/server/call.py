"""Body of a chat request -> what is asked: turns, media as they were sent, decoding. No torch, nothing is opened here.

Fields that would change the answer and are not known here are refused; those that would not are told in the reply.
"""

import math
import re
import secrets
from dataclasses import dataclass
from typing import Any

from avcap.data.request import check_interval
from avcap.errors import UserError
from avcap.records import Decoding
from avcap.texts.json_text import parse_json
from avcap.web.server.refusals import Refused
from avcap.web.server.settings import Limits

KINDS = {
    "video_url": "video",
    "input_video": "video",
    "audio_url": "audio",
    "input_audio": "audio",
    "image_url": "image",
}
"""Type of a part -> what it holds."""
SECOND = re.compile(r"\s*second (\d{1,6}(?:\.\d{1,6})?):\s*")
"""What stands before a frame that is sent as an image."""
MOST_LOGPROBS = 20
UNSUPPORTED = {
    "tools": ([],),
    "functions": ([],),
    "stop": ([],),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "presence_penalty": (0, 0.0),
    "frequency_penalty": (0, 0.0),
    "min_p": (0, 0.0),
    "modalities": (["text"],),
    "audio": (),
}
"""Fields that would change the answer, and the values with which they would not."""
KNOWN = {
    "model",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "repetition_penalty",
    "seed",
    "n",
    "stream",
    "stream_options",
    "logprobs",
    "top_logprobs",
    "use_audio_in_video",
    "interval_s",
}


@dataclass(frozen=True, kw_only=True)
class MediaPart:
    """A video, audio or image of a request, not looked at yet.

    Attributes:
        kind: "video", "audio" or "image".
        param: Where it stands: "messages[0].content[1].video_url".
        source: A URL, or bare base64.
        second: Which second of a video an image shows, where the text right before it says "second 1.5:".
    """

    kind: str
    param: str
    source: str
    second: float | None = None


@dataclass(frozen=True, kw_only=True)
class Call:
    """A chat request that is well-formed."""

    turns: tuple[tuple[str, str | None], ...]
    media: tuple[MediaPart, ...]
    decoding: Decoding
    num_answers: int
    top_logprobs: int | None
    is_stream: bool
    has_usage: bool
    """Whether a stream ends with the usage."""
    use_own_audio: bool
    interval_s: tuple[float, float] | None
    ignored: tuple[str, ...]


def read_call(body: bytes, *, model: str, max_new_tokens: int, limits: Limits) -> Call:
    """Body of a request -> what is asked.

    Args:
        body: As it came.
        model: What this server's model is called.
        max_new_tokens: Where the request does not say.
        limits: What a request may ask for.

    Raises:
        Refused: It is no such request.
    """
    data = _object(body)
    if data.get("model") not in (model, None):
        raise Refused(
            f"got the model {str(data['model'])[:80]!r}, expected {model!r}, which is served here",
            status=404,
            param="model",
            code="model_not_found",
        )
    _refuse_unsupported(data)
    turns, media = _Messages(limits).read(data.get("messages"))
    temperature = _number(data, "temperature", default=0.0, least=0.0, most=100.0)
    num_answers = _whole(data, "n", default=1, least=1, most=limits.answers)
    if num_answers > 1 and temperature == 0:
        raise Refused(f"got n = {num_answers} at temperature 0, expected a temperature above 0", param="n")
    limit = "max_completion_tokens" if data.get("max_completion_tokens") is not None else "max_tokens"
    decoding = Decoding(
        max_new_tokens=_whole(data, limit, default=max_new_tokens, least=1, most=10**6),
        temperature=temperature,
        top_p=_number(data, "top_p", default=1.0, least=1e-6, most=1.0),
        top_k=max(0, _whole(data, "top_k", default=0, least=-1, most=10**6)),
        repetition_penalty=_number(data, "repetition_penalty", default=1.0, least=0.01, most=100.0),
        seed=_whole(data, "seed", default=secrets.randbits(31), least=-(2**62), most=2**62) if temperature else 0,
    )
    is_scored = _flag(data, "logprobs")
    top = _whole(data, "top_logprobs", default=0, least=0, most=MOST_LOGPROBS)
    options = data.get("stream_options")
    return Call(
        turns=turns,
        media=media,
        decoding=decoding,
        num_answers=num_answers,
        top_logprobs=top if is_scored else None,
        is_stream=_flag(data, "stream"),
        has_usage=isinstance(options, dict) and options.get("include_usage") is True,
        use_own_audio=_own_audio(data),
        interval_s=_interval(data, media),
        ignored=tuple(sorted(name[:60] for name in data if name not in KNOWN and name not in UNSUPPORTED))[:20],
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        data = parse_json(body.decode("utf-8"), expected="a JSON object")
    except (UnicodeDecodeError, UserError) as error:
        why = "it is no UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)[:200]
        raise Refused(f"got a body that is no JSON object: {why}", code="invalid_json") from None
    if not isinstance(data, dict):
        raise Refused(f"got a body of {type(data).__name__}, expected a JSON object", code="invalid_json")
    return data


def _refuse_unsupported(data: dict[str, Any]) -> None:
    for name, harmless in UNSUPPORTED.items():
        if data.get(name) is not None and data[name] not in harmless:
            raise Refused(f"{name} is not supported here; leave it out", param=name, code="unsupported_parameter")


def _own_audio(data: dict[str, Any]) -> bool:
    """Whether a video brings its own audio: yes, unless a client says no as SGLang or vLLM are told."""
    fields = data.get("mm_processor_kwargs")
    told = [data.get("use_audio_in_video"), fields.get("use_audio_in_video") if isinstance(fields, dict) else None]
    return False not in told


def _interval(data: dict[str, Any], media: tuple[MediaPart, ...]) -> tuple[float, float] | None:
    value = data.get("interval_s")
    if value is None:
        return None
    is_pair = isinstance(value, list) and len(value) == 2 and all(_is_number(one) or one is None for one in value)
    if not is_pair or value[0] is None:
        raise Refused("got no interval, expected two seconds such as [3, 7], or [3, null]", param="interval_s")
    if len(media) != 1 or media[0].kind == "image":
        raise Refused("got an interval, expected one video or one audio to take it from", param="interval_s")
    interval_s = (float(value[0]), math.inf if value[1] is None else float(value[1]))
    try:
        check_interval(interval_s)
    except UserError as error:
        raise Refused(str(error), param="interval_s") from None
    return interval_s


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def _number(data: dict[str, Any], name: str, *, default: float, least: float, most: float) -> float:
    value = data.get(name)
    if value is None:
        return default
    if not _is_number(value) or not least <= value <= most:
        raise Refused(f"{name}: got {str(value)[:40]}, expected a number from {least:g} to {most:g}", param=name)
    return float(value)


def _whole(data: dict[str, Any], name: str, *, default: int, least: int, most: int) -> int:
    value = data.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Refused(f"{name}: got {str(value)[:40]}, expected a whole number from {least} to {most}", param=name)
    return value


def _flag(data: dict[str, Any], name: str) -> bool:
    value = data.get(name)
    if value is not None and not isinstance(value, bool):
        raise Refused(f"{name}: got {str(value)[:40]}, expected true or false", param=name)
    return bool(value)


class _Messages:
    """Reads messages: system texts open the first question, in which media stand; each ends with an answer."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._num_parts = 0
        self._media: list[MediaPart] = []

    def read(self, messages: object) -> tuple[tuple[tuple[str, str | None], ...], tuple[MediaPart, ...]]:
        if not isinstance(messages, list) or not messages:
            raise Refused("got no messages, expected at least one of role user", param="messages")
        questions: list[list[str]] = [[]]
        answers: list[str] = []
        for index, message in enumerate(messages):
            role = message.get("role") if isinstance(message, dict) else None
            param = f"messages[{index}]"
            if role not in ("system", "developer", "user", "assistant"):
                raise Refused(f"got the role {str(role)[:40]!r}, expected system, user or assistant", param=param)
            texts = self._texts(message.get("content"), param=f"{param}.content", may_have_media=role == "user")
            if role == "assistant":
                if len(questions) == len(answers):
                    raise Refused("got two answers of the assistant in a row, expected a question", param=param)
                answers.append("\n".join(texts))
                questions.append([])
                continue
            if self._media and answers and self._media[-1].param.startswith(param):
                raise Refused("got media in a later question, expected them in the first", param=param)
            questions[-1] += texts
        joined = ["\n\n".join(text for text in texts if text) for texts in questions]
        if not joined[-1].strip() and (len(joined) > 1 or not self._media):
            raise Refused("got no question, expected text in the last message, of role user", param="messages")
        turns = tuple(zip(joined, [*answers, None], strict=True))
        return turns, tuple(self._media)

    def _texts(self, content: object, *, param: str, may_have_media: bool) -> list[str]:
        """Content of a message -> its texts; media are kept. Before an image, one may be its second."""
        if isinstance(content, str):
            return [content]
        if not isinstance(content, list):
            raise Refused("got no content, expected text or a list of parts", param=param)
        self._num_parts += len(content)
        if self._num_parts > self._limits.parts:
            raise Refused(f"got more than {self._limits.parts} parts, expected at most that", param=param)
        texts: list[str] = []
        label = ""
        for index, part in enumerate(content):
            place = f"{param}[{index}]"
            kind = part.get("type") if isinstance(part, dict) else None
            if kind == "text":
                if not isinstance(part.get("text"), str):
                    raise Refused("got a text part without text", param=place)
                if label:
                    texts.append(label)
                label = part["text"]
                continue
            if not may_have_media or not isinstance(kind, str) or kind not in KINDS:
                raise Refused(
                    f"Unknown part type: {str(kind)[:40]!r}, expected text"
                    + (f" or one of {', '.join(KINDS)}" if may_have_media else ""),
                    param=place,
                    code="unknown_part_type",
                )
            self._media.append(_media_part(part, kind, param=f"{place}.{kind}", label=label))
            if label and not SECOND.fullmatch(label):
                texts.append(label)
            label = ""
        return [*texts, label] if label else texts


def _media_part(part: dict[str, Any], kind: str, *, param: str, label: str) -> MediaPart:
    """A part -> its media: {"url": ...}, {"data": ...}, or the URL itself."""
    value = part.get(kind)
    source = value
    if isinstance(value, dict):
        source = value.get("data") if value.get("data") is not None else value.get("url")
    if not isinstance(source, str) or not source:
        raise Refused(f'got no data, expected {{"url": "..."}} or {{"data": "..."}} in {kind}', param=param)
    media = KINDS[kind]
    if media == "image" and source[:11].lower() == "data:video/":  # how Gemini's clients send videos
        media = "video"
    told = SECOND.fullmatch(label) if media == "image" else None
    return MediaPart(kind=media, param=param, source=source, second=float(told[1]) if told else None)
