"""LoRA on the language model alone: attached by exact module path, merged in float32.

A name like "q_proj" also fits the sound encoder, whose layers must stay as they are; full paths cannot hit them.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from avcap.errors import UserError
from avcap.files.write import replacing
from avcap.model.captioning import CaptioningModel

PEFT_PREFIX = "base_model.model."
"""What PEFT puts before the name of every module of the model it wraps."""
BLOCK_OF = {
    "q_proj": "self_attn",
    "k_proj": "self_attn",
    "v_proj": "self_attn",
    "o_proj": "self_attn",
    "gate_proj": "mlp",
    "up_proj": "mlp",
    "down_proj": "mlp",
}
"""Matrix of a layer -> the block that it is in."""


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """The released training's values are the defaults (rank 128, alpha 256, dropout 0.05, on q, k and v)."""

    rank: int = 128
    alpha: int = 256
    dropout: float = 0.05
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    """Names of the matrices of the language model's layers that get a LoRA: those of BLOCK_OF."""

    def __post_init__(self) -> None:
        if unknown := [target for target in self.targets if target not in BLOCK_OF]:
            raise UserError(f"targets: got {unknown[0]!r}, expected some of {', '.join(BLOCK_OF)}")


def attach_lora(model: CaptioningModel, config: LoraConfig) -> None:
    """Adds a fresh LoRA (B = 0, so nothing changes yet) to the language model, in place; nothing else of it trains."""
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    paths = [
        f"layers.{index}.{BLOCK_OF[target]}.{target}"
        for index in range(model.config.text_config.num_hidden_layers)
        for target in config.targets
    ]
    peft_config = PeftConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=paths, bias="none"
    )
    model.language_model.requires_grad_(False)
    inject_adapter_in_model(peft_config, model.language_model.model)


@torch.no_grad()
def merge_lora(model: CaptioningModel) -> None:
    """W + (alpha / r) B A for every LoRA, in float32 (bf16 would round small updates away); the LoRA is removed."""
    for layer in _lora_layers(model).values():
        weight = layer.get_base_layer().weight
        (adapter,) = layer.lora_A
        update = layer.lora_B[adapter].weight.float() @ layer.lora_A[adapter].weight.float()
        weight.copy_(weight.float() + layer.scaling[adapter] * update)
    remove_lora(model)


def lora_tensors(model: CaptioningModel) -> dict[str, torch.Tensor]:
    """Model -> the weights of its LoRA, by name, to be kept."""
    return {name: param.detach().contiguous() for name, param in model.named_parameters() if is_of_lora(name)}


@torch.no_grad()
def load_lora(model: CaptioningModel, tensors: Path) -> None:
    """Puts weights that `lora_tensors` gave, kept in a file, into the LoRA that is attached."""
    for name, tensor in load_file(tensors).items():
        model.get_parameter(name).copy_(tensor)


def is_of_lora(name: str) -> bool:
    """Name of a parameter -> whether it is of a LoRA."""
    return "lora_" in name


def write_adapter(folder: Path, tensors: Path, *, config: LoraConfig, base: Path) -> None:
    """A trained LoRA -> a folder in PEFT's layout: adapter_config.json and adapter_model.safetensors.

    Args:
        folder: The new folder, whole or not at all.
        tensors: Safetensors of the LoRA by our names ("language_model.model.layers.0.self_attn.q_proj.lora_A...").
        config: Its rank, alpha and targets.
        base: The checkpoint that it belongs to, for the config.
    """
    read = load_file(tensors)
    named = {f"{PEFT_PREFIX}{name.replace('.default.', '.')}": tensor for name, tensor in read.items()}
    fields = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": list(config.targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "use_dora": False,
        "use_rslora": False,
        "inference_mode": True,
    }
    with replacing(folder) as aside:
        aside.mkdir()
        save_file(named, aside / "adapter_model.safetensors")
        (aside / "adapter_config.json").write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def remove_lora(model: CaptioningModel) -> None:
    """Takes every LoRA out, unmerged: the model is again what it was before `attach_lora`, and can get another one."""
    text_model = model.language_model.model
    for name, layer in _lora_layers(model).items():
        parent, _, child = name.rpartition(".")
        setattr(text_model.get_submodule(parent), child, layer.get_base_layer())
    if hasattr(text_model, "peft_config"):
        del text_model.peft_config  # PEFT would take the next LoRA for a second one beside this


def reset_lora(model: CaptioningModel, config: LoraConfig) -> None:
    """Throws the LoRA away, as it is, and attaches a fresh one."""
    remove_lora(model)
    attach_lora(model, config)


@contextmanager
def adapter_off(model: CaptioningModel) -> Iterator[None]:
    """Within the block the model computes as if it had no LoRA: the reference policy of a preference round."""
    layers = _lora_layers(model).values()
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def _lora_layers(model: CaptioningModel) -> dict[str, Any]:
    """Model -> its LoRA layers by path within the language model."""
    from peft.tuners.lora import LoraLayer

    modules = model.language_model.model.named_modules()
    return {name: module for name, module in modules if isinstance(module, LoraLayer)}
