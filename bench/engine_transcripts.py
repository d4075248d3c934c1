"""Behind each engine, as a user sees it: a caption with what was sent for it, and a refusal.

    python bench/engine_transcripts.py > docs/engine_transcripts.txt

The servers are scripted (tests/support/scripted_engine.py): they take, refuse and count as the engines do, and say what
they were given. Each refusal is one that people meet with this engine.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from support.scripted_engine import (  # noqa: E402
    DASHSCOPE,
    FRAMES,
    GEMINI,
    LLAMA_CPP,
    OLLAMA,
    OPENROUTER,
    SGLANG,
    VLLM,
    VLLM_OMNI,
    Asked,
    Kind,
    ScriptedEngine,
)

VIDEO = "examples/two_bells.mp4"
SHOWN_URL = "http://127.0.0.1:8000/v1"
LONGEST_TEXT, MOST_PARTS = 60, 8

Script = Callable[[Asked], tuple[int, str] | None]


def has(part: str) -> Callable[[Asked], bool]:
    return lambda asked: part in asked.types


def is_clip(asked: Asked) -> bool:
    """Whether it is no probe."""
    return "code word" not in asked.text and asked.text != "Say OK."


def refusing(when: Callable[[Asked], bool], status: int, message: str) -> Script:
    return lambda asked: (status, message) if when(asked) else None


@dataclass(frozen=True, kw_only=True)
class Case:
    """An engine, and what it refuses: by its script, by what kind it is, or because of how it is asked."""

    kind: Kind
    what: str
    script: Script = lambda asked: None
    refusing_kind: Kind | None = None
    query: str = ""
    """Behind the refused name."""


CASES = (
    Case(
        kind=VLLM,
        what="a model that was served without audio",
        script=refusing(has("input_audio"), 400, "At most 0 audio(s) may be provided in one prompt."),
    ),
    Case(
        kind=SGLANG,
        what="asked in another engine's dialect",
        query="?dialect=vllm",
    ),
    Case(
        kind=VLLM_OMNI,
        what="a clip that is longer than its context",
        script=refusing(
            is_clip, 400, "The decoder prompt (length 40960) is longer than the maximum model length of 32768."
        ),
    ),
    Case(
        kind=LLAMA_CPP,
        what="a model whose mmproj has no audio",
        script=refusing(
            has("input_audio"),
            500,
            "audio input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
        ),
    ),
    Case(kind=OLLAMA, what="asked in another engine's dialect", query="?dialect=vllm"),
    Case(
        kind=DASHSCOPE,
        what="a clip that its filter holds back",
        script=refusing(is_clip, 400, "<400> InternalError.Algo.DataInspectionFailed: Input data may be inappropriate"),
    ),
    Case(
        kind=GEMINI,
        what="a proxy before it that drops audio without a word",
        refusing_kind=replace(GEMINI, has_audio=False),
    ),
    Case(
        kind=OPENROUTER,
        what="an account without credits",
        script=refusing(lambda asked: True, 402, "Insufficient credits"),
    ),
    Case(
        kind=FRAMES,
        what="any other server: a gateway that guesses tokens by bytes, and drops audio",
        refusing_kind=replace(FRAMES, has_audio=False, counts_bytes=True),
    ),
)


def show_case(case: Case, *, folder: Path, environment: dict[str, str]) -> None:
    """One engine: its caption, what was sent for it, its refusal."""
    dialect = "" if case.kind.owned_by else f"?dialect={case.kind.name}"
    print(f"===== {case.kind.name}\n", flush=True)
    with ScriptedEngine(case.kind) as server:
        show(server, dialect, folder=folder, environment=environment)
        show_request(server.captions[0].body)
    print(f"Refused: {case.what}\n", flush=True)
    with ScriptedEngine(case.refusing_kind or case.kind, script=case.script) as server:
        show(server, case.query or dialect, folder=folder, environment=environment)


def show(server: ScriptedEngine, query: str, *, folder: Path, environment: dict[str, str]) -> None:
    words = ["caption", VIDEO, "--model", server.model + query]
    done = subprocess.run(
        [sys.executable, "-m", "avcap", *words], env=environment, cwd=folder, capture_output=True, text=True
    )
    text = f"$ avcap {' '.join(words)}\n{done.stderr}{done.stdout}[exit code {done.returncode}]\n"
    print(text.replace(server.url, SHOWN_URL), flush=True)  # the port is another each time


def show_request(body: dict[str, Any]) -> None:
    """What was sent: each part of the message on a line, of many the first and the last; then all other fields."""
    (message,) = body["messages"]
    parts = [json.dumps(shortened(part)) for part in message["content"]]
    if len(parts) > MOST_PARTS:
        parts = [*parts[:2], f"... {len(parts) - 6} more ...", *parts[-4:]]
    others = {name: value for name, value in body.items() if name != "messages"}
    print("It was sent:", *parts, json.dumps(others), sep="\n  ", end="\n\n", flush=True)


def shortened(value: Any) -> Any:
    """Part of a request -> the same with long texts cut off."""
    if isinstance(value, dict):
        return {name: shortened(one) for name, one in value.items()}
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        start, mark, _ = value.rpartition("base64,")
        return f"{start}{mark}..." if mark else f"{value[:40]}..."
    return value


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "examples").symlink_to(ROOT / "examples")
        for case in CASES:
            # findings of one server are not those of the next, which may get its port
            environment = os.environ | {
                "PYTHONPATH": str(ROOT / "src"),
                "XDG_CACHE_HOME": str(folder / case.kind.name),
                "AVCAP_ENGINE_KEY": "not-a-real-key",
            }
            show_case(case, folder=folder, environment=environment)


if __name__ == "__main__":
    main()
