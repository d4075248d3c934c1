"""The released video-SALMONN 2 folders: how their config is read, and where their tensors have their place here."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from avcap.errors import UserError
from avcap.model.checkpoint.weight_files import read_json
from avcap.model.configuration import RELEASED_AUDIO
from avcap.model.family import Released
from avcap.model.layout import Layout
from avcap.model.salmonn2.configuration import RELEASED_QFORMER, RELEASED_VISION, Salmonn2Config

V1 = Layout(title="released video-SALMONN 2 folder")

# Released names -> ours, first match wins.
_PREFIXES = (
    ("model.vision_tower.vision_tower.vision_model.", "vision_tower."),
    ("model.mm_projector.", "vision_aligner.projector."),
    ("model.image_newline", "vision_aligner.newline"),
    ("model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("speech_encoder.", "audio_encoder."),
    ("ln_speech.", "audio_aligner.input_norm."),
    ("speech_query_tokens", "audio_aligner.query_tokens"),
    ("speech_Qformer.bert.embeddings.LayerNorm.", "audio_aligner.qformer.layernorm."),
    ("speech_Qformer.bert.encoder.", "audio_aligner.qformer.encoder."),
    ("speech_llama_proj.", "audio_aligner.proj."),
    ("final_linear.", "audio_aligner.final."),
)
_IN_QFORMER = (("attention.self.", "attention.attention."),)
# A table 0..511 that BERT keeps; nothing reads it.
_WITHOUT_MEANING = ("speech_Qformer.bert.embeddings.position_ids",)

_TEXT_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "tie_word_embeddings",
    "rope_theta",
    "use_sliding_window",
    "max_window_layers",
    "attention_dropout",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)


def our_name(released_name: str) -> str | None:
    """Name of a released tensor -> name in `Salmonn2ForCaptioning`; None for one without meaning.

    >>> our_name("model.mm_projector.0.bias")
    'vision_aligner.projector.0.bias'
    """
    if released_name in _WITHOUT_MEANING:
        return None
    for theirs, ours in _PREFIXES:
        if released_name.startswith(theirs):
            name = ours + released_name.removeprefix(theirs)
            for old, new in _IN_QFORMER if name.startswith("audio_aligner.qformer.") else ():
                name = name.replace(old, new)
            return name
    return released_name


def released_config(folder: Path, fields: dict[str, Any]) -> Salmonn2Config:
    """Released config.json -> our config. Sizes of the parts come from files beside it, or are those of the release.

    The sound settings were command-line options of the released code and are only sometimes recorded in `model_args`.
    """
    arguments = fields.get("model_args") or {}
    _require(folder, "mm_newline_position", fields.get("mm_newline_position", "grid"), "grid")
    _require(folder, "model_args.window_level_Qformer", arguments.get("window_level_Qformer", True), True)
    qformer = _component(folder, "qformer_config.json", RELEASED_QFORMER)
    # the stock config swallows unknown names silently, so BERT's name for it must be translated
    qformer["cross_attention_frequency"] = qformer.pop("cross_attention_freq", 1)
    qformer.pop("encoder_width", None)
    try:
        return Salmonn2Config(
            vision_config=_component(folder, "siglip_config.json", RELEASED_VISION),
            audio_config=_component(folder, "whisper_config.json", RELEASED_AUDIO),
            qformer_config=qformer,
            text_config={"model_type": "qwen2"} | {name: fields[name] for name in _TEXT_FIELDS if name in fields},
            vision_layers_dropped=1,
            projector=fields.get("mm_projector_type", "mlp2x_gelu"),
            pool_mode=fields.get("mm_spatial_pool_mode", "max"),
            pool_stride=fields.get("mm_spatial_pool_stride", 2),
            pool_position=fields.get("mm_pooling_position", "after"),
            window_s=arguments.get("second_per_window", 0.5),
            window_stride_s=arguments.get("second_stride", 0.5),
            num_queries=arguments.get("num_speech_query_token", 1),
            use_final_linear=arguments.get("use_final_linear", True),
            time_text=fields.get("add_time_token", True),
        )
    except ValueError as error:
        raise UserError(f"{folder}/config.json: {error}") from error


def _component(folder: Path, name: str, released: dict[str, Any]) -> dict[str, Any]:
    path = folder / name
    return read_json(path) if path.exists() else dict(released)


def _require(folder: Path, name: str, got: Any, expected: Any) -> None:
    if got != expected:
        raise UserError(f"{folder}/config.json: {name} is {got!r}; only {expected!r} can be run")


def _layout(fields: Mapping[str, Any], names: Iterable[str]) -> Layout:
    del fields, names
    return V1


RELEASED = Released(
    model_type="video_salmonn_2", layouts=(V1,), layout_of=_layout, read_config=released_config, our_name=our_name
)
