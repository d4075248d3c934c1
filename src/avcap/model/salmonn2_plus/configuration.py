"""The dials of the salmonn2_plus family; `Salmonn2PlusConfig()` has the sizes of the released 7B model."""

from typing import Any, ClassVar

from transformers import AutoConfig, Blip2QFormerConfig, PreTrainedConfig, WhisperConfig

from avcap import v0_1
from avcap.model.configuration import CHATML_V1, RELEASED_AUDIO, AudioWindows
from avcap.model.salmonn2_plus.patches import PatchSizes

BACKBONES = {
    "qwen2_5_vl": ("qwen2_5_vl_vision", "qwen2_5_vl_text"),
    "qwen3_vl": ("qwen3_vl_vision", "qwen3_vl_text"),
}
"""Backbone of transformers -> model types of its tower and of its language model. The released 2+ models have the
first; with the second, tokens and positions are laid out as in these, which is not what anybody published."""

# One newline: the questions of the released data begin with it, and it belongs to the media.
CHATML_PLUS = CHATML_V1 | {"media_suffix": "\n"}

PLUS_QFORMER = {
    "hidden_size": 3072,
    "num_hidden_layers": 2,
    "num_attention_heads": 12,
    "intermediate_size": 12288,
    "cross_attention_frequency": 1,
}
PLUS_VISION = {
    "model_type": "qwen2_5_vl_vision",
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "out_hidden_size": 3584,
    "tokens_per_second": 2,
}
PLUS_TEXT = {
    "model_type": "qwen2_5_vl_text",
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128000,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]},
}


class Salmonn2PlusConfig(AudioWindows, PreTrainedConfig):
    """Sub-configs of stock modules plus the fields of what joins them."""

    model_type = "avcap_salmonn2_plus"
    sub_configs: ClassVar[dict[str, type]] = {
        "vision_config": AutoConfig,
        "audio_config": WhisperConfig,
        "qformer_config": Blip2QFormerConfig,
        "text_config": AutoConfig,
    }

    vision_config: Any = None
    """Config of the backbone's vision tower, or dict with its `model_type`."""
    text_config: Any = None
    """Config of the backbone's language model, or dict with its `model_type`."""
    audio_config: Any = None
    """WhisperConfig or dict; `max_source_positions` / 50 is the length of a sound chunk in seconds."""
    qformer_config: Any = None
    """Blip2QFormerConfig or dict; `encoder_hidden_size` is always that of the sound encoder."""

    window_s: float = 0.5
    """Seconds of sound under one Q-Former window."""
    window_stride_s: float = 0.5
    """Seconds from one window to the next."""
    num_queries: int = 1
    """Sound tokens per window."""
    padded_audio: bool = True
    """The tokens of the silence that fills the last sound chunk follow the last frames, as in the released training.
    False leaves them out."""

    positions: str = "train"
    """M-RoPE positions. "train": those that the released models were trained with, in all uses. "official_generate":
    those that their published generation used instead, by mistake; only to run it exactly as published."""

    max_frame_pixels: int = 61_250
    """Pixels of a frame at `budget_frames` frames; where there are fewer, each may have more (media.frame_size)."""
    min_frame_pixels: int = 784
    budget_frames: int = 768
    max_image_pixels: int = 61_250
    """Pixels of a single picture."""
    image_mean: Any = (0.48145466, 0.4578275, 0.40821073)
    """Of red, green and blue in 0..1; subtracted from pixels."""
    image_std: Any = (0.26862954, 0.26130258, 0.27577711)

    vision_start_token_id: int = 151652
    vision_end_token_id: int = 151653
    image_token_id: int = 151655
    video_token_id: int = 151656
    audio_token_id: int = 151665
    chat: Any = None
    """The strings around media, question and answer; None is CHATML_PLUS."""

    def __post_init__(self, **kwargs: Any) -> None:
        self.vision_config = _auto_config(self.vision_config, PLUS_VISION)
        self.text_config = _auto_config(self.text_config, PLUS_TEXT)
        if not isinstance(self.audio_config, PreTrainedConfig):
            self.audio_config = WhisperConfig(**(self.audio_config or RELEASED_AUDIO))
        if not isinstance(self.qformer_config, PreTrainedConfig):
            self.qformer_config = Blip2QFormerConfig(**(self.qformer_config or PLUS_QFORMER))
        self.qformer_config.encoder_hidden_size = self.audio_config.d_model
        self.image_mean, self.image_std = list(self.image_mean), list(self.image_std)
        self.chat = dict(self.chat or CHATML_PLUS)
        self.tie_word_embeddings = bool(getattr(self.text_config, "tie_word_embeddings", False))
        super().__post_init__(**kwargs)
        self._check()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """What config.json holds, also of avcap 0.1 -> the config."""
        return super().from_dict(v0_1.model_config(config_dict), **kwargs)

    def _check(self) -> None:
        """Raises ValueError that names the first dial with an impossible value."""
        if self.positions not in POSITIONS:
            raise ValueError(f"positions: got {self.positions!r}, expected one of {', '.join(POSITIONS)}")
        parts = self.vision_config.model_type, self.text_config.model_type
        if parts not in BACKBONES.values():
            known = ", ".join(" with ".join(backbone) for backbone in BACKBONES.values())
            raise ValueError(f"backbone: got {parts[0]} with {parts[1]}, expected {known}")
        if self.positions == "official_generate" and parts != BACKBONES["qwen2_5_vl"]:
            raise ValueError(f"positions: got official_generate for {parts[1]}, expected qwen2_5_vl_text, or train")
        if self.vision_config.out_hidden_size != self.text_config.hidden_size:
            raise ValueError(
                f"vision_config.out_hidden_size: got {self.vision_config.out_hidden_size}, expected the language "
                f"model's hidden_size, {self.text_config.hidden_size}"
            )
        self.check_windows()

    @property
    def patch_sizes(self) -> PatchSizes:
        vision = self.vision_config
        return PatchSizes(patch=vision.patch_size, merge=vision.spatial_merge_size, frames=vision.temporal_patch_size)


POSITIONS = ("train", "official_generate")


def _auto_config(given: Any, default: dict[str, Any]) -> PreTrainedConfig:
    """Config, dict with a model_type, or None -> config."""
    if isinstance(given, PreTrainedConfig):
        return given
    fields = dict(given or default)
    return AutoConfig.for_model(fields.pop("model_type", default["model_type"]), **fields)
