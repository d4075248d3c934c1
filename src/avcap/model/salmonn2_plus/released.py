"""The released video-SALMONN 2+ folders: how their config is read, and where their tensors have their place here."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from avcap.errors import UserError
from avcap.model.family import Released
from avcap.model.layout import Layout
from avcap.model.salmonn2_plus.configuration import Salmonn2PlusConfig
from avcap.model.salmonn2_plus.keys import AUDIO_PREFIX, NEW_AUDIO_PREFIX, NEW_PREFIXES, audio_part, new_name


def _key_names(names: Iterable[str]) -> str:
    """Names of a Qwen2.5-VL -> whether they are those of transformers 4.52 and later."""
    is_new = any(name.startswith((*NEW_PREFIXES, NEW_AUDIO_PREFIX)) for name in names)
    return ", new key names" if is_new else ", old key names"


PLUS = Layout(title="released video-SALMONN 2+ folder", notes_of=_key_names)
BACKBONE = Layout(
    title="plain Qwen2.5-VL, without a sound branch",
    what_to_do="add a sound branch: avcap init-audio {path} WHISPER DST",
    notes_of=_key_names,
)

# Names in today's stock class -> ours, first match wins.
_PREFIXES = (
    ("model.visual.merger.", "vision_aligner."),
    ("model.visual.", "vision_tower."),
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)
_IN_ENCODER = "audio_encoder."
_TOKEN_IDS = (
    "vision_start_token_id",
    "vision_end_token_id",
    "image_token_id",
    "video_token_id",
    "audio_token_id",
)


def our_plus_name(released_name: str) -> str | None:
    """Name of a released tensor, old or new -> name in `Salmonn2PlusForCaptioning`; None for one without meaning.

    >>> our_plus_name("visual.merger.ln_q.weight"), our_plus_name("audio.q_tokens")
    ('vision_aligner.ln_q.weight', 'audio_aligner.query_tokens')
    """
    name = new_name(released_name)
    if name.startswith(AUDIO_PREFIX):
        part = audio_part(name)
        return part if part is None or part.startswith(_IN_ENCODER) else f"audio_aligner.{part}"
    for theirs, ours in _PREFIXES:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def plus_config(folder: Path, fields: dict[str, Any]) -> Salmonn2PlusConfig:
    """Released config.json, flat or with a text_config -> our config."""
    audio = fields.get("audio_config")
    if not isinstance(audio, dict) or not isinstance(audio.get("qformer_config"), dict):
        raise UserError(
            f"{folder}/config.json: got a {fields.get('model_type')} without audio_config.qformer_config, expected a "
            "video-SALMONN 2+ checkpoint; for a plain backbone see avcap init-audio"
        )
    audio = dict(audio)
    qformer = dict(audio.pop("qformer_config"))
    try:
        backbone = AutoConfig.for_model(**{key: value for key, value in fields.items() if key != "audio_config"})
        backbone.text_config.tie_word_embeddings = backbone.tie_word_embeddings
        return Salmonn2PlusConfig(
            vision_config=backbone.vision_config,
            text_config=backbone.text_config,
            window_s=audio.pop("second_per_window", 0.5),
            window_stride_s=audio.pop("second_stride", 0.5),
            audio_config=audio,
            qformer_config=_qformer(qformer),
            num_queries=qformer.get("query_length", 1),
            **{name: fields[name] for name in _TOKEN_IDS if name in fields},
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}/config.json: {error}") from error


_QFORMER_FIELDS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "layer_norm_eps",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "initializer_range",
    "max_position_embeddings",
)


def _qformer(fields: dict[str, Any]) -> dict[str, Any]:
    """BERT's config fields -> those of the stock Q-Former, which swallows unknown names silently."""
    known = {name: fields[name] for name in _QFORMER_FIELDS if name in fields}
    return known | {"cross_attention_frequency": fields.get("cross_attention_freq", 1), "use_qformer_text_input": False}


def _layout(fields: Mapping[str, Any], names: Iterable[str]) -> Layout:
    has_audio = "audio_config" in fields or any(name.startswith((AUDIO_PREFIX, NEW_AUDIO_PREFIX)) for name in names)
    return PLUS if has_audio else BACKBONE


RELEASED = Released(
    model_type="qwen2_5_vl",
    layouts=(PLUS, BACKBONE),
    layout_of=_layout,
    read_config=plus_config,
    our_name=our_plus_name,
)
