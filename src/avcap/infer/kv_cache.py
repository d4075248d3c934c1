"""What rows remember while they are written: a prompt of their own, or one that is kept once for all its answers.

Every answer of a prompt asks the same keys, so all of them, and the query heads of each key head, are queries of one
product. What an answer has written itself is attended to apart; the two softmaxes become one by their log-sum-exps:

    out = (e^a out_prompt + e^b out_own) / (e^a + e^b),   a, b = log sum exp of the scores of each part

`transformers` calls this through its AttentionInterface; its DynamicCache holds what the answers wrote. Where a prompt
has one answer, nothing is shared, and one call over all keys is faster.
"""

# B prompts  N answers of a prompt (at most)  R rows (answers still being written)  H key heads  G query heads of each
# L prompt tokens, padded on the left  S tokens written  Q queries  K keys  E width of a head

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from transformers import AttentionInterface, DynamicCache, PreTrainedModel

from avcap.model.transformers_renames import cache_argument

SHARED_PROMPT = "avcap_shared_prompt"


class OwnPrompts:
    """Rows with a prompt each; its keys and values, and those of what the row wrote, in one cache."""

    def __init__(self, cache: DynamicCache, mask_RL: torch.Tensor):
        """The cache that a prefill left, and which of its places are tokens."""
        self._cache = cache
        self._mask_RL = mask_RL

    def keep(self, rows: Sequence[int]) -> None:
        """Drops all other rows."""
        rows_R = torch.tensor(rows, device=self._mask_RL.device)
        self._cache.batch_select_indices(rows_R)
        self._mask_RL = self._mask_RL[rows_R]

    def read(self, language_model: PreTrainedModel, ids_R: torch.Tensor, *, positions_R: torch.Tensor) -> torch.Tensor:
        """The next token of each row -> logits of the one after it (R, V)."""
        self._mask_RL = torch.cat([self._mask_RL, torch.ones_like(self._mask_RL[:, :1])], dim=1)
        output = language_model(
            input_ids=ids_R[:, None],
            attention_mask=self._mask_RL,
            position_ids=positions_R[:, None],
            use_cache=True,
            **cache_argument(self._cache),
        )
        return output.logits[:, -1].float()


class SharedPrompts:
    """Rows that share B prompts: keys and values of these, layer by layer, and of what each row wrote."""

    def __init__(self, cache: DynamicCache, mask_BL: torch.Tensor, *, answers_per_prompt: int):
        """The cache that a prefill left, and which of its places are tokens. Rows of a prompt stand together."""
        if any(layer.is_sliding for layer in cache.layers):
            raise ValueError("the language model has sliding-window layers; its prompts cannot be shared")
        self._keys = [layer.keys for layer in cache.layers]
        self._values = [layer.values for layer in cache.layers]
        self._mask_BL = mask_BL.bool()
        self._written = DynamicCache()
        self._set_rows([prompt for prompt in range(len(mask_BL)) for _ in range(answers_per_prompt)])

    def keep(self, rows: Sequence[int]) -> None:
        """Drops all other rows, and the prompts that nobody reads any more."""
        prompt_of = [self._prompt_of[row] for row in rows]
        used = sorted(set(prompt_of))
        if len(used) < len(self._mask_BL):
            index_B = torch.tensor(used, device=self._mask_BL.device)
            mask_BL = self._mask_BL[index_B]
            first = int(mask_BL.any(dim=0).int().argmax())  # what only longer prompts needed goes too
            self._mask_BL = mask_BL[:, first:]
            # layer by layer, so that no more than one layer is there twice
            for tensors in (self._keys, self._values):
                for layer, tensor_BHLE in enumerate(tensors):
                    tensors[layer] = tensor_BHLE[:, :, first:].index_select(0, index_B)
        if self._written.get_seq_length():
            self._written.batch_select_indices(torch.tensor(rows, device=self._mask_BL.device))
        self._set_rows([used.index(prompt) for prompt in prompt_of])

    def read(self, language_model: PreTrainedModel, ids_R: torch.Tensor, *, positions_R: torch.Tensor) -> torch.Tensor:
        """The next token of each row -> logits of the one after it (R, V)."""
        with _shared_prompt_attention(language_model):
            output = language_model(
                input_ids=ids_R[:, None],
                position_ids=positions_R[:, None],
                use_cache=True,
                shared_prompts=self,
                **cache_argument(self._written),
            )
        return output.logits[:, -1].float()

    def _set_rows(self, prompt_of: list[int]) -> None:
        self._prompt_of = prompt_of
        self._is_padded = not bool(self._mask_BL.all())
        sizes = [len(list(rows)) for _, rows in groupby(prompt_of)]
        self._most = max(sizes)
        slots = [prompt * self._most + index for prompt, size in enumerate(sizes) for index in range(size)]
        # None: every prompt has as many rows as the others, so the rows are the grid of prompts and answers already
        is_full = len(slots) == len(sizes) * self._most
        self._slot_R = None if is_full else torch.tensor(slots, device=self._mask_BL.device)

    def attend(self, query_RHGE: torch.Tensor, *, layer: int, scaling: float) -> "Attended":
        """Queries of the rows -> what they find in their prompts."""
        num_heads, group, width = query_RHGE.shape[1:]
        num_prompts = len(self._mask_BL)
        if self._slot_R is not None:
            grid = query_RHGE.new_zeros(num_prompts * self._most, num_heads, group, width)
            query_RHGE = grid.index_copy_(0, self._slot_R, query_RHGE)
        grid_BNHGE = query_RHGE.view(num_prompts, self._most, num_heads, group, width)
        query_BHQE = grid_BNHGE.transpose(1, 2).reshape(num_prompts, num_heads, self._most * group, width)
        hidden_BL = ~self._mask_BL if self._is_padded else None
        found = attend(query_BHQE, self._keys[layer], self._values[layer], scaling=scaling, hidden_BK=hidden_BL)
        return Attended(out=self._unfold(found.out, group=group), lse=self._unfold(found.lse, group=group))

    def _unfold(self, folded: torch.Tensor, *, group: int) -> torch.Tensor:
        """(B, H, NG, X) -> (R, H, G, X)."""
        num_prompts, num_heads, _, last = folded.shape
        grid = folded.view(num_prompts, num_heads, self._most, group, last).transpose(1, 2)
        rows = grid.reshape(num_prompts * self._most, num_heads, group, last)
        return rows if self._slot_R is None else rows[self._slot_R]


