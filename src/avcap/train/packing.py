"""Several answers to one video, which is read once: one row, [prompt | branch | branch | ...].

A branch (chosen, rejected, reference caption; or a question with its answer) attends to its prompt and to itself, and
goes on at the position after the prompt: for it, it is as if it were alone. Gradients flow through the prompt. A row
holds several videos, one after the other, without padding; the model's code is stock: the row travels to its attention
as a keyword.

    pack -> PackedBatch -> response_logprobs -> ExampleLogprobs of each example -> losses.preference_loss
                        -> target_states -> answer_loss

L positions of the row  D width  H heads  G key-value heads  E head width  T target tokens  V vocabulary
Q, K queries and keys of one attention call  S tokens of one example
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from avcap.errors import UserError
from avcap.model.captioning import CaptioningModel
from avcap.model.features import MediaTokens

SHARED_PROMPT = "shared_prompt"
MAX_BLOCK_MASK = 2**24  # entries: 32 examples of 724 tokens
HEAD_CHUNK = 256  # answer tokens whose logits are in memory at one time: 156 MB in float32 with 152,000 words


@dataclass(frozen=True, kw_only=True)
class Branch:
    """Ids that go on behind a prompt, and how much each counts in the loss: 0, it is read and not learned."""

    ids: Sequence[int]
    weights: Sequence[float] | None = None
    """None: all are learned, each with weight 1."""

    def __len__(self) -> int:
        return len(self.ids)


class Packable(Protocol):
    """What `pack` lays out: a prompt with placeholders for its media, and the branches behind it."""

    @property
    def sample_id(self) -> str: ...
    @property
    def prompt_ids(self) -> Sequence[int]: ...
    @property
    def branches(self) -> Sequence[Branch]: ...
    @property
    def prompt_positions(self) -> Tensor | None: ...
    @property
    def following(self) -> int | None: ...


@dataclass(frozen=True, kw_only=True)
class EncodedExample:
    """A prompt and any number of branches behind it, as token ids."""

    sample_id: str
    prompt_ids: Sequence[int]
    branches: Sequence[Branch]
    prompt_positions: Tensor | None = None
    following: int | None = None

    def __post_init__(self) -> None:
        if not self.prompt_ids or not self.branches or not all(branch.ids for branch in self.branches):
            raise UserError(f"sample {self.sample_id}: an empty prompt or answer; expected at least one token in each")

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + sum(map(len, self.branches))

    @property
    def weight(self) -> float:
        """Sum of the weights of its targets."""
        return sum(float(len(b)) if b.weights is None else sum(b.weights) for b in self.branches)


@dataclass(frozen=True, kw_only=True)
class PairExample:
    """A prompt with placeholders for its media, and the ids of its answers with what closes them.

    chosen and rejected are both there, or neither: then the reference caption alone is learned.
    """

    sample_id: str
    prompt_ids: Sequence[int]
    chosen_ids: Sequence[int] | None = None
    rejected_ids: Sequence[int] | None = None
    target_ids: Sequence[int] | None = None
    prompt_positions: Tensor | None = None
    """(P,), or (3, P) for models with M-RoPE; None: those that the model gives them."""
    following: int | None = None
    """Position of the first token of every answer; None: one after the largest of the prompt."""

    def __post_init__(self) -> None:
        if not self.prompt_ids or not self.answers or not all(self.answers):
            raise UserError(f"sample {self.sample_id}: an empty prompt or answer; expected at least one token in each")
        if (self.chosen_ids is None) != (self.rejected_ids is None):
            raise UserError(f"sample {self.sample_id}: one caption of a pair; give chosen and rejected, or neither")

    @property
    def answers(self) -> list[Sequence[int]]:
        """The answers that are there, in the order of the row."""
        return [ids for ids in (self.chosen_ids, self.rejected_ids, self.target_ids) if ids is not None]

    @property
    def branches(self) -> list[Branch]:
        return [Branch(ids=ids) for ids in self.answers]

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + sum(map(len, self.answers))


@dataclass(frozen=True, kw_only=True)
class Span:
    """Positions [start, stop) of a row."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def slice(self) -> slice:
        return slice(self.start, self.stop)


