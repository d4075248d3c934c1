"""The parts of `--official` that touch models and features; see infer/official/options.py and docs/official.md."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from avcap.data.prompt import IM_END
from avcap.errors import UserError
from avcap.infer.official.options import refuse_plus_interval
from avcap.media.clip import Clip, ClipRequest
from avcap.model.checkpoint.load import open_source
from avcap.model.features import MediaFeatures
from avcap.model.salmonn2_plus import mrope
from avcap.model.salmonn2_plus.configuration import Salmonn2PlusConfig

# Dials of our models that no published one has -> the value without them.
_OURS = {
    "frame_difference": False,
    "connector_norm": False,
    "time_vectors": False,
    "type_vectors": False,
    "padded_audio": True,
}
_BACKBONES = ("qwen2", "qwen2_5_vl_text")


def official_fields(folder: Path) -> dict[str, str]:
    """Checkpoint folder -> the arguments of `checkpoints.load` that run it as published; only headers are read.

    UserError for a model that the published code cannot run.
    """
    config = open_source(folder).config
    ours = [name for name, value in _OURS.items() if getattr(config, name, value) != value]
    if config.text_config.model_type not in _BACKBONES:
        ours.append(f"a language model {config.text_config.model_type}")
    if ours:
        raise UserError(
            f"{folder}: got --official for a model that was never published (it has {', '.join(ours)}), expected a "
            "released video-SALMONN 2 or 2+; leave out --official"
        )
    return {"positions": "official_generate"} if _is_plus(config) else {"sync": "official"}


def official_clip_request(request: ClipRequest, config: Any) -> ClipRequest:
    """What is to be decoded -> the same, read by the published rules of the config's family.

    UserError for a part of a video, where the family has no rule for it.
    """
    if not _is_plus(config):
        return replace(request, lead_in=False, official="v1")
    refuse_plus_interval(request.interval_s)
    return replace(request, lead_in=False, official="plus")


def official_features(media: MediaFeatures, clip: Clip) -> MediaFeatures:
    """Features of a clip that was read by the published rules -> with the time that they give to temporal grids.

    UserError where the published code fails: sound that ends more than its padding before the picture.
    """
    if media.grid is None:
        return media
    # 2 / (frames / duration); that frames stand closer, at (N - 1) / (T - 1) frames of the file, is not seen
    seconds = 2.0 / (media.grid.num_frames / clip.end_s)
    return replace(media, grid=replace(media.grid, seconds_per_grid=seconds))


def check_audio_lasts(media: MediaFeatures, *, num_audio: int, path: str) -> None:
    """Raises UserError where the published interleaving would give the last temporal grid less than no sound."""
    if media.grid is None or not num_audio:
        return
    taken = mrope.grid_times(len(media.frame_times_T), seconds_per_grid=media.grid.seconds_per_grid)[-1]
    if taken > num_audio:
        raise UserError(
            f"{path}: got {num_audio} tokens of sound for a picture that takes {taken} before its last frames; the "
            "published code fails on it and drops the video: leave out --official"
        )


def official_prompt(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, config: Any) -> list[int]:
    """Ids of a prompt -> those that reach the published model.

    The collator of video-SALMONN 2 masks padding by its id. A tokenizer that pads with `<|im_end|>`, or has no padding
    and so falls back to it, loses every `<|im_end|>` of the prompt.
    """
    end_id = tokenizer.convert_tokens_to_ids(IM_END)
    if _is_plus(config) or tokenizer.pad_token_id not in (None, end_id):
        return list(ids)
    return [token for token in ids if token != end_id]


def _is_plus(config: Any) -> bool:
    return isinstance(config, Salmonn2PlusConfig)
