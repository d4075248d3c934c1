"""A run's state on disk: safetensors and JSON only, whole or not there at all.

    out/<run>/checkpoints/step-000200/{model.safetensors, optimizer.safetensors, state.json}

A checkpoint folder is written aside and renamed, so a run that is killed at any moment finds the last whole one.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from avcap.errors import UserError
from avcap.files.write import replacing


def save_state(
    folder: Path,
    *,
    step: int,
    params: dict[str, nn.Parameter],
    optimizers: list[torch.optim.Optimizer],
    notes: dict[str, Any],
) -> Path:
    """Everything a run needs to go on after `step` steps -> folder/step-NNNNNN, older ones removed."""
    final = folder / f"step-{step:06d}"
    optimizer_state = _optimizer_tensors(params, optimizers)
    optimizer_state |= _rng_states(params)
    with replacing(final) as aside:
        aside.mkdir()
        save_file({name: param.detach().contiguous() for name, param in params.items()}, aside / "model.safetensors")
        save_file(optimizer_state, aside / "optimizer.safetensors")
        (aside / "state.json").write_text(json.dumps({"step": step, **notes}, indent=1))
    for old in folder.glob("step-*"):
        if old != final:
            shutil.rmtree(old, ignore_errors=True)
    return final


def latest_state(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run, or None."""
    whole = sorted(path for path in folder.glob("step-??????") if (path / "state.json").exists())
    return whole[-1] if whole else None


def load_state(
    path: Path, *, params: dict[str, nn.Parameter], optimizers: list[torch.optim.Optimizer], notes: dict[str, Any]
) -> int:
    """Restores parameters, optimiser state and RNG in place; returns the number of steps done.

    Raises UserError when the checkpoint was made with other settings than `notes` says.
    """
    state = json.loads((path / "state.json").read_text())
    for key, value in notes.items():
        if state.get(key) != json.loads(json.dumps(value)):
            raise UserError(
                f"{path}: made with {key} {state.get(key)!r}, this run has {value!r}; "
                "use another --out, or delete the folder"
            )
    with torch.no_grad():
        for name, tensor in load_file(path / "model.safetensors").items():
            params[name].copy_(tensor)
    tensors = load_file(path / "optimizer.safetensors")
    torch.set_rng_state(tensors.pop("torch_rng"))
    if "cuda_rng" in tensors:
        state_on_gpu, device = tensors.pop("cuda_rng"), _device_of(params)
        if device.type == "cuda":
            torch.cuda.set_rng_state(state_on_gpu, device)
    names = {param: name for name, param in params.items()}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for param in group["params"]:
                prefix = names[param] + "::"
                for key in [key for key in tensors if key.startswith(prefix)]:
                    name, tensor = key.removeprefix(prefix), tensors.pop(key)
                    # AdamW counts its steps on the CPU, whatever it trains
                    optimizer.state[param][name] = tensor if name == "step" else tensor.to(param.device)
    assert not tensors, f"optimiser state of unknown parameters: {sorted(tensors)[:3]}"
    return int(state["step"])


def _rng_states(params: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    states, device = {"torch_rng": torch.get_rng_state()}, _device_of(params)
    if device.type == "cuda":
        states["cuda_rng"] = torch.cuda.get_rng_state(device)
    return states


def _device_of(params: dict[str, nn.Parameter]) -> torch.device:
    return next(iter(params.values())).device


def _optimizer_tensors(params: dict[str, nn.Parameter], optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    names: dict[Tensor, str] = {param: name for name, param in params.items()}
    return {
        f"{names[param]}::{key}": value.detach().contiguous()
        for optimizer in optimizers
        for param, state in optimizer.state.items()
        for key, value in state.items()
    }