@dataclass(frozen=True, kw_only=True)
class SharedPrompt:
    """Where one prompt and its answers stand in the row: right behind one another."""

    prompt: Span
    answers: tuple[Span, ...]

    @property
    def whole(self) -> Span:
        return Span(start=self.prompt.start, stop=self.answers[-1].stop)


@dataclass(frozen=True, kw_only=True)
class PackedBatch:
    """Examples as one row. A token is predicted at the position before it, a branch's first at its prompt's last."""

    examples: tuple[Any, ...]
    """Each a Packable."""
    groups: tuple[SharedPrompt, ...]
    ids: tuple[Tensor, ...]
    """Of each example, its prompt and its branches: (1, S)."""
    positions: Tensor
    """(1, L), or (3, 1, L) for models with M-RoPE. Where no example gave any, tokens are counted."""
    predictor_T: Tensor
    target_T: Tensor
    weight_T: Tensor
    branch_T: Tensor
    """To which branch of the row each target belongs."""

    @property
    def num_tokens(self) -> int:
        return self.groups[-1].whole.stop

    def to(self, device: torch.device) -> "PackedBatch":
        """The same row with its tensors on a device."""
        names = ("positions", "predictor_T", "target_T", "weight_T", "branch_T")
        moved = {name: getattr(self, name).to(device) for name in names}
        return replace(self, ids=tuple(ids.to(device) for ids in self.ids), **moved)


@dataclass(frozen=True, kw_only=True)
class AnswerLogprobs:
    """Log-prob of a whole answer: float32 sum over its tokens."""

    total: Tensor
    num_tokens: int


@dataclass(frozen=True, kw_only=True)
class ExampleLogprobs:
    """Log-probs of the answers of one example; None where it has no such answer."""

    chosen: AnswerLogprobs | None = None
    rejected: AnswerLogprobs | None = None
    target: AnswerLogprobs | None = None


def pack(examples: Sequence[Packable]) -> PackedBatch:
    """Examples -> one row of them all."""
    if not examples:
        raise UserError("pack: got no example, expected at least one")
    groups: list[SharedPrompt] = []
    targets: list[tuple[int, int, float, int]] = []
    ids, end, num_branches = [], 0, 0
    for example in examples:
        lengths = [len(example.prompt_ids), *(len(branch) for branch in example.branches)]
        borders = list(accumulate(lengths, initial=end))
        prompt, *spans = (Span(start=a, stop=b) for a, b in pairwise(borders))
        groups.append(SharedPrompt(prompt=prompt, answers=tuple(spans)))
        for branch, span in zip(example.branches, spans, strict=True):
            targets += _targets(branch, span, before=prompt.stop - 1, number=num_branches)
            num_branches += 1
        ids.append([*example.prompt_ids, *(token_id for branch in example.branches for token_id in branch.ids)])
        end = borders[-1]
    predictors, target_ids, weights, branches = zip(*targets, strict=True)
    return PackedBatch(
        examples=tuple(examples),
        groups=tuple(groups),
        ids=tuple(torch.tensor([ids_S]) for ids_S in ids),
        positions=torch.cat([_positions(example) for example in examples], dim=-1).unsqueeze(-2),
        predictor_T=torch.tensor(predictors),
        target_T=torch.tensor(target_ids),
        weight_T=torch.tensor(weights),
        branch_T=torch.tensor(branches),
    )


def _targets(branch: Branch, span: Span, *, before: int, number: int) -> list[tuple[int, int, float, int]]:
    """A branch and its place -> (predicting position, id, weight, number) of each of its targets."""
    predictors = [before, *range(span.start, span.stop - 1)]
    weights = [1.0] * len(branch) if branch.weights is None else branch.weights
    rows = zip(predictors, branch.ids, weights, strict=True)
    return [(predictor, token_id, weight, number) for predictor, token_id, weight in rows if weight > 0]


