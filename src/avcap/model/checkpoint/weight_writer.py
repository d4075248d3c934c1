"""Safetensors shards written one tensor at a time: from other files, from a merge, or drawn.

Never more than one tensor is in memory, and a copied one only in pieces. A shard is written aside and renamed, and one
that is there already is kept: what was killed goes on, and ends with the same bytes. Holes in files stay holes.
"""

import hashlib
import json
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import torch

from avcap.errors import UserError
from avcap.files.write import replacing, write_json
from avcap.model.checkpoint.weight_files import BYTES_OF, SHARD_INDEX, SINGLE_FILE, TensorInfo, read_header

COPY_BYTES = 8 * 2**20
SHARD_BYTES = 5 * 10**9  # as save_pretrained
TORCH_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
DTYPE_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}
FLOATS = ("F64", "F32", "F16", "BF16")


class Value(Protocol):
    """The value that a tensor of the new folder will have; `dtype` as in headers."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    def write(self, out: BinaryIO) -> None:
        """Writes the bytes at the place where `out` is, and leaves it behind them."""


@dataclass(frozen=True, kw_only=True)
class Copied:
    """The bytes of a tensor as they are."""

    info: TensorInfo

    @property
    def dtype(self) -> str:
        return self.info.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.info.shape

    def write(self, out: BinaryIO) -> None:
        first, end, here = self.info.offset, self.info.offset + self.info.num_bytes, out.tell()
        with open(self.info.file, "rb", buffering=0) as source:
            position = first
            while position < end:
                begin, stop = _next_data(source.fileno(), position, end)
                source.seek(begin)
                out.seek(here + begin - first)
                while (left := stop - source.tell()) > 0:
                    if not (piece := source.read(min(COPY_BYTES, left))):
                        raise UserError(f"{self.info.file}: became shorter while it was read; begin again")
                    out.write(piece)
                position = stop
        out.seek(here + end - first)


def _next_data(file: int, position: int, end: int) -> tuple[int, int]:
    """Place in an open file -> first and last place + 1 of the data that come next, holes skipped; (end, end): none."""
    try:
        begin = min(os.lseek(file, position, os.SEEK_DATA), end)
        return begin, end if begin == end else min(os.lseek(file, begin, os.SEEK_HOLE), end)
    except AttributeError:  # a system that does not tell holes
        return position, end
    except OSError:  # a hole up to the end of the file
        return end, end


@dataclass(frozen=True, kw_only=True)
class Cast:
    """A tensor in another type of number."""

    info: TensorInfo
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.info.shape

    def write(self, out: BinaryIO) -> None:
        _write_tensor(read_tensor(self.info).to(TORCH_DTYPES[self.dtype]), out)


@dataclass(frozen=True, kw_only=True)
class Merged:
    """W + scale * B A in float32, in the type of W; a LoRA's `scale` is alpha / r."""

    weight: TensorInfo
    lora_a: TensorInfo
    lora_b: TensorInfo
    scale: float

    @property
    def dtype(self) -> str:
        return self.weight.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.weight.shape

    def write(self, out: BinaryIO) -> None:
        update = self.scale * (read_tensor(self.lora_b).float() @ read_tensor(self.lora_a).float())
        _write_tensor((read_tensor(self.weight).float() + update).to(TORCH_DTYPES[self.dtype]), out)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """N(0, std^2), or `fill` everywhere; what is drawn depends on the seed and the name alone."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    seed: int
    std: float = 0.0
    fill: float | None = None

    def write(self, out: BinaryIO) -> None:
        tensor = torch.empty(self.shape)
        if self.fill is None:
            digest = hashlib.sha256(f"{self.seed}/{self.name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)
            tensor.normal_(0.0, self.std, generator=generator)
        else:
            tensor.fill_(self.fill)
        _write_tensor(tensor.to(TORCH_DTYPES[self.dtype]), out)


@dataclass(frozen=True, kw_only=True)
class Held:
    """A tensor that is at hand."""

    tensor: torch.Tensor

    @property
    def dtype(self) -> str:
        return DTYPE_NAMES[self.tensor.dtype]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    def write(self, out: BinaryIO) -> None:
        _write_tensor(self.tensor, out)


def read_tensor(info: TensorInfo) -> torch.Tensor:
    """Place of a tensor -> the tensor, in memory of its own."""
    if info.dtype not in TORCH_DTYPES:
        raise UserError(f"{info.file}: {info.name} is {info.dtype}, expected one of {', '.join(TORCH_DTYPES)}")
    tensor = torch.empty(info.shape, dtype=TORCH_DTYPES[info.dtype])
    with open(info.file, "rb", buffering=0) as source:
        source.seek(info.offset)
        buffer = _bytes_of(tensor)
        while len(buffer):
            if not (count := source.readinto(buffer[: 2**30])):
                raise UserError(f"{info.file}: became shorter while it was read; begin again")
            buffer = buffer[count:]
    return tensor


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    """Contiguous tensor -> its memory."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _write_tensor(tensor: torch.Tensor, out: BinaryIO) -> None:
    out.write(_bytes_of(tensor.contiguous()))


