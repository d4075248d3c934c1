"""Released folders, adapters and training checkpoints -> one clean folder that `load` and `from_pretrained` read.

    avcap convert SRC DST [--base FOLDER]        avcap init-audio QWEN2.5-VL WHISPER DST

What the new folder's tensors will be is known from headers alone (`values_of_*`); then they are written one by one
(weight_writer). Copied ones are the same bytes.
"""

import hashlib
import math
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avcap.errors import UserError
from avcap.files.claim import claim
from avcap.files.hub_names import folder_title
from avcap.files.lock import lock_folder
from avcap.files.write import write_text
from avcap.model.checkpoint.layouts import (
    ADAPTER,
    ADAPTER_CONFIG,
    TRAINING,
    Checkpoint,
    check_tokenizer_files,
    identify,
    refuse_unless_runnable,
)
from avcap.model.checkpoint.load import Source, check_fit, open_source
from avcap.model.checkpoint.placement import describe_bytes, describe_count
from avcap.model.checkpoint.unpickle import unpickle
from avcap.model.checkpoint.weight_files import TensorInfo, read_header
from avcap.model.checkpoint.weight_writer import (
    FLOATS,
    SHARD_BYTES,
    Copied,
    Merged,
    Value,
    num_bytes,
    plan_shards,
    write_weights,
)
from avcap.model.family import family_of
from avcap.model.salmonn2_plus.keys import NOT_IN_ADAPTERS, TRAINING_PREFIXES

STATE_FILE = "conversion.json"
CARD = "README.md"
SIDECAR = "unpickled.safetensors.tmp"
COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
    "generation_config.json",
    "preprocessor_config.json",
    "avcap.json",
    "world_check.safetensors",
    "LICENSE",
)
"""Small files that are carried over where they are there."""
LORA = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(\.[^.]+)?\.weight")
# PEFT's own names within a wrapped model.
WRAPPED = (".base_layer.", ".modules_to_save.default.", ".modules_to_save.")
REMEDY = (
    "take them from a checkpoint that holds them, best the `_full` release of this size, with --q-tokens FOLDER; "
    "see docs/checkpoints.md, q_tokens"
)


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """All that a new folder will be."""

    values: Mapping[str, Value]
    config: Any
    companions: Path
    """Folder of the tokenizer and the other small files."""
    headline: str
    """What it was made from, for the model card."""
    warnings: tuple[str, ...] = ()
    inputs: tuple[Path, ...] = ()
    """Weight files that it is made of."""

    @property
    def total_bytes(self) -> int:
        return sum(num_bytes(value) for value in self.values.values())


def plan_conversion(
    path: Path,
    *,
    workspace: Path,
    base: Path | None = None,
    q_tokens: Path | None = None,
    lora_alpha: float | None = None,
) -> Conversion:
    """Any checkpoint -> what its clean folder will hold; of a pickle, a copy as safetensors is made in `workspace`.

    `base`: the model that an adapter or a training checkpoint belongs to. `q_tokens`: a checkpoint whose audio query
    tokens are to be taken. UserError for what cannot be converted.
    """
    checkpoint = identify(path)
    if checkpoint.layout not in (ADAPTER, TRAINING):
        refuse_unless_runnable(checkpoint)
        if base is not None:
            raise UserError(f"{path}: {checkpoint.layout.one}, which is whole; leave out --base")
        source = open_source(path)
        return _whole(source, _q_tokens_from(q_tokens, source))
    source = _open_base(checkpoint, base)
    if checkpoint.layout is ADAPTER:
        check_adapter_config(checkpoint)
        scale = adapter_scale(checkpoint.fields)
        overlay = checkpoint.tensors
    else:
        sidecar = workspace / SIDECAR
        unpickle(checkpoint.path, sidecar)
        overlay = read_header(sidecar)
        scale = training_scale(source, lora_alpha)
    values = overlay_values(source, overlay, scale=scale, what=f"{checkpoint.path}")
    return _merged(checkpoint, source, values | _q_tokens_from(q_tokens, source), has_q_tokens=q_tokens is not None)


def _whole(source: Source, q_tokens: dict[str, Value]) -> Conversion:
    check_fit(source)
    values: dict[str, Value] = {name: Copied(info=info) for name, info in source.tensors.items()}
    return Conversion(
        values=values | q_tokens,
        config=source.config,
        companions=source.checkpoint.path,
        headline=f"{source.checkpoint.layout.one}, {folder_title(source.checkpoint.path)}",
        inputs=_files(source.tensors.values()),
    )


