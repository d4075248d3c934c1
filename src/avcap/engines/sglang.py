"""SGLang: rate and number of frames stand inside video_url; audio_url is the form of audio that every version takes."""

from collections.abc import Mapping
from typing import Any

from avcap.engines.dialect import Body, Dialect, Sent


def video(text: str, sent: Sent) -> Body:
    url = f"data:video/mp4;base64,{text}"
    return {"type": "video_url", "video_url": {"url": url, "fps": float(sent.fps), "max_frames": sent.num_frames}}


def audio(text: str) -> Body:
    return {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{text}"}}


def options(sent: Sent) -> Mapping[str, Any]:
    return {"use_audio_in_video": False, "chat_template_kwargs": {"enable_thinking": False}}


SGLANG = Dialect(name="sglang", title="SGLang", video=video, audio=audio, options=options)
