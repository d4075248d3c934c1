"""The one training loop. A stage is data + what trains + a loss; this file knows nothing else.

A batch is a pure function of the step number, so a run that is killed and resumed sees exactly the batches it would
have seen: on a CPU its weights end bit for bit the same.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from avcap.train.checkpoint import latest_state, load_state, save_state
from avcap.train.log import RunLog
from avcap.train.optim import OptimConfig, lr_factor, make_optimizers


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    num_steps: int
    """Optimiser steps in all."""
    checkpoint_every: int = 100
    """Steps between checkpoints; the last step always makes one."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    evaluate_every: int = 0
    """Steps between evaluations on held-out data; 0: only after the last step."""
    num_workers: int = 1
    """Processes that make batches while the loop computes; 0: the loop makes them itself."""
    tensorboard: bool = False
    """Also write TensorBoard event files (extra `track`)."""


@dataclass(frozen=True, kw_only=True)
class LossOutput:
    """What a loss function returns: the scalar to minimise, the figures to log, and how many tokens it read."""

    loss: Tensor
    metrics: dict[str, float] = field(default_factory=dict)
    num_tokens: int = 0


class MakeBatch(Protocol):
    """Step number -> batch, the same one every time. Must be picklable if num_workers > 0."""

    def __call__(self, step: int) -> Any: ...


class _Steps(Dataset):
    def __init__(self, make_batch: MakeBatch, *, first: int, num_steps: int):
        self.make_batch, self.first, self.num_steps = make_batch, first, num_steps

    def __len__(self) -> int:
        return self.num_steps - self.first

    def __getitem__(self, index: int) -> Any:
        return self.make_batch(self.first + index)


def run_loop(
    module: nn.Module,
    *,
    make_batch: MakeBatch,
    loss_fn: Callable[[Any], LossOutput],
    config: LoopConfig,
    optim: OptimConfig,
    out_dir: Path,
    title: str,
    notes: dict[str, Any],
    evaluate: Callable[[], dict[str, float]] | None = None,
) -> None:
    """Trains every parameter of `module` that requires a gradient, in place, resuming from out_dir if it can.

    `notes` (seed, recipe, data) is stored with each checkpoint and must be equal on resumption.
    Raises FloatingPointError at a loss that is not finite: the last checkpoint is from before it.
    """
    params = {name: param for name, param in module.named_parameters() if param.requires_grad}
    assert params, "nothing to train: no parameter requires a gradient"
    optimizers = make_optimizers(params, optim)
    states = out_dir / "checkpoints"
    states.mkdir(parents=True, exist_ok=True)
    resume = latest_state(states)
    start = load_state(resume, params=params, optimizers=optimizers, notes=notes) if resume else 0
    batches = iter(_loader(make_batch, start=start, config=config))
    with RunLog(
        out_dir, title=title, num_steps=config.num_steps, start_step=start, tensorboard=config.tensorboard
    ) as log:
        for step in range(start, config.num_steps):
            began = time.monotonic()
            output = loss_fn(next(batches))
            norm = _update(output.loss, params, optimizers, step=step, num_steps=config.num_steps, optim=optim)
            done = step + 1
            tokens_per_s = output.num_tokens / (time.monotonic() - began)
            loss = output.loss.item()
            log.advance(done, loss=loss, tokens_per_s=tokens_per_s)
            last = done == config.num_steps
            if done % config.log_every == 0 or last:
                log.log(done, {"loss": loss, "grad_norm": norm, "tokens_per_s": round(tokens_per_s), **output.metrics})
            if evaluate and (last or (config.evaluate_every and done % config.evaluate_every == 0)):
                log.log(done, evaluate())
            if done % config.checkpoint_every == 0 or last:
                save_state(states, step=done, params=params, optimizers=optimizers, notes=notes)


def _loader(make_batch: MakeBatch, *, start: int, config: LoopConfig) -> DataLoader:
    steps = _Steps(make_batch, first=start, num_steps=config.num_steps)
    return DataLoader(
        steps, batch_size=None, shuffle=False, num_workers=config.num_workers,
        prefetch_factor=4 if config.num_workers else None,
        # A forked worker would inherit torch's thread pools and eSpeak's state in the middle of whatever they do.
        multiprocessing_context="forkserver" if config.num_workers else None,
        # Its own: it draws a number when it starts, and drawn from torch's a resumed run would drop out other units.
        generator=torch.Generator(),
    )  # fmt: skip


def _update(
    loss: Tensor, params: dict[str, nn.Parameter], optimizers: list[torch.optim.Optimizer],
    *, step: int, num_steps: int, optim: OptimConfig,
) -> float:  # fmt: skip
    """One optimiser step; returns the gradient's norm before clipping."""
    if not torch.isfinite(loss):
        raise FloatingPointError(f"step {step + 1}: loss is {loss.item()}; lower the learning rate and resume")
    loss.backward()
    norm = nn.utils.clip_grad_norm_(params.values(), optim.clip_norm or float("inf"))
    factor = lr_factor(step, num_steps=num_steps, warmup_steps=optim.warmup_steps, decay_fraction=optim.decay_fraction)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return norm.item()