def _merged(checkpoint: Checkpoint, source: Source, values: dict[str, Value], *, has_q_tokens: bool) -> Conversion:
    kind = "PEFT adapter" if checkpoint.layout is ADAPTER else "training checkpoint"
    base_name = folder_title(source.checkpoint.path)
    warnings = []
    lacks = [
        name
        for name in map(source.family.our_name, NOT_IN_ADAPTERS)
        if name in source.tensors and values[name] == Copied(info=source.tensors[name])
    ]
    if lacks and not has_q_tokens:
        warnings.append(
            f"{checkpoint.path} holds no audio q_tokens, and those of its base are kept: they are right only if they "
            f"are the ones it was trained with, and random if the base was made anew; {REMEDY}"
        )
    inputs = _files([*source.tensors.values(), *checkpoint.tensors.values()])
    return Conversion(
        values=values,
        config=source.config,
        companions=source.checkpoint.path,
        headline=f"the {kind} {folder_title(checkpoint.path)}, merged in float32 into {base_name}",
        warnings=tuple(warnings),
        inputs=(*inputs, *([checkpoint.path] if checkpoint.path.is_file() else [])),
    )


def _files(tensors: Iterable[TensorInfo]) -> tuple[Path, ...]:
    return tuple(sorted({tensor.file for tensor in tensors}))


def _open_base(checkpoint: Checkpoint, base: Path | None) -> Source:
    if base is None:
        named = checkpoint.fields.get("base_model_name_or_path")
        trained_on = f" It was trained on {named!r}." if named else ""
        raise UserError(
            f"{checkpoint.path}: a {checkpoint.layout}; give the model it belongs to: --base FOLDER.{trained_on}"
        )
    source = open_source(base)
    check_fit(source)
    return source


def check_adapter_config(checkpoint: Checkpoint) -> None:
    """Raises UserError for an adapter that is not a plain LoRA."""
    fields, file = checkpoint.fields, checkpoint.path / ADAPTER_CONFIG
    if (kind := fields.get("peft_type")) != "LORA":
        raise UserError(f"{file}: got peft_type {kind!r}, expected LORA; merge it with the program that made it")
    for name in ("use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern"):
        if fields.get(name):
            raise UserError(f"{file}: got {name}={fields[name]!r}, expected a plain LoRA; merge it with PEFT")
    if not isinstance(fields.get("r"), int) or not isinstance(fields.get("lora_alpha"), int | float) or fields["r"] < 1:
        raise UserError(f"{file}: no numbers r and lora_alpha in it; download it again")


def adapter_scale(fields: Mapping[str, Any]) -> Callable[[int], float]:
    """adapter_config.json -> function: rank -> what the update is multiplied by, alpha / r (or alpha / sqrt(r))."""
    if fields.get("use_rslora"):
        return lambda rank: fields["lora_alpha"] / math.sqrt(rank)
    return lambda rank: fields["lora_alpha"] / rank


def training_scale(source: Source, lora_alpha: float | None) -> Callable[[int], float]:
    """Base of a training checkpoint -> function: rank -> alpha / r; alpha is that of the base's `model_args`."""
    arguments = source.checkpoint.fields.get("model_args") or {}
    alpha = lora_alpha if lora_alpha is not None else arguments.get("lora_alpha")

    def scale(rank: int) -> float:
        if alpha is None:
            raise UserError(
                f"{source.checkpoint.path}: its config does not say the lora_alpha of the training; give --lora-alpha "
                "(256 at rank 128 in the released training)"
            )
        return float(alpha) / rank

    return scale


def overlay_values(
    source: Source, overlay: Mapping[str, TensorInfo], *, scale: Callable[[int], float], what: str
) -> dict[str, Value]:
    """Base and the tensors of an adapter or training checkpoint -> all tensors of the model, by our names.

    Whole tensors take the base's place, then each pair of LoRA matrices is added. UserError for what has no place.
    """
    our_name = source.family.our_name
    whole: dict[str, TensorInfo] = dict(source.tensors)
    sides: dict[str, dict[str, TensorInfo]] = {}
    for name, info in overlay.items():
        plain = plain_name(name)
        lora = LORA.fullmatch(plain)
        ours = our_name(f"{lora['module']}.weight" if lora else plain)
        if ours is None or ".original_module." in plain:
            continue
        if ours not in whole:
            raise UserError(f"{what}: {name} has no place in {source.checkpoint.path}; it is of another base")
        if lora:
            sides.setdefault(ours, {})[lora["side"]] = info
        else:
            _check_shape(what, name, info.shape, whole[ours].shape, source)
            whole[ours] = info
    values: dict[str, Value] = {name: Copied(info=info) for name, info in whole.items()}
    for ours, pair in sides.items():
        if set(pair) != {"A", "B"}:
            raise UserError(f"{what}: {next(iter(pair.values())).name} without its other half; download it again")
        rows, columns = (*pair["B"].shape[:1], *pair["A"].shape[1:])
        _check_shape(what, pair["A"].name, (rows, columns), whole[ours].shape, source)
        rank = pair["A"].shape[0]
        values[ours] = Merged(weight=whole[ours], lora_a=pair["A"], lora_b=pair["B"], scale=scale(rank))
    return values


def _check_shape(what: str, name: str, got: tuple[int, ...], expected: tuple[int, ...], source: Source) -> None:
    if got != expected:
        raise UserError(
            f"{what}: {name} is for a weight of {list(got)}, but that of {source.checkpoint.path} is {list(expected)}; "
            "it is of another base"
        )


