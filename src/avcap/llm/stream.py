"""A reply that came in pieces (server-sent events) becomes the one that would have come whole. No network here.

    data: {"choices": [{"index": 0, "delta": {"content": "A dog "}}]}
    data: {"choices": [{"index": 0, "delta": {"content": "barks."}, "finish_reason": "stop"}]}
    data: {"choices": [], "usage": {"prompt_tokens": 812, "completion_tokens": 4}}
    data: [DONE]

Pieces are untrusted like all that comes back: what is none is passed over, and a stream that breaks off is no reply.
"""

import json
from collections.abc import Iterator
from typing import Any

END = "[DONE]"


def is_stream(raw: bytes) -> bool:
    """Whether a body is a stream of events, and not one JSON object."""
    return raw.lstrip().startswith((b"data:", b"event:", b"id:", b":"))


def joined_stream(raw: bytes) -> bytes | None:
    """A stream's body -> the JSON of one chat completion with all its pieces; None if it broke off before its end."""
    choices: dict[int, dict[str, Any]] = {}
    whole: dict[str, Any] = {}
    is_ended = False
    for text in _events(raw):
        if text == END:
            is_ended = True
            continue
        try:
            event = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if not isinstance(event, dict):
            continue
        if event.get("error"):
            return json.dumps({"error": event["error"]}).encode()
        if isinstance(event.get("usage"), dict):
            whole["usage"] = event["usage"]
        pieces = event.get("choices")
        for piece in pieces if isinstance(pieces, list) else ():
            if isinstance(piece, dict):
                _add(piece, choices)
    finished = [choice["finish_reason"] for choice in choices.values()]
    if not (is_ended or (finished and all(finished))):
        return None
    return json.dumps({**whole, "choices": [choices[index] for index in sorted(choices)]}).encode()


def _events(raw: bytes) -> Iterator[str]:
    """Body -> the data of each event; those of several lines are joined."""
    lines: list[str] = []
    for line in [*raw.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n").split("\n"), ""]:
        if line.startswith("data:"):
            lines.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and lines:
            yield "\n".join(lines)
            lines = []


def _add(piece: dict[str, Any], choices: dict[int, dict[str, Any]]) -> None:
    """Adds a piece to the choice that it is of."""
    index = piece.get("index")
    index = index if isinstance(index, int) else 0
    empty = {"index": index, "finish_reason": None, "message": {"role": "assistant", "content": None}}
    choice = choices.setdefault(index, empty)
    choice["finish_reason"] = piece.get("finish_reason") or choice["finish_reason"]
    delta = piece.get("delta")
    for name in ("content", "reasoning_content", "reasoning", "refusal"):
        text = delta.get(name) if isinstance(delta, dict) else None
        if isinstance(text, str):
            choice["message"][name] = (choice["message"].get(name) or "") + text
    logprobs = piece.get("logprobs")
    if isinstance(logprobs, dict) and isinstance(logprobs.get("content"), list):
        choice.setdefault("logprobs", {"content": []})["content"] += logprobs["content"]
