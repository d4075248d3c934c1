"""A torch checkpoint as safetensors, in a process apart: python -m avcap.model.checkpoint.unpickle IN.bin OUT

`weights_only` builds tensors and plain containers and refuses all else that a pickle could run; what may go wrong even
so stays in this process. The file is mapped, not read: no more of it than a tensor has to be in memory.
"""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from avcap.errors import UserError
from avcap.model.checkpoint.weight_writer import DTYPE_NAMES, Held, write_shard

WRAPPERS = ("module", "model", "state_dict", "model_state_dict")
"""Keys under which some programs keep the weights, beside an optimizer's state and the like."""


def unpickle(path: Path, out: Path) -> None:
    """Torch checkpoint -> safetensors file; UserError, in one line, where it holds more than tensors."""
    command = [sys.executable, "-m", "avcap.model.checkpoint.unpickle", str(path), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = " ".join((done.stderr.strip().splitlines() or ["killed"])[-1].split())[:200]
        raise UserError(
            f"{path}: cannot be read as a pickle of tensors alone ({reason}); where you trust it, write it anew: "
            "safetensors.torch.save_file({name: tensor, ...}, 'checkpoint.safetensors'), and convert that"
        )


def _weights(found: Any) -> dict[str, torch.Tensor]:
    """What was in the pickle -> its tensors by name."""
    for wrapper in WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict):
        raise ValueError(f"got a {type(found).__name__}, expected a dict of tensors")
    weights = {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
    if others := [str(name) for name in found if name not in weights or not isinstance(name, str)]:
        raise ValueError(f"{len(others)} of its entries are no tensors with a name: {', '.join(others[:3])}")
    if unknown := [name for name, tensor in weights.items() if tensor.dtype not in DTYPE_NAMES or tensor.is_sparse]:
        raise ValueError(f"{unknown[0]} is no dense tensor of a common type")
    if not weights:
        raise ValueError("it holds no tensor")
    return weights


def _main(path: str, out: str) -> None:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        write_shard(Path(out), {name: Held(tensor=tensor.detach()) for name, tensor in _weights(found).items()})
    except (UserError, pickle.UnpicklingError, RuntimeError, ValueError, OSError, EOFError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        sys.exit(first_line)


if __name__ == "__main__":
    _main(*sys.argv[1:])
