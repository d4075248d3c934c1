"""The keyword by which a language model takes and returns its keys and values: `past_key_values`, then `cache`.

transformers renamed it in 5.24 and warns of the old name until 5.40. Nothing else of avcap writes either name.
"""

from dataclasses import fields
from typing import Any

from transformers import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast

KEYWORD = "cache" if "cache" in {field.name for field in fields(BaseModelOutputWithPast)} else "past_key_values"


def cache_argument(cache: Cache | None) -> dict[str, Cache | None]:
    """Keys and values -> the keyword argument that hands them to a language model, or to an output that it builds."""
    return {KEYWORD: cache}


def cache_of(output: Any) -> Any:
    """What a language model returned -> the keys and values in it."""
    return getattr(output, KEYWORD)
