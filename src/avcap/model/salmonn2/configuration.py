"""The dials of the salmonn2 family; `Salmonn2Config()` is the released model, `tiny.tiny_config` the embedded one."""

from typing import Any, ClassVar

from transformers import (
    AutoConfig,
    Blip2QFormerConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    SiglipVisionConfig,
    WhisperConfig,
)

from avcap import v0_1
from avcap.model.configuration import CHATML_V1, RELEASED_AUDIO, AudioWindows

TEXT_CONFIGS = {"qwen2": Qwen2Config, "qwen3": Qwen3Config}
CHAT_TINY = {
    "system_prefix": "",
    "user_prefix": "<|user|>",
    "media_suffix": "",
    "user_suffix": "<|assistant|>",
    "answer_suffix": "<|im_end|>",
}
RELEASED_VISION = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}
RELEASED_QFORMER = {
    "hidden_size": 768,
    "num_hidden_layers": 2,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "cross_attention_frequency": 1,
}
RELEASED_TEXT = {
    "model_type": "qwen2",
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "rope_theta": 1_000_000.0,
}
_CHOICES = {
    "projector": ("mlp2x_gelu", "linear"),
    "pool_mode": ("max", "average"),
    "pool_position": ("after", "before"),
    "sync": ("true_time", "official"),
}


class Salmonn2Config(AudioWindows, PreTrainedConfig):
    """Four sub-configs of stock modules plus the fields of what joins them."""

    model_type = "avcap_salmonn2"
    sub_configs: ClassVar[dict[str, type]] = {
        "vision_config": SiglipVisionConfig,
        "audio_config": WhisperConfig,
        "qformer_config": Blip2QFormerConfig,
        "text_config": AutoConfig,
    }

    vision_config: Any = None
    """SiglipVisionConfig or dict; `num_hidden_layers` counts the published tower's layers, dropped ones included."""
    audio_config: Any = None
    """WhisperConfig or dict; `max_source_positions` / 50 is the length of a sound chunk in seconds."""
    qformer_config: Any = None
    """Blip2QFormerConfig or dict; `encoder_hidden_size` is always that of the sound encoder."""
    text_config: Any = None
    """Qwen2Config, Qwen3Config or dict with a `model_type`."""

    vision_layers_dropped: int = 1
    """Last layers of the tower that are not built. Features are taken before the tower's post_layernorm either way."""
    image_mean: float = 0.5
    """Subtracted from pixels in 0..1."""
    image_std: float = 0.5
    """Divides the centred pixels."""
    projector: str = "mlp2x_gelu"
    """Tower width to language-model width: "mlp2x_gelu" or "linear"."""
    pool_mode: str = "max"
    """How the cells of the patch grid are pooled: "max" or "average"."""
    pool_stride: int = 2
    """Side of a pooled cell in patches; an incomplete last row or column is dropped."""
    pool_position: str = "after"
    """Pool "after" the projector, or "before" it: then what is kept per frame is small enough to be cached."""
    row_newline: bool = True
    """A learned vector ends every row of cells."""
    frame_difference: bool = False
    """The projector sees [f_t, f_t - f_(t-1)]: a per-frame tower sees states, and a caption tells of changes."""

    window_s: float = 0.5
    """Seconds of sound under one Q-Former window."""
    window_stride_s: float = 0.5
    """Seconds from one window to the next."""
    num_queries: int = 1
    """Sound tokens per window."""
    audio_layer_norm: bool = True
    """The LayerNorm between sound encoder and Q-Former; the released one was never trained."""
    use_final_linear: bool = True
    """Linear-GELU-Linear after the projection of the Q-Former output."""
    segment_positions: bool = True
    """Adds a sinusoid of the chunk number to every audio token; the first chunk gets zeros."""

    sync: str = "true_time"
    """"true_time": a audio token stands after the frame of its instant, and padded silence is left out.
    "official": the released behaviour, which stretches all tokens of all chunks, silence too, over the frames."""
    time_text: bool = True
    """Pictures without sound: the frame's time follows it as text (see `data.prompt.time_text_ids`)."""
    connector_norm: bool = False
    """LayerNorm on every visual and every audio token: sums of un-normalised vectors stop learning in small models."""
    time_vectors: bool = False
    """Adds LayerNorm(word embedding of the token's second) to every media token; needs `time_token_ids`."""
    time_token_ids: Any = None
    """Token ids of the words for seconds 0, 1, 2, ...; later seconds take the last one."""
    type_vectors: bool = False
    """Adds LayerNorm(learned vector of the token's place: which cell, newline, which audio token of its second)."""
    chat: Any = None
    """The strings around media, question and answer; None is CHATML_V1."""

    def __post_init__(self, **kwargs: Any) -> None:
        self.vision_config = _sub_config(SiglipVisionConfig, self.vision_config, RELEASED_VISION)
        self.vision_config.vision_use_head = False
        self.audio_config = _sub_config(WhisperConfig, self.audio_config, RELEASED_AUDIO)
        self.qformer_config = _sub_config(Blip2QFormerConfig, self.qformer_config, RELEASED_QFORMER)
        self.qformer_config.encoder_hidden_size = self.audio_config.d_model
        self.text_config = _text_config(RELEASED_TEXT if self.text_config is None else self.text_config)
        self.chat = dict(CHATML_V1 if self.chat is None else self.chat)
        self.tie_word_embeddings = self.text_config.tie_word_embeddings
        super().__post_init__(**kwargs)
        self._check()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """What config.json holds, also of avcap 0.1 -> the config."""
        return super().from_dict(v0_1.model_config(config_dict), **kwargs)

    def _check(self) -> None:
        """Raises ValueError that names the first dial with an impossible value."""
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected one of {', '.join(allowed)}")
        if self.time_vectors and not self.time_token_ids:
            raise ValueError("time_vectors needs time_token_ids: the token ids of the words for seconds 0, 1, 2, ...")
        ids, num_words = self.time_token_ids, self.text_config.vocab_size
        if ids is not None and not all(type(number) is int and 0 <= number < num_words for number in ids):
            raise ValueError(f"time_token_ids: got {str(ids)[:80]}, expected token ids below {num_words}")
        self.check_windows()
        if self.grid_size < self.pool_stride:
            raise ValueError(
                f"pool_stride: got {self.pool_stride}, expected at most {self.grid_size} (patches of a row)"
            )

    @property
    def grid_size(self) -> int:
        """Patches per side of a frame."""
        return self.vision_config.image_size // self.vision_config.patch_size

    @property
    def cells_per_side(self) -> int:
        """Pooled cells per side of a frame."""
        return self.grid_size // self.pool_stride

    @property
    def visual_tokens_per_frame(self) -> int:
        return self.cells_per_side * (self.cells_per_side + int(self.row_newline))


def _sub_config(config_class: type, given: Any, default: dict[str, Any]) -> Any:
    """Config, dict or None -> config of the class."""
    if isinstance(given, PreTrainedConfig):
        return given
    return config_class(**(default if given is None else given))


def _text_config(given: Any) -> Any:
    """Config or dict -> Qwen2Config or Qwen3Config by its model_type."""
    if isinstance(given, PreTrainedConfig):
        return given
    fields = dict(given)
    model_type = fields.pop("model_type", "qwen2")
    if model_type not in TEXT_CONFIGS:
        raise ValueError(f"text_config.model_type: got {model_type!r}, expected one of {', '.join(TEXT_CONFIGS)}")
    return TEXT_CONFIGS[model_type](**fields)
