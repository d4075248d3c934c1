"""The one training loop. A stage is data + what trains + a loss; this file knows nothing else.

The microbatches of a step are a pure function of its number, so a run that is killed and resumed sees exactly those
that it would have seen: on a CPU its weights end bit for bit the same. A step is done wholly or not at all. This is the
one place where batches are moved to the device of the module.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from avcap.errors import UserError
from avcap.train.checkpoint import latest_state, load_state, save_state
from avcap.train.compute import device_of, mixed_precision
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
    device: str | None = None
    """cpu, cuda or cuda:N; None: a GPU if there is one."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Of the weights that do not learn, and of what is computed; those that learn are kept in float32. None: bfloat16
    on a GPU, float32 on a CPU."""
    max_tokens: int | None = None
    """Most tokens of a microbatch, of which a step may have several; None: a step is one."""
    checkpoint_activations: bool = False
    """Compute the layers of the language model once more in the backward pass: more time, much less memory."""

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise UserError(f"max_tokens: got {self.max_tokens}, expected 1 or more, or null for whole steps at once")


@dataclass(frozen=True, kw_only=True)
class LossOutput:
    """What a loss function returns of a microbatch."""

    loss: Tensor
    """Its share of the step's loss: the shares of all microbatches are added up."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Means over the microbatch, to log."""
    counts: dict[str, float] = field(default_factory=dict)
    """Numbers to log that are added up over the step."""
    num_tokens: int = 0
    """Read, not learned."""
    weight: float = 1.0
    """Over how much `metrics` are means: where a step has several microbatches they are averaged so."""


def joined(outputs: Sequence[LossOutput]) -> LossOutput:
    """What the microbatches of a step gave -> the same of the step."""
    if len(outputs) == 1:
        return outputs[0]
    metrics: dict[str, float] = {}
    for name in {name for output in outputs for name in output.metrics}:
        found = [(output.metrics[name], output.weight) for output in outputs if name in output.metrics]
        metrics[name] = sum(value * weight for value, weight in found) / sum(weight for _, weight in found)
    names = {name for output in outputs for name in output.counts}
    return LossOutput(
        loss=torch.stack([output.loss.detach() for output in outputs]).sum(),
        metrics=metrics,
        counts={name: sum(output.counts.get(name, 0) for output in outputs) for name in names},
        num_tokens=sum(output.num_tokens for output in outputs),
        weight=sum(output.weight for output in outputs),
    )


class MakeBatch(Protocol):
    """Step number -> its microbatches, the same ones every time, each with `to(device)`.

    Must be picklable if num_workers > 0.
    """

    def __call__(self, step: int) -> Sequence[Any]: ...


class _Steps(Dataset):
    def __init__(self, make_batch: MakeBatch, *, first: int, num_steps: int):
        self.make_batch, self.first, self.num_steps = make_batch, first, num_steps

    def __len__(self) -> int:
        return self.num_steps - self.first

    def __getitem__(self, index: int) -> Sequence[Any]:
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
    narrow = [name for name, param in params.items() if param.dtype is not torch.float32]
    assert not narrow, f"{narrow[0]} learns and is not in float32: see train.compute.keep_trained_in_float32"
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
            output = joined([_backward(module, part, loss_fn, step=step) for part in next(batches)])
            norm = _update(params, optimizers, step=step, num_steps=config.num_steps, optim=optim)
            done = step + 1
            tokens_per_s = output.num_tokens / (time.monotonic() - began)
            loss = output.loss.item()
            log.advance(done, loss=loss, tokens_per_s=tokens_per_s)
            last = done == config.num_steps
            if done % config.log_every == 0 or last:
                figures = {"loss": loss, "grad_norm": norm, "tokens_per_s": round(tokens_per_s)}
                log.log(done, {**figures, **output.metrics, **output.counts})
            is_due = last or (config.evaluate_every and done % config.evaluate_every == 0)
            if evaluate and is_due and (held_out := evaluate()):
                log.log(done, held_out)
            if done % config.checkpoint_every == 0 or last:
                save_state(states, step=done, params=params, optimizers=optimizers, notes=notes)


def _loader(make_batch: MakeBatch, *, start: int, config: LoopConfig) -> DataLoader:
    steps = _Steps(make_batch, first=start, num_steps=config.num_steps)
    return DataLoader(
        steps,
        batch_size=None,
        shuffle=False,
        num_workers=config.num_workers,
        prefetch_factor=4 if config.num_workers else None,
        # A forked worker would inherit torch's thread pools and eSpeak's state in the middle of whatever they do.
        multiprocessing_context="forkserver" if config.num_workers else None,
        # Its own: it draws a number when it starts, and drawn from torch's a resumed run would drop out other units.
        generator=torch.Generator(),
    )


def _backward(module: nn.Module, part: Any, loss_fn: Callable[[Any], LossOutput], *, step: int) -> LossOutput:
    """One microbatch -> what it gave; its gradients are added to those that are there."""
    with mixed_precision(module):
        output = loss_fn(part.to(device_of(module)))
    if not torch.isfinite(output.loss):
        raise FloatingPointError(f"step {step + 1}: loss is {output.loss.item()}; lower the learning rate and resume")
    output.loss.backward()
    return output


def _update(
    params: dict[str, nn.Parameter],
    optimizers: list[torch.optim.Optimizer],
    *,
    step: int,
    num_steps: int,
    optim: OptimConfig,
) -> float:
    """One optimiser step; returns the gradient's norm before clipping."""
    norm = nn.utils.clip_grad_norm_(params.values(), optim.clip_norm or float("inf"))
    factor = lr_factor(step, num_steps=num_steps, warmup_steps=optim.warmup_steps, decay_fraction=optim.decay_fraction)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return norm.item()
