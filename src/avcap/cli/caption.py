"""`avcap caption` and `avcap models`."""

import gc
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from enum import StrEnum
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avcap.bulk.inputs.find import find_items
from avcap.bulk.inputs.items import Item, OwnPrompts, root_of
from avcap.bulk.inputs.spool import Asked, Spool, rows_of
from avcap.bulk.long.joined import check_made_by
from avcap.bulk.style import ask_in_form
from avcap.bulk.workers import ask_once
from avcap.captioners import Source, find_source
from avcap.cli.app import EXIT_SOME_FAILED, app, say, tell
from avcap.cli.cutting import (
    Carry,
    CuttingFlags,
    Overlap,
    Split,
    Summary,
    Toc,
    Window,
    is_of_a_clip,
    opened_summarizer,
)
from avcap.cli.engines import (
    EngineFlags,
    opened_engine,
    refuse_weight_options,
    with_engine_options,
)
from avcap.cli.folders import (
    Every,
    FolderFlags,
    Format,
    KeepExisting,
    OneLine,
    RelativeTo,
    RetryFailed,
    Samples,
    ShardOption,
    StripOpenings,
    Trigger,
    WhereOption,
    folder_job,
    is_folder,
    is_of_one_world,
    run_folder,
    shard_of,
    watched,
)
from avcap.cli.model_help import ANY_MODEL
from avcap.cli.opened import OpenedOnce
from avcap.cli.printed import print_captions, show_captions
from avcap.cli.scale import RayAddress, RayCaptioner, Workers, ray_options, refuse_packed
from avcap.cli.style import LanguageOption, StyleOption, form_of
from avcap.data.request import Interval, Request
from avcap.files.names import short_names
from avcap.files.walk import RealPaths
from avcap.infer.caption_file import CaptionFile
from avcap.infer.find_checkpoint import find_checkpoint, tiny_models
from avcap.infer.inputs import MediaFiles
from avcap.infer.official.options import name_with_official, official_decoding, refuse_interval_of
from avcap.records import Caption, CaptionError, Decoding

if TYPE_CHECKING:
    from avcap.engines.captioner import EngineCaptioner
    from avcap.infer.captioner import Captioner

SMALL_MODEL = 50_000_000  # weights; below it, one thread is as fast as two on free cores
SHOW_LOADING_FROM = 2**30  # bytes of weights; below it, a bar would only flash up


