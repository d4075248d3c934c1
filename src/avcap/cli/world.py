"""`avcap world`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from avcap.cli.app import App, app, tell

world_app = App(help="Synthetic videos with exactly known truth, for training and testing.", no_args_is_help=True)
app.add_typer(world_app, name="world")


@world_app.command("make")
def make_world(
    clips: Annotated[int, typer.Option(metavar="N", help="Number of clips.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the world. The same command resumes.")],
    seed: Annotated[int, typer.Option(help="Worlds of different seeds share no clip.")] = 0,
    difficulty: Annotated[str, typer.Option(help="easy, standard or hard.")] = "standard",
    domain: Annotated[str, typer.Option(metavar="NAME", help="default, unseen, film or paper.")] = "default",
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Number of processes. Default: one per core.")
    ] = None,
) -> None:
    """Render mp4 files, and write everything that is true of each to truth.jsonl."""
    from avcap.world import make

    truth = make.make_world(
        out,
        num_clips=clips,
        seed=seed,
        difficulty=difficulty,
        domain=domain,
        num_workers=workers,
        progress=sys.stderr.isatty(),
    )
    tell(truth)
