"""A family of models that avcap does not have: a frame is one token, made of the mean colours of its cells.

All that a family needs is here: configuration, model, and the Family object. Nothing in src knows of it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import Blip2QFormerConfig, PreTrainedConfig, Qwen2Config, Qwen2ForCausalLM, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from avcap.media.clip import ClipRequest
from avcap.model.aligner import AudioAligner
from avcap.model.captioning import CaptioningModel
from avcap.model.configuration import CHATML_V1, AudioWindows
from avcap.model.family import Family, TowerLoad
from avcap.model.features import MediaTokens, Outline, VisionFeatures
from avcap.model.interleave import AUDIO_ID, VISUAL_ID, num_real_windows, plan_true_time
from support.tiny_plus import TOKENIZER_FILES, TOKENIZER_FOLDER

CELLS = 4
WIDTH = 32


class ThirdConfig(AudioWindows, PreTrainedConfig):
    model_type = "avcap_third"
    sub_configs: ClassVar[dict[str, type]] = {
        "text_config": Qwen2Config,
        "audio_config": WhisperConfig,
        "qformer_config": Blip2QFormerConfig,
    }
    text_config: Any = None
    audio_config: Any = None
    qformer_config: Any = None
    window_s: float = 0.5
    window_stride_s: float = 0.5
    num_queries: int = 1
    chat: Any = None

    def __post_init__(self, **kwargs: Any) -> None:
        for name, config_class in self.sub_configs.items():
            given = getattr(self, name)
            setattr(self, name, given if isinstance(given, config_class) else config_class(**given))
        self.chat = dict(self.chat or CHATML_V1)
        super().__post_init__(**kwargs)


@dataclass(frozen=True, kw_only=True)
class ThirdOutline(Outline):
    num_audio: int


class CellTower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(3 * CELLS**2, WIDTH)


class ThirdModel(CaptioningModel):
    config_class = ThirdConfig

    def __init__(self, config: ThirdConfig) -> None:
        super().__init__(config)
        self.vision_tower = CellTower()
        self.vision_aligner = nn.Linear(WIDTH, config.text_config.hidden_size)
        self.audio_encoder = WhisperEncoder(config.audio_config)
        self.audio_aligner = AudioAligner(config)
        self.language_model = Qwen2ForCausalLM(config.text_config)
        self.post_init()

    def encode_video(self, frames_TCHW, *, with_grad=False):
        cells_TE = nn.functional.adaptive_avg_pool2d(frames_TCHW.to(self.device, self.dtype) / 255, CELLS).flatten(1)
        with torch.set_grad_enabled(with_grad and torch.is_grad_enabled()):
            return self.vision_tower.proj(cells_TE)[:, None]

    def outline(self, media):
        starts_s = self._window_starts(media)
        starts_s = starts_s[: num_real_windows(starts_s, audio_seconds=media.audio_seconds)]
        groups = plan_true_time(media.frame_times_T, [media.start_s + start for start in starts_s])
        ids = [n for one in groups for n in [VISUAL_ID] * (one.frame is not None) + [AUDIO_ID] * len(one.audio)]
        return ThirdOutline(ids=ids, seconds=[0] * len(ids), types=[0] * len(ids), num_audio=len(starts_s))

    def align_batch(self, media, outlines=None):
        return [self._tokens(*both) for both in zip(media, outlines or map(self.outline, media), strict=True)]

    def _tokens(self, media, outline):
        is_audio_M = torch.tensor([token == AUDIO_ID for token in outline.ids], device=self.device)
        embeds_MD = torch.zeros(len(outline.ids), self.embed_width, device=self.device, dtype=self.dtype)
        if media.vision_TNV is not None:
            visual_TD = self.vision_aligner(media.vision_TNV[:, 0].to(self.device, self.dtype))
            embeds_MD = embeds_MD.masked_scatter(~is_audio_M[:, None], visual_TD)
        if outline.num_audio:
            audio_UD = self.audio_aligner.project(self._audio_queries([media], [outline.num_audio]))
            embeds_MD = embeds_MD.masked_scatter(is_audio_M[:, None], audio_UD)
        return MediaTokens(
            ids=outline.ids,
            embeds_MD=embeds_MD,
            content_MD=embeds_MD,
            seconds_M=torch.zeros_like(is_audio_M, dtype=torch.long),
            types_M=torch.zeros_like(is_audio_M, dtype=torch.long),
            num_visual=outline.ids.count(VISUAL_ID),
            num_audio=outline.num_audio,
            num_frames=len(media.frame_times_T),
        )


class ThirdFamily(Family):
    model_class = ThirdModel
    fps, max_frames = 2.0, 6

    def clip_request(self, config, path, **options):
        return ClipRequest(path=path, frame_size=(32, 48), **options)

    def encode_frames(self, model, clip, *, check):
        check()
        frames_TCHW = torch.from_numpy(clip.frames_THWC).permute(0, 3, 1, 2)
        return VisionFeatures(vision_TNV=model.encode_video(frames_TCHW), frame_times_T=clip.frame_times_T.tolist())

    def vision_shape(self, config, frames_TCHW):
        return len(frames_TCHW), 1

    def tower_load(self, config, *, frame_times_s, frame_size):
        vision_TNV = torch.empty(len(frame_times_s), 1, WIDTH, device="meta")
        return TowerLoad(
            vision=VisionFeatures(vision_TNV=vision_TNV, frame_times_T=frame_times_s),
            num_patches=len(frame_times_s),
            patches_at_once=1.0,
            pixel_bytes=0.0,
            hidden_size=WIDTH,
            intermediate_size=WIDTH,
        )


def write_third(folder: Path) -> Path:
    """A checkpoint folder of the family with random weights and the tokenizer of another model."""
    torch.manual_seed(0)
    audio = {"num_mel_bins": 80, "d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2}
    audio |= {"encoder_ffn_dim": 64, "max_source_positions": 50}
    qformer = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    text = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096}
    config = ThirdConfig(
        text_config=text | {"bos_token_id": 284, "eos_token_id": 283, "pad_token_id": 284},
        audio_config=audio,
        qformer_config=qformer | {"cross_attention_frequency": 1, "encoder_hidden_size": 32},
    )
    model = ThirdModel(config)
    with torch.no_grad():
        model.vision_aligner.weight.mul_(50)  # as drawn, what is written hardly depends on the video
    model.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        (folder / name).write_bytes((TOKENIZER_FOLDER / name).read_bytes())
    (folder / "avcap.json").write_text('{"name": "third", "max_new_tokens": 6}\n')  # frames: as the family says
    return folder
