"""`avcap doctor`, `avcap convert`, `avcap init-audio` and `avcap plan`: what to know and do before a model is run."""

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from avcap.cli.app import app, say, stderr

if TYPE_CHECKING:
    from avcap.model.convert import Conversion

BYTES_PER_GB = 10**9
ShardSize = Annotated[float, typer.Option(metavar="GB", help="Largest size of a weight file.")]
QTokens = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Take the audio query tokens from this checkpoint.")
]


@app.command("convert", no_args_is_help=True)
def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A checkpoint of any layout: see avcap doctor.")],
    folder: Annotated[Path, typer.Argument(metavar="DST", help="The new folder. Run again, it goes on.")],
    base: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The model of an adapter or a training checkpoint.")
    ] = None,
    q_tokens: QTokens = None,
    lora_alpha: Annotated[
        float | None, typer.Option(help="Of a training checkpoint, where the base does not tell.")
    ] = None,
    shard_size: ShardSize = 5.0,
) -> None:
    """Write a checkpoint as one clean folder: bit for bit, tensor by tensor, adapters merged."""
    from avcap.model.convert import plan_conversion

    workspace = folder.with_name(f"{folder.name}.unpickled")
    workspace.mkdir(parents=True, exist_ok=True)
    try:
        plan = plan_conversion(source, workspace=workspace, base=base, q_tokens=q_tokens, lora_alpha=lora_alpha)
        _write(plan, folder, shard_size=shard_size)
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def _write(plan: "Conversion", folder: Path, *, shard_size: float) -> None:
    from avcap.model.convert import write_conversion
    from avcap.model.placing import describe_bytes

    for warning in plan.warnings:
        say(f"WARNING: {warning}")
    columns = [TextColumn("weights"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=stderr, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("weights", total=plan.total_bytes)
        num_kept = write_conversion(
            plan, folder, shard_bytes=round(shard_size * BYTES_PER_GB),
            on_bytes=lambda count: progress.update(task, advance=count),
        )  # fmt: skip
    kept = f"; {num_kept} files were there already" if num_kept else ""
    print(f"{folder}: {len(plan.values)} tensors, {describe_bytes(plan.total_bytes)}{kept}")
