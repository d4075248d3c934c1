"""DashScope (Alibaba's Qwen-Omni): always a stream, "data:;base64," before video and audio, less than 10 MB a part.

The older Flash models take text and one thing beside it: for them the mp4 holds the audio, too.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from avcap.engines.dialect import QWEN_RATES, Body, Dialect, Limits, Sent

ONE_THING = re.compile(r"qwen(3|2\.5)-omni|qwen-omni-turbo")
ONE_THING_LONGEST_S = 150.0


def video(text: str, sent: Sent) -> Body:
    return {"type": "video_url", "video_url": {"url": f"data:;base64,{text}"}}


def audio(text: str) -> Body:
    return {"type": "input_audio", "input_audio": {"data": f"data:;base64,{text}", "format": "wav"}}


def options(sent: Sent) -> Mapping[str, Any]:
    return {
        "stream": True,
        "stream_options": {"include_usage": True},
        "modalities": ["text"],
        "enable_thinking": False,
    }


DASHSCOPE = Dialect(
    name="dashscope",
    title="DashScope",
    video=video,
    audio=audio,
    options=options,
    rates=QWEN_RATES,
    limits=Limits(part_base64_bytes=10_000_000, seconds=3600.0),
)


def for_model(model: str) -> Dialect:
    """Name of a model -> how it is spoken to."""
    if not ONE_THING.search(model):
        return DASHSCOPE
    return replace(DASHSCOPE, video_has_audio=True, limits=replace(DASHSCOPE.limits, seconds=ONE_THING_LONGEST_S))
