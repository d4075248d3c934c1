"""Where a stage computes and in which numbers: chosen once, the same for a tiny model and for a large one.

Weights that learn are in float32, and so are their gradients and the optimisers' state: bfloat16 would round small
updates away. All others have the dtype of the stage. Where that is a 16-bit one, matrices are multiplied in it.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from avcap.errors import UserError
from avcap.model.captioning import CaptioningModel
from avcap.model.transformers_renames import enable_activation_checkpointing

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def choose_device(name: str | None) -> torch.device:
    """A stage's `device` -> the device; None: a GPU if there is one."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device: got {name!r}, expected cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device: got {name!r}, but torch finds no GPU here; leave it out, or give cpu")
    return device


def choose_dtype(name: str | None, *, device: torch.device) -> torch.dtype:
    """A stage's `dtype` -> the dtype; None: bfloat16 on a GPU, float32 on a CPU."""
    if name is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return DTYPES[name]


def device_of(module: nn.Module) -> torch.device:
    """The device of a module that is on one."""
    return next(module.parameters()).device


def keep_trained_in_float32(model: nn.Module) -> None:
    """Every weight that learns becomes float32, in place."""
    for param in model.parameters():
        if param.requires_grad:
            param.data = param.data.float()


def round_trained(model: CaptioningModel, *, dtype: torch.dtype) -> None:
    """Every weight that learned gets the dtype of the model again, in place: a checkpoint has one."""
    for param in model.parameters():
        if param.requires_grad:
            param.data = param.data.to(dtype)


def mixed_precision(module: nn.Module) -> AbstractContextManager:
    """-> within it, a model of 16-bit weights computes in these, whatever those of its weights are that learn."""
    dtype = getattr(module, "dtype", torch.float32)  # that of a CaptioningModel's tower, which is frozen
    if dtype in (torch.bfloat16, torch.float16):
        return torch.autocast(device_of(module).type, dtype=dtype)
    return nullcontext()


def checkpoint_activations(model: CaptioningModel) -> None:
    """The layers of the language model compute once more in the backward pass, also where the model is in eval mode."""
    text_model = model.language_model.model
    enable_activation_checkpointing(model.language_model)
    for layer in text_model.layers:
        layer.training = True  # of the layer alone, which asks for it; what is in it, dropout above all, stays as it is
