"""A Clip goes through the frozen encoders of a model.

T frames  H, W pixels  C channels  S samples of sound  K sound chunks
"""

import torch
from transformers import PreTrainedTokenizerBase

from avcap.data.prompt import time_text_ids
from avcap.media.clip import Clip
from avcap.media.mel import chunk_waveform, log_mel
from avcap.model.features import MediaFeatures
from avcap.model.salmonn2 import Salmonn2ForCaptioning

CHUNKS_AT_ONCE = 32  # spectra of an hour of sound at once would take gigabytes


@torch.no_grad()
def encode_clip(
    model: Salmonn2ForCaptioning, clip: Clip, *, tokenizer: PreTrainedTokenizerBase
) -> MediaFeatures:
    """Clip, its frames in the tower's size -> what the encoders make of it. It needs frames or sound."""
    config = model.config
    vision_TNV, lead_in_NV = _encode_picture(model, clip)
    has_sound = len(clip.waveform_S) > 0
    num_frames = len(clip.frame_times_T)
    times = None
    if config.time_text and num_frames and not has_sound:
        times = time_text_ids(tokenizer, num_frames=num_frames, duration_s=clip.end_s - clip.start_s)
    return MediaFeatures(
        vision_TNV=vision_TNV,
        frame_times_T=clip.frame_times_T.tolist(),
        lead_in_NV=lead_in_NV,
        sound_KPA=_encode_sound(model, clip) if has_sound else None,
        audio_seconds=len(clip.waveform_S) / clip.sample_rate_hz,
        start_s=clip.start_s,
        time_text_ids=times,
    )


def _encode_picture(model: Salmonn2ForCaptioning, clip: Clip) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Clip -> features of its frames and of the frame before them, None where there are none."""
    if not len(clip.frames_THWC):
        return None, None
    vision_TNV = _encode_frames(model, torch.from_numpy(clip.frames_THWC))
    if clip.lead_in_frame_HWC is None:
        return vision_TNV, None
    return vision_TNV, _encode_frames(model, torch.from_numpy(clip.lead_in_frame_HWC)[None])[0]


def _encode_frames(model: Salmonn2ForCaptioning, frames_THWC: torch.Tensor) -> torch.Tensor:
    return model.encode_frames(model.normalize_pixels(frames_THWC.permute(0, 3, 1, 2)))


def _encode_sound(model: Salmonn2ForCaptioning, clip: Clip) -> torch.Tensor:
    """Clip -> sound features (K, P, A)."""
    chunks_KS = chunk_waveform(torch.from_numpy(clip.waveform_S), chunk_s=model.config.chunk_s)
    num_mel_bins = model.config.audio_config.num_mel_bins
    return torch.cat(
        [
            model.encode_sound(log_mel(part_KS, num_mel_bins=num_mel_bins))
            for part_KS in chunks_KS.split(CHUNKS_AT_ONCE)
        ]
    )
