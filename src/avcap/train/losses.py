"""Preference losses over log-probs of whole answers, and what is logged of them.

    margin = beta * ((log p(chosen) - log p_ref(chosen)) - (log p(rejected) - log p_ref(rejected)))
    dpo    = -(1 - e) log sigmoid(margin) - e log sigmoid(-margin)       e: label smoothing
    ipo    = (margin / beta - 1 / (2 beta))^2
    guided = dpo (or ipo) + weight * cross-entropy on the reference captions, per token
    sft    = that cross-entropy alone

P pairs of a batch
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from avcap.errors import UserError
from avcap.train.loop import LossOutput
from avcap.train.packing import AnswerLogprobs, ExampleLogprobs


@dataclass(frozen=True, kw_only=True)
class PreferenceConfig:
    loss: Literal["dpo", "ipo", "sft"] = "dpo"
    """What pairs are for: dpo, ipo, or nothing (sft: cross-entropy on the reference captions alone, with weight 1)."""
    beta: float = 0.1
    """How dear it is to leave the reference policy."""
    length_normalised: bool = False
    """Log-probs per token instead of sums (what TRL calls sigmoid_norm; its ipo always has it)."""
    label_smoothing: float = 0.0
    """Share of pairs that are taken to be the wrong way round; dpo only."""
    guidance_weight: float = 0.1
    """Weight of the cross-entropy on reference captions beside dpo or ipo; 0: plain."""

    def __post_init__(self) -> None:
        if self.loss not in ("dpo", "ipo", "sft"):
            raise UserError(f"loss: got {self.loss!r}, expected dpo, ipo or sft")
        if not self.beta > 0:
            raise UserError(f"beta: got {self.beta}, expected a number above 0")
        if not 0 <= self.label_smoothing < 0.5 or (self.label_smoothing and self.loss != "dpo"):
            raise UserError(
                f"label_smoothing: got {self.label_smoothing} with loss {self.loss}, expected 0 to below 0.5, dpo only"
            )
        if not self.guidance_weight >= 0:
            raise UserError(f"guidance_weight: got {self.guidance_weight}, expected 0 or more")


@dataclass(frozen=True, kw_only=True)
class StepSize:
    """Over what the terms of a step are means: the microbatches of a step share it."""

    num_pairs: int
    num_guided_tokens: int
    """Of all reference captions."""


def preference_loss(
    logprobs: Sequence[ExampleLogprobs],
    ref_logprobs: Sequence[ExampleLogprobs],
    config: PreferenceConfig,
    *,
    step: StepSize | None = None,
) -> LossOutput:
    """Log-probs of examples under the policy and under the reference policy -> mean loss over pairs, and figures.

    `step`: what the whole step has, where these examples are one of its microbatches; then their share of its loss.
    Examples without a pair, or without a reference caption, count in the other term only; "guidance/captions" says how
    many reference captions there were. A term that no example has is left out.
    """
    terms: list[Tensor] = []
    metrics: dict[str, float] = {}
    if config.loss != "sft":
        terms += _pair_terms(logprobs, ref_logprobs, config, metrics, num_pairs=step.num_pairs if step else None)
    captions = [example.target for example in logprobs if example.target is not None]
    weight = 1.0 if config.loss == "sft" else config.guidance_weight
    if captions:
        total = torch.stack([caption.total for caption in captions]).sum()
        num_tokens = sum(caption.num_tokens for caption in captions)
        metrics["guidance"] = (-total / num_tokens).item()
        if weight:
            terms.append(weight * (-total / (step.num_guided_tokens if step else num_tokens)))
    if not terms:
        raise UserError(
            f"nothing to learn: {len(logprobs)} examples have no pair, and no reference caption with a weight above 0"
        )
    answers = (a for example in logprobs for a in (example.chosen, example.rejected, example.target) if a)
    return LossOutput(
        loss=torch.stack(terms).sum(),
        metrics=metrics,
        counts={"guidance/captions": len(captions)},
        num_tokens=sum(a.num_tokens for a in answers),
        weight=len(logprobs),
    )


def _pair_terms(
    logprobs: Sequence[ExampleLogprobs],
    ref_logprobs: Sequence[ExampleLogprobs],
    config: PreferenceConfig,
    metrics: dict[str, float],
    *,
    num_pairs: int | None,
) -> list[Tensor]:
    """Log-probs -> the preference term, or none where no example has a pair; fills `metrics`."""
    answers: list[tuple[AnswerLogprobs, AnswerLogprobs, AnswerLogprobs, AnswerLogprobs]] = []
    for example, ref in zip(logprobs, ref_logprobs, strict=True):
        if example.chosen is None or example.rejected is None:
            continue
        if ref.chosen is None or ref.rejected is None:
            raise UserError("a pair without reference log-probs: compute them for every pair before the round")
        answers.append((example.chosen, example.rejected, ref.chosen, ref.rejected))
    if not answers:
        return []
    chosen_P, rejected_P, ref_chosen_P, ref_rejected_P = (
        torch.stack([_score(answer, config) for answer in column]) for column in zip(*answers, strict=True)
    )
    chosen_rewards_P = config.beta * (chosen_P - ref_chosen_P.detach())
    rejected_rewards_P = config.beta * (rejected_P - ref_rejected_P.detach())
    margin_P = chosen_rewards_P - rejected_rewards_P
    losses_P = _ipo(margin_P, config) if config.loss == "ipo" else _dpo(margin_P, config)
    metrics |= {
        "preference": losses_P.mean().item(),
        "rewards/chosen": chosen_rewards_P.mean().item(),
        "rewards/rejected": rejected_rewards_P.mean().item(),
        "rewards/margins": margin_P.mean().item(),
        "rewards/accuracies": (margin_P > 0).float().mean().item(),
        "logps/chosen": chosen_P.mean().item(),
        "logps/rejected": rejected_P.mean().item(),
    }
    return [losses_P.sum() / (num_pairs or len(losses_P))]


def _score(answer: AnswerLogprobs, config: PreferenceConfig) -> Tensor:
    return answer.total / answer.num_tokens if config.length_normalised else answer.total


def _dpo(margin_P: Tensor, config: PreferenceConfig) -> Tensor:
    smoothing = config.label_smoothing
    return -(1 - smoothing) * F.logsigmoid(margin_P) - smoothing * F.logsigmoid(-margin_P)


def _ipo(margin_P: Tensor, config: PreferenceConfig) -> Tensor:
    return (margin_P / config.beta - 1 / (2 * config.beta)) ** 2
