"""Folders on disk to a model and its tokenizer: our own, and the released layouts.

What a folder is, and whether it is whole, is known from its headers (layouts, weight_files) before a weight is read.
The reading itself is that of transformers, under our names: straight to dtype and device in several threads, without a
second copy; several devices; 8 and 4 bits.
"""

import logging
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.initialization import no_init_weights
from transformers.utils import logging as transformers_logging

from avcap import v0_1
from avcap.errors import ModelError, UserError
from avcap.model.captioning import CaptioningModel
from avcap.model.checkpoint.layouts import (
    CONFIG,
    OWN_PREFIX,
    Checkpoint,
    Layout,
    check_tokenizer_files,
    identify,
    refuse_unless_runnable,
)
from avcap.model.checkpoint.placement import (
    DevicePlacement,
    available_bytes,
    describe_bytes,
    describe_count,
    needed_bytes,
)
from avcap.model.checkpoint.refusals import check_numbers, is_out_of_memory, told_of
from avcap.model.checkpoint.weight_files import SHARD_INDEX, TensorInfo, read_json
from avcap.model.configuration import RELEASED_AUDIO
from avcap.model.salmonn2.configuration import RELEASED_QFORMER, RELEASED_VISION, Salmonn2Config
from avcap.model.salmonn2.modeling import Salmonn2ForCaptioning
from avcap.model.salmonn2_plus.configuration import Salmonn2PlusConfig
from avcap.model.salmonn2_plus.modeling import Salmonn2PlusForCaptioning
from avcap.model.salmonn2_plus.released import our_plus_name, plus_config

__all__ = ["SHARD_INDEX", "Source", "check_fit", "load", "open_source", "our_name", "released_names", "skeleton"]

logger = logging.getLogger("avcap")

OWN_CLASSES: dict[str, type[PreTrainedModel]] = {
    Salmonn2Config.model_type: Salmonn2ForCaptioning,
    Salmonn2PlusConfig.model_type: Salmonn2PlusForCaptioning,
}
"""model_type of config.json in our own folders -> the class."""
TELL_FROM = 2**30  # bytes of weights: below, nobody waits

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


@dataclass(frozen=True, kw_only=True)
class Source:
    """A checkpoint that can be loaded: its class and config, and where the value of every weight is."""

    checkpoint: Checkpoint
    model_class: type[PreTrainedModel]
    config: Any
    tensors: dict[str, TensorInfo]
    """Our name -> tensor; those without meaning are left out."""


def silence_progress_bars() -> None:
    """For this process: transformers shows no bars of its own while it reads or writes weights. For commands only."""
    transformers_logging.disable_progress_bar()


def load(
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    sync: str | None = None,
    positions: str | None = None,
    placement: DevicePlacement | None = None,
) -> tuple[CaptioningModel, PreTrainedTokenizerBase]:
    """Checkpoint folder, or the weight file in it -> (model in eval mode, tokenizer). Without `placing`: on the CPU.

    `sync` "official" (video-SALMONN 2) and `positions` "official_generate" (2+) run a released checkpoint exactly as
    published; None keeps what the folder says, which for released layouts is "true_time" and "train". UserError for
    what is no model, not all of one, or larger than the memory.
    """
    source = open_source(path)
    check_fit(source)
    check_tokenizer_files(source.checkpoint.path)
    with told_of(source.checkpoint.path, what="cannot be loaded"):
        model = _fill(source, dtype=dtype, placement=placement or DevicePlacement())
    check_finite(model, source)
    for field_name, value in (("sync", sync), ("positions", positions)):
        if value is None:
            continue
        if not hasattr(model.config, field_name):
            raise UserError(
                f"{source.checkpoint.path}: got {field_name}={value!r}, which a {source.checkpoint.layout} does not "
                "have"
            )
        setattr(model.config, field_name, value)
    return model.eval(), load_tokenizer(source.checkpoint.path, model.config)


def load_tokenizer(folder: Path, config: Any) -> PreTrainedTokenizerBase:
    """Checkpoint folder -> its tokenizer."""
    with told_of(folder, what="no usable tokenizer, expected tokenizer.json or vocab.json"):
        # given the config, the Auto class does not stumble over a model type that transformers does not know
        tokenizer = AutoTokenizer.from_pretrained(folder, config=config.text_config)
        most = max(tokenizer.get_vocab().values(), default=-1)
    num_rows = config.text_config.vocab_size
    if not 0 <= most < num_rows:
        raise ModelError(
            f"{folder}: got a tokenizer whose largest id is {most}, expected at most {num_rows - 1}, as the model "
            "has that many words; it is of another model"
        )
    return tokenizer


def open_source(path: str | Path) -> Source:
    """Checkpoint folder, or the weight file in it -> its class, config and tensors; only headers are read."""
    checkpoint = identify(path)
    refuse_unless_runnable(checkpoint)
    check_numbers(checkpoint.path / CONFIG, checkpoint.fields, num_tensors=len(checkpoint.tensors))
    config_of, name_of, model_class = _family(checkpoint)
    with told_of(checkpoint.path / CONFIG, what="no configuration can be made of it"):
        config = config_of(checkpoint.path, checkpoint.fields)
    named = ((name_of(name), tensor) for name, tensor in checkpoint.tensors.items())
    return Source(
        checkpoint=checkpoint,
        model_class=model_class,
        config=config,
        tensors={ours: tensor for ours, tensor in named if ours is not None},
    )


