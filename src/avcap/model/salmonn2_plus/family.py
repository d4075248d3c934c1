"""The family of video-SALMONN 2+: temporal grids of two frames, of any shape within a budget of pixels."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from avcap.media.clip import Clip, ClipRequest
from avcap.media.deadline import Check
from avcap.media.frame_size import PixelBudget
from avcap.model.family import UNITS_AT_ONCE, Family, TowerLoad
from avcap.model.features import VisionFeatures, VisionGrid
from avcap.model.salmonn2_plus.configuration import Salmonn2PlusConfig
from avcap.model.salmonn2_plus.modeling import Salmonn2PlusForCaptioning
from avcap.model.salmonn2_plus.official import Salmonn2PlusOfficial
from avcap.model.salmonn2_plus.patches import resize_frames
from avcap.model.salmonn2_plus.released import RELEASED

PIXEL_COPIES = 3  # of the pixels of a piece, in float32, alive at once while they are normalised


class Salmonn2PlusFamily(Family):
    """With each of its backbones: a Qwen2.5-VL as released, or a Qwen3-VL."""

    model_class = Salmonn2PlusForCaptioning
    released = RELEASED
    official = Salmonn2PlusOfficial()
    fps = 10.0
    max_frames = 768

    def clip_request(self, config: Salmonn2PlusConfig, path: str, **options: Any) -> ClipRequest:
        """Config and what is expected of a file -> the same, in frames of a size within the budget."""
        return ClipRequest(path=path, pixel_budget=pixel_budget(config), **options)

    def encode_frames(self, model: Salmonn2PlusForCaptioning, clip: Clip, *, check: Check) -> VisionFeatures:
        """A clip -> the features of its temporal grids, and how they lie."""
        sizes, times_T = model.config.patch_sizes, clip.frame_times_T
        frames_TCHW = torch.from_numpy(clip.frames_THWC).permute(0, 3, 1, 2)
        num_frames = len(frames_TCHW)
        # decoded by `clip_request` they have it; frames of the size in the file get it as the published code does it
        size = pixel_budget(model.config).frame_size(*frames_TCHW.shape[2:], num_frames=num_frames)
        parts = []
        for part_TCHW in resize_frames(frames_TCHW, size).split(UNITS_AT_ONCE * sizes.frames):
            check()
            parts.append(model.encode_video(part_TCHW))
        step_s = (times_T[-1] - times_T[0]) / (num_frames - 1) if num_frames > 1 else 1.0
        grid = VisionGrid(
            height=size[0] // sizes.factor,
            width=size[1] // sizes.factor,
            seconds_per_grid=sizes.frames * float(step_s),
            num_frames=num_frames,
        )
        return VisionFeatures(vision_TNV=torch.cat(parts), frame_times_T=times_T[:: sizes.frames].tolist(), grid=grid)

    def vision_shape(self, config: Salmonn2PlusConfig, frames_TCHW: torch.Tensor) -> tuple[int, int]:
        """Frames of the tower's size -> how many temporal grids they make, and the tokens of each."""
        sizes, (num_frames, _, height, width) = config.patch_sizes, frames_TCHW.shape
        return -(-num_frames // sizes.frames), (height // sizes.factor) * (width // sizes.factor)

    def tower_load(
        self, config: Salmonn2PlusConfig, *, frame_times_s: Sequence[float], frame_size: tuple[int, int]
    ) -> TowerLoad:
        """Times and size of the frames of a file -> what the tower would have to do."""
        sizes, vision, num_frames = config.patch_sizes, config.vision_config, len(frame_times_s)
        pixels = pixel_budget(config).frame_size(*frame_size, num_frames=num_frames)
        height, width = (side // sizes.factor for side in pixels)
        num_grids = math.ceil(num_frames / sizes.frames)
        num_patches = num_grids * height * width * sizes.merge**2
        at_once = num_patches * min(1.0, UNITS_AT_ONCE / num_grids)
        numbers = 3 * sizes.frames * sizes.patch**2
        step_s = frame_times_s[1] - frame_times_s[0] if num_frames > 1 else 1.0
        grid = VisionGrid(height=height, width=width, seconds_per_grid=sizes.frames * step_s, num_frames=num_frames)
        row = vision.hidden_size * sizes.merge**2
        return TowerLoad(
            vision=VisionFeatures(
                vision_TNV=torch.empty(num_grids, height * width, row, device="meta"),
                frame_times_T=frame_times_s[:: sizes.frames],
                grid=grid,
            ),
            num_patches=num_patches,
            patches_at_once=at_once,
            pixel_bytes=2 * num_patches * numbers + PIXEL_COPIES * 4 * at_once * numbers,
            hidden_size=vision.hidden_size,
            intermediate_size=vision.intermediate_size,
        )

    def encoder_fields(self, config: Salmonn2PlusConfig) -> dict[str, Any]:
        """Config -> what of it changes features without a change of the encoders' weights."""
        return super().encoder_fields(config) | {"image_mean": config.image_mean, "image_std": config.image_std}


def pixel_budget(config: Salmonn2PlusConfig) -> PixelBudget:
    """Config -> how large a frame may be."""
    return PixelBudget(
        max_frame_pixels=config.max_frame_pixels,
        min_frame_pixels=config.min_frame_pixels,
        max_frames=config.budget_frames,
        factor=config.patch_sizes.factor,
    )
