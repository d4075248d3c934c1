"""Frames become the rows that a Qwen2.5-VL vision tower reads: pure functions on tensors.

    frames -> resize_frames (size: media.frame_size.PixelBudget) -> to_patches -> normalize_patches

T frames  C channels  H, W pixels  R rows (patches of two frames)  E numbers of a row  S temporal grids
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True, kw_only=True)
class PatchSizes:
    """How a tower cuts pictures: sides of a patch, patches of a token's side, frames of a temporal grid."""

    patch: int = 14
    merge: int = 2
    frames: int = 2

    @property
    def factor(self) -> int:
        """Sides of a frame are multiples of this."""
        return self.patch * self.merge


def resize_frames(frames_TCHW: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """8-bit frames (T, C, H, W) -> 8-bit frames of `size` (height, width), bicubic with antialiasing.

    Bit for bit what the published code computes; it rounds to 8 bits between its two passes, so the same call on floats
    is not the same.
    """
    assert frames_TCHW.dtype == torch.uint8, f"got frames of {frames_TCHW.dtype}, expected 8-bit ones"
    if tuple(frames_TCHW.shape[-2:]) == size:
        return frames_TCHW
    return F.interpolate(frames_TCHW, size=size, mode="bicubic", antialias=True)


def to_patches(frames_TCHW: torch.Tensor, sizes: PatchSizes) -> tuple[torch.Tensor, tuple[int, int, int]]:
    """Frames -> rows (R, E) and the patch grid (temporal, height, width); any dtype.

    An odd last frame is repeated. A row holds one patch of `sizes.frames` frames as (C, frames, patch, patch). Rows go
    grid by grid, within it token by token, and the merge x merge patches of a token stand together.
    """
    num_frames, channels, height, width = frames_TCHW.shape
    if height % sizes.factor or width % sizes.factor:
        raise ValueError(f"frames: got {height} x {width} pixels, expected multiples of {sizes.factor}")
    missing = -num_frames % sizes.frames
    frames_TCHW = torch.cat([frames_TCHW, frames_TCHW[-1:].expand(missing, -1, -1, -1)])
    grid = len(frames_TCHW) // sizes.frames, height // sizes.patch, width // sizes.patch
    cut = frames_TCHW.reshape(
        grid[0],
        sizes.frames,
        channels,
        grid[1] // sizes.merge,
        sizes.merge,
        sizes.patch,
        grid[2] // sizes.merge,
        sizes.merge,
        sizes.patch,
    )
    # -> grid, token row, token column, patch row and column in the token, channel, frame, pixel row, pixel column
    rows = cut.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return rows.reshape(grid[0] * grid[1] * grid[2], -1), grid


def normalize_patches(rows_RE: torch.Tensor, *, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """8-bit rows -> float32 pixel values, (value - 255 mean) / (255 std): the published code's fused rule, exactly."""
    mean_C1, std_C1 = (torch.tensor(values, device=rows_RE.device)[:, None] * 255 for values in (mean, std))
    rows_RCE = rows_RE.to(torch.float32).unflatten(1, (len(mean), -1))
    return ((rows_RCE - mean_C1) / std_C1).flatten(1)
