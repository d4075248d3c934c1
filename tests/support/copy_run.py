"""A training run of a second that can be stopped anywhere: a net of 20 weights learns to copy its input.

A module of its own, because processes that help with the batches, or are killed, import it.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from avcap.train.loop import LoopConfig, LossOutput, run_loop
from avcap.train.optim import OptimConfig

OPTIM = OptimConfig(lr=1e-2, muon_lr=1e-2, warmup_steps=2)


class Net(nn.Module):
    """A matrix for Muon (its name says it is in a block), a vector for AdamW."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4)])
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x_B4: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.layers[0](x_B4)) * self.scale


@dataclass(frozen=True)
class Batches:
    num_parts: int = 1

    def __call__(self, step: int) -> tuple[torch.Tensor, ...]:
        x_B4 = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        return x_B4.chunk(self.num_parts)


def make_net() -> Net:
    torch.manual_seed(0)
    return Net()


def train(
    net: Net, out_dir: Path, *, num_steps: int = 20, stop_after: int | None = None, workers: int = 0, parts: int = 1
) -> None:
    """Trains to copy its input; `stop_after`: an exception after so many microbatches, as a crash would be."""
    parts_done = 0

    def loss_fn(x_B4: torch.Tensor) -> LossOutput:
        nonlocal parts_done
        if parts_done == stop_after:
            raise KeyboardInterrupt
        parts_done += 1
        squares_B4 = (net(x_B4) - x_B4).square()
        # its share of the mean over the 8 x 4 numbers of the step
        return LossOutput(
            loss=squares_B4.sum() / 32,
            metrics={"mean": squares_B4.mean().item()},
            counts={"rows": len(x_B4)},
            num_tokens=len(x_B4),
            weight=len(x_B4),
        )

    run_loop(
        net,
        make_batch=Batches(parts),
        loss_fn=loss_fn,
        optim=OPTIM,
        out_dir=out_dir,
        title="copy",
        config=LoopConfig(num_steps=num_steps, checkpoint_every=4, log_every=1, num_workers=workers),
        notes={"seed": 0, "num_steps": num_steps},
    )
