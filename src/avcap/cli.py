"""The command `avcap`. Torch is imported only by commands that compute, and only once their arguments are checked."""

import gc
import io
import logging
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from typer.exceptions import TyperException

import avcap
from avcap.errors import UserError
from avcap.infer.caption_file import CaptionFile
from avcap.infer.inputs import find_media
from avcap.infer.request import Interval, Request
from avcap.infer.settings import checkpoint_name, read_settings
from avcap.infer.shipped import ALIASES, find_checkpoint, shipped_models
from avcap.records import Caption, CaptionError, Decoding

if TYPE_CHECKING:
    from avcap.infer.captioner import Captioner

EXIT_SOME_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 130
SMALL_MODEL = 50_000_000  # weights; below it, one thread is as fast as two on free cores

app = typer.Typer(
    help="Detailed audio-visual captions of videos.", no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False,
)  # fmt: skip
world_app = typer.Typer(help="Videos with exactly known truth, to train and to test on.", no_args_is_help=True)
app.add_typer(world_app, name="world")

stderr = Console(stderr=True, soft_wrap=True, markup=False, emoji=False, highlight=False)


def main() -> None:
    """Runs the command line. Exit codes: 0 all well, 1 some files failed, 2 bad input, 130 interrupted."""
    logging.getLogger("avcap").addHandler(_Lines())
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be text
    try:
        code = app(prog_name="avcap", standalone_mode=False)
    except UserError as error:
        say(str(error))
        code = EXIT_BAD_INPUT
    except TyperException as error:
        say(_describe_usage_error(error))
        code = EXIT_BAD_INPUT
    if code == EXIT_INTERRUPTED:
        say("interrupted; with --out, the same command goes on from here")
    sys.exit(code or 0)


def say(message: str) -> None:
    """A message -> one line on stderr."""
    stderr.print(f"avcap: {' '.join(message.split())}")


def _describe_usage_error(error: TyperException) -> str:
    """A wrong command line -> what was got, what was wanted, and where to look, in one line."""
    names = [name for name in getattr(getattr(error, "param", None), "opts", []) if name in sys.argv]
    got = f", got {' '.join(sys.argv[sys.argv.index(names[0]) :][:2])!r}" if names else ""
    context = getattr(error, "ctx", None)
    return f"{error.format_message().rstrip('.')}{got}; see {context.command_path if context else 'avcap'} --help"


