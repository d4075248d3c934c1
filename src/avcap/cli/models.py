"""`avcap doctor`, `avcap convert`, `avcap init-audio` and `avcap plan`: what to know and do before a model is run."""

import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from avcap.captioners import find_source
from avcap.cli.app import EXIT_SOME_FAILED, app, say, stderr, tell
from avcap.cli.caption import Device, Dtype, DtypeOption, QuantizeOption
from avcap.cli.engines import (
    TIMEOUT_S,
    EngineFlags,
    EnginePrices,
    findings_folder,
    opened_engine,
    refuse_weight_options,
)
from avcap.cli.model_help import ANY_MODEL, WEIGHTS
from avcap.cli.plan_folder import lines_of_files, look_at_for_engine, plan_local_files
from avcap.engines.spec import USE_VIDEO, is_engine, read_engine_spec
from avcap.errors import UserError
from avcap.files.write import folder_aside
from avcap.infer.find_checkpoint import find_layouts, without_weights
from avcap.llm.budget import PRICES, PRICES_DATE, read_prices

if TYPE_CHECKING:
    from avcap.model.checkpoint.convert import Conversion

BYTES_PER_GB = 10**9
ShardSize = Annotated[float, typer.Option(metavar="GB", help="Maximum size of a weight file.")]
QTokens = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="Take the audio query tokens from this: a folder, or org/name on the hub."),
]


@app.command("convert", no_args_is_help=True)
def convert(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="A folder of any layout (see avcap doctor), or org/name on the hub.")
    ],
    folder: Annotated[Path, typer.Argument(metavar="DST", help="The new folder. The same command resumes.")],
    base: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="The base of an adapter or a training checkpoint: a folder, or org/name on the hub."
        ),
    ] = None,
    q_tokens: QTokens = None,
    lora_alpha: Annotated[
        float | None, typer.Option(help="LoRA alpha of a training checkpoint, if the base does not state it.")
    ] = None,
    shard_size: ShardSize = 5.0,
) -> None:
    """Write a checkpoint as one clean folder: tensors are copied bit for bit, adapters are merged."""
    from avcap.model.checkpoint.convert import plan_conversion
    from avcap.model.checkpoint.layouts import ADAPTER, runnable

    given = find_layouts(source, layouts=runnable() if base is None else (ADAPTER,))
    of_base, of_tokens = (None if one is None else find_layouts(one, layouts=runnable()) for one in (base, q_tokens))
    with folder_aside(folder) as workspace:
        plan = plan_conversion(given, workspace=workspace, base=of_base, q_tokens=of_tokens, lora_alpha=lora_alpha)
        _write(plan, folder, shard_size=shard_size)


def _write(plan: "Conversion", folder: Path, *, shard_size: float) -> None:
    from avcap.model.checkpoint.convert import write_conversion
    from avcap.model.checkpoint.placement import describe_bytes

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
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help=f"What to look at: {ANY_MODEL}; or a training checkpoint.")
    ],
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help=f"Of an adapter, to see if it fits: {WEIGHTS}.")
    ] = None,
) -> int:
    """Report what a checkpoint is, what it lacks and what it takes to run it, without loading weights.

    Of a model behind an engine: what it takes, and whether audio reaches it.
    """
    if is_engine(model):
        if base is not None:
            raise UserError("got --base and a model behind an engine, expected a folder with an adapter, or no --base")
        return _doctor_engine(model)
    from avcap.model.checkpoint.doctor import examine

    with without_weights(model, must_run=False) as folder, ExitStack() as stack:
        beside = None if base is None else stack.enter_context(without_weights(base))
        report = examine(folder, base=beside)
        names = {str(folder): str(model), str(beside): str(base)}
    lines = [(what, _as_named(finding, names)) for what, finding in report.lines]
    return _print_report(model, lines, [_as_named(problem, names) for problem in report.problems])


def _doctor_engine(model: str) -> int:
    """An engine's name -> what was found out about it, printed -> exit code."""
    from avcap.engines.doctor import examine_engine

    source = find_source(model)
    with opened_engine(source, EngineFlags(allow_dropped_audio=True), deadline_s=TIMEOUT_S) as captioner:
        report = examine_engine(captioner.engine)
    return _print_report(source.name, report.lines, report.problems)


def _print_report(name: str, lines: Sequence[tuple[str, str]], problems: Sequence[str]) -> int:
    """What was found out, to stdout; problems to stderr -> exit code."""
    tell(name)
    for what, finding in lines:
        tell(f"  {what:12}{finding}")
    for problem in problems:
        say(problem)
    tell(f"  {'problems':12}{len(problems) or 'none'}")
    return EXIT_SOME_FAILED if problems else 0


def _as_named(text: str, names: dict[str, str]) -> str:
    """Text about folders -> the same with each called as the user did."""
    for folder, name in names.items():
        text = text.replace(folder, name)
    return text