def _positions(example: Packable) -> Tensor:
    """Example -> positions (S,) or (3, S): every answer goes on at the same position behind the prompt."""
    positions = example.prompt_positions
    if positions is None:
        positions = torch.arange(len(example.prompt_ids))
    if positions.shape[-1] != len(example.prompt_ids):
        raise UserError(
            f"sample {example.sample_id}: {positions.shape[-1]} positions for {len(example.prompt_ids)} prompt tokens"
        )
    first = int(positions.max()) + 1 if example.following is None else example.following
    branches = [torch.arange(first, first + len(branch)) for branch in example.branches]
    return torch.cat([positions, *(branch.expand(*positions.shape[:-1], -1) for branch in branches)], dim=-1)


class RowAttention(Protocol):
    """Attention over a packed row, made once for a row and used by every layer."""

    @property
    def name(self) -> str: ...

    def attend(
        self, query_1HLE: Tensor, key_1GLE: Tensor, value_1GLE: Tensor, *, scaling: float | None, dropout: float
    ) -> Tensor:
        """Queries, keys, values of the row -> (1, L, H, E)."""


class SplitConcat:
    """Plain SDPA with autograd's own backward: the prompt with its first answer is an ordinary causal sequence; each
    other answer attends to the prompt's keys and its own, put one behind the other."""

    name = "split_concat"

    def __init__(self, groups: Sequence[SharedPrompt], *, like: Tensor) -> None:
        self.groups = groups
        others = [answer for group in groups for answer in group.answers[1:]]
        self.longest_prompt = max(len(group.prompt) for group in groups)
        longest = max(map(len, others), default=0)
        # One mask for all answers, of which each takes a part: keys of the prompt are free, its own are causal.
        own_KK = torch.full((longest, longest), float("-inf"), dtype=like.dtype, device=like.device).triu(1)
        self.mask_QK = F.pad(own_KK, (self.longest_prompt, 0))

    def attend(
        self, query_1HLE: Tensor, key_1GLE: Tensor, value_1GLE: Tensor, *, scaling: float | None, dropout: float
    ) -> Tensor:
        options: dict[str, Any] = {
            "scale": scaling,
            "dropout_p": dropout,
            "enable_gqa": query_1HLE.shape[1] != key_1GLE.shape[1],
        }
        parts = []
        for group in self.groups:
            prompt, first = group.prompt.slice, slice(group.prompt.start, group.answers[0].stop)
            query, key, value = (tensor[:, :, first] for tensor in (query_1HLE, key_1GLE, value_1GLE))
            parts.append(F.scaled_dot_product_attention(query, key, value, is_causal=True, **options))
            for answer in group.answers[1:]:
                own = answer.slice
                key = torch.cat((key_1GLE[:, :, prompt], key_1GLE[:, :, own]), dim=2)
                value = torch.cat((value_1GLE[:, :, prompt], value_1GLE[:, :, own]), dim=2)
                mask = self.mask_QK[: len(answer), self.longest_prompt - len(group.prompt) :][:, : key.shape[2]]
                part = F.scaled_dot_product_attention(query_1HLE[:, :, own], key, value, attn_mask=mask, **options)
                parts.append(part)
        return torch.cat(parts, dim=2).transpose(1, 2)


