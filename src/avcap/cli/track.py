"""`avcap track`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from avcap.cli.app import app, tell


class Tracker(StrEnum):
    """What --to takes."""

    tensorboard = "tensorboard"
    wandb = "wandb"


@app.command("track", no_args_is_help=True)
def track(
    files: Annotated[
        list[Path], typer.Argument(metavar="metrics.json...", help="Files of metrics; each is one step, in this order.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the event files, or of the W&B run.")],
    to: Annotated[Tracker, typer.Option(help="tensorboard or wandb.")] = Tracker.tensorboard,
    name: Annotated[str, typer.Option(help="Name of the W&B run.")] = "evaluation",
    project: Annotated[str, typer.Option(help="W&B project.")] = "avcap",
) -> None:
    """Send the figures of metrics.json files to TensorBoard or Weights & Biases."""
    from avcap.web.tracking import log_to_tensorboard, log_to_wandb, read_scalars

    runs = [read_scalars(file) for file in files]
    if to is Tracker.wandb:
        log_to_wandb(runs, folder=out, name=name, project=project)
    else:
        log_to_tensorboard(runs, folder=out)
    tell(f"{out}: {len(runs)} steps of {len(set().union(*runs))} figures")
