"""The figures of a metrics.json go to TensorBoard or Weights & Biases: extras, which no evaluation needs."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from avcap.errors import UserError
from avcap.texts.read import read_text


def read_scalars(path: Path) -> dict[str, float]:
    """metrics.json -> its numbers by their place in it: "global/missing_rate/value". UserError for anything else."""
    try:
        data = json.loads(read_text(path, expected="a metrics.json"))  # ours: it may hold NaN
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); expected a metrics.json") from None
    scalars = dict(_numbers(data, ()))
    if not scalars:
        raise UserError(f"{path}: got a file without a number, expected a metrics.json")
    return scalars


def _numbers(data: Any, place: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    if isinstance(data, Mapping):
        for name, value in data.items():
            yield from _numbers(value, (*place, str(name)))
    elif isinstance(data, int | float) and not isinstance(data, bool) and math.isfinite(data) and place:
        yield "/".join(place), float(data)


def log_to_tensorboard(runs: Sequence[Mapping[str, float]], *, folder: Path) -> None:
    """Figures of runs, step by step -> event files in the folder."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("TensorBoard is not installed; pip install 'avcap[track]'") from None
    with SummaryWriter(str(folder)) as board:
        for step, scalars in enumerate(runs):
            for name, value in scalars.items():
                board.add_scalar(name, value, step)


def log_to_wandb(runs: Sequence[Mapping[str, float]], *, folder: Path, name: str, project: str) -> None:
    """Figures of runs, step by step -> a run of a project; WANDB_MODE=offline keeps it in the folder."""
    try:
        import wandb
    except ImportError:
        raise UserError("Weights & Biases is not installed; pip install 'avcap[track]'") from None
    folder.mkdir(parents=True, exist_ok=True)
    with wandb.init(project=project, name=name, dir=str(folder)) as run:
        for step, scalars in enumerate(runs):
            run.log(dict(scalars), step=step)