class Dtype(StrEnum):
    """What --dtype takes."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Quantize(StrEnum):
    """What --quantize takes."""

    eight = "8bit"
    four = "4bit"


Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N. Default: a GPU if there is one.")]
DtypeOption = Annotated[Dtype | None, typer.Option("--dtype", help="Default: float32 on a CPU, bfloat16 elsewhere.")]
DeviceMap = Annotated[str | None, typer.Option(metavar="auto", help="Spread a large model over all GPUs of this host.")]
QuantizeOption = Annotated[
    Quantize | None, typer.Option("--quantize", help="Load the weights in 8bit or 4bit (bitsandbytes).")
]


@app.command("caption", no_args_is_help=True)
@with_engine_options
def caption(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE|DIR|GLOB|LIST...",
            help="Videos, audio files, folders, lists (.txt, .jsonl, .csv, .parquet), .tar shards.",
        ),
    ],
    model: Annotated[
        str,
        typer.Option(help=f"What captions: {ANY_MODEL}."),
    ] = "tiny",
    start: Annotated[float | None, typer.Option(metavar="S", help="Start of the interval, in seconds.")] = None,
    end: Annotated[float | None, typer.Option(metavar="S", help="End of the interval, in seconds.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Use this prompt instead of the model's own.")] = None,
    style: StyleOption = None,
    language: LanguageOption = None,
    no_audio: Annotated[bool, typer.Option("--no-audio", help="Use the video alone.")] = False,
    no_video: Annotated[bool, typer.Option("--no-video", help="Use the audio alone.")] = False,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER/|FILE.jsonl",
            help="Write captions to this folder, or records to this file. The same command resumes.",
        ),
    ] = None,
    formats: Format = None,
    one_line: OneLine = False,
    trigger: Trigger = None,
    strip_openings: StripOpenings = False,
    keep_existing: KeepExisting = False,
    relative_to: RelativeTo = None,
    where: WhereOption = None,
    every: Every = None,
    split: Split = None,
    window: Window = None,
    overlap: Overlap = None,
    carry: Carry = None,
    summary: Summary = None,
    toc: Toc = False,
    sample: Samples = None,
    retry_failed: RetryFailed = False,
    shard: ShardOption = None,
    ray: RayAddress = None,
    workers: Workers = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Maximum length of a caption, in tokens.")] = None,
    temperature: Annotated[float, typer.Option(help="0 decodes greedily; a higher value samples.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Sample from the most likely tokens with this total probability.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Samples depend on the seed and the file.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Number of videos in a batch.")] = 8,
    deadline: Annotated[
        float, typer.Option(metavar="S", help="Time limit for decoding and encoding one file, in seconds.")
    ] = 600.0,
    device: Device = None,
    dtype: DtypeOption = None,
    device_map: DeviceMap = None,
    quantize: QuantizeOption = None,
    official: Annotated[
        bool, typer.Option("--official", help="Reproduce the official code exactly, including its mistakes.")
    ] = False,
    *,
    flags: EngineFlags,
) -> int:
    """Caption videos from picture and sound: as text; with --out as files for trainers and players, or as records."""
    folder_flags = FolderFlags(
        formats=formats or (),
        one_line=one_line,
        trigger=trigger,
        strip_openings=strip_openings,
        keep_existing=keep_existing,
        relative_to=relative_to,
        where=where,
        every=every,
        sample=sample,
        retry_failed=retry_failed,
        shard=shard,
    )
    cutting = CuttingFlags(split=split, window=window, overlap=overlap, carry=carry, summary=summary, toc=toc)
    to_folder = out is not None and is_folder(out, flags=folder_flags)
    if not to_folder:
        folder_flags.refuse_without_folder()
        cutting.refuse_without_folder()
    source = find_source(model)  # no weights yet: what --out says comes before gigabytes
    folder = source.folder
    decoding = Decoding(
        max_new_tokens=source.max_new_tokens if max_new_tokens is None else max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
    )
    if folder is None:
        refuse_weight_options(
            official=official if official else None,
            device=device,
            dtype=dtype,
            device_map=device_map,
            quantize=quantize,
        )
    elif official:
        decoding = official_decoding(decoding, folder)
    form = form_of(
        style,
        language,
        formats=formats or [],
        prompt=prompt,
        official=official,
        use_audio=not no_audio,
        follows_prompts=not is_of_one_world(source),
    )
    request = Request(
        decoding=decoding,
        interval_s=interval_asked(start, end),
        prompt=form.prompt if form is not None and form.asks else prompt,
        use_audio=not no_audio,
        use_video=not no_video,
    )
    if official and folder is not None:
        refuse_interval_of(folder, request.interval_s)
    cutting.refuse_parts(request, formats=formats or (), every=every)
    cutting.refuse_style(style)
    cutter, windowing = cutting.cutter(), cutting.windowing(source)
    made_by = "" if windowing is None else windowing.made_by
    found = find_items(inputs)
    if found.not_taken:
        say(found.not_taken.describe())
    items = found.items

    weights: dict[str, Any] = {
        "batch_size": batch_size,
        "device": device,
        "dtype": dtype,
        "device_map": device_map,
        "quantize": quantize,
        "official": official,
    }
    ask = ask_once if form is None else partial(ask_in_form, form=form)
    opened_once = OpenedOnce(partial(started, source, flags, deadline_s=deadline, **weights), ask=ask)
    on_ray = ray_options(ray, workers, flags=flags, batch_size=batch_size)
    if on_ray is not None:
        refuse_packed(items)
        weights["dtype"] = dtype and str(dtype)
        actors = RayCaptioner(
            on_ray, model=model, source=source, ask=ask, flags=flags, deadline_s=deadline, weights=weights
        )
        opened_once = OpenedOnce(lambda: nullcontext(actors))
    names = short_names(dict.fromkeys(item.video for item in items))
    checkpoint = name_with_official(source.name, official=official)
    rows_at_once = 1 if folder is None else batch_size

    def checked(asked: Request) -> Callable[[Caption], None]:
        own = OwnPrompts(items, asked)

        def check(row: Caption) -> None:
            expected = own.request_of(row.sample_id)
            if cutter is not None and expected.prompt is None and is_of_a_clip(row, prompts=source.prompts):
                expected = replace(expected, prompt=row.prompt)
            expected.check_same(row, checkpoint=checkpoint, prompts=source.prompts)
            check_made_by(row, made_by=made_by)

        return check

    with ExitStack() as stack:
        opened = stack.enter_context(opened_once)
        if out is None:
            return print_captions(_rows(items, request, opened), request, names=names)
        root = root_of(inputs, items, lists=found.lists, relative_to=relative_to)
        if to_folder:
            summarizer = stack.enter_context(opened_summarizer(cutting, flags))
            job = folder_job(
                out,
                root,
                items,
                request,
                flags=folder_flags,
                source=source,
                rows_at_once=rows_at_once,
                deadline_s=deadline,
            )
            job = replace(
                job,
                split=cutter,
                long=windowing,
                summarizer=summarizer,
                prompts=source.prompts,
                checkpoint=checkpoint,
                toc=toc,
            )
            return run_folder(
                job,
                stream=lambda videos: opened.stream(videos, job.request),
                check=checked(job.request),
                show=lambda rows: show_captions(rows, job.request, names=names),
            )
        if (part := shard_of(folder_flags)) is not None:
            items = [item for item in items if part.holds(item.name(root))]
        return _caption_to_file(
            Path(out), items, request, opened=opened, rows_at_once=rows_at_once, check=checked(request)
        )


def _rows(items: Iterable[Item], request: Request, opened: OpenedOnce) -> Iterator[Caption | CaptionError]:
    """Items -> their rows, in order."""
    asked = (item.failed(request) if item.error else Asked(item=item, sample=item.sample(request)) for item in items)
    with Spool() as spool:
        yield from rows_of(asked, stream=lambda videos: opened.stream(videos, request), spool=spool)


def tell_not_taken(found: MediaFiles) -> None:
    """Says what the folders and lists of a command line held besides."""
    if found.not_taken:
        say(found.not_taken.describe())


def interval_asked(start: float | None, end: float | None) -> Interval | None:
    """--start and --end -> the interval; None: neither was given."""
    if start is None and end is None:
        return None
    return (start or 0.0, math.inf if end is None else end)


@contextmanager
def started(
    source: Source, flags: EngineFlags, *, batch_size: int, deadline_s: float, **weight_options: Any
) -> "Iterator[Captioner | EngineCaptioner]":
    """What --model names -> its captioner, whatever it is; what an engine holds is closed behind it.

    `weight_options`: as `start_captioner` takes them, of a model that runs here.
    """
    if source.engine is not None:
        with opened_engine(source, flags, deadline_s=deadline_s) as engine:
            yield engine
    else:
        yield start_captioner(source.weights, batch_size=batch_size, deadline_s=deadline_s, **weight_options)


def start_captioner(
    folder: Path,
    *,
    batch_size: int,
    deadline_s: float,
    device: str | None = None,
    dtype: Dtype | None = None,
    device_map: str | None = None,
    quantize: Quantize | None = None,
    official: bool = False,
) -> "Captioner":
    """Checkpoint folder -> a captioner, as fast as imports allow."""
    folder = find_checkpoint(folder)
    gc.disable()  # the imports make millions of objects that stay: searching them for garbage takes half a second
    import torch

    from avcap.infer.captioner import Captioner
    from avcap.model.checkpoint.load import silence_progress_bars

    if not sys.stderr.isatty() or _weight_bytes(folder) < SHOW_LOADING_FROM:
        silence_progress_bars()
    captioner = Captioner(
        folder,
        batch_size=batch_size,
        deadline_s=deadline_s,
        device=device,
        dtype=getattr(torch, dtype) if dtype else None,
        device_map=device_map,
        quantize=quantize,
        official=official,
    )
    gc.freeze()
    gc.enable()
    if captioner.model.num_parameters() < SMALL_MODEL:
        torch.set_num_threads(1)  # where cores are busy, threads that wait for each other double the time
    return captioner


def _weight_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _caption_to_file(
    out: Path,
    items: Sequence[Item],
    request: Request,
    *,
    opened: OpenedOnce,
    rows_at_once: int,
    check: Callable[[Caption], None],
) -> int:
    """Captions what the file does not have yet -> exit code. Without anything to do, no model is loaded."""
    real_paths = RealPaths()

    def which(sample_id: str, video: str) -> str:
        """The file and the part of it, whatever way the file is called: `x` and `./x` are one."""
        return real_paths(video) + sample_id.removeprefix(video) if sample_id.startswith(video) else sample_id

    keys = [which(item.sample(request).sample_id, item.video) for item in items]
    num_errors = 0
    with CaptionFile(out, retry=set(keys), check=check, key=lambda row: which(row.sample_id, row.video)) as file:
        todo = [item for item, key in zip(items, keys, strict=True) if key not in file.done]
        if todo:
            rows = _rows(todo, request, opened)
            num_errors = _write_captions(rows, file, num_todo=len(todo), rows_at_once=rows_at_once)
    num_old = len(items) - len(todo)
    say(f"{out}: {len(todo) - num_errors} captions written, {num_errors} errors, {num_old} captions were there already")
    return EXIT_SOME_FAILED if num_errors else 0


def _write_captions(
    rows: Iterator[Caption | CaptionError], file: CaptionFile, *, num_todo: int, rows_at_once: int
) -> int:
    """Rows -> the file, with a progress bar on a terminal -> how many of them are errors."""
    num_errors = 0
    told = watched(rows, num_todo)
    while batch := list(islice(told, rows_at_once)):
        file.append(batch)
        num_errors += sum(isinstance(row, CaptionError) for row in batch)
    return num_errors


@app.command("models")
def list_models() -> None:
    """List the tiny models that come with avcap."""
    for model in tiny_models():
        tell(f"{model.name:10}  {model.headline}")
