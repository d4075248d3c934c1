"""What transformers renamed within the versions that avcap supports; nothing else of avcap writes either name.

5.24 calls a language model's keys and values `cache`, before it was `past_key_values`, and activation checkpointing by
that name, before it was gradient checkpointing. It warns of the old names.
"""

from dataclasses import fields
from typing import Any

from transformers import Cache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

CACHE_KEYWORD = "cache" if "cache" in {field.name for field in fields(BaseModelOutputWithPast)} else "past_key_values"


def cache_argument(cache: Cache | None) -> dict[str, Cache | None]:
    """Keys and values -> the keyword argument that hands them to a language model, or to an output that it builds."""
    return {CACHE_KEYWORD: cache}


def cache_of(output: Any) -> Any:
    """What a language model returned -> the keys and values in it."""
    return getattr(output, CACHE_KEYWORD)


def enable_activation_checkpointing(model: PreTrainedModel) -> None:
    """Has a model in training mode compute its layers' activations anew in the backward pass, for less memory."""
    new_name = hasattr(model, "activation_checkpointing_enable")
    enable = model.activation_checkpointing_enable if new_name else model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