class Varlen:
    """One flash-attention call a layer for GPUs: sequences of unequal query and key length, causal at the lower right.

    The queries of a sequence are a prompt, or an answer; its keys are those of the prompt (and of the answer).
    """

    name = "varlen"

    def __init__(self, groups: Sequence[SharedPrompt], *, like: Tensor) -> None:
        sequences = [(group.prompt, [group.prompt]) for group in groups]
        sequences += [(answer, [group.prompt, answer]) for group in groups for answer in group.answers]
        sequences.sort(key=lambda sequence: sequence[0].start)
        query_lengths = [len(queries) for queries, _ in sequences]
        key_lengths = [sum(map(len, keys)) for _, keys in sequences]
        key_index = [place for _, keys in sequences for span in keys for place in range(span.start, span.stop)]
        self.key_index = torch.tensor(key_index, device=like.device)
        self.query_borders = _borders(query_lengths, like=like)
        self.key_borders = _borders(key_lengths, like=like)
        self.max_queries, self.max_keys = max(query_lengths), max(key_lengths)

    def attend(
        self, query_1HLE: Tensor, key_1GLE: Tensor, value_1GLE: Tensor, *, scaling: float | None, dropout: float
    ) -> Tensor:
        from torch.nn.attention.varlen import varlen_attn

        if dropout:
            raise UserError(f"attention_dropout: got {dropout}, expected 0: flash attention over a packed row has none")
        # in mixed precision what leaves a norm is in float32
        kind, half = query_1HLE.device.type, query_1HLE.dtype
        if torch.is_autocast_enabled(kind):
            half = torch.get_autocast_dtype(kind)
        query_LHE, key_LGE, value_LGE = (
            tensor[0].transpose(0, 1).to(half) for tensor in (query_1HLE, key_1GLE, value_1GLE)
        )
        out_LHE = varlen_attn(
            query_LHE.contiguous(),
            key_LGE.index_select(0, self.key_index),
            value_LGE.index_select(0, self.key_index),
            self.query_borders,
            self.key_borders,
            self.max_queries,
            self.max_keys,
            scale=scaling,
            window_size=(-1, 0),
            enable_gqa=query_1HLE.shape[1] != key_1GLE.shape[1],
        )
        assert isinstance(out_LHE, Tensor)
        return out_LHE.unsqueeze(0).to(query_1HLE.dtype)


class Blocks:
    """One SDPA call for all examples of a row, each padded to the longest: many short branches are cheapest so."""

    name = "blocks"

    def __init__(self, groups: Sequence[SharedPrompt], *, like: Tensor) -> None:
        longest = max(len(group.whole) for group in groups)
        self.shape = len(groups), longest
        # Padding repeats the last position: it is never read, and what is computed there is thrown away.
        rows = [[min(group.whole.start + i, group.whole.stop - 1) for i in range(longest)] for group in groups]
        kept = [row * longest + i for row, group in enumerate(groups) for i in range(len(group.whole))]
        self.index = torch.tensor(rows, device=like.device).flatten()
        self.kept = torch.tensor(kept, device=like.device)
        branches = [_branch_numbers(group, longest) for group in groups]
        self.mask_B1SS = _branch_mask(torch.tensor(branches, device=like.device))

    def attend(
        self, query_1HLE: Tensor, key_1GLE: Tensor, value_1GLE: Tensor, *, scaling: float | None, dropout: float
    ) -> Tensor:
        query_BHSE, key_BGSE, value_BGSE = (
            tensor[0].index_select(1, self.index).unflatten(1, self.shape).transpose(0, 1)
            for tensor in (query_1HLE, key_1GLE, value_1GLE)
        )
        out_BHSE = F.scaled_dot_product_attention(
            query_BHSE,
            key_BGSE,
            value_BGSE,
            attn_mask=self.mask_B1SS,
            scale=scaling,
            dropout_p=dropout,
            enable_gqa=query_1HLE.shape[1] != key_1GLE.shape[1],
        )
        return out_BHSE.transpose(1, 2).flatten(0, 1).index_select(0, self.kept).unsqueeze(0)

    @staticmethod
    def fits(groups: Sequence[SharedPrompt]) -> bool:
        """Whether the mask of all blocks is small."""
        return len(groups) * max(len(group.whole) for group in groups) ** 2 <= MAX_BLOCK_MASK


