"""What `--model openai:NAME@URL?dialect=vllm&fps=2` says.

No secret is shown, whatever stands in the URL: a key belongs into the environment.
"""

import dataclasses
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from avcap.errors import UserError
from avcap.llm.chat import KEY_VARIABLE, read_chat_spec

ROLE = "engine"
PREFIX = "openai:"
AUTO = "auto"
OWN_KEY_VARIABLE = "AVCAP_ENGINE_KEY"
"""Goes before all others: an engine and a judge may want different keys."""
HOSTS = {
    "dashscope": re.compile(r"(^|\.)dashscope(-[a-z]+)?\.aliyuncs\.com$|\.maas\.aliyuncs\.com$"),
    "gemini": re.compile(r"(^|\.)generativelanguage\.googleapis\.com$"),
    "openrouter": re.compile(r"(^|\.)openrouter\.ai$"),
    "frames": re.compile(r"^api\.openai\.com$"),
}
"""Dialect -> hosts that speak it and no other."""
KEY_VARIABLES = {"dashscope": "DASHSCOPE_API_KEY", "gemini": "GEMINI_API_KEY", "openrouter": "OPENROUTER_API_KEY"}
NAMES = ("vllm", "sglang", "vllm_omni", "llama_cpp", "ollama", "dashscope", "gemini", "openrouter", "frames")
SPELLINGS = {re.sub(r"[^a-z]", "", name): name for name in NAMES}
MOST_FRAMES = 2048
USE_VIDEO, USE_AUDIO_ALONE = "video and audio", "audio"
"""What requests of an engine have: findings are kept for each."""
EXPECTED = "expected openai:NAME@URL or openai:NAME@URL?dialect=..."


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """An engine as --model names it. `fps`, `max_frames`, `max_pixels` None: as suits the dialect."""

    model: str
    url: str
    dialect: str = AUTO
    fps: float | None = None
    max_frames: int | None = None
    max_pixels: int | None = None

    @property
    def chat_spec(self) -> str:
        """What the chat is opened with."""
        return f"{PREFIX}{self.model}@{self.url}"

    @property
    def name(self) -> str:
        """How captions call it: all that was asked for, so that files of other settings are told apart."""
        fields = dataclasses.asdict(self)
        asked = [f"{name}={value}" for name, value in fields.items() if name not in ("model", "url") and value]
        asked = [one for one in asked if one != f"dialect={AUTO}"]
        return self.chat_spec + (f"?{'&'.join(asked)}" if asked else "")

    @property
    def host_dialect(self) -> str | None:
        """The dialect that follows from the URL alone; None: any."""
        host = urlsplit(self.url).hostname or ""
        return next((name for name, pattern in HOSTS.items() if pattern.search(host)), None)

    @property
    def key_variables(self) -> tuple[str, ...]:
        """Environment variables that the key may stand in, the first that is set."""
        dialect = self.host_dialect if self.dialect == AUTO else self.dialect
        own = KEY_VARIABLES.get(dialect or "")
        return (OWN_KEY_VARIABLE, own) if own else (OWN_KEY_VARIABLE, KEY_VARIABLE)


def is_engine(model: object) -> bool:
    """Whether --model names an engine."""
    return str(model).startswith(PREFIX)


def read_engine_spec(text: str) -> EngineSpec:
    """--model -> the engine it names.

    Args:
        text: "openai:NAME", "openai:NAME@URL" or "openai:NAME@URL?dialect=NAME&fps=N&max_frames=N&max_pixels=N".

    Raises:
        UserError: It is none of these. Values of fields that are not known are not shown: they may be secret.
    """
    asked, _, query = text.partition("?")
    chat = read_chat_spec(asked, role=ROLE, key_variable=OWN_KEY_VARIABLE)
    fields = dict(parse_qsl(query, keep_blank_values=True))
    known = [field.name for field in dataclasses.fields(EngineSpec) if field.name not in ("model", "url")]
    if unknown := [name for name in fields if name not in known] or (query and not fields):
        name = unknown[0] if isinstance(unknown, list) else "no name=value"
        raise UserError(
            f"engine {chat.model!r}: got {name[:40]!r} behind the ?, expected some of {', '.join(known)}; a key "
            f"belongs into {OWN_KEY_VARIABLE}"
        )
    return EngineSpec(
        model=chat.model,
        url=chat.url,
        dialect=_dialect(fields.get("dialect", AUTO)),
        fps=_number(fields, "fps", least=0.01, most=60),
        max_frames=_whole(fields, "max_frames", most=MOST_FRAMES),
        max_pixels=_whole(fields, "max_pixels", most=2**26, least=784),
    )


def _dialect(text: str) -> str:
    name = SPELLINGS.get(re.sub(r"[^a-z]", "", text.lower()))
    if name is None and text != AUTO:
        raise UserError(f"got ?dialect={text[:40]}, expected {AUTO} or one of {', '.join(NAMES)}")
    return name or AUTO


def _number(fields: dict[str, str], name: str, *, least: float, most: float) -> float | None:
    if name not in fields:
        return None
    try:
        number = float(fields[name])
    except ValueError:
        number = -1.0
    if not least <= number <= most:
        raise UserError(f"got ?{name}={fields[name][:40]}, expected a number from {least:g} to {most:g}")
    return number


def _whole(fields: dict[str, str], name: str, *, most: int, least: int = 1) -> int | None:
    number = _number(fields, name, least=least, most=most)
    if number is not None and number != int(number):
        raise UserError(f"got ?{name}={fields[name][:40]}, expected a whole number from {least} to {most}")
    return None if number is None else int(number)