def num_bytes(value: Value) -> int:
    return BYTES_OF[value.dtype] * _numel(value.shape)


def _numel(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


def plan_shards(values: Mapping[str, Value], *, shard_bytes: int = SHARD_BYTES) -> dict[str, list[str]]:
    """Tensors in their order -> file name -> names of its tensors; a tensor larger than a shard has one of its own."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, value in values.items():
        if shards[-1] and filled + num_bytes(value) > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += num_bytes(value)
    if len(shards) == 1:
        return {SINGLE_FILE: shards[0]}
    return {f"model-{i:05}-of-{len(shards):05}.safetensors": names for i, names in enumerate(shards, start=1)}


def write_weights(
    values: Mapping[str, Value],
    folder: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> int:
    """Tensors -> shards and their index in the folder -> how many shards were there already and were kept.

    `on_bytes` is told of every tensor that is done.
    """
    shards = plan_shards(values, shard_bytes=shard_bytes)
    num_kept = 0
    for file, names in shards.items():
        shard = {name: values[name] for name in names}
        if _is_there(folder / file, shard):
            num_kept += 1
            on_bytes(sum(num_bytes(value) for value in shard.values()))
        else:
            write_shard(folder / file, shard, on_bytes=on_bytes)
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(num_bytes(value) for value in values.values())},
            "weight_map": {name: file for file, names in shards.items() for name in names},
        }
        write_json(folder / SHARD_INDEX, index)
    return num_kept


def _is_there(path: Path, values: Mapping[str, Value]) -> bool:
    """Whether a shard was finished; it has its name only since it was."""
    if not path.exists():
        return False
    found = read_header(path)
    if {name: (info.dtype, info.shape) for name, info in found.items()} != {
        name: (value.dtype, value.shape) for name, value in values.items()
    }:
        raise UserError(f"{path}: holds other tensors than will be written; delete its folder and begin again")
    return True


def write_shard(
    path: Path, values: Mapping[str, Value], *, on_bytes: Callable[[int], None] = lambda count: None
) -> None:
    """Tensors -> one safetensors file, written aside and renamed."""
    # wide numbers first, so that every tensor begins where its type of number may
    names = sorted(values, key=lambda name: -BYTES_OF[values[name].dtype])
    with replacing(path) as aside, open(aside, "wb") as out:
        header = _header(names, values)
        out.write(header)
        for name in names:
            values[name].write(out)
            on_bytes(num_bytes(values[name]))
        out.truncate(len(header) + sum(num_bytes(value) for value in values.values()))


def _header(names: list[str], values: Mapping[str, Value]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name in names:
        end = place + num_bytes(values[name])
        entries[name] = {"dtype": values[name].dtype, "shape": list(values[name].shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(entries, separators=(",", ":"))
    text += " " * (-len(text.encode()) % 8)
    return struct.pack("<Q", len(text.encode())) + text.encode()
