"""vLLM (`vllm serve`): video_url and input_audio. Its own way to a video's audio (use_audio_in_video) is never used:
it fails, in one case without a word."""

from collections.abc import Mapping
from typing import Any

from avcap.engines.dialect import Dialect, Sent, input_audio, video_url


def options(sent: Sent) -> Mapping[str, Any]:
    """All frames that are sent are looked at: by default it takes 32 of a video."""
    fields: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": False}}
    if sent.num_frames:
        fields["mm_processor_kwargs"] = {"fps": float(sent.fps)}
        fields["media_io_kwargs"] = {"video": {"num_frames": sent.num_frames}}
    return fields


VLLM = Dialect(name="vllm", title="vLLM", video=video_url, audio=input_audio, options=options)
