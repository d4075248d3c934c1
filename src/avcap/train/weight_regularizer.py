"""Staying near the weights that a stage began with: the classic cures for forgetting, to compare others with.

    l2   weight * sum_i (w_i - w0_i)^2
    ewc  weight * sum_i F_i (w_i - w0_i)^2, F the diagonal of the Fisher information of answers that must not be lost
         (Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks", eq. 3), its mean scaled to 1

With the mean of F at 1, one weight means about as much in both.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from avcap.errors import UserError


@dataclass(frozen=True, kw_only=True)
class WeightRegularizerConfig:
    kind: Literal["none", "l2", "ewc"] = "none"
    weight: float = 0.0
    """Of the penalty."""


class WeightRegularizer:
    """Holds a copy of every trainable parameter of `module` as it is now."""

    def __init__(self, module: nn.Module, config: WeightRegularizerConfig, *, answer_losses: Iterable[Tensor] = ()):
        """`answer_losses`: -log p of one answer each, for ewc; each is computed when it is asked for."""
        self.weight = config.weight
        self.params = {name: param for name, param in module.named_parameters() if param.requires_grad}
        self.start = {name: param.detach().clone() for name, param in self.params.items()}
        self.importance = fisher_diagonal(self.params, answer_losses) if config.kind == "ewc" else None

    def penalty(self) -> Tensor:
        """The term to be added to the loss: a scalar, 0 as long as nothing has moved."""
        terms = []
        for name, param in self.params.items():
            squared = (param - self.start[name]).square()
            terms.append((squared if self.importance is None else squared * self.importance[name]).sum())
        return self.weight * torch.stack(terms).sum()


def fisher_diagonal(params: dict[str, nn.Parameter], answer_losses: Iterable[Tensor]) -> dict[str, Tensor]:
    """Parameters and -log p of answers -> mean squared gradient of each parameter, scaled to a mean of 1 over all."""
    sums = {name: torch.zeros_like(param) for name, param in params.items()}
    for loss in answer_losses:
        grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
        for name, grad in zip(params, grads, strict=True):
            if grad is not None:
                sums[name] += grad.square()
    mean = sum(total.sum() for total in sums.values()) / sum(total.numel() for total in sums.values())
    if not mean > 0:
        raise UserError(
            "weight regularizer ewc: got no answer whose loss depends on the weights, expected questions to replay"
        )
    return {name: total / mean for name, total in sums.items()}
