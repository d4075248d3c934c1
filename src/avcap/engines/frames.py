"""What every engine with images takes: frames as JPEG, each behind its second, and one WAV."""

from avcap.engines.dialect import Dialect, TokenRates, input_audio

FRAMES = Dialect(
    name="frames",
    title="an engine that takes frames",
    audio=input_audio,
    fps=1.0,
    max_frames=32,
    rates=TokenRates(),
)