@app.command("init-audio", no_args_is_help=True)
def init_audio(
    backbone: Annotated[
        str, typer.Argument(metavar="QWEN2.5-VL", help="A plain Qwen2.5-VL: a folder, or org/name on the hub.")
    ],
    whisper: Annotated[str, typer.Argument(metavar="WHISPER", help="A Whisper: a folder, or org/name on the hub.")],
    folder: Annotated[Path, typer.Argument(metavar="DST", help="The new folder. The same command resumes.")],
    seed: Annotated[int, typer.Option(help="Seed of the new weights.")] = 0,
    shard_size: ShardSize = 5.0,
) -> None:
    """Add an audio branch to a plain Qwen2.5-VL: a Whisper, and an aligner that is still to be trained."""
    from avcap.model.checkpoint.init_audio import BACKBONE, plan_init_audio
    from avcap.model.checkpoint.layouts import WHISPER

    qwen = find_layouts(backbone, layouts=(BACKBONE,))
    plan, tokenizer = plan_init_audio(qwen, find_layouts(whisper, layouts=(WHISPER,)), seed=seed)
    _write(plan, folder, shard_size=shard_size)
    tokenizer.save_pretrained(folder)


@app.command("plan", no_args_is_help=True)
def plan(
    model: Annotated[str, typer.Option(help=f"What would caption: {ANY_MODEL}.")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE|DIR|GLOB|LIST.txt...]", help="All that is to be captioned."),
    ] = None,
    video: Annotated[str | None, typer.Option(metavar="60s", help="Length of one video: 60s, 10m or 1.5h.")] = None,
    frame: Annotated[str, typer.Option(metavar="WxH", help="Frame size, for models that take any size.")] = "1280x720",
    train: Annotated[bool, typer.Option("--train", help="Plan a LoRA step instead of a caption.")] = False,
    device: Device = None,
    dtype: DtypeOption = None,
    quantize: QuantizeOption = None,
    prices: EnginePrices = None,
) -> int:
    """Print what captioning takes, before anything is loaded or sent: one video (--video), or all files."""
    if bool(inputs) == (video is not None):
        raise UserError("got files and --video, or neither; expected videos, or the length of one as --video 60s")
    seconds, size = _seconds(video) if video else 0.0, _frame_size(frame)
    if is_engine(model):
        refuse_weight_options(device=device, dtype=dtype, quantize=quantize, train=train)
        return _plan_engine(model, inputs or [], seconds=seconds, size=size, prices=prices)
    if inputs:
        if train:
            raise UserError("got files and --train, expected the length of one video as --video 60s")
        return EXIT_SOME_FAILED if plan_local_files(model, inputs, device=device, dtype=dtype, quantize=quantize) else 0
    with without_weights(model) as folder:
        import torch

        from avcap.infer.plan import plan as make_plan
        from avcap.model.checkpoint.placement import DevicePlacement, describe_bytes, describe_count

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
    return 0


def _plan_engine(
    model: str, inputs: Sequence[str], *, seconds: float, size: tuple[int, int], prices: Path | None
) -> int:
    """Files, or the length and frame of one -> tokens and money, printed -> exit code. Nothing is sent."""
    from avcap.bulk.plan import multiplied
    from avcap.engines.captioner import MAX_NEW_TOKENS
    from avcap.engines.findings import FindingsStore
    from avcap.engines.plan import Length, known_dialect, plan_engine

    spec = read_engine_spec(model)
    found = FindingsStore(folder=findings_folder()).get(spec.name, use=USE_VIDEO)
    dialect, assumed = known_dialect(spec, found)
    looked = look_at_for_engine(inputs, dialect) if inputs else None
    lengths: Sequence[Length] = looked.lengths if looked is not None else ()
    if looked is None:
        height, width = size
        shrink = min(1.0, (dialect.max_pixels / (height * width)) ** 0.5)
        lengths = [
            Length(path="", seconds=seconds, height=round(height * shrink), width=round(width * shrink), has_audio=True)
        ]
    table = PRICES if prices is None else read_prices(prices)
    plan = plan_engine(spec, lengths, dialect=dialect, found=found, assumed=assumed, prices=table)
    plan = multiplied(plan, 1.0 if looked is None else looked.factor)
    tokens = plan.visual_tokens + plan.audio_tokens + plan.text_tokens
    media = f"{plan.visual_tokens:,} of {plan.frames:,} frames, {plan.audio_tokens:,} of audio"
    money = "no price is known: name a file with --prices"
    if plan.money_usd is not None:
        dated = f"prices of {PRICES_DATE} where --prices names none"
        money = f"about ${plan.money_usd:.2f}, if all captions are as long as they may be ({dated})"
    tell(f"{spec.name}, {plan.num_files} videos of {plan.seconds:,.1f} s together")
    tell(f"  {'tokens':14}about {tokens:,}: {media}, {plan.text_tokens:,} of text; up to {plan.new_tokens:,} written")
    tell(f"  {'money':14}{money}")
    if plan.assumed:
        tell(f"  {'assumed':14}{plan.assumed}")
    if looked is None:
        return 0
    tell(f"  {'time':14}that of the engine is not known: caption a few, and multiply")
    for name, text in lines_of_files(looked, new_tokens=MAX_NEW_TOKENS):
        tell(f"  {name:14}{text}")
    return EXIT_SOME_FAILED if looked.errors else 0


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
