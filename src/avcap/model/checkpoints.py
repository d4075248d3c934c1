"""Folders on disk to a model and its tokenizer: our own, and the released video-SALMONN 2 layout."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.initialization import no_init_weights
from transformers.utils import logging as transformers_logging

from avcap.errors import UserError
from avcap.model.configuration import RELEASED_AUDIO, RELEASED_QFORMER, RELEASED_VISION, Salmonn2Config
from avcap.model.salmonn2 import Salmonn2ForCaptioning

RELEASED_MODEL_TYPE = "video_salmonn_2"
SINGLE_FILE, SHARD_INDEX = "model.safetensors", "model.safetensors.index.json"

# Released names -> ours, first match wins.
_PREFIXES = (
    ("model.vision_tower.vision_tower.vision_model.", "vision_tower."),
    ("model.mm_projector.", "vision_aligner.projector."),
    ("model.image_newline", "vision_aligner.newline"),
    ("model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("speech_encoder.", "sound_encoder."),
    ("ln_speech.", "sound_aligner.input_norm."),
    ("speech_query_tokens", "sound_aligner.query_tokens"),
    ("speech_Qformer.bert.embeddings.LayerNorm.", "sound_aligner.qformer.layernorm."),
    ("speech_Qformer.bert.encoder.", "sound_aligner.qformer.encoder."),
    ("speech_llama_proj.", "sound_aligner.proj."),
    ("final_linear.", "sound_aligner.final."),
)
_IN_QFORMER = (("attention.self.", "attention.attention."),)
# A table 0..511 that BERT keeps; nothing reads it.
_WITHOUT_MEANING = ("speech_Qformer.bert.embeddings.position_ids",)

_TEXT_FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps",
    "tie_word_embeddings", "rope_theta", "use_sliding_window", "max_window_layers", "attention_dropout",
    "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip


def silence_progress_bars() -> None:
    """For this process: transformers shows no bars of its own while it reads or writes weights. For commands only."""
    transformers_logging.disable_progress_bar()


def load(
    path: str | Path, *, dtype: torch.dtype = torch.float32, sync: str | None = None
) -> tuple[Salmonn2ForCaptioning, PreTrainedTokenizerBase]:
    """Checkpoint folder, or the weight file in it -> (model in eval mode on the CPU, tokenizer).

    `sync` "official" runs a released checkpoint exactly as published; None keeps what the folder says, which for the
    released layout is "true_time".
    """
    folder = Path(path)
    folder = folder.parent if folder.is_file() else folder
    fields = _read_json(folder / "config.json")
    model_type = fields.get("model_type")
    if model_type == Salmonn2Config.model_type:
        model = _load_own(folder, dtype=dtype)
    elif model_type == RELEASED_MODEL_TYPE:
        model = _load_released(folder, fields, dtype=dtype)
    else:
        raise UserError(
            f"{folder}/config.json: got model_type {model_type!r}, "
            f"wanted {Salmonn2Config.model_type!r} or {RELEASED_MODEL_TYPE!r}"
        )
    if sync is not None:
        model.config.sync = sync
    return model.eval(), load_tokenizer(folder, model.config)


def load_tokenizer(folder: Path, config: Salmonn2Config) -> PreTrainedTokenizerBase:
    """Checkpoint folder -> its tokenizer."""
    try:
        # given the config, the Auto class does not stumble over a model type that transformers does not know
        return AutoTokenizer.from_pretrained(folder, config=config.text_config)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: no usable tokenizer ({error}); wanted tokenizer.json or vocab.json") from error


def _load_own(folder: Path, *, dtype: torch.dtype) -> Salmonn2ForCaptioning:
    """Folder written by `save_pretrained` -> model; transformers only warns of keys that do not fit, this raises."""
    try:
        model, report = Salmonn2ForCaptioning.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder}: cannot be loaded: {error}") from error
    if misfits := sorted(f"{kind}: {name}" for kind, names in report.items() for name in names):
        raise UserError(f"{folder}: {len(misfits)} weights do not fit the config {_first(misfits)}")
    return model


def _load_released(folder: Path, fields: dict[str, Any], *, dtype: torch.dtype) -> Salmonn2ForCaptioning:
    """Released folder -> model with exactly its weights; raises UserError that names keys left over or missing."""
    config = released_config(folder, fields)
    default_dtype = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with no_init_weights():  # every weight is overwritten: drawing billions of random numbers takes minutes
            model = Salmonn2ForCaptioning(config)
    finally:
        torch.set_default_dtype(default_dtype)
    model.tie_weights()
    wanted = dict(model.named_parameters())
    missing, unknown = set(wanted), []
    for name, tensor in _tensors(folder):
        ours = our_name(name)
        if ours is None:
            continue
        if ours not in wanted:
            unknown.append(name)
        elif wanted[ours].shape != tensor.shape:
            raise UserError(f"{folder}: {name} is {tuple(tensor.shape)}, wanted {tuple(wanted[ours].shape)}")
        else:
            wanted[ours].data.copy_(tensor)
            missing.discard(ours)
    if unknown or missing:
        raise UserError(
            f"{folder}: {len(unknown)} keys without a place {_first(unknown)}, {len(missing)} without a value "
            f"{_first(sorted(missing))}; is it complete, and do the component configs beside it fit?"
        )
    return model


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
            for old, new in _IN_QFORMER if name.startswith("sound_aligner.qformer.") else ():
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
    return _read_json(path) if path.exists() else dict(released)


def _require(folder: Path, name: str, got: Any, wanted: Any) -> None:
    if got != wanted:
        raise UserError(f"{folder}/config.json: {name} is {got!r}; only {wanted!r} can be run")


def _tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Folder with one weight file or a sharded index -> names and tensors, one in memory at a time."""
    if (folder / SINGLE_FILE).exists():
        files = [SINGLE_FILE]
    elif (folder / SHARD_INDEX).exists():
        files = sorted(set(_read_json(folder / SHARD_INDEX)["weight_map"].values()))
    else:
        raise UserError(f"{folder}: neither {SINGLE_FILE} nor {SHARD_INDEX} is there")
    for file in files:
        try:
            with safe_open(folder / file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118  (not a dict)
                    yield name, tensors.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{folder / file}: cannot be read ({error}); was it downloaded completely?") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); wanted a checkpoint folder") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON ({error})") from error


def _first(names: list[str]) -> str:
    return f"({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})" if names else "(none)"
