"""Optimisers and the learning-rate schedule.

A from-scratch tiny model learns about twice as fast per step when the matrices inside its blocks are trained with Muon
(momentum, orthogonalised) and the rest (embeddings, norms, connectors, heads) with AdamW. `torch.optim.Muon`
orthogonalises in bfloat16, which costs ten times more than the step itself on processors without bf16 instructions;
this one stays in float32. Fine-tuning uses AdamW alone (`muon_lr=None`).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    lr: float = 3e-3
    """Peak learning rate of AdamW."""
    muon_lr: float | None = 0.01
    """Peak learning rate of Muon on the matrices of transformer blocks; None: AdamW trains everything."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's running-average factors."""
    weight_decay: float = 0.0
    """Decoupled weight decay, AdamW only."""
    momentum: float = 0.95
    """Muon's (Nesterov) momentum."""
    warmup_steps: int = 10
    """Steps over which the learning rate rises linearly from 0."""
    decay_fraction: float = 0.3
    """Share of the steps, at the end, over which the learning rate falls linearly to 0."""
    clip_norm: float | None = 1.0
    """Largest norm of the whole gradient; None: not clipped."""


def orthogonalise(matrix_MN: Tensor, *, steps: int = 5) -> Tensor:
    """Matrix -> its nearest semi-orthogonal matrix, roughly: all singular values brought to about 1.

    Newton-Schulz iteration with the quintic coefficients of Muon (Jordan et al., 2024), in float32.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix_MN / (matrix_MN.norm() + 1e-7)
    transposed = x.shape[0] > x.shape[1]
    x = x.T if transposed else x
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if transposed else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised (Jordan et al., 2024); steps of tall matrices grow by sqrt(rows / columns)."""

    def __init__(self, params: Iterable[nn.Parameter], *, lr: float, momentum: float):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None) -> None:  # type: ignore[override]
        assert closure is None, "Muon takes no closure"
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                state = self.state[param]
                buffer = state.setdefault("momentum_buffer", torch.zeros_like(param))
                buffer.lerp_(param.grad, 1 - group["momentum"])
                update = orthogonalise(torch.lerp(param.grad, buffer, group["momentum"]))
                scale = max(1.0, param.shape[0] / param.shape[1]) ** 0.5
                param.add_(update, alpha=-group["lr"] * scale)


def is_block_matrix(name: str, param: Tensor) -> bool:
    """Is this a weight matrix inside a transformer block (not an embedding, a connector, a head or a norm)?"""
    return param.ndim == 2 and ("layers." in name or "layer." in name) and "embed" not in name


def make_optimizers(named_params: dict[str, nn.Parameter], config: OptimConfig) -> list[torch.optim.Optimizer]:
    """Trainable parameters by name -> the optimisers that train them, each parameter in exactly one."""
    matrices = {n: p for n, p in named_params.items() if config.muon_lr is not None and is_block_matrix(n, p)}
    others = {n: p for n, p in named_params.items() if n not in matrices}
    optimizers: list[torch.optim.Optimizer] = []
    if matrices:
        assert config.muon_lr is not None
        optimizers.append(Muon(matrices.values(), lr=config.muon_lr, momentum=config.momentum))
    if others:
        optimizers.append(
            torch.optim.AdamW(others.values(), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def lr_factor(step: int, *, num_steps: int, warmup_steps: int, decay_fraction: float) -> float:
    """Step (0-based) -> factor on the peak learning rate: linear up, flat, linear down to 0."""
    up = (step + 1) / max(1, warmup_steps)
    decay_steps = decay_fraction * num_steps
    down = (num_steps - step) / decay_steps if decay_steps > 0 else 1.0
    return min(1.0, up, down)