def plain_name(name: str) -> str:
    """Name in an adapter or a training checkpoint -> the released name of the tensor, or of the LoRA's module.

    >>> plain_name("module.base_model.model.lm_head.weight"), plain_name("base_model.model.a.base_layer.weight")
    ('lm_head.weight', 'a.weight')
    """
    for prefix in TRAINING_PREFIXES:
        name = name.removeprefix(prefix)
    for wrapper in WRAPPED:
        name = name.replace(wrapper, ".")
    return name


def _q_tokens_from(folder: Path | None, source: Source) -> dict[str, Value]:
    """Folder with audio query tokens -> they, as a value of the new folder; nothing without a folder."""
    if folder is None:
        return {}
    (name,) = map(source.family.our_name, NOT_IN_ADAPTERS)
    giver = open_source(folder)
    if name is None or name not in source.tensors or name not in giver.tensors:
        raise UserError(f"{folder}: no audio q_tokens that {source.checkpoint.path} has too; leave out --q-tokens")
    _check_shape(str(folder), giver.tensors[name].name, giver.tensors[name].shape, source.tensors[name].shape, source)
    return {name: Copied(info=giver.tensors[name])}


def write_conversion(
    conversion: Conversion,
    folder: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> int:
    """Writes the folder -> how many of its shards were there already. The same bytes however often it was killed.

    UserError where the folder holds anything else, or the disk is too small.
    """
    check_tokenizer_files(conversion.companions)
    with lock_folder(folder):
        begin(folder, _fingerprint(conversion, shard_bytes), needed_bytes=_allocated(conversion))
        for name in COMPANIONS:
            if (conversion.companions / name).is_file():
                shutil.copyfile(conversion.companions / name, folder / name)
        num_kept = write_weights(conversion.values, folder, shard_bytes=shard_bytes, on_bytes=on_bytes)
        conversion.config.dtype = _main_dtype(conversion.values)
        conversion.config.architectures = [family_of(conversion.config).model_class.__name__]
        conversion.config.save_pretrained(folder)
        num_shards = len(plan_shards(conversion.values, shard_bytes=shard_bytes))
        write_text(folder / CARD, model_card(conversion, num_shards=num_shards))
    return num_kept


def begin(folder: Path, fingerprint: dict[str, str], *, needed_bytes: int) -> None:
    """Makes the folder of a conversion, or finds that it was begun from the same sources."""
    claim(folder, STATE_FILE, fingerprint)
    there = sum(path.stat().st_blocks * 512 for path in folder.iterdir())
    if (free := shutil.disk_usage(folder).free) + there < needed_bytes:
        raise UserError(f"{folder}: needs {describe_bytes(needed_bytes)}, {describe_bytes(free)} are free on its disk")


def _fingerprint(conversion: Conversion, shard_bytes: int) -> dict[str, str]:
    """What the bytes of a folder depend on: its sources, their size and time, what is made of them, how it is cut."""
    digest = hashlib.sha256(f"{shard_bytes}\n".encode())
    for path in conversion.inputs:
        stat = path.stat()
        digest.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    for name, value in conversion.values.items():
        digest.update(f"{name} {value.dtype} {value.shape} {type(value).__name__}\n".encode())
    return {"made_from": conversion.headline, "sha256": digest.hexdigest()}


def _allocated(conversion: Conversion) -> int:
    """-> bytes the folder will take on the disk: holes of the sources stay holes."""
    on_disk = sum(path.stat().st_blocks * 512 for path in conversion.inputs)
    return min(conversion.total_bytes, on_disk) if conversion.inputs else conversion.total_bytes


def _main_dtype(values: Mapping[str, Value]) -> str:
    """-> the type that most weights have, as torch calls it."""
    count = dict.fromkeys(FLOATS, 0)
    for value in values.values():
        if value.dtype in count:
            count[value.dtype] += num_bytes(value)
    return {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}[max(count, key=count.__getitem__)]


def model_card(conversion: Conversion, *, num_shards: int) -> str:
    """-> README.md of the new folder."""
    weights = describe_count(sum(math.prod(value.shape) for value in conversion.values.values()))
    warnings = "".join(f"\n**Beware.** {' '.join(warning.split())}\n" for warning in conversion.warnings)
    return f"""---
library_name: avcap
pipeline_tag: video-text-to-text
---
# {type(conversion.config).model_type}: made from {conversion.headline}

{weights} weights, {_main_dtype(conversion.values)}, {describe_bytes(conversion.total_bytes)} in \
{num_shards} file{"s" if num_shards > 1 else ""}. Tensors that were copied are the same bytes as in the source.
{warnings}
    avcap caption VIDEO.mp4 --model THIS_FOLDER

    from avcap import Captioner
    Captioner("THIS_FOLDER").caption("VIDEO.mp4")

The licence is that of the source. `{STATE_FILE}` tells which files it was made from.
"""
