"""The dialects by name, and which of them a server speaks."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from avcap.engines import dashscope
from avcap.engines.dialect import Dialect
from avcap.engines.frames import FRAMES
from avcap.engines.gemini import GEMINI
from avcap.engines.llama_cpp import LLAMA_CPP
from avcap.engines.ollama import OLLAMA
from avcap.engines.openrouter import OPENROUTER
from avcap.engines.sglang import SGLANG
from avcap.engines.spec import AUTO, EngineSpec
from avcap.engines.vllm import VLLM
from avcap.engines.vllm_omni import VLLM_OMNI

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        VLLM,
        SGLANG,
        VLLM_OMNI,
        LLAMA_CPP,
        OLLAMA,
        dashscope.DASHSCOPE,
        GEMINI,
        OPENROUTER,
        FRAMES,
    )
}
OWNERS = {
    "avcap": "vllm",
    "vllm": "vllm",
    "vllm-omni": "vllm_omni",
    "sglang": "sglang",
    "llamacpp": "llama_cpp",
    "library": "ollama",
}
"""owned_by in a server's list of models -> its dialect."""


@dataclass(frozen=True, kw_only=True)
class Detected:
    """A dialect, and how it was found out."""

    name: str
    how: str
    context_tokens: int | None = None
    """What the server says about how long a prompt with its answer may be."""


def detect(spec: EngineSpec, fetch: Callable[[str], Any]) -> Detected:
    """An engine, and what asks its server about itself ("models" -> JSON or None) -> its dialect."""
    listed = _entry(fetch("models"), spec.model)
    context = next((listed[name] for name in ("max_model_len", "context_length") if name in listed), None)
    context = context if isinstance(context, int) and context > 0 else None
    if spec.dialect != AUTO:
        return Detected(name=spec.dialect, how="as asked for", context_tokens=context)
    if spec.host_dialect is not None:
        return Detected(name=spec.host_dialect, how="by its address", context_tokens=context)
    owner = str(listed.get("owned_by", "")).lower()
    if owner in OWNERS:
        return Detected(name=OWNERS[owner], how=f"its models are owned by {owner!r}", context_tokens=context)
    return Detected(name=FRAMES.name, how="it does not say what it is", context_tokens=context)


def _entry(listed: Any, model: str) -> dict[str, Any]:
    """A server's list of models -> what it says about this one, or about the first."""
    rows = listed.get("data") if isinstance(listed, dict) else None
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return next((row for row in rows if row.get("id") == model), rows[0] if rows else {})


def dialect_of(spec: EngineSpec, name: str) -> Dialect:
    """An engine and a dialect's name -> the dialect, with what --model asks for."""
    dialect = dashscope.for_model(spec.model) if name == "dashscope" else DIALECTS[name]
    return replace(
        dialect,
        fps=spec.fps or dialect.fps,
        max_frames=spec.max_frames or dialect.max_frames,
        max_pixels=spec.max_pixels or dialect.max_pixels,
    )


def frames_of(spec: EngineSpec, dialect: Dialect) -> Dialect:
    """A dialect whose video is refused -> the same with frames instead."""
    return replace(
        dialect,
        video=None,
        video_has_audio=False,
        fps=spec.fps or FRAMES.fps,
        max_frames=spec.max_frames or FRAMES.max_frames,
    )
