"""A file is looked at as a model wants it, and the Clip goes through its frozen encoders.

T frames, or temporal grids (of _TNV)  H, W pixels  C channels  N tokens or patches  V tower width  K sound chunks
P positions of a chunk  A width of the sound encoder
"""

from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from avcap.data.plus_inputs import resize_frames
from avcap.data.prompt import time_text_ids
from avcap.media.clip import Clip, ClipRequest
from avcap.media.deadline import Check, no_check
from avcap.media.frame_size import PixelBudget
from avcap.media.mel import chunk_waveform, log_mel
from avcap.model.captioning import CaptioningModel
from avcap.model.features import MediaFeatures, VisionGrid
from avcap.model.salmonn2_plus.configuration import Salmonn2PlusConfig
from avcap.model.salmonn2_plus.modeling import Salmonn2PlusForCaptioning

CHUNKS_AT_ONCE = 32  # spectra of an hour of sound at once would take gigabytes
UNITS_AT_ONCE = 32  # frames or temporal grids between two looks at the clock: as many as the towers take at once


def clip_request(config: Any, path: str, **options: Any) -> ClipRequest:
    """Config of a model and what is wanted of a file (fields of ClipRequest) -> the same, in frames of its size."""
    if isinstance(config, Salmonn2PlusConfig):
        return ClipRequest(path=path, pixel_budget=pixel_budget(config), **options)
    side = config.vision_config.image_size
    return ClipRequest(path=path, frame_size=(side, side), lead_in=config.frame_difference, **options)


def pixel_budget(config: Salmonn2PlusConfig) -> PixelBudget:
    return PixelBudget(
        max_frame_pixels=config.max_frame_pixels,
        min_frame_pixels=config.min_frame_pixels,
        max_frames=config.budget_frames,
        factor=config.patch_sizes.factor,
    )


@torch.no_grad()
def encode_clip(
    model: CaptioningModel, clip: Clip, *, tokenizer: PreTrainedTokenizerBase, check: Check = no_check
) -> MediaFeatures:
    """Clip, decoded as `clip_request` says -> what the encoders make of it. It needs frames or sound.

    `check` is called between pieces of the work, and may end it.
    """
    has_audio = len(clip.waveform_S) > 0
    encode_video = _encode_grids if isinstance(model, Salmonn2PlusForCaptioning) else _encode_frames
    times = None
    if model.config.time_text and len(clip.frame_times_T) and not has_audio:
        times = time_text_ids(tokenizer, num_frames=len(clip.frame_times_T), duration_s=clip.end_s - clip.start_s)
    return MediaFeatures(
        **encode_video(model, clip, check),
        audio_KPA=_encode_audio(model, clip, check) if has_audio else None,
        audio_seconds=len(clip.waveform_S) / clip.sample_rate_hz,
        start_s=clip.start_s,
        time_text_ids=times,
    )


def _encode_frames(model: CaptioningModel, clip: Clip, check: Check) -> dict[str, Any]:
    """Clip -> fields of its features: those of its frames and of the frame before them."""
    if not len(clip.frames_THWC):
        return {}
    lead_in_HWC = clip.lead_in_frame_HWC
    return {
        "vision_TNV": _in_pieces(model, _channels_first(clip), num_frames=UNITS_AT_ONCE, check=check),
        "frame_times_T": clip.frame_times_T.tolist(),
        "lead_in_NV": None
        if lead_in_HWC is None
        else model.encode_video(torch.from_numpy(lead_in_HWC).permute(2, 0, 1)[None])[0],
    }


def _encode_grids(model: CaptioningModel, clip: Clip, check: Check) -> dict[str, Any]:
    """Clip -> fields of its features: those of its temporal grids, and how they lie."""
    num_frames = len(clip.frames_THWC)
    if not num_frames:
        return {}
    sizes, times_T = model.config.patch_sizes, clip.frame_times_T
    frames_TCHW = _channels_first(clip)
    # decoded by `clip_request` they have this size; frames of the size in the file get it as the published code does it
    size = pixel_budget(model.config).frame_size(*frames_TCHW.shape[2:], num_frames=num_frames)
    vision_TNV = _in_pieces(
        model, resize_frames(frames_TCHW, size), num_frames=UNITS_AT_ONCE * sizes.frames, check=check
    )
    step_s = (times_T[-1] - times_T[0]) / (num_frames - 1) if num_frames > 1 else 1.0
    grid = VisionGrid(
        height=size[0] // sizes.factor,
        width=size[1] // sizes.factor,
        seconds_per_grid=sizes.frames * float(step_s),
        num_frames=num_frames,
    )
    return {"vision_TNV": vision_TNV, "frame_times_T": times_T[:: sizes.frames].tolist(), "grid": grid}


def _in_pieces(model: CaptioningModel, frames_TCHW: torch.Tensor, *, num_frames: int, check: Check) -> torch.Tensor:
    """Frames -> their vision features, so many frames at a time."""
    parts = []
    for part_TCHW in frames_TCHW.split(num_frames):
        check()
        parts.append(model.encode_video(part_TCHW))
    return torch.cat(parts)


def _channels_first(clip: Clip) -> torch.Tensor:
    return torch.from_numpy(clip.frames_THWC).permute(0, 3, 1, 2)


def _encode_audio(model: CaptioningModel, clip: Clip, check: Check) -> torch.Tensor:
    """Clip -> sound features (K, P, A)."""
    chunks_KS = chunk_waveform(torch.from_numpy(clip.waveform_S), chunk_s=model.config.chunk_s)
    num_mel_bins = model.config.audio_config.num_mel_bins
    parts = []
    for part_KS in chunks_KS.split(CHUNKS_AT_ONCE):
        check()
        parts.append(model.encode_audio(log_mel(part_KS, num_mel_bins=num_mel_bins)))
    check()
    return torch.cat(parts)
