"""lmms-eval's chat messages become Samples: one video, and the text asked about it. No torch, no lmms-eval."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avcap.data.request import Request
from avcap.errors import UserError
from avcap.records import Decoding, Sample

DEFAULT_NEW_TOKENS = 1024


def sample_of(messages: Sequence[Mapping[str, Any]], *, sample_id: str) -> Sample:
    """Messages [{"role", "content": [{"type": "video", "url"}, {"type": "text", "text"}]}] -> what is to be captioned.

    UserError unless there is exactly one video or sound file, by its path.
    """
    parts = [part for message in messages if message["role"] == "user" for part in message["content"]]
    media = [part for part in parts if part["type"] in ("video", "audio")]
    odd = [part["type"] for part in parts if part["type"] not in ("video", "audio", "text")]
    if odd or len(media) != 1 or not isinstance(media[0]["url"], str | Path):
        got = [f"{part['type']} {type(part.get('url')).__name__}" for part in parts if part["type"] != "text"]
        raise UserError(f"{sample_id}: got {got}, expected one video or sound file by its path, and text")
    start_s, end_s = media[0].get("start_time"), media[0].get("end_time")
    return Sample(
        sample_id=sample_id,
        video=str(media[0]["url"]),
        prompt="\n".join(part["text"] for part in parts if part["type"] == "text").strip(),
        interval_s=None if start_s is None or end_s is None else (float(start_s), float(end_s)),
    )


def request_of(generation: Mapping[str, Any], *, use_audio: bool, use_video: bool) -> Request:
    """lmms-eval's generation_kwargs -> how to decode. A temperature counts only where it samples at all."""
    samples = generation.get("do_sample", True)
    decoding = Decoding(
        max_new_tokens=int(generation.get("max_new_tokens", DEFAULT_NEW_TOKENS)),
        temperature=float(generation.get("temperature") or 0.0) if samples else 0.0,
        top_p=float(generation.get("top_p") or 1.0),
    )
    return Request(decoding=decoding, use_audio=use_audio, use_video=use_video)


def cut_at_stops(text: str, generation: Mapping[str, Any]) -> str:
    """A reply -> the part of it before the first of the stops in `generation["until"]`."""
    until = generation.get("until") or ()
    for stop in [until] if isinstance(until, str) else until:
        text = text.split(stop)[0] if stop else text
    return text
