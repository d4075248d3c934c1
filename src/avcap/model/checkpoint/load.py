"""Folders on disk to a model and its tokenizer: our own, and the released layouts.

What a folder is, and whether it is whole, is known from its headers (layouts, weight_files) before a weight is read.
The reading itself is that of transformers, under our names: straight to dtype and device in several threads, without a
second copy; several devices; 8 and 4 bits.
"""

import logging
import math
from collections.abc import Mapping
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
    OWN,
    OWN_PREFIX,
    Checkpoint,
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
from avcap.model.checkpoint.weight_files import SHARD_INDEX, TensorInfo
from avcap.model.family import Family, families, family_of_type

__all__ = ["SHARD_INDEX", "Source", "check_fit", "load", "open_source", "skeleton"]

logger = logging.getLogger("avcap")

TELL_FROM = 2**30  # bytes of weights: below, nobody waits


@dataclass(frozen=True, kw_only=True)
class Source:
    """A checkpoint that can be loaded: its family and config, and where the value of every weight is."""

    checkpoint: Checkpoint
    family: Family
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
    config_fields: Mapping[str, str] | None = None,
    placement: DevicePlacement | None = None,
) -> tuple[CaptioningModel, PreTrainedTokenizerBase]:
    """Checkpoint folder, or the weight file in it -> (model in eval mode, tokenizer). Without `placement`: on the CPU.

    `config_fields`: fields of the config to be otherwise than the folder says, such as those of a family's
    `OfficialRules`, with which a released checkpoint runs exactly as published. UserError for what is no model, not all
    of one, or larger than the memory.
    """
    source = open_source(path)
    check_fit(source)
    check_tokenizer_files(source.checkpoint.path)
    with told_of(source.checkpoint.path, what="cannot be loaded"):
        model = _fill(source, dtype=dtype, placement=placement or DevicePlacement())
    check_finite(model, source)
    for field_name, value in (config_fields or {}).items():
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
    family, is_own = _family(checkpoint), checkpoint.layout is OWN
    with told_of(checkpoint.path / CONFIG, what="no configuration can be made of it"):
        config = (
            _own_config(family, checkpoint.path) if is_own else family.read_released(checkpoint.path, checkpoint.fields)
        )
    name_of = v0_1.weight_name if is_own else family.our_name
    named = ((name_of(name), tensor) for name, tensor in checkpoint.tensors.items())
    return Source(
        checkpoint=checkpoint,
        family=family,
        config=config,
        tensors={ours: tensor for ours, tensor in named if ours is not None},
    )


def _family(checkpoint: Checkpoint) -> Family:
    """A checkpoint that runs -> the family that its config.json names."""
    model_type = checkpoint.fields["model_type"]
    family = family_of_type(model_type)
    if family is None:
        raise UserError(
            f"{checkpoint.path / CONFIG}: got model_type {model_type!r}, expected one of {', '.join(families())}; "
            f"a name that begins with {OWN_PREFIX!r} and is not among them is of a newer avcap: install that"
        )
    return family


def _own_config(family: Family, folder: Path) -> Any:
    try:
        return family.config_class.from_pretrained(folder)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{folder / CONFIG}: {error}") from error


def skeleton(source: Source) -> PreTrainedModel:
    """Source -> its model without memory for weights: what shapes they have, and which are tied."""
    with (
        told_of(source.checkpoint.path / CONFIG, what="no model can be made of it"),
        no_init_weights(),
        torch.device("meta"),
    ):
        model = source.family.model_class(source.config)
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
    """Source -> its model with its weights, where `placement` wants them."""
    _check_memory(source, dtype=dtype, placement=placement)
    with ExitStack() as files:
        try:
            opened = {
                file: files.enter_context(safe_open(file, framework="pt"))
                for file in {tensor.file for tensor in source.tensors.values()}
            }
            return source.family.model_class.from_pretrained(
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


def _first(names: list[str]) -> str:
    return f"({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})" if names else "(none)"