def _family(
    checkpoint: Checkpoint,
) -> tuple[Callable[[Path, dict[str, Any]], Any], Callable[[str], str | None], type[PreTrainedModel]]:
    """Checkpoint -> (how its config is read, how its tensors are called here, its class)."""
    if checkpoint.layout is Layout.OWN:
        model_type = checkpoint.fields["model_type"]
        if model_type not in OWN_CLASSES:
            raise UserError(
                f"{checkpoint.path / CONFIG}: got model_type {model_type!r}, expected one of {', '.join(OWN_CLASSES)}; "
                f"a name that begins with {OWN_PREFIX!r} and is not among them is of a newer avcap: install that"
            )
        model_class = OWN_CLASSES[model_type]
        return _own_config(model_class), v0_1.weight_name, model_class
    if checkpoint.layout is Layout.V1:
        return released_config, our_name, Salmonn2ForCaptioning
    return plus_config, our_plus_name, Salmonn2PlusForCaptioning


def released_names(source: Source) -> Callable[[str], str | None]:
    """Source -> how a tensor of its family's releases is called here, also if the source itself is a folder of ours."""
    return our_plus_name if issubclass(source.model_class, Salmonn2PlusForCaptioning) else our_name


def _own_config(model_class: type[PreTrainedModel]) -> Callable[[Path, dict[str, Any]], Any]:
    def read(folder: Path, fields: dict[str, Any]) -> Any:
        del fields
        try:
            return model_class.config_class.from_pretrained(folder)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{folder / CONFIG}: {error}") from error

    return read


def skeleton(source: Source) -> PreTrainedModel:
    """Source -> its model without memory for weights: what shapes they have, and which are tied."""
    with (
        told_of(source.checkpoint.path / CONFIG, what="no model can be made of it"),
        no_init_weights(),
        torch.device("meta"),
    ):
        model = source.model_class(source.config)
        model.tie_weights()
    return model


def check_fit(source: Source) -> None:
    """Raises UserError that names weights without a value, values without a place, or a value of another shape."""
    expected = {name: tuple(parameter.shape) for name, parameter in skeleton(source).named_parameters()}
    folder, tensors = source.checkpoint.path, source.tensors
    unknown = [tensors[name].name for name in tensors if name not in expected]
    missing = sorted(name for name in expected if name not in tensors)
    if unknown or missing:
        raise UserError(
            f"{folder}: {len(unknown)} keys without a place {_first(unknown)}, {len(missing)} without a value "
            f"{_first(missing)}; is it complete, and do the component configs beside it fit?"
        )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name]:
            raise UserError(
                f"{tensor.file}: {tensor.name} is {tensor.shape}, expected {expected[name]}; the file is of another "
                f"model than {folder / CONFIG} and the component configs beside it"
            )


def _fill(source: Source, *, dtype: torch.dtype, placement: DevicePlacement) -> Any:
    """Source -> its model with its weights, where `placing` wants them."""
    _check_memory(source, dtype=dtype, placement=placement)
    with ExitStack() as files:
        try:
            opened = {
                file: files.enter_context(safe_open(file, framework="pt"))
                for file in {tensor.file for tensor in source.tensors.values()}
            }
            return source.model_class.from_pretrained(
                None,
                config=source.config,
                # slices: nothing is read until transformers puts it where it belongs
                state_dict={name: opened[info.file].get_slice(info.name) for name, info in source.tensors.items()},
                dtype=dtype,
                **placement.arguments(),
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            if is_out_of_memory(error):
                raise
            raise ModelError(f"{source.checkpoint.path}: cannot be loaded: {' '.join(str(error).split())}") from error


def check_finite(model: torch.nn.Module, source: Source) -> None:
    """Raises ModelError for weights that are NaN or infinite, or too large for the dtype they were loaded as."""
    for name, parameter in model.named_parameters():
        if parameter.is_meta or not parameter.is_floating_point():  # on a disk, or quantized
            continue
        if not parameter.sum(dtype=torch.float32).isfinite() and not parameter.isfinite().all():
            tensor = source.tensors.get(name)
            where = source.checkpoint.path if tensor is None else f"{tensor.file}: {tensor.name}"
            raise ModelError(f"{where}: holds numbers that are not finite (as {parameter.dtype}); download it again")


def _check_memory(source: Source, *, dtype: torch.dtype, placement: DevicePlacement) -> None:
    """Tells what the weights will take, if that is much; raises UserError where there is less than that."""
    num_weights = sum(tensor.numel for tensor in source.tensors.values())
    needed = needed_bytes(num_weights, dtype=dtype, placement=placement)
    available = available_bytes(placement)
    if needed >= TELL_FROM:
        form = placement.quantize or str(dtype).removeprefix("torch.")
        logger.info(
            f"{source.checkpoint.path}: {describe_count(num_weights)} weights need {describe_bytes(needed)} "
            f"as {form} on {placement.device_map or placement.device}; {describe_bytes(available or math.nan)} are free"
        )
    if available is not None and needed > available:
        raise UserError(
            f"{source.checkpoint.path}: its weights need {describe_bytes(needed)}, expected at most the "
            f"{describe_bytes(available)} that are free; try --dtype bfloat16, --device-map auto or --quantize 4bit"
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


def _first(names: list[str]) -> str:
    return f"({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})" if names else "(none)"