def _branch_numbers(group: SharedPrompt, length: int) -> list[int]:
    """-> 0 for the positions of the prompt, the branch's number elsewhere; padding is of the last branch."""
    numbers = [0] * len(group.prompt)
    for number, branch in enumerate(group.answers, start=1):
        numbers += [number] * len(branch)
    return numbers + [len(group.answers)] * (length - len(numbers))


def _branch_mask(branches_BS: Tensor) -> Tensor:
    """Branch numbers (B, S) -> what each position may attend to, (B, 1, S, S) bool: its branch and the prompt."""
    same_BSS = branches_BS[:, :, None] == branches_BS[:, None, :]
    in_prompt_B1S = (branches_BS == 0)[:, None, :]
    length = branches_BS.shape[1]
    earlier_SS = torch.ones(length, length, dtype=torch.bool, device=branches_BS.device).tril()
    return ((same_BSS | in_prompt_B1S) & earlier_SS)[:, None]


def _borders(lengths: Sequence[int], *, like: Tensor) -> Tensor:
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=like.device)


def attention_for(*, dtype: torch.dtype, device: torch.device) -> type[SplitConcat] | type[Varlen]:
    """Where a row is computed -> how: flash attention for 16-bit numbers on a GPU, else plain SDPA."""
    return Varlen if device.type == "cuda" and dtype in (torch.bfloat16, torch.float16) else SplitConcat


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    row: RowAttention | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention of a layer, as transformers calls it: over a packed row where there is one, else SDPA as ever."""
    if row is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    assert attention_mask is None and len(query) == 1, "a packed row needs no mask, and stands alone in its batch"
    return row.attend(query, key, value, scaling=scaling, dropout=dropout), None


AttentionInterface.register(SHARED_PROMPT, _attention)
AttentionMaskInterface.register(SHARED_PROMPT, sdpa_mask)


def read_row(text_model: PreTrainedModel, *, embeds_1LD: Tensor, positions: Tensor, row: RowAttention) -> Tensor:
    """Embeddings of a packed row -> last hidden states (L, D).

    The model keeps this attention: under activation checkpointing it runs once more in the backward pass. Rows without
    a layout are computed as by "sdpa".
    """
    kinds = set(getattr(text_model.config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise UserError(
            f"layer_types: got {sorted(kinds)}, expected full attention in every layer; turn use_sliding_window off"
        )
    if text_model.config._attn_implementation != SHARED_PROMPT:
        text_model.set_attn_implementation(SHARED_PROMPT)
    hidden_1LD = text_model(
        # a dict is taken as it is: from positions that begin anew a mask would be made that hides the prompt
        inputs_embeds=embeds_1LD,
        position_ids=positions.to(embeds_1LD.device),
        attention_mask={"full_attention": None},
        use_cache=False,
        row=row,
    ).last_hidden_state
    return hidden_1LD[0]


def response_logprobs(
    model: CaptioningModel, packed: PackedBatch, media_tokens: Sequence[MediaTokens | None]
) -> list[ExampleLogprobs]:
    """A packed row of PairExamples and the media of each -> log-probs of each example's answers, with gradients."""
    attention = attention_for(dtype=model.dtype, device=model.device)
    hidden_TD = target_states(model, packed, media_tokens, attention=attention)
    logprobs_T = token_logprobs(model.language_model.lm_head, hidden_TD, packed.target_T.to(hidden_TD.device))
    return split_logprobs(logprobs_T, packed)


def target_states(
    model: CaptioningModel,
    packed: PackedBatch,
    media_tokens: Sequence[MediaTokens | None],
    *,
    attention: type[SplitConcat] | type[Varlen] | type[Blocks],
) -> Tensor:
    """A packed row and the media of each example -> last hidden states from which the targets are predicted (T, D)."""
    parts = [model.embed(ids_1S, [tokens]) for ids_1S, tokens in zip(packed.ids, media_tokens, strict=True)]
    embeds_1LD = torch.cat(parts, dim=1)
    row = attention(packed.groups, like=embeds_1LD)
    positions = row_positions(model, packed, media_tokens)
    hidden_LD = read_row(model.language_model.model, embeds_1LD=embeds_1LD, positions=positions, row=row)
    return hidden_LD.index_select(0, packed.predictor_T.to(hidden_LD.device))


