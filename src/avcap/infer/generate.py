"""Batched decoding: one prefill per prompt, any number of answers to it, and no work on rows that have ended.

A row's answer does not depend on what else is in the batch: prompts are padded on the left and masked, positions count
real tokens only, and every row draws from its own generator. Answers share the memory of their prompt (shared_prompt).
"""

# B prompts  R rows (answers still being written)  L prompt tokens  K last tokens  D width  V vocabulary  S steps

import copy
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from transformers import DynamicCache

from avcap.errors import ModelError
from avcap.infer.kv_cache import OwnPrompts, SharedPrompts
from avcap.model.captioning import CaptioningModel
from avcap.model.features import MediaTokens
from avcap.model.transformers_renames import cache_argument, cache_of

Listener = Callable[[int, int], bool]
"""Is told which answer has got which token -> whether that answer is still expected; it is cut off otherwise."""


class Prompt(NamedTuple):
    """Token ids with placeholders, and the media tokens that stand there."""

    ids: Sequence[int]
    media: MediaTokens | None


@dataclass(frozen=True)
class Generated:
    """One answer: its token ids without the end token, and whether the model ended it itself."""

    ids: list[int]
    finished: bool


@dataclass(frozen=True, kw_only=True)
class LoopStop:
    """Stops an answer that has written the same `ngram` tokens `times` times; it counts as unfinished."""

    ngram: int
    times: int

    def __post_init__(self) -> None:
        if self.ngram < 1 or self.times < 2:
            raise ValueError(f"got ngram={self.ngram} and times={self.times}, expected at least 1 and 2")


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """How the next token is chosen from logits."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0


@dataclass(frozen=True, kw_only=True)
class _Ends:
    """What ends an answer."""

    max_new_tokens: int
    eos_ids: Collection[int]
    loop_stop: LoopStop | None = None
    listener: Listener | None = None


@dataclass(kw_only=True)
class _Answer:
    """An answer that is being written; `index`: which one of all that were asked for."""

    index: int = 0
    ids: list[int] = field(default_factory=list)
    finished: bool = False
    ngrams: Counter[tuple[int, ...]] = field(default_factory=Counter)

    def goes_on(self, token_id: int, *, ends: _Ends) -> bool:
        """Takes the next token -> whether another one is wanted."""
        if token_id in ends.eos_ids:
            self.finished = True
            return False
        self.ids.append(token_id)
        if ends.listener is not None and not ends.listener(self.index, token_id):
            return False
        return len(self.ids) < ends.max_new_tokens and not (ends.loop_stop and self._loops(ends.loop_stop))

    def _loops(self, loop_stop: LoopStop) -> bool:
        if len(self.ids) < loop_stop.ngram:
            return False
        last = tuple(self.ids[-loop_stop.ngram :])
        self.ngrams[last] += 1
        return self.ngrams[last] >= loop_stop.times


@dataclass(kw_only=True)
class _Rows:
    """The rows that are still being written: all tensors have them first, in the same order."""

    memory: OwnPrompts | SharedPrompts
    position_R: torch.Tensor
    """Of the token that comes next."""
    logits_RV: torch.Tensor
    uniform_RS: torch.Tensor
    penalized_RV: torch.Tensor
    """Tokens that a repetition penalty makes less likely: those written, and of some families those of the prompt."""

    def keep(self, rows: Sequence[int]) -> None:
        """Drops the rows that have ended, all but these."""
        rows_R = torch.tensor(rows, device=self.position_R.device)
        self.memory.keep(rows)
        self.position_R, self.logits_RV = self.position_R[rows_R], self.logits_RV[rows_R]
        self.uniform_RS, self.penalized_RV = self.uniform_RS[rows_R], self.penalized_RV[rows_R]


@torch.no_grad()
def generate(
    model: CaptioningModel,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    eos_ids: Collection[int],
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    seeds: Sequence[int] | None = None,
    repetition_penalty: float = 1.0,
    loop_stop: LoopStop | None = None,
    answers_per_prompt: int = 1,
    rows_at_once: int = 64,
    listener: Listener | None = None,
) -> list[Generated]:
    """Prompts (ids with placeholders, media tokens) -> answers, those to the same prompt next to each other.

    Temperature 0 is greedy; above it `seeds` has one seed per answer, drawn from the `top_k` likeliest tokens (0: all)
    and, of these, from the fewest that hold `top_p` of the mass. The repetition penalty counts generated ids, and those
    of the prompt too where the family's published decoding does. `listener` hears each token as it is written.
    """
    num_answers = len(prompts) * answers_per_prompt
    if temperature > 0 and len(seeds or ()) != num_answers:
        raise ValueError(f"seeds: got {len(seeds or ())}, expected one for each of {num_answers} answers")
    if model.training:
        raise ValueError("the model is in training mode, dropout would change its answers; call model.eval()")
    choice = _Choice(temperature=temperature, top_p=top_p, top_k=top_k, repetition_penalty=repetition_penalty)
    ends = _Ends(max_new_tokens=max_new_tokens, eos_ids=eos_ids, loop_stop=loop_stop, listener=listener)
    answers: dict[int, Generated] = {}
    # prompts of like length share a batch, so that little is padded
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i][0]))
    prompts_at_once = max(1, rows_at_once // answers_per_prompt)
    for first in range(0, len(prompts), prompts_at_once):
        batch = by_length[first : first + prompts_at_once]
        rows = [i * answers_per_prompt + answer for i in batch for answer in range(answers_per_prompt)]
        drawn = _draw([seeds[row] for row in rows] if seeds else [0] * len(rows), num_steps=max_new_tokens)
        started = _prefill(model, [prompts[i] for i in batch], answers_per_prompt=answers_per_prompt, uniform_RS=drawn)
        written = _write(model, started, choice=choice, ends=ends, indices=rows)
        answers.update(zip(rows, written, strict=True))
    return [answers[row] for row in range(num_answers)]


def _draw(seeds: Sequence[int], *, num_steps: int) -> torch.Tensor:
    """Seeds -> (R, S) uniform numbers, each row from its own generator: all the randomness of an answer."""
    return torch.stack(
        [torch.rand(num_steps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds]
    )


def _prefill(
    model: CaptioningModel, prompts: Sequence[Prompt], *, answers_per_prompt: int, uniform_RS: torch.Tensor
) -> _Rows:
    """Prompts -> rows ready for their first token; a prompt is read once however many answers it gets."""
    longest = max(len(ids) for ids, _ in prompts)
    length_B = torch.tensor([len(ids) for ids, _ in prompts], device=model.device)
    ids_BL = torch.tensor([[0] * (longest - len(ids)) + list(ids) for ids, _ in prompts], device=model.device)
    mask_BL = (torch.arange(longest, device=model.device) >= longest - length_B[:, None]).long()
    placed = [model.positions(ids, media) for ids, media in prompts]
    padded = [F.pad(one.of_ids, (longest - one.of_ids.shape[-1], 0)) for one in placed]
    output = model.language_model(
        inputs_embeds=model.embed(ids_BL, [media for _, media in prompts]),
        attention_mask=mask_BL,
        position_ids=torch.stack(padded, dim=-2).to(model.device),
        use_cache=True,
        logits_to_keep=1,
    )
    logits_BV = output.logits[:, -1].float()
    memory: OwnPrompts | SharedPrompts
    if answers_per_prompt == 1:
        memory = OwnPrompts(cache_of(output), mask_BL)
    else:
        memory = SharedPrompts(cache_of(output), mask_BL, answers_per_prompt=answers_per_prompt)
    following_B = torch.tensor([one.following for one in placed], device=model.device)
    return _Rows(
        memory=memory,
        position_R=following_B.repeat_interleave(answers_per_prompt),
        logits_RV=logits_BV.repeat_interleave(answers_per_prompt, dim=0),
        uniform_RS=uniform_RS.to(model.device),
        penalized_RV=_penalized(model, prompts, like_BV=logits_BV).repeat_interleave(answers_per_prompt, dim=0),
    )


def _penalized(model: CaptioningModel, prompts: Sequence[Prompt], *, like_BV: torch.Tensor) -> torch.Tensor:
    """Prompts -> (B, V): the tokens that a repetition penalty counts before anything is written."""
    penalized_BV = torch.zeros_like(like_BV, dtype=torch.bool)
    if model.penalty_counts_prompt:
        for row, (ids, media) in enumerate(prompts):
            penalized_BV[row, model.official_ids(ids, media)] = True
    return penalized_BV


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """A beginning that several prompts share, read once: a video, before the questions about it."""

    cache: DynamicCache
    length: int
    following: int
    """The position behind it."""


@dataclass(frozen=True, kw_only=True)
class _Read:
    """B continuations of a prefix, read; `logits_BKV` are those of their last K tokens."""

    cache: DynamicCache
    mask_BL: torch.Tensor
    position_B: torch.Tensor
    """Of the token that comes next."""
    logits_BKV: torch.Tensor


@torch.no_grad()
def read_prefix(model: CaptioningModel, prompt: Prompt) -> Prefix:
    """The beginning of prompts (ids with placeholders, media tokens) -> it, read."""
    ids, media = prompt
    placed = model.positions(ids, media)
    output = model.language_model(
        inputs_embeds=model.embed(torch.tensor([list(ids)], device=model.device), [media]),
        position_ids=placed.of_ids.unsqueeze(-2).to(model.device),
        use_cache=True,
        logits_to_keep=1,
    )
    return Prefix(cache=cache_of(output), length=len(ids), following=placed.following)


def generate_after(
    model: CaptioningModel,
    prefix: Prefix,
    endings: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    eos_ids: Collection[int],
) -> list[Generated]:
    """A prefix and the endings (text ids) of B prompts -> the greedy answer to each, as `generate` gives it."""
    if not endings:
        return []
    read = _read_after(model, prefix, endings, num_logits=1)
    logits_RV = read.logits_BKV[:, -1]
    rows = _Rows(
        memory=OwnPrompts(read.cache, read.mask_BL),
        position_R=read.position_B,
        logits_RV=logits_RV,
        uniform_RS=_draw([0] * len(endings), num_steps=max_new_tokens).to(model.device),
        penalized_RV=torch.zeros_like(logits_RV, dtype=torch.bool),
    )
    return _write(model, rows, choice=_Choice(), ends=_Ends(max_new_tokens=max_new_tokens, eos_ids=eos_ids))


def next_after(model: CaptioningModel, prefix: Prefix, endings: Sequence[Sequence[int]]) -> torch.Tensor:
    """A prefix and the endings of B prompts -> log-probability of every token as the first of the answer (B, V)."""
    return _read_after(model, prefix, endings, num_logits=1).logits_BKV[:, -1].log_softmax(dim=-1)


def score_after(
    model: CaptioningModel, prefix: Prefix, endings: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> list[float]:
    """A prefix, the endings of B prompts and an answer (ids) to each -> log-probability of each answer, summed."""
    if not endings:
        return []
    longest = max(map(len, answers))
    texts = [[*ending, *answer] for ending, answer in zip(endings, answers, strict=True)]
    read = _read_after(model, prefix, texts, num_logits=longest + 1)
    logprobs_BKV = read.logits_BKV.log_softmax(dim=-1)
    # texts end together: the n tokens of an answer are predicted by the logits before the last one
    return [
        sum(logprobs_BKV[row, place, token].item() for place, token in enumerate(answer, start=longest - len(answer)))
        for row, answer in enumerate(answers)
    ]


@torch.no_grad()
def _read_after(model: CaptioningModel, prefix: Prefix, texts: Sequence[Sequence[int]], *, num_logits: int) -> _Read:
    """Reads texts behind a copy of the prefix. They are padded on the left, between it and them, and masked there."""
    longest = max(map(len, texts))
    ids_BL = torch.tensor([[0] * (longest - len(ids)) + list(ids) for ids in texts], device=model.device)
    length_B = torch.tensor([len(ids) for ids in texts], device=model.device)
    is_text_BL = (torch.arange(longest, device=model.device) >= longest - length_B[:, None]).long()
    mask_BL = torch.cat([is_text_BL.new_ones(len(texts), prefix.length), is_text_BL], dim=1)
    cache = copy.deepcopy(prefix.cache)
    cache.batch_repeat_interleave(len(texts))
    output = model.language_model(
        input_ids=ids_BL,
        attention_mask=mask_BL,
        position_ids=prefix.following + (is_text_BL.cumsum(dim=1) - 1).clamp(min=0),
        use_cache=True,
        logits_to_keep=num_logits,
        **cache_argument(cache),
    )
    return _Read(
        cache=cache_of(output),
        mask_BL=mask_BL,
        position_B=prefix.following + length_B,
        logits_BKV=output.logits.float(),
    )


@torch.no_grad()
def _write(
    model: CaptioningModel, rows: _Rows, *, choice: _Choice, ends: _Ends, indices: Sequence[int] = ()
) -> list[Generated]:
    """Prefilled rows -> their answers. `indices`: which ones these are, for a listener."""
    answers = [_Answer(index=index) for index in indices or range(len(rows.position_R))]
    active = answers
    for step in range(ends.max_new_tokens):
        next_R = _choose(rows, choice=choice, step=step)
        pairs = zip(active, next_R.tolist(), strict=True)
        on = [row for row, (answer, token) in enumerate(pairs) if answer.goes_on(token, ends=ends)]
        if not on:
            break
        rows.penalized_RV.scatter_(1, next_R[:, None], True)
        if len(on) < len(active):
            active = [active[row] for row in on]
            rows.keep(on)
            next_R = next_R[on]
        rows.logits_RV = rows.memory.read(model.language_model, next_R, positions_R=rows.position_R)
        rows.position_R = rows.position_R + 1
    return [Generated(ids=answer.ids, finished=answer.finished) for answer in answers]


def _choose(rows: _Rows, *, choice: _Choice, step: int) -> torch.Tensor:
    """Logits of the rows -> next token of each (R,)."""
    logits_RV = rows.logits_RV
    if not logits_RV.amax(dim=-1).isfinite().all():
        raise ModelError("the model computes numbers that are not finite; load it as float32 (--dtype float32)")
    if choice.repetition_penalty != 1.0:
        weaker_RV = torch.where(
            logits_RV > 0, logits_RV / choice.repetition_penalty, logits_RV * choice.repetition_penalty
        )
        logits_RV = torch.where(rows.penalized_RV, weaker_RV, logits_RV)
    if choice.temperature == 0:
        return logits_RV.argmax(dim=-1)
    probs_RV = (logits_RV / choice.temperature).softmax(dim=-1)
    if choice.top_k:
        probs_RV = keep_top_k(probs_RV, top_k=choice.top_k)
    if choice.top_p < 1:
        probs_RV = keep_nucleus(probs_RV, top_p=choice.top_p)
    return sample(probs_RV, uniform_R=rows.uniform_RS[:, step])


def keep_top_k(probs_RV: torch.Tensor, *, top_k: int) -> torch.Tensor:
    """Probabilities -> those of the `top_k` likeliest tokens, the others 0; not normalised."""
    kept_RK, tokens_RK = probs_RV.topk(min(top_k, probs_RV.shape[-1]), dim=-1)
    return torch.zeros_like(probs_RV).scatter_(1, tokens_RK, kept_RK)


def keep_nucleus(probs_RV: torch.Tensor, *, top_p: float) -> torch.Tensor:
    """Probabilities -> those of the fewest tokens that hold `top_p` of the mass, the others 0; not normalised."""
    sorted_RV, order_RV = probs_RV.sort(dim=-1, descending=True, stable=True)
    mass_RV = sorted_RV.cumsum(dim=-1, dtype=torch.float64)
    kept_RV = sorted_RV.masked_fill(mass_RV - sorted_RV >= top_p * mass_RV[:, -1:], 0.0)
    return torch.zeros_like(probs_RV).scatter_(1, order_RV, kept_RV)


def sample(probs_RV: torch.Tensor, *, uniform_R: torch.Tensor) -> torch.Tensor:
    """Weights of tokens, one uniform number per row -> tokens (R,).

    The mass is laid out in the order of the vocabulary: in order of size, a rounding error would swap tokens.
    """
    cumulative_RV = probs_RV.cumsum(dim=-1, dtype=torch.float64)
    threshold_R1 = uniform_R[:, None] * cumulative_RV[:, -1:]
    token_R1 = torch.searchsorted(cumulative_RV, threshold_R1, right=True).clamp(max=probs_RV.shape[-1] - 1)
    return token_R1.squeeze(1)
