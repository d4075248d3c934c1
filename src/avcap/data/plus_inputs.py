"""What the published video-SALMONN 2+ makes of a video's frames before its vision tower sees them.

    frames -> resize_frames (size: media.frame_size.PixelBudget) -> model.patches.to_patches -> normalised patches

T frames  C channels  H, W pixels
"""

import torch
import torch.nn.functional as F


def resize_frames(frames_TCHW: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """8-bit frames (T, C, H, W) -> 8-bit frames of `size` (height, width), bicubic with antialiasing.

    Bit for bit what the published code computes; it rounds to 8 bits between its two passes, so the same call on floats
    is not the same.
    """
    assert frames_TCHW.dtype == torch.uint8, f"got frames of {frames_TCHW.dtype}, expected 8-bit ones"
    if tuple(frames_TCHW.shape[-2:]) == size:
        return frames_TCHW
    return F.interpolate(frames_TCHW, size=size, mode="bicubic", antialias=True)
