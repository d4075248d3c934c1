"""Prompts that begin alike are read once: keys and values of the last prompt are kept as far as the next one is equal.

A caption's questions differ in their last lines alone, so a judge in this process reads the caption once for all.
"""

from collections.abc import Iterator, Sequence

import torch
from transformers import DynamicCache, PreTrainedModel

from avcap.model.transformers_renames import cache_argument, cache_of


class PrefixCache:
    """The keys and values of one causal model for the prompt that it read last."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._ids: list[int] = []
        self._cache: DynamicCache | None = None
        self.num_read = 0
        """Tokens that the model has read so far."""

    def next_logits(self, ids_BL: torch.Tensor, *, max_tokens: int, written: Sequence[int]) -> Iterator[torch.Tensor]:
        """Prompt ids (1, L) -> the logits (V,) of the next token, then of the one after `written[-1]`, and so on."""
        ids = ids_BL[0].tolist()
        num_kept = self._keep_common(ids)
        todo_BL = ids_BL[:, num_kept:]
        for index in range(max_tokens):
            with torch.inference_mode():
                out = self._model(input_ids=todo_BL, use_cache=True, **cache_argument(self._cache))
            self.num_read += todo_BL.shape[1]
            self._cache, self._ids = cache_of(out), ids + list(written)
            yield out.logits[0, -1]
            if len(written) <= index:  # the caller has taken no token: it has ended
                return
            todo_BL = torch.tensor([[written[-1]]], device=ids_BL.device)

    def _keep_common(self, ids: list[int]) -> int:
        """The next prompt -> how many of its first tokens stay in the cache; all but the last at most."""
        common = 0
        while common < min(len(ids) - 1, len(self._ids)) and ids[common] == self._ids[common]:
            common += 1
        if self._cache is None or not common or not _can_be_cropped(self._cache):
            self._cache, self._ids = DynamicCache(config=self._model.config), []
            return 0
        if surplus := self._cache.get_seq_length() - common:
            self._cache.crop(-surplus)  # how many to take away: a length to keep is not taken by every version
        self._ids = ids[:common]
        return common


def _can_be_cropped(cache: DynamicCache) -> bool:
    """A window that slides has forgotten the beginning."""
    return not any(getattr(layer, "is_sliding", False) for layer in cache.layers)
