"""What the published code of video-SALMONN 2+ does otherwise than we do; docs/official.md measures it."""

from dataclasses import replace
from typing import Any

from avcap.errors import UserError
from avcap.media.clip import Clip
from avcap.model.family import OfficialRules
from avcap.model.features import MediaFeatures
from avcap.model.salmonn2_plus import mrope
from avcap.model.salmonn2_plus.configuration import BACKBONES


class Salmonn2PlusOfficial(OfficialRules):
    title = "video-SALMONN 2+"
    config_fields = {"positions": "official_generate"}  # noqa: RUF012  (read only)
    reading = "plus"
    cuts_intervals = False
    resize = "bicubic on 8-bit tensors"

    def unpublished(self, config: Any) -> list[str]:
        """Config -> what of it no published model has."""
        ours = [] if config.padded_audio else ["padded_audio"]
        text = config.text_config.model_type
        return ours if text in BACKBONES["qwen2_5_vl"] else [*ours, f"a language model {text}"]

    def features(self, media: MediaFeatures, clip: Clip) -> MediaFeatures:
        """Features of a clip that was read by the published rules -> with the time that they give to temporal grids."""
        if media.grid is None:
            return media
        # 2 / (frames / duration); that frames stand closer, at (N - 1) / (T - 1) frames of the file, is not seen
        seconds = 2.0 / (media.grid.num_frames / clip.end_s)
        return replace(media, grid=replace(media.grid, seconds_per_grid=seconds))

    def check_audio(self, media: MediaFeatures, *, num_audio: int, path: str) -> None:
        """Raises UserError where the published interleaving would give the last temporal grid less than no sound."""
        if media.grid is None or not num_audio:
            return
        taken = mrope.grid_times(len(media.frame_times_T), seconds_per_grid=media.grid.seconds_per_grid)[-1]
        if taken > num_audio:
            raise UserError(
                f"{path}: got {num_audio} tokens of sound for a picture that takes {taken} before its last frames; the "
                "published code fails on it and drops the video: leave out --official"
            )
