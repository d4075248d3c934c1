"""Where the weights of a model go, and whether there is room for them."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from avcap.errors import UserError

QUANTIZED_BYTES = {"8bit": 1.0, "4bit": 0.5}
"""Bytes a weight of a quantized matrix takes; 4-bit blocks carry a scale of a few percent more."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Taking numbers apart, a library's buffers, the first batch: what a process needs beside the weights.
ROOM = 1.02


@dataclass(frozen=True, kw_only=True)
class DevicePlacement:
    """On which device a model goes, and at how many bits."""

    device: str = "cpu"
    device_map: str | None = None
    """"auto" spreads layers over the GPUs of this host, and over its memory if those are full."""
    quantize: str | None = None
    """"8bit" or "4bit": the matrices of the language model, by bitsandbytes."""

    def __post_init__(self) -> None:
        if self.device_map not in (None, "auto"):
            raise UserError(f"device_map: got {self.device_map!r}, expected auto, or nothing for one device")
        if self.quantize not in (None, *QUANTIZED_BYTES):
            raise UserError(f"quantize: got {self.quantize!r}, expected one of {', '.join(QUANTIZED_BYTES)}")
        if self.quantize and importlib.util.find_spec("bitsandbytes") is None:
            raise UserError(f"quantize: got {self.quantize!r}, which needs bitsandbytes; pip install bitsandbytes")
        try:
            kind = torch.device(self.device).type
        except RuntimeError as error:
            raise UserError(f"device: got {self.device!r}, expected cpu, cuda or cuda:N") from error
        if kind == "cuda" and not torch.cuda.is_available():
            raise UserError(f"device: got {self.device!r}, but torch sees no GPU here; leave it out, or give cpu")

    @property
    def moves_later(self) -> bool:
        """Whether a model so placed may still be moved as a whole."""
        return self.device_map is None and self.quantize is None

    def arguments(self) -> dict[str, Any]:
        """-> keyword arguments of `from_pretrained`."""
        arguments: dict[str, Any] = {}
        if self.device_map or torch.device(self.device).type != "cpu":
            arguments["device_map"] = self.device_map or {"": self.device}
        if self.quantize:
            from transformers import BitsAndBytesConfig

            arguments["quantization_config"] = BitsAndBytesConfig(
                load_in_8bit=self.quantize == "8bit",
                load_in_4bit=self.quantize == "4bit",
                bnb_4bit_compute_dtype=torch.bfloat16,
                bnb_4bit_quant_type="nf4",
                # encoders and aligners are a tenth of the weights, and what is lost there is lost for good
                llm_int8_skip_modules=list(WHOLE),
            )
        return arguments


WHOLE = ("vision_tower", "vision_aligner", "audio_encoder", "audio_aligner", "tags", "lm_head")
"""Parts that are never quantized."""


def needed_bytes(num_weights: int, *, dtype: torch.dtype, placement: DevicePlacement) -> int:
    """Number of weights -> bytes of memory they take, nearly: quantized, what stays whole is counted as quantized."""
    per_weight = QUANTIZED_BYTES[placement.quantize] if placement.quantize else dtype.itemsize
    return round(num_weights * per_weight * ROOM)


def available_bytes(placement: DevicePlacement) -> int | None:
    """Placing -> free bytes of its device, or of all of them; None where the system does not say."""
    host = _free_host_bytes()
    if placement.device_map:
        gpus = [torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())]
        return None if host is None else sum(gpus) + host
    device = torch.device(placement.device)
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else host if device.type == "cpu" else None


def _free_host_bytes(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """-> bytes that a process may still take: of the host, or of the container it is in."""
    try:
        lines = (line.split() for line in meminfo.read_text(encoding="ascii").splitlines())
        free = next(int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:")
    except (OSError, StopIteration, ValueError, IndexError):
        return None
    try:
        limit = int((cgroup / "memory.max").read_text(encoding="ascii"))
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no container, or "max": no limit
        return free
    return min(free, limit - used)


def describe_count(number: float) -> str:
    """Number of weights -> as people say it.

    >>> describe_count(8_930_000_000), describe_count(324_904)
    ('8.93 billion', '0.32 million')
    """
    return f"{number / 1e9:.2f} billion" if number >= 1e8 else f"{number / 1e6:.2f} million"


def describe_bytes(num_bytes: float) -> str:
    """Bytes -> as people say it, in powers of ten.

    >>> describe_bytes(16_594_000_000), describe_bytes(2_500_000)
    ('16.6 GB', '2.5 MB')
    """
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes:.0f} bytes"
