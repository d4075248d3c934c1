"""Log-probs of pairs under the reference policy: computed once a round, kept on disk, refused where they are stale.

The reference policy is the model as the round found it: every LoRA off. Each line of the file says by which weights, in
which dtype and with which attention it was computed, and for which tokens; a line of another policy is an error, for a
margin against the wrong reference looks like any other number.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from avcap.errors import UserError
from avcap.files.hashes import hash_tensors
from avcap.model.captioning import CaptioningModel
from avcap.model.features import MediaTokens
from avcap.model.lora import adapter_off, is_of_lora
from avcap.records import journal
from avcap.train.compute import mixed_precision
from avcap.train.packing import (
    AnswerLogprobs,
    ExampleLogprobs,
    PairExample,
    attention_for,
    pack,
    response_logprobs,
)


@dataclass(frozen=True, kw_only=True)
class RefPolicy:
    """Who computed log-probs, and how."""

    weights: str
    """Hash of all weights but those of a LoRA."""
    dtype: str
    attention: str


@dataclass(frozen=True, kw_only=True)
class RefLogprobs:
    """One line of the file: a pair and its log-probs, summed over tokens."""

    sample_id: str
    tokens: str
    policy: RefPolicy
    chosen: float
    chosen_tokens: int
    rejected: float
    rejected_tokens: int


def ref_policy(model: CaptioningModel) -> RefPolicy:
    """Model, with or without a LoRA -> what its reference log-probs are stored under. Reads all weights once."""
    attention = attention_for(dtype=model.dtype, device=model.device).name
    how = ", ".join(filter(None, (attention, model.positions_rule)))
    return RefPolicy(weights=weights_hash(model), dtype=str(model.dtype), attention=how)


def weights_hash(model: nn.Module) -> str:
    """Model -> hash of names and bytes of its parameters; those of a LoRA, and where it was put in, do not count."""
    named = sorted((name.replace(".base_layer.", "."), param) for name, param in model.named_parameters())
    labelled = ((f"{name} {param.dtype} {tuple(param.shape)}", param) for name, param in named if not is_of_lora(name))
    return hash_tensors(labelled, digest=hashlib.blake2b(digest_size=16))


@torch.no_grad()
def ref_logprobs(
    model: CaptioningModel, examples: Sequence[PairExample], media_tokens: Sequence[MediaTokens | None]
) -> list[ExampleLogprobs]:
    """Pairs and their media -> log-probs of chosen and rejected with every LoRA off and without dropout."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with adapter_off(model), mixed_precision(model):
            packed = pack([replace(example, target_ids=None) for example in examples]).to(model.device)
            return response_logprobs(model, packed, media_tokens)
    finally:
        for module, is_training in modes:
            module.training = is_training


class RefLogprobStore:
    """Reference log-probs of one round in a JSONL file that grows batch by batch; a killed run finds what it wrote."""

    def __init__(self, path: str | Path, *, policy: RefPolicy) -> None:
        self.path, self.policy = Path(path), policy
        self._found: dict[tuple[str, str], RefLogprobs] = {}
        if self.path.exists():
            with journal(self.path, RefLogprobs) as stored:
                for record in stored.read():
                    self._check_policy(record)
                    self._found[record.sample_id, record.tokens] = record

    def missing(self, examples: Sequence[PairExample]) -> list[int]:
        """Examples -> the indices of those that are pairs and not in the file yet."""
        return [
            index
            for index, example in enumerate(examples)
            if example.chosen_ids is not None and (example.sample_id, tokens_hash(example)) not in self._found
        ]

    def add(self, examples: Sequence[PairExample], logprobs: Sequence[ExampleLogprobs]) -> None:
        """Writes the log-probs of pairs; they are on the disk when this returns."""
        records = [self._record(*pair) for pair in zip(examples, logprobs, strict=True)]
        with journal(self.path, RefLogprobs) as stored:
            stored.append(records)
        self._found |= {(record.sample_id, record.tokens): record for record in records}

    def lookup(self, examples: Sequence[PairExample], *, device: torch.device | None = None) -> list[ExampleLogprobs]:
        """Examples -> their stored log-probs; raises UserError for a pair that was never computed with these tokens."""
        return [self._lookup(example, device) for example in examples]

    def _lookup(self, example: PairExample, device: torch.device | None) -> ExampleLogprobs:
        if example.chosen_ids is None:
            return ExampleLogprobs()
        record = self._found.get((example.sample_id, tokens_hash(example)))
        if record is None:
            known = any(sample_id == example.sample_id for sample_id, _ in self._found)
            why = "other tokens than those now asked for" if known else "no log-probs"
            raise UserError(f"{self.path}: {why} for sample {example.sample_id}; compute the reference for these pairs")
        chosen, rejected = (torch.tensor(total, device=device) for total in (record.chosen, record.rejected))
        return ExampleLogprobs(
            chosen=AnswerLogprobs(total=chosen, num_tokens=record.chosen_tokens),
            rejected=AnswerLogprobs(total=rejected, num_tokens=record.rejected_tokens),
        )

    def _record(self, example: PairExample, logprobs: ExampleLogprobs) -> RefLogprobs:
        chosen, rejected = logprobs.chosen, logprobs.rejected
        assert chosen is not None and rejected is not None, f"sample {example.sample_id} is not a pair"
        totals = chosen.total.item(), rejected.total.item()
        if not all(map(math.isfinite, totals)):
            raise UserError(f"sample {example.sample_id}: reference log-probs are {totals}; is the checkpoint whole?")
        return RefLogprobs(
            sample_id=example.sample_id,
            tokens=tokens_hash(example),
            policy=self.policy,
            chosen=totals[0],
            chosen_tokens=chosen.num_tokens,
            rejected=totals[1],
            rejected_tokens=rejected.num_tokens,
        )

    def _check_policy(self, record: RefLogprobs) -> None:
        if record.policy != self.policy:
            raise UserError(
                f"{self.path}: stale reference log-probs, computed by {record.policy}, this round has {self.policy}; "
                "delete the file, or resume with the model that the round began with"
            )


def tokens_hash(example: PairExample) -> str:
    """Pair -> hash of the token ids of its prompt, chosen and rejected answer; its reference caption does not count."""
    ids = [[*part] for part in (example.prompt_ids, example.chosen_ids or (), example.rejected_ids or ())]
    positions = None if example.prompt_positions is None else example.prompt_positions.tolist()
    return hashlib.blake2b(json.dumps([ids, positions]).encode(), digest_size=16).hexdigest()
