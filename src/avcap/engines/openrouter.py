"""OpenRouter: video_url and input_audio; what of it arrives depends on the route."""

from avcap.engines.dialect import Dialect, input_audio, video_url

OPENROUTER = Dialect(name="openrouter", title="OpenRouter", video=video_url, audio=input_audio)