def row_positions(model: CaptioningModel, packed: PackedBatch, media_tokens: Sequence[MediaTokens | None]) -> Tensor:
    """A packed row and its media -> positions (1, L) or (3, 1, L): where examples have none, the model gives them."""
    if model.counts_positions:
        return packed.positions
    placed = []
    for example, tokens in zip(packed.examples, media_tokens, strict=True):
        if example.prompt_positions is None:
            prompt = model.positions(example.prompt_ids, tokens)
            example = replace(example, prompt_positions=prompt.of_ids, following=prompt.following)
        placed.append(_positions(example))
    return torch.cat(placed, dim=-1).unsqueeze(-2)


def answer_token_logprobs(head: nn.Module, hidden_LD: Tensor, packed: PackedBatch) -> Tensor:
    """Last hidden states of a packed row -> float32 log-prob of every answer token (T,)."""
    device = hidden_LD.device
    return token_logprobs(head, hidden_LD.index_select(0, packed.predictor_T.to(device)), packed.target_T.to(device))


def token_logprobs(head: nn.Module, hidden_TD: Tensor, target_T: Tensor) -> Tensor:
    """States from which targets are predicted (T, D), and the targets -> float32 log-prob of each (T,)."""
    if isinstance(head, nn.Linear) and head.bias is None and not head.weight.requires_grad:
        return _FrozenHead.apply(hidden_TD, head.weight, target_T)

    def logprobs(part_TD: Tensor, part_T: Tensor) -> Tensor:
        return -F.cross_entropy(head(part_TD).float(), part_T, reduction="none")

    chunks = zip(hidden_TD.split(HEAD_CHUNK), target_T.split(HEAD_CHUNK), strict=True)
    return torch.cat([checkpoint(logprobs, *chunk, use_reentrant=False) for chunk in chunks])


class _FrozenHead(torch.autograd.Function):
    """d log p(y) / d hidden = W[y] - sum_v p(v) W[v] does not depend on the loss, so it is formed with the log-prob,
    chunk by chunk: no logits are kept, and none are computed again."""

    @staticmethod
    def forward(ctx: Any, hidden_TD: Tensor, weight_VD: Tensor, target_T: Tensor) -> Tensor:
        logprobs, slopes = [], []
        for part_TD, part_T in zip(hidden_TD.split(HEAD_CHUNK), target_T.split(HEAD_CHUNK), strict=True):
            logits_TV = (part_TD @ weight_VD.T).float()
            logits_TV -= logits_TV.logsumexp(dim=-1, keepdim=True)
            logprobs.append(logits_TV.gather(1, part_T[:, None])[:, 0])
            if ctx.needs_input_grad[0]:
                slopes.append(weight_VD[part_T] - logits_TV.exp_().to(weight_VD.dtype) @ weight_VD)
        if slopes:
            ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(logprobs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (slope_TD,) = ctx.saved_tensors
        return (grads[0][:, None] * slope_TD).to(slope_TD.dtype), None, None


def split_logprobs(logprobs_T: Tensor, packed: PackedBatch) -> list[ExampleLogprobs]:
    """Log-prob of every answer token of a row -> those of whole answers, by example."""
    lengths = [len(answer) for example in packed.examples for answer in example.answers]
    totals = iter(AnswerLogprobs(total=part.sum(), num_tokens=len(part)) for part in logprobs_T.split(lengths))
    return [
        ExampleLogprobs(
            chosen=next(totals) if example.chosen_ids is not None else None,
            rejected=next(totals) if example.rejected_ids is not None else None,
            target=next(totals) if example.target_ids is not None else None,
        )
        for example in packed.examples
    ]
