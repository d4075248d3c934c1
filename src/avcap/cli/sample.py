"""`avcap sample`: several captions of each video, to choose from."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track

from avcap.captioners import Source, find_source
from avcap.cli.app import EXIT_SOME_FAILED, app, say, stderr
from avcap.cli.caption import started, tell_not_taken
from avcap.cli.engines import (
    EngineFlags,
    with_engine_options,
)
from avcap.cli.model_help import ANY_MODEL
from avcap.data.request import Request
from avcap.errors import UserError
from avcap.evaluation.caption import sample_captions
from avcap.infer.inputs import find_media
from avcap.records import Caption, CaptionError, Decoding, Sample

DEADLINE_S = 600.0
BATCH_SIZE = 8
NUM_CAPTIONS, TEMPERATURE = 8, 0.7


@app.command("sample", no_args_is_help=True)
@with_engine_options
def sample(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="FILE|DIR|GLOB|LIST.txt...", help="Video or audio files. Folders are searched."),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE.jsonl", help="Write records to this file. The same command resumes.")
    ],
    model: Annotated[str, typer.Option(help=f"What captions: {ANY_MODEL}.")] = "tiny",
    num: Annotated[int, typer.Option("--num", "-n", help="Captions of each video.")] = NUM_CAPTIONS,
    temperature: Annotated[float, typer.Option(help="Must be above 0, so that captions differ.")] = TEMPERATURE,
    top_p: Annotated[float, typer.Option(help="Sample from the most likely tokens with this total probability.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Caption k uses seed + k.")] = 0,
    prompt: Annotated[str | None, typer.Option(help="Use this prompt instead of the model's own.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Maximum length of a caption, in tokens.")] = None,
    *,
    flags: EngineFlags,
) -> int:
    """Sample several captions of each video, for avcap pairs build."""
    source = find_source(model)
    request = sampling_request(
        source, num=num, temperature=temperature, top_p=top_p, seed=seed, prompt=prompt, max_new_tokens=max_new_tokens
    )
    found = find_media(inputs)
    tell_not_taken(found)
    samples = [request.sample(path) for path in found.paths]
    return sample_to_file(source, flags, samples, request, out=out, num=num)


def sampling_request(
    source: Source,
    *,
    num: int,
    temperature: float,
    seed: int = 0,
    top_p: float = 1.0,
    prompt: str | None = None,
    max_new_tokens: int | None = None,
) -> Request:
    """Options -> the request. UserError where all captions of a video would be the same."""
    if num < 1 or not temperature > 0:
        raise UserError(f"got {num} captions at temperature {temperature:g}, expected at least 1, and more than 0")
    decoding = Decoding(
        max_new_tokens=source.max_new_tokens if max_new_tokens is None else max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
    )
    return Request(decoding=decoding, prompt=prompt)


def sample_to_file(
    source: Source, flags: EngineFlags, samples: Sequence[Sample], request: Request, *, out: Path, num: int
) -> int:
    """Samples -> `num` captions of each in the file -> exit code."""
    prompts = {sample.sample_id: sample.prompt for sample in samples}

    def check(row: Caption) -> None:
        first = replace(row, decoding=replace(row.decoding, seed=request.decoding.seed))
        asked = replace(request, prompt=prompts.get(row.sample_id) or request.prompt)
        asked.check_same(first, checkpoint=source.name, prompts=source.prompts)

    def draw(todo: Sequence[Sample]) -> Iterator[Caption | CaptionError]:
        with started(source, flags, batch_size=BATCH_SIZE, deadline_s=DEADLINE_S) as captioner:
            yield from captioner.sample(todo, request, num_answers=num)

    num_old, errors = sample_captions(
        samples, out=out, check=check, sample=draw, num_answers=num, watch=partial(_watch, "sampling")
    )
    for error in errors:
        say(error.error)
    num_new = len(samples) - num_old - len(errors)
    say(f"{out}: {num} captions of {num_new} samples each, {len(errors)} errors, {num_old} samples were there already")
    return EXIT_SOME_FAILED if errors else 0


def _watch(what: str, items: Iterator[Any], total: int) -> Any:
    """Items -> the same, with a progress bar on a terminal."""
    return track(items, total=total, description=what, console=stderr, disable=not sys.stderr.isatty())