@dataclass(frozen=True, kw_only=True)
class Attended:
    """What queries found in some keys, and the log-sum-exp of their scores, with a last dimension of 1."""

    out: torch.Tensor
    lse: torch.Tensor


def attend(
    query_BHQE: torch.Tensor,
    key_BHKE: torch.Tensor,
    value_BHKE: torch.Tensor,
    *,
    scaling: float,
    hidden_BK: torch.Tensor | None = None,
) -> Attended:
    """Queries against keys, all of which they see but the hidden ones; softmax in float32."""
    scores_BHQK = (query_BHQE * scaling @ key_BHKE.transpose(2, 3)).float()
    if hidden_BK is not None:
        scores_BHQK.masked_fill_(hidden_BK[:, None, None], float("-inf"))
    highest_BHQ1 = scores_BHQK.amax(dim=-1, keepdim=True)
    weights_BHQK = scores_BHQK.sub_(highest_BHQ1).exp_()
    total_BHQ1 = weights_BHQK.sum(dim=-1, keepdim=True)
    out_BHQE = (weights_BHQK.to(value_BHKE.dtype) @ value_BHKE).float() / total_BHQ1
    return Attended(out=out_BHQE, lse=highest_BHQ1 + total_BHQ1.log())


def merge(one: Attended, other: Attended) -> torch.Tensor:
    """What the same queries found in two sets of keys -> what they find in both together."""
    share = (one.lse - other.lse).sigmoid()  # e^a / (e^a + e^b)
    return torch.lerp(other.out, one.out, share)


def _attend_prompt_and_own(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    shared_prompts: SharedPrompts,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """The attention of one layer, as `transformers` calls it: query (R, HG, 1, E), own key and value (R, H, S, E)."""
    num_rows, num_query_heads, num_queries, width = query.shape
    assert num_queries == 1, f"got {num_queries} new tokens of a row, expected one at a time"
    query_RHGE = query.reshape(num_rows, key.shape[1], -1, width)
    in_prompt = shared_prompts.attend(query_RHGE, layer=module.layer_idx, scaling=scaling)  # type: ignore[arg-type]
    in_own = attend(query_RHGE, key, value, scaling=scaling)
    return merge(in_prompt, in_own).to(query.dtype).reshape(num_rows, 1, num_query_heads, width), None


AttentionInterface.register(SHARED_PROMPT, _attend_prompt_and_own)


@contextmanager
def _shared_prompt_attention(language_model: PreTrainedModel) -> Iterator[None]:
    """Inside, the language model wants `shared_prompts=` with every call, and builds no mask."""
    config = language_model.config
    before = config._attn_implementation
    config._attn_implementation = SHARED_PROMPT
    try:
        yield
    finally:
        config._attn_implementation = before
