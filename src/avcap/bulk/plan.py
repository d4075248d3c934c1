"""What captioning a folder will take: its files are looked at, a thousand of them where there are more, and multiplied.

    paths -> some of them, drawn by a seed -> lengths, sizes, audio -> factor for all; a few are decoded whole, for time

Of each file that is looked at one frame is decoded, in worker processes. No torch by itself.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from avcap.engines.captioner import NUM_DECODERS
from avcap.engines.plan import DEADLINE_S, EnginePlan, Length
from avcap.errors import MediaError
from avcap.media.clip import ClipRequest
from avcap.media.frame_size import PixelBudget
from avcap.media.pool import DecodePool

if TYPE_CHECKING:
    from avcap.infer.plan import Plan

MOST_FILES = 1_000
NUM_DECODED = 4
NUM_GROUPS = 6
"""Files that run here are planned by so many lengths: the cost of a file does not grow in proportion to its length."""
BYTES_PER_TOKEN = 4
RECORD_BYTES, BLOCK_BYTES = 900, 4096
"""A record beside its text, as JSON; the least that a side-car takes on a disk."""


@dataclass(frozen=True, kw_only=True)
class LookedAt:
    """Files that were looked at, out of all."""

    num_files: int
    lengths: tuple[Length, ...]
    errors: tuple[MediaError, ...]
    decoding_s: float
    """Of one second of file, by one process, from a few files that were decoded whole; 0 if none could be."""

    @property
    def is_sample(self) -> bool:
        """Whether figures are multiplied."""
        return len(self.lengths) + len(self.errors) < self.num_files

    @property
    def factor(self) -> float:
        """What sums over `lengths` are multiplied by; files that cannot be read are as frequent among the others."""
        return self.num_files / max(1, len(self.lengths) + len(self.errors))

    @property
    def num_readable(self) -> int:
        """Files that give captions, of all."""
        return round(len(self.lengths) * self.factor)

    @property
    def seconds(self) -> float:
        """How long all of them last."""
        return sum(one.seconds for one in self.lengths) * self.factor

    @property
    def error_share(self) -> float:
        """Twice the standard error of `seconds` as a share of it: what drawing other files would change."""
        values = [one.seconds for one in self.lengths]
        if not self.is_sample or len(values) < 2 or not any(values):
            return 0.0
        return 2 * stdev(values) / math.sqrt(len(values)) / fmean(values)

    def disk_bytes(self, *, new_tokens: int) -> int:
        """The record and a side-car for each caption, which are as long as they may be."""
        text = new_tokens * BYTES_PER_TOKEN
        return self.num_readable * (RECORD_BYTES + text + math.ceil(text / BLOCK_BYTES) * BLOCK_BYTES)


def look_at(
    paths: Sequence[str],
    *,
    measure: Callable[[Sequence[str]], Sequence[Length | MediaError]],
    request: ClipRequest,
    most: int = MOST_FILES,
    seed: int = 0,
) -> LookedAt:
    """Paths -> what is known of them.

    Args:
        paths: All files.
        measure: Files -> lengths or errors, as engines.plan.measure.
        request: How a file is read for the model; its path is replaced.
        most: Files that are looked at; of more, so many are drawn.
        seed: Which.
    """
    drawn = list(paths) if len(paths) <= most else sorted(random.Random(seed).sample(list(paths), most))
    found = list(measure(drawn))
    lengths = tuple(one for one in found if isinstance(one, Length))
    errors = tuple(one for one in found if isinstance(one, MediaError))
    return LookedAt(
        num_files=len(paths), lengths=lengths, errors=errors, decoding_s=_decoding_s(lengths, request=request)
    )


def _decoding_s(lengths: Sequence[Length], *, request: ClipRequest) -> float:
    """Files -> seconds that decoding one second of them takes; the shorter half of them is tried."""
    shorter = sorted(lengths, key=lambda one: one.seconds)[: (len(lengths) + 1) // 2]
    some = shorter[:: max(1, len(shorter) // NUM_DECODED)][:NUM_DECODED]
    spent, seconds = 0.0, 0.0
    with DecodePool(num_workers=1, deadline_s=DEADLINE_S) as pool:
        for one, clip in zip(some, pool.map(replace(request, path=one.path) for one in some), strict=True):
            if not isinstance(clip, MediaError):
                spent, seconds = spent + clip.decoding_s, seconds + one.seconds
    return spent / seconds if seconds else 0.0


def length_request(path: str, *, fps: float, max_frames: int, max_pixels: int) -> ClipRequest:
    """A file -> how all of it is read, for its decoding time."""
    budget = PixelBudget(max_frame_pixels=max_pixels, min_frame_pixels=784, max_frames=1, factor=2)
    return ClipRequest(path=path, fps=fps, max_frames=max_frames, pixel_budget=budget)


def multiplied(plan: EnginePlan, factor: float) -> EnginePlan:
    """A plan of the files that were looked at -> that of all."""
    whole: dict[str, Any] = {
        one.name: round(value * factor) if isinstance(value, int) else value * factor
        for one in fields(plan)
        if isinstance(value := getattr(plan, one.name), int | float)
    }
    return replace(plan, **whole)


@dataclass(frozen=True, kw_only=True)
class LocalPlan:
    """What a model that runs here takes for all files, one process."""

    prompt_tokens: int
    new_tokens: int
    most_bytes: int
    """Memory for the longest file."""
    model_s: float
    decoding_s: float


def plan_local(looked: LookedAt, plan: Callable[[float, tuple[int, int]], "Plan"]) -> LocalPlan:
    """Files that were looked at -> figures of all of them.

    Args:
        looked: The files.
        plan: A length in seconds and (height, width) -> the plan of one, as infer.plan.plan.
    """
    lengths = sorted(looked.lengths, key=lambda one: one.seconds)
    size = -(-len(lengths) // NUM_GROUPS)
    groups = [lengths[start : start + size] for start in range(0, len(lengths), size)]
    prompt, new, model_s, most = 0.0, 0.0, 0.0, 0
    for group in groups:
        middle = group[len(group) // 2]
        one = plan(fmean(each.seconds for each in group), (middle.height or 720, middle.width or 1280))
        prompt += one.prompt_tokens * len(group)
        new += one.new_tokens * len(group)
        model_s += one.seconds * len(group)
    if lengths:
        most = plan(lengths[-1].seconds, (lengths[-1].height or 720, lengths[-1].width or 1280)).total_bytes
    return LocalPlan(
        prompt_tokens=round(prompt * looked.factor),
        new_tokens=round(new * looked.factor),
        most_bytes=most,
        model_s=model_s * looked.factor,
        decoding_s=looked.decoding_s * looked.seconds,
    )


def decoding_hours(looked: LookedAt) -> float:
    """Hours for decoding all files in as many processes as an engine's captioner has."""
    return looked.decoding_s * looked.seconds / NUM_DECODERS / 3600
