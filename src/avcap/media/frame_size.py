"""To which size the frames of a video are brought, for models that look at frames of any shape within a budget."""

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PixelBudget:
    """How many pixels a frame may have. The defaults are those of the released video-SALMONN 2+ (its train.sh).

    A video with fewer frames than `max_frames` may have larger ones, so that it costs about as many visual tokens.
    """

    max_frame_pixels: int = 61_250
    min_frame_pixels: int = 784
    max_frames: int = 768
    factor: int = 28
    """Both sides of a frame are multiples of this: patch size x how many patches a side become one token."""

    def frame_size(self, height: int, width: int, *, num_frames: int) -> tuple[int, int]:
        """Size of the video's frames and how many are looked at -> (height, width) they are brought to."""
        max_pixels = plus_frame_pixels(self.max_frame_pixels, num_frames=num_frames, max_frames=self.max_frames)
        return smart_resize(height, width, factor=self.factor, min_pixels=self.min_frame_pixels, max_pixels=max_pixels)


def plus_frame_pixels(max_frame_pixels: int, *, num_frames: int, max_frames: int) -> float:
    """Pixels that a frame may have at `max_frames` frames -> those that it may have at `num_frames`.

    Released video-SALMONN 2+: below the cap, 95 % of the cap's budget is shared by the frames that there are.

    >>> plus_frame_pixels(61_250, num_frames=384, max_frames=768)  # 0.95 * 768 / 384 * 61250
    116375.0
    """
    if num_frames >= max_frames:
        return float(max_frame_pixels)
    return 0.95 * max_frames / num_frames * max_frame_pixels


def smart_resize(height: int, width: int, *, factor: int, min_pixels: float, max_pixels: float) -> tuple[int, int]:
    """(height, width) -> the same shape nearly, sides multiples of `factor`, area between the two limits.

    The rule of Qwen2-VL and its successors: sides are rounded to the nearest multiple; where that is too large or too
    small an area, both are scaled and rounded down or up instead.

    >>> smart_resize(60, 100, factor=28, min_pixels=784, max_pixels=6080)  # 56 x 112 = 6272 would be too much
    (56, 84)
    """
    rounded = round(height / factor) * factor, round(width / factor) * factor
    if math.prod(rounded) > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        return _multiple(height / shrink, factor, math.floor), _multiple(width / shrink, factor, math.floor)
    if math.prod(rounded) < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        return _multiple(height * grow, factor, math.ceil), _multiple(width * grow, factor, math.ceil)
    return rounded


def _multiple(side: float, factor: int, rounding: Callable[[float], int]) -> int:
    return max(factor, rounding(side / factor) * factor)
