"""A file is looked at as a model wants it, and the Clip goes through its frozen encoders.

K audio chunks  P positions of a chunk  A width of the audio encoder
"""

from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from avcap.data.prompt import time_text_ids
from avcap.media.clip import Clip, ClipRequest
from avcap.media.deadline import Check, no_check
from avcap.media.mel import chunk_waveform, log_mel
from avcap.model.captioning import CaptioningModel
from avcap.model.family import family_of
from avcap.model.features import MediaFeatures, VisionFeatures

CHUNKS_AT_ONCE = 32  # spectra of an hour of sound at once would take gigabytes


def clip_request(config: Any, path: str, **options: Any) -> ClipRequest:
    """Config of a model and what is wanted of a file (fields of ClipRequest) -> the same, in frames of its size."""
    return family_of(config).clip_request(config, path, **options)


@torch.no_grad()
def encode_clip(
    model: CaptioningModel, clip: Clip, *, tokenizer: PreTrainedTokenizerBase, check: Check = no_check
) -> MediaFeatures:
    """Clip, decoded as `clip_request` says -> what the encoders make of it. It needs frames or sound.

    `check` is called between pieces of the work, and may end it.
    """
    family, has_audio, num_frames = family_of(model.config), len(clip.waveform_S) > 0, len(clip.frames_THWC)
    vision = family.encode_frames(model, clip, check=check) if num_frames else VisionFeatures()
    times = None
    if num_frames and not has_audio and family.writes_frame_times(model.config):
        times = time_text_ids(tokenizer, num_frames=num_frames, duration_s=clip.end_s - clip.start_s)
    return MediaFeatures(
        vision_TNV=vision.vision_TNV,
        frame_times_T=vision.frame_times_T,
        lead_in_NV=vision.lead_in_NV,
        grid=vision.grid,
        audio_KPA=_encode_audio(model, clip, check) if has_audio else None,
        audio_seconds=len(clip.waveform_S) / clip.sample_rate_hz,
        start_s=clip.start_s,
        time_text_ids=times,
    )


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