class _Lines(logging.Handler):
    """Makes the package's warnings lines on stderr like all other messages, also above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"avcap {avcap.__version__}")
        raise typer.Exit


@app.callback()
def _common_options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command("models")
def list_models() -> None:
    """List the models that are shipped with avcap."""
    short_names = {name: short for short, name in ALIASES.items()}
    for model in shipped_models():
        names = f"{model.name}, {short_names[model.name]}" if model.name in short_names else model.name
        print(f"{names:20}  {model.headline}")


# --- caption ----------------------------------------------------------------------------------------------------------


@app.command("caption", no_args_is_help=True)
def caption(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="FILE|DIR|GLOB|LIST.txt...", help="Videos or sound files. Folders are searched."),
    ],
    model: Annotated[str, typer.Option(help="A shipped model (see: avcap models) or a checkpoint folder.")] = "tiny",
    start: Annotated[float | None, typer.Option(metavar="S", help="Second to begin at.")] = None,
    end: Annotated[float | None, typer.Option(metavar="S", help="Second to end at.")] = None,
    prompt: Annotated[str | None, typer.Option(help="What to ask, instead of the model's own prompt.")] = None,
    no_sound: Annotated[bool, typer.Option("--no-sound", help="Only look.")] = False,
    no_picture: Annotated[bool, typer.Option("--no-picture", help="Only listen.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help="Write records here. Run again, it goes on.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest caption, in tokens.")] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy; above it, captions are sampled.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Share of the probability that is sampled from.")] = 1.0,
    seed: Annotated[int, typer.Option(help="What is drawn depends on it and on the file.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Videos captioned side by side.")] = 8,
    deadline: Annotated[float, typer.Option(metavar="S", help="Seconds that decoding one file may take.")] = 120.0,
) -> int:
    """Caption videos: what is seen and heard, as text, or with --out as JSONL records."""
    folder = find_checkpoint(model)
    settings = read_settings(folder)
    decoding = Decoding(
        max_new_tokens=settings.max_new_tokens if max_new_tokens is None else max_new_tokens,
        temperature=temperature, top_p=top_p, seed=seed,
    )  # fmt: skip
    request = Request(
        decoding=decoding, interval_s=_interval(start, end), prompt=prompt, use_sound=not no_sound,
        use_picture=not no_picture,
    )  # fmt: skip
    found = find_media(inputs)
    if found.num_skipped:
        say(found.describe_skipped())

    def caption_all(paths: list[str]) -> Iterator[Caption | CaptionError]:
        return _start_captioner(folder, batch_size=batch_size, deadline_s=deadline).stream(paths, request)

    if out is None:
        return _print_captions(caption_all(found.paths), request)
    checkpoint = checkpoint_name(folder, settings)
    return _caption_to_file(
        out, found.paths, request, caption_all=caption_all, rows_at_once=batch_size,
        check=lambda row: request.check_same(row, checkpoint=checkpoint, settings=settings),
    )  # fmt: skip


def _interval(start: float | None, end: float | None) -> Interval | None:
    if start is None and end is None:
        return None
    return (start or 0.0, math.inf if end is None else end)


def _start_captioner(folder: Path, *, batch_size: int, deadline_s: float) -> "Captioner":
    gc.disable()  # the imports make millions of objects that stay: searching them for garbage takes half a second
    import torch

    from avcap.infer.captioner import Captioner
    from avcap.model.checkpoints import silence_progress_bars

    silence_progress_bars()
    captioner = Captioner(folder, batch_size=batch_size, deadline_s=deadline_s)
    gc.freeze()
    gc.enable()
    if captioner.model.num_parameters() < SMALL_MODEL:
        torch.set_num_threads(1)  # where cores are busy, threads that wait for each other double the time
    return captioner


def _print_captions(rows: Iterable[Caption | CaptionError], request: Request) -> int:
    """Captions to stdout as text, with an empty line between two; errors to stderr -> exit code."""
    num_captions, num_errors = 0, 0
    for row in rows:
        if isinstance(row, CaptionError):
            say(row.error)
            num_errors += 1
            continue
        ending = "" if row.finished else " [cut off: --max-new-tokens]"
        gap = "\n" if num_captions else ""
        print(f"{gap}{_describe_seen(row, request)}\n{row.text}{ending}", flush=True)
        num_captions += 1
    if num_errors and num_captions + num_errors > 1:
        say(f"{num_captions} captions, {num_errors} errors")
    return EXIT_SOME_FAILED if num_errors else 0


def _describe_seen(caption: Caption, request: Request) -> str:
    """A caption -> "two_bells.mp4  10.0 s: 10 frames, 10.0 s of sound": the file, and what was really seen of it."""
    seen = caption.seen
    length = f"{caption.duration_s:.1f} s"
    if caption.interval_s is not None:
        length = f"{caption.interval_s[0]:g} to {caption.interval_s[1]:g} s of {length}"
    no_picture = "no picture" if request.use_picture else "picture left out"
    no_sound = "no sound track" if request.use_sound else "sound left out"
    parts = [
        f"{seen.frames} frame{'s' if seen.frames > 1 else ''}" if seen.frames else no_picture,
        f"{seen.audio_seconds:.1f} s of sound" if seen.audio_tokens else no_sound,
    ]
    if seen.bad_packets:
        parts.append(f"{seen.bad_packets} bad packets")
    return f"{Path(caption.video).name}  {length}: {', '.join(parts)}"


def _caption_to_file(
    out: Path, paths: list[str], request: Request, *, rows_at_once: int, check: Callable[[Caption], None],
    caption_all: Callable[[list[str]], Iterator[Caption | CaptionError]],
) -> int:  # fmt: skip
    """Captions what the file does not have yet -> exit code. Without anything to do, no model is loaded."""
    sample_ids = {path: request.sample(path).sample_id for path in paths}
    num_errors = 0
    with CaptionFile(out, retry=set(sample_ids.values()), check=check) as file:
        todo = [path for path, sample_id in sample_ids.items() if sample_id not in file.done]
        if todo:
            num_errors = _write_captions(caption_all(todo), file, num_todo=len(todo), rows_at_once=rows_at_once)
    num_old = len(paths) - len(todo)
    say(f"{out}: {len(todo) - num_errors} captions written, {num_errors} errors, {num_old} captions were there already")
    return EXIT_SOME_FAILED if num_errors else 0


def _write_captions(
    rows: Iterator[Caption | CaptionError], file: CaptionFile, *, num_todo: int, rows_at_once: int
) -> int:
    """Rows -> the file, with a progress bar on a terminal -> how many of them are errors."""
    num_errors = 0
    figures = TextColumn("{task.fields[figures]}")
    columns = [TextColumn("captions"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), figures]
    with Progress(*columns, console=stderr, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("captions", total=num_todo, figures="")
        while batch := list(islice(rows, rows_at_once)):
            file.append(batch)
            for row in batch:
                if isinstance(row, CaptionError):
                    say(row.error)
                    num_errors += 1
            progress.update(task, advance=len(batch), figures=f"{num_errors} errors" if num_errors else "")
    return num_errors


# --- train and world --------------------------------------------------------------------------------------------------


@app.command("train", no_args_is_help=True)
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="tiny_base, tiny_align, tiny_sft, ...")],
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Set a field of the recipe; repeatable.")
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE.yaml", help="Set the fields that this file has.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same as --set seed=N.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the run; out/RECIPE if left out.")] = None,
    model: Annotated[
        str | None, typer.Option(metavar="PARENT", help="Start from this: a shipped model or a checkpoint folder.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the configuration, and what would be done with it.")
    ] = False,
) -> None:
    """Train a model by a recipe. Stopped and run again it goes on, and ends with the same weights."""
    values = _overrides(recipe, config=config, assignments=assignments or [], seed=seed)
    parent = None if model is None else find_checkpoint(model)
    out_dir = out or Path("out") / recipe
    make_config = _find_recipe(recipe)  # here torch comes in, and not before the arguments have been read

    from avcap.config import override, to_dict
    from avcap.stages.train import run_recipe

    resolved = override(make_config(), values)
    if not dry_run:
        print(run_recipe(recipe, resolved, out_dir=out_dir, parent=parent))
        return
    import yaml

    verb = "go on in" if (out_dir / "config.yaml").exists() else "train into"
    print(yaml.safe_dump({"recipe": recipe, **to_dict(resolved)}, sort_keys=False), end="")
    print(f"# Would {verb} {out_dir}, from {parent or 'nothing'}, and leave the model in {out_dir / 'checkpoint'}")


def _overrides(recipe: str, *, config: Path | None, assignments: list[str], seed: int | None) -> dict[str, Any]:
    """What the command line sets -> dotted field -> value. --seed wins over --set, and that over the file."""
    from avcap.config import flatten, load_yaml, parse_assignments

    values = flatten(load_yaml(config)) if config else {}
    made_for = values.pop("recipe", recipe)  # a run's own config.yaml names its recipe
    if made_for != recipe:
        raise UserError(f"{config}: got the configuration of {made_for!r}, wanted one of {recipe!r}")
    return values | parse_assignments(assignments) | ({} if seed is None else {"seed": seed})


def _find_recipe(name: str) -> Callable[[], Any]:
    """Name -> the function of recipes.py that returns the configuration. UserError that lists the names."""
    from avcap.recipes import RECIPES

    if name not in RECIPES:
        raise UserError(f"got the recipe {name!r}, wanted one of {', '.join(RECIPES)}")
    return RECIPES[name]


@world_app.command("make")
def make_world(
    clips: Annotated[int, typer.Option(metavar="N", help="How many clips.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the world. Run again, it goes on.")],
    seed: Annotated[int, typer.Option(help="Worlds of different seeds share no clip.")] = 0,
    difficulty: Annotated[str, typer.Option(help="easy, standard or hard.")] = "standard",
    domain: Annotated[str, typer.Option(metavar="NAME", help="default, unseen, film or paper.")] = "default",
    workers: Annotated[int | None, typer.Option(metavar="N", help="Processes; one per core if left out.")] = None,
) -> None:
    """Render mp4 files and, in truth.jsonl, all that is true of each."""
    from avcap.world import make

    truth = make.make_world(
        out, num_clips=clips, seed=seed, difficulty=difficulty, domain=domain, num_workers=workers,
        progress=sys.stderr.isatty(),
    )  # fmt: skip
    print(truth)
