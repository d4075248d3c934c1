"""Safetensors files by their headers: names, shapes, types, places; none is loaded. Standard library only.

A header is 8 bytes of its length (little endian), then JSON {name: {dtype, shape, data_offsets}}, then the bytes of all
tensors (github.com/huggingface/safetensors, "Format"). What is said there is checked against the file, so half a
download is found before any work begins.
"""

import json
import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avcap.errors import UserError
from avcap.texts.json_text import read_json as read_json_text

SINGLE_FILE, SHARD_INDEX = "model.safetensors", "model.safetensors.index.json"
BYTES_OF = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
}
"""Bytes of a number by its name in headers."""
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
LARGEST_INDEX = 2**26  # bytes; those of models with a million tensors have less
LONGEST_HEADER = 100 * 10**6  # that of the safetensors library
DOWNLOAD_AGAIN = "download it again"


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """Where one tensor is and what it is; `offset` counts from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.numel * BYTES_OF[self.dtype]


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Safetensors file -> its tensors by name. UserError for any other file, and for one that is cut off."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: got a folder, a device or a pipe, expected a safetensors file; {DOWNLOAD_AGAIN}")
    try:
        size = path.stat().st_size
        with open(path, "rb") as handle:
            start = handle.read(8)
            _refuse_other_formats(path, start, handle.read(40))
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= LONGEST_HEADER:
                raise UserError(f"{path}: got {size} bytes that are no safetensors file; {DOWNLOAD_AGAIN}")
            if 8 + length > size:
                raise UserError(f"{path}: cut off within its header, at {size} bytes; {DOWNLOAD_AGAIN}")
            handle.seek(8)
            entries = json.loads(handle.read(length))
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; download it too") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: its header is not JSON; {DOWNLOAD_AGAIN}") from None
    if not isinstance(entries, dict):
        raise UserError(f"{path}: its header is not a JSON object; {DOWNLOAD_AGAIN}")
    entries.pop("__metadata__", None)
    tensors = {name: _tensor(path, name, entry, first_byte=8 + length) for name, entry in entries.items()}
    expected = max((tensor.offset + tensor.num_bytes for tensor in tensors.values()), default=8 + length)
    if expected != size:
        raise UserError(f"{path}: got {size} bytes, its header promises {expected}; {DOWNLOAD_AGAIN}")
    return tensors


def _refuse_other_formats(path: Path, start: bytes, more: bytes) -> None:
    """Raises UserError that says what a file is which is taken for safetensors so often."""
    if (start + more).startswith(b"version https://git-lfs"):
        raise UserError(f"{path}: a Git LFS pointer, not the file itself; fetch it with `git lfs pull`")
    if start.startswith(b"PK\x03\x04") or start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04"):
        raise UserError(f"{path}: a pickle under a safetensors name; expected safetensors: see docs/checkpoints.md")
    if start.lstrip()[:1] in (b"<",):
        raise UserError(f"{path}: a web page, not weights; {DOWNLOAD_AGAIN}")


def _tensor(path: Path, name: str, entry: Any, *, first_byte: int) -> TensorInfo:
    """One entry of a header -> checked; UserError that names the tensor."""
    try:
        begin, end = entry["data_offsets"]
        shape = tuple(int(length) for length in entry["shape"])
        tensor = TensorInfo(name=name, dtype=entry["dtype"], shape=shape, file=path, offset=first_byte + begin)
        is_whole = begin >= 0 and min(shape, default=0) >= 0 and end - begin == tensor.num_bytes
    except (TypeError, KeyError, ValueError):
        raise UserError(f"{path}: {name}: got the entry {str(entry)[:80]} in the header; {DOWNLOAD_AGAIN}") from None
    if not is_whole:
        raise UserError(f"{path}: {name}: {end - begin} bytes for {tensor.dtype} {list(shape)}; {DOWNLOAD_AGAIN}")
    return tensor


def read_tensors(folder: Path, *, single: str = SINGLE_FILE) -> dict[str, TensorInfo]:
    """Folder with one weight file or a sharded index -> all its tensors by name; only headers are read.

    UserError for a shard that is missing or cut off, an index that does not fit its shards, and for pickles.
    """
    if (folder / single).exists():
        return read_header(folder / single)
    if (folder / SHARD_INDEX).exists():
        return _read_shards(folder)
    shards = sorted(path.name for path in folder.glob("model*.safetensors"))
    pickles = sorted(path.name for path in folder.glob("*") if path.suffix in PICKLE_SUFFIXES)
    if shards:
        raise UserError(f"{folder}: got {', '.join(shards[:3])} without {SHARD_INDEX}; download that file too")
    if pickles:
        raise UserError(
            f"{folder / pickles[0]}: pickled weights, expected safetensors: loading a pickle can run any code; "
            f"write them anew with `avcap convert {folder / pickles[0]} DST --base FOLDER`"
        )
    raise UserError(f"{folder}: neither {single} nor {SHARD_INDEX} is there; download the weights too")


def read_weight_map(index: Path) -> dict[str, str]:
    """Index of shards -> the file beside it that each tensor is in."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise UserError(f"{index}: no weight_map of tensor names to files; {DOWNLOAD_AGAIN}")
    if outside := sorted({file for file in weight_map.values() if not file or Path(file).name != file}):
        raise UserError(f"{index}: names {outside[0]!r}; expected names of files beside it")
    return weight_map


def _read_shards(folder: Path) -> dict[str, TensorInfo]:
    index = folder / SHARD_INDEX
    weight_map = read_weight_map(index)
    files = sorted(set(weight_map.values()))
    if missing := [file for file in files if not os.path.exists(folder / file)]:
        more = f" and {len(missing) - 1} more of its {len(files)} shards" if len(missing) > 1 else ""
        raise UserError(f"{folder / missing[0]}: is missing{more}, but {SHARD_INDEX} names it; download the rest")
    headers = {file: read_header(folder / file) for file in files}
    for name, file in weight_map.items():
        if name not in headers[file]:
            raise UserError(f"{folder / file}: has no {name}, but {SHARD_INDEX} says so; they are of two downloads")
    return {name: headers[file][name] for name, file in weight_map.items()}


def read_json(path: Path) -> dict[str, Any]:
    """JSON file -> the object in it. UserError for a file that cannot be read or holds anything else."""
    try:
        fields = read_json_text(path, expected="JSON of a checkpoint folder", most_bytes=LARGEST_INDEX)
    except UserError as error:
        raise UserError(f"{error}; {DOWNLOAD_AGAIN}") from None
    if not isinstance(fields, dict):
        raise UserError(f"{path}: got a JSON {type(fields).__name__}, expected an object; {DOWNLOAD_AGAIN}")
    return fields
