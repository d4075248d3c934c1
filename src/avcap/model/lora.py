"""LoRA on the language model alone: attached by exact module path, merged in float32.

A name like "q_proj" also fits the sound encoder, whose layers must stay as they are; full paths cannot hit them.
"""

from dataclasses import dataclass

import torch

from avcap.model.salmonn2 import Salmonn2ForCaptioning


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """The released training's values are the defaults (rank 128, alpha 256, dropout 0.05, on q, k and v)."""

    rank: int = 128
    alpha: int = 256
    dropout: float = 0.05
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    """Names of the attention matrices of the language model's layers that get a LoRA."""


def attach_lora(model: Salmonn2ForCaptioning, config: LoraConfig) -> None:
    """Adds a fresh LoRA (B = 0, so nothing changes yet) to the language model, in place; nothing else of it trains."""
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    paths = [
        f"layers.{number}.self_attn.{target}"
        for number in range(model.config.text_config.num_hidden_layers)
        for target in config.targets
    ]
    peft_config = PeftConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=paths, bias="none"
    )
    model.language_model.requires_grad_(False)
    inject_adapter_in_model(peft_config, model.language_model.model)


@torch.no_grad()
def merge_lora(model: Salmonn2ForCaptioning) -> None:
    """W + (alpha / r) B A for every LoRA, in float32 (bf16 would round small updates away); the LoRA is removed."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.language_model.model.named_modules()):
        if not isinstance(module, LoraLayer):
            continue
        base = module.get_base_layer()
        (adapter,) = module.lora_A
        update = module.lora_B[adapter].weight.float() @ module.lora_A[adapter].weight.float()
        base.weight.copy_(base.weight.float() + module.scaling[adapter] * update)
        parent, _, child = name.rpartition(".")
        setattr(model.language_model.model.get_submodule(parent), child, base)
