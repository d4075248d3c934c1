"""`avcap doctor`, `avcap convert`, `avcap init-audio` and `avcap plan`: what to know and do before a model is run."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from avcap.cli.app import EXIT_SOME_FAILED, app, say, stderr, tell
from avcap.cli.caption import Device, Dtype, DtypeOption, QuantizeOption
from avcap.errors import UserError
from avcap.files.write import folder_aside
from avcap.infer.find_checkpoint import find_checkpoint

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

    with folder_aside(folder) as workspace:
        plan = plan_conversion(source, workspace=workspace, base=base, q_tokens=q_tokens, lora_alpha=lora_alpha)
        _write(plan, folder, shard_size=shard_size)


def _write(plan: "Conversion", folder: Path, *, shard_size: float) -> None:
    from avcap.model.convert import write_conversion
    from avcap.model.placement import describe_bytes

    for warning in plan.warnings:
        say(f"WARNING: {warning}")
    columns = [TextColumn("weights"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=stderr, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("weights", total=plan.total_bytes)
        num_kept = write_conversion(
            plan,
            folder,
            shard_bytes=round(shard_size * BYTES_PER_GB),
            on_bytes=lambda count: progress.update(task, advance=count),
        )
    kept = f"; {num_kept} files were there already" if num_kept else ""
    tell(f"{folder}: {len(plan.values)} tensors, {describe_bytes(plan.total_bytes)}{kept}")


@app.command("doctor", no_args_is_help=True)
def doctor(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A checkpoint folder, or a training checkpoint.")],
    base: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Check that an adapter fits this model.")] = None,
) -> int:
    """Tell what a checkpoint is, what it lacks, and what it would take to run it. No weight is loaded."""
    from avcap.model.doctor import examine

    report = examine(model, base=base)
    tell(model)
    for what, finding in report.lines:
        tell(f"  {what:12}{finding}")
    for problem in report.problems:
        say(problem)
    tell(f"  {'problems':12}{len(report.problems) or 'none'}")
    return EXIT_SOME_FAILED if report.problems else 0


@app.command("init-audio", no_args_is_help=True)
def init_audio(
    backbone: Annotated[Path, typer.Argument(metavar="QWEN2.5-VL", help="Folder of a plain Qwen2.5-VL.")],
    whisper: Annotated[Path, typer.Argument(metavar="WHISPER", help="Folder of a Whisper.")],
    folder: Annotated[Path, typer.Argument(metavar="DST", help="The new folder. Run again, it goes on.")],
    seed: Annotated[int, typer.Option(help="Of the weights that are drawn.")] = 0,
    shard_size: ShardSize = 5.0,
) -> None:
    """Give a plain Qwen2.5-VL a sound branch: a Whisper, and an aligner that is still to be trained."""
    from avcap.model.init_audio import plan_init_audio

    plan, tokenizer = plan_init_audio(backbone, whisper, seed=seed)
    _write(plan, folder, shard_size=shard_size)
    tokenizer.save_pretrained(folder)


@app.command("plan", no_args_is_help=True)
def plan(
    model: Annotated[str, typer.Option(help="A shipped model or a checkpoint folder.")],
    video: Annotated[str, typer.Option(metavar="60s", help="Length of the video: 60s, 10m or 1.5h.")],
    frame: Annotated[str, typer.Option(metavar="WxH", help="Its frames, for models that take any size.")] = "1280x720",
    train: Annotated[bool, typer.Option("--train", help="A LoRA step instead of a caption.")] = False,
    device: Device = None,
    dtype: DtypeOption = None,
    quantize: QuantizeOption = None,
) -> None:
    """Tell tokens, memory, time and judge calls of a video before anything is loaded."""
    seconds, size = _seconds(video), _frame_size(frame)
    folder = find_checkpoint(model)
    import torch

    from avcap.infer.plan import plan as make_plan
    from avcap.model.placement import DevicePlacement, describe_bytes, describe_count

    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    form = dtype or (Dtype.float32 if where == "cpu" else Dtype.bfloat16)
    found = make_plan(
        folder,
        seconds=seconds,
        frame_size=size,
        dtype=getattr(torch, form),
        train=train,
        placement=DevicePlacement(device=where, quantize=quantize),
    )
    media = f"{found.visual_tokens:,} of {found.frames} frames, {found.audio_tokens:,} of sound"
    rows = {
        "tokens": f"{found.prompt_tokens:,}: {media}, {found.text_tokens} of text; up to {found.new_tokens:,} written",
        "weights": f"{describe_bytes(found.weight_bytes)}, {describe_count(found.num_weights)} as {quantize or form}",
        "keys, values": describe_bytes(found.cache_bytes),
        "activations": f"about {describe_bytes(found.activation_bytes)}",
    }
    if train:
        rows["training"] = f"about {describe_bytes(found.training_bytes)}: LoRA of rank 128, layers computed again"
    rows["together"] = f"about {describe_bytes(found.total_bytes)}"
    what = "a training step" if train else f"a caption of {found.new_tokens:,} tokens"
    rows["time"] = f"about {found.seconds:,.1f} s for {what} on this {where}"
    known, extracted = found.judge_calls
    rows["judge"] = f"{known} call a caption where its events are known, {extracted} where they are extracted first"
    tell(f"{model}, {seconds:g} s of video")
    for name, value in rows.items():
        tell(f"  {name:14}{value}")


def _seconds(text: str) -> float:
    """ "60s", "10m", "1.5h", "60" -> seconds; UserError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match or not float(match[1]):
        raise UserError(f"--video: got {text!r}, expected a length such as 60s, 10m or 1.5h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def _frame_size(text: str) -> tuple[int, int]:
    """ "1280x720" -> (height, width); UserError for anything else."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not match:
        raise UserError(f"--frame: got {text!r}, expected width x height such as 1280x720")
    return int(match[2]), int(match[1])
