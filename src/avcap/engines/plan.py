"""What captioning videos by an engine will take: tokens and money, before anything is sent.

Tokens of video and audio are guesses by the dialect's rates, but for those of audio where the engine was found to count
so many a second; what is written is taken to be as long as it may be.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from avcap.engines.captioner import ENGINE_PROMPTS, MAX_NEW_TOKENS, NUM_DECODERS
from avcap.engines.dialect import Dialect
from avcap.engines.dialects import dialect_of, frames_of
from avcap.engines.findings import Findings
from avcap.engines.spec import AUTO, EngineSpec
from avcap.errors import MediaError
from avcap.llm.budget import BYTES_PER_TOKEN, Price, find_price
from avcap.media.clip import ClipRequest
from avcap.media.frame_size import PixelBudget
from avcap.media.frame_times import frame_instants
from avcap.media.pool import DecodePool

DEADLINE_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Length:
    """How long a file is, and what of it there is. `height` and `width` 0: no video."""

    path: str
    seconds: float
    height: int
    width: int
    has_audio: bool


@dataclass(frozen=True, kw_only=True)
class EnginePlan:
    """Figures for all files together. `money_usd` None: the model's price is not known."""

    num_files: int
    seconds: float
    frames: int
    visual_tokens: int
    audio_tokens: int
    text_tokens: int
    new_tokens: int
    money_usd: float | None
    assumed: str
    """What is not known and was assumed, in words."""


def known_dialect(spec: EngineSpec, found: Findings | None) -> tuple[Dialect, str]:
    """An engine and what was found out about it -> its dialect, and what is assumed where nothing was."""
    if found is not None:
        dialect = dialect_of(spec, found.dialect)
        return (frames_of(spec, dialect) if found.frames_because else dialect), ""
    name = spec.dialect if spec.dialect != AUTO else spec.host_dialect
    if name is not None:
        return dialect_of(spec, name), ""
    return dialect_of(spec, "frames"), "its dialect is not known yet, and frames were counted: see avcap doctor"


def plan_engine(
    spec: EngineSpec,
    lengths: Iterable[Length],
    *,
    dialect: Dialect,
    found: Findings | None,
    assumed: str,
    prices: Mapping[str, Price],
) -> EnginePlan:
    """An engine and files -> what captioning each of them once takes."""
    audio_per_s = found.audio.tokens_per_s if found and found.audio.tokens_per_s else dialect.rates.audio_per_s
    files, seconds, frames, visual, audio, text = 0, 0.0, 0, 0, 0.0, 0
    for one in lengths:
        files, seconds = files + 1, seconds + one.seconds
        num = len(frame_instants(start_s=0.0, end_s=one.seconds, fps=dialect.fps, max_frames=dialect.max_frames))
        num = num if one.height else 0
        frames += num
        visual += dialect.rates.video(num_frames=num, height=one.height, width=one.width)
        audio += audio_per_s * one.seconds * one.has_audio
        prompt = ENGINE_PROMPTS.choose(interval_s=None, has_video=num > 0, has_audio=one.has_audio)
        text += -(-len(prompt) // BYTES_PER_TOKEN)
    price, new_tokens = find_price(spec.model, prices=prices), files * MAX_NEW_TOKENS
    tokens = visual + round(audio) + text
    return EnginePlan(
        num_files=files,
        seconds=seconds,
        frames=frames,
        visual_tokens=visual,
        audio_tokens=round(audio),
        text_tokens=text,
        new_tokens=new_tokens,
        assumed=assumed,
        money_usd=None if price is None else price.of(input_tokens=tokens, output_tokens=new_tokens),
    )


def measure(paths: Iterable[str], *, max_pixels: int) -> Iterator[Length | MediaError]:
    """Files -> how long they are, or why they cannot be read; of each one frame is decoded, in worker processes."""
    budget = PixelBudget(max_frame_pixels=max_pixels, min_frame_pixels=784, max_frames=1, factor=2)
    requests = (ClipRequest(path=path, max_frames=1, with_audio=False, pixel_budget=budget) for path in paths)
    with DecodePool(num_workers=NUM_DECODERS, deadline_s=DEADLINE_S) as pool:
        for clip in pool.map(requests):
            if isinstance(clip, MediaError):
                yield clip
                continue
            height, width = clip.frames_THWC.shape[1:3] if len(clip.frames_THWC) else (0, 0)
            yield Length(path=clip.path, seconds=clip.duration_s, height=height, width=width, has_audio=clip.has_audio)
