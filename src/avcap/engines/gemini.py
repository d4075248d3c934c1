"""Gemini's OpenAI-compatible endpoint: a video goes where images go; a video_url would be dropped without a word."""

from avcap.engines.dialect import Body, Dialect, Limits, Sent, TokenRates, input_audio


def video(text: str, sent: Sent) -> Body:
    return {"type": "image_url", "image_url": {"url": f"data:video/mp4;base64,{text}"}}


GEMINI = Dialect(
    name="gemini",
    title="Gemini",
    video=video,
    audio=input_audio,
    fps=1.0,
    rates=TokenRates(per_frame=258 + 7, audio_per_s=32.0),
    limits=Limits(part_base64_bytes=20_000_000),
)
