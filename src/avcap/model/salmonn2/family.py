"""The family of video-SALMONN 2: single frames, squashed to the side that its tower has."""

from collections.abc import Sequence
from typing import Any

import torch

from avcap.media.clip import Clip, ClipRequest
from avcap.media.deadline import Check
from avcap.model.family import UNITS_AT_ONCE, Family, TowerLoad
from avcap.model.features import VisionFeatures
from avcap.model.salmonn2.configuration import Salmonn2Config
from avcap.model.salmonn2.modeling import Salmonn2ForCaptioning
from avcap.model.salmonn2.official import Salmonn2Official
from avcap.model.salmonn2.released import RELEASED

PIXEL_COPIES = 2  # of all frames, in float32, alive at once while they are normalised
_ENCODER_FIELDS = ("vision_layers_dropped", "pool_position", "pool_mode", "pool_stride", "image_mean", "image_std")


class Salmonn2Family(Family):
    model_class = Salmonn2ForCaptioning
    released = RELEASED
    official = Salmonn2Official()
    resize = "Pillow bicubic, squashed"

    def clip_request(self, config: Salmonn2Config, path: str, **options: Any) -> ClipRequest:
        """Config and what is expected of a file -> the same, in frames of the tower's size."""
        side = config.vision_config.image_size
        return ClipRequest(path=path, frame_size=(side, side), lead_in=self.needs_lead_in(config), **options)

    def encode_frames(self, model: Salmonn2ForCaptioning, clip: Clip, *, check: Check) -> VisionFeatures:
        """A clip -> the features of its frames and of the frame before them."""
        frames_TCHW = torch.from_numpy(clip.frames_THWC).permute(0, 3, 1, 2)
        parts, lead_in_HWC = [], clip.lead_in_frame_HWC
        for part_TCHW in frames_TCHW.split(UNITS_AT_ONCE):
            check()
            parts.append(model.encode_video(part_TCHW))
        lead_in_NV = None
        if lead_in_HWC is not None:
            lead_in_NV = model.encode_video(torch.from_numpy(lead_in_HWC).permute(2, 0, 1)[None])[0]
        return VisionFeatures(
            vision_TNV=torch.cat(parts), frame_times_T=clip.frame_times_T.tolist(), lead_in_NV=lead_in_NV
        )

    def vision_shape(self, config: Salmonn2Config, frames_TCHW: torch.Tensor) -> tuple[int, int]:
        """Frames -> how many there are, and the patches of each."""
        return len(frames_TCHW), config.grid_size**2

    def tower_load(
        self, config: Salmonn2Config, *, frame_times_s: Sequence[float], frame_size: tuple[int, int]
    ) -> TowerLoad:
        """Times of the frames of a file -> what the tower would have to do; every size becomes the same one."""
        del frame_size
        num_frames, vision = len(frame_times_s), config.vision_config
        side = config.cells_per_side if config.pool_position == "before" else config.grid_size
        num_patches = num_frames * config.grid_size**2
        return TowerLoad(
            vision=VisionFeatures(
                vision_TNV=torch.empty(num_frames, side**2, vision.hidden_size, device="meta"),
                frame_times_T=frame_times_s,
            ),
            num_patches=num_patches,
            patches_at_once=num_patches * min(1.0, UNITS_AT_ONCE / num_frames),
            pixel_bytes=PIXEL_COPIES * 4 * num_frames * 3 * vision.image_size**2,
            hidden_size=vision.hidden_size,
            intermediate_size=vision.intermediate_size,
        )

    def needs_lead_in(self, config: Salmonn2Config) -> bool:
        """Whether the frame before the first one is looked at, too: for the first frame difference."""
        return config.frame_difference

    def writes_frame_times(self, config: Salmonn2Config) -> bool:
        """Whether each frame of a clip without audio is followed by its time as text."""
        return config.time_text

    def encoder_fields(self, config: Salmonn2Config) -> dict[str, Any]:
        """Config -> what of it changes features without a change of the encoders' weights."""
        return super().encoder_fields(config) | {name: getattr(config, name) for name in _ENCODER_FIELDS}
