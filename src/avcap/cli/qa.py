"""`avcap evaluate-qa` and `avcap audit-audio`."""

import sys
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from avcap.captioners import find_source
from avcap.cli.app import EXIT_SOME_FAILED, app, say, stderr, tell
from avcap.cli.caption import started, tell_not_taken
from avcap.cli.engines import (
    EngineFlags,
    with_engine_options,
)
from avcap.cli.model_help import ANY_MODEL
from avcap.data.qa_files import read_questions
from avcap.errors import UserError, visible_line
from avcap.infer.inputs import find_media
from avcap.records import WorldTruth, read_jsonl

if TYPE_CHECKING:
    from avcap.captioners import AnyCaptioner
    from avcap.judge.metrics.answers import Method, MethodMetrics, QaMetrics
    from avcap.judge.metrics.audio_ablation import AuditClip
    from avcap.judge.metrics.bootstrap import Rate

NUM_NAMED = 5  # of what has no answer, on the terminal; all of it is in metrics.json


class MethodChoice(StrEnum):
    """What --method takes."""

    generate = "generate"
    logprobs = "logprobs"
    both = "both"


@app.command("evaluate-qa", no_args_is_help=True)
@with_engine_options
def evaluate_questions(
    data: Annotated[Path, typer.Option(metavar="FILE|DIR", help="Questions of a world or of a benchmark.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of answers and figures. The same command resumes.")],
    model: Annotated[str, typer.Option(help=f"What answers: {ANY_MODEL}.")] = "tiny",
    format: Annotated[
        str, typer.Option(help="auto, world, videomme, nextqa, mvbench, worldsense or dailyomni.")
    ] = "auto",
    videos: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the videos. Default: beside the questions.")
    ] = None,
    method: Annotated[
        MethodChoice,
        typer.Option(help="Read the written answer (generate), or compare the likelihood of the options (logprobs)."),
    ] = MethodChoice.both,
    rotate: Annotated[bool, typer.Option("--rotate", help="Also ask with the options in all cyclic orders.")] = False,
    no_audio: Annotated[bool, typer.Option("--no-audio", help="Use the video alone.")] = False,
    no_video: Annotated[bool, typer.Option("--no-video", help="Use the audio alone.")] = False,
    max_new_tokens: Annotated[int, typer.Option(help="Maximum length of an answer, in tokens.")] = 32,
    deadline: Annotated[
        float, typer.Option(metavar="S", help="Time limit for decoding and encoding one file, in seconds.")
    ] = 600.0,
    *,
    flags: EngineFlags,
) -> int:
    """Evaluate video question answering: accuracy by kind, with intervals over videos and chance level."""
    if no_audio and no_video:
        raise UserError("got --no-audio and --no-video, expected at least one of picture and sound")
    source = find_source(model)
    questions = read_questions(data, format=format, videos=videos)
    columns = [TextColumn("questions"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with ExitStack() as stack:
        captioner = stack.enter_context(started(source, flags, batch_size=1, deadline_s=deadline))

        from avcap.evaluation.evaluate_qa import QaConfig, evaluate_qa

        config = QaConfig(
            methods=_methods(method, captioner),
            use_audio=not no_audio,
            use_video=not no_video,
            rotate=rotate,
            max_new_tokens=max_new_tokens,
        )
        bar = stack.enter_context(Progress(*columns, console=stderr, disable=not sys.stderr.isatty()))
        task = bar.add_task("questions", total=len(questions.questions))
        metrics = evaluate_qa(
            captioner,
            questions,
            config=config,
            out_dir=out,
            progress=lambda done, total: bar.update(task, completed=done),
        )
    _print_metrics(metrics)
    _name_unanswered(metrics, out=out)
    return EXIT_SOME_FAILED if metrics.unanswered else 0


def _methods(choice: MethodChoice, captioner: "AnyCaptioner") -> "tuple[Method, ...]":
    """--method -> the methods; of an engine without log-probabilities, only what it can, which is said."""
    from avcap.captioners import open_answerer
    from avcap.evaluation.evaluate_qa import METHODS

    asked = tuple(name for name in METHODS if choice.value in (name, "both"))
    if "logprobs" not in asked or open_answerer(captioner).has_logprobs:
        return asked
    if choice is MethodChoice.logprobs:
        raise UserError(f"{captioner.checkpoint}: got --method logprobs of an engine without them, expected generate")
    say(f"{captioner.checkpoint}: the engine gives no log-probabilities; questions are answered in words alone")
    return ("generate",)


def _print_metrics(metrics: "QaMetrics") -> None:
    """One table of accuracies, then a line on letters for each method."""
    table = Table(box=None, pad_edge=False)
    table.add_column("kind")
    for heading in ("questions", "chance", *metrics.by_method):
        table.add_column(heading, justify="right")
    first = next(iter(metrics.by_method.values()), None)
    for kind, row in first.by_kind.items() if first else ():
        of_methods = [method.by_kind.get(kind) for method in metrics.by_method.values()]
        chances = sorted({f"{found.chance:.2f}" for found in of_methods if found and found.chance is not None})
        cells = [_rate(found.accuracy) if found else "-" for found in of_methods]
        table.add_row(visible_line(kind), str(row.num_questions), " / ".join(chances) or "?", *cells)
    Console(width=120, highlight=False, markup=False).print(table)
    for name, method in metrics.by_method.items():
        tell(f"{name}: {_describe_letters(method)}")
    tell(f"{metrics.num_questions} questions about {metrics.num_videos} videos, {len(metrics.unanswered)} unanswered")


def _describe_letters(method: "MethodMetrics") -> str:
    """-> "answered / right: A 0.24 / 0.25, ...; 3 replies name no option", and what else is to be said of it."""
    letters = ", ".join(f"{letter} {bias.answered:.2f} / {bias.right:.2f}" for letter, bias in method.by_letter.items())
    parts = [f"answered / right: {letters}"] if letters else []
    if method.rotated:
        parts.append(
            f"all orders {_rate(method.rotated.accuracy)}, right in every order {_rate(method.rotated.right_in_all)}"
        )
    if method.num_unread:
        parts.append(f"{method.num_unread} replies name no option")
    if method.num_with_unknown_words:
        parts.append(f"{method.num_with_unknown_words} questions have words that the model does not know")
    return "; ".join(parts) or "no question has options"


def _rate(rate: "Rate") -> str:
    """-> "0.712 [0.650, 0.771]"."""
    if rate.value is None:
        return "-"
    return f"{rate.value:.3f}" + ("" if rate.low is None else f" [{rate.low:.3f}, {rate.high:.3f}]")


def _name_unanswered(metrics: "QaMetrics", *, out: Path) -> None:
    for question_id, reason in list(metrics.unanswered.items())[:NUM_NAMED]:
        say(f"{question_id}: {reason}")
    if len(metrics.unanswered) > NUM_NAMED:
        say(f"and {len(metrics.unanswered) - NUM_NAMED} more without an answer, all in {out / 'metrics.json'}")


@app.command("audit-audio", no_args_is_help=True)
@with_engine_options
def audit_audio(
    data: Annotated[Path, typer.Option(metavar="DIR", help="A world with its truth, or any folder of videos.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of texts and figures.")],
    model: Annotated[str, typer.Option(help=f"What answers: {ANY_MODEL}.")] = "tiny",
    clips: Annotated[int | None, typer.Option(metavar="N", help="Use the first N clips only.")] = None,
    deadline: Annotated[
        float, typer.Option(metavar="S", help="Time limit for decoding and encoding one file, in seconds.")
    ] = 600.0,
    *,
    flags: EngineFlags,
) -> int:
    """Test whether a model uses the audio: clips as they are, muted, with another clip's audio, without video."""
    if clips is not None and clips < 2:
        raise UserError(f"got --clips {clips}, expected at least 2: sounds are swapped between clips")
    source = find_source(model)
    found = _audit_clips(data)[:clips]
    columns = [TextColumn("clips"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with ExitStack() as stack:
        captioner = stack.enter_context(started(source, flags, batch_size=1, deadline_s=deadline))

        from avcap.evaluation.audit_audio import audit_audio

        bar = stack.enter_context(Progress(*columns, console=stderr, disable=not sys.stderr.isatty()))
        task = bar.add_task("clips", total=len(found))
        audit = audit_audio(captioner, found, out_dir=out, progress=lambda done: bar.update(task, completed=done))
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for heading in audit.conditions:
        table.add_column(heading.replace("_", " "), justify="right")
    for name, rates in audit.figures.items():
        table.add_row(name, *(_rate(rates[condition]) for condition in audit.conditions))
    Console(width=150, highlight=False, markup=False).print(table)
    for failure in audit.errors:
        say(f"{failure.video}: {failure.error}")
    tell(f"{audit.verdict} ({audit.num_clips} clips, {len(audit.errors)} could not be used)")
    return 0 if audit.uses_audio else EXIT_SOME_FAILED


def _audit_clips(data: Path) -> list["AuditClip"]:
    """A world folder -> its clips with their truth; any other folder, or file -> its videos without."""
    from avcap.judge.metrics.audio_ablation import AuditClip  # here: it loads NumPy, which most commands do without

    truth = data / "truth.jsonl"
    if truth.is_file():
        return [AuditClip(video=str(data / row.video), truth=row) for row in read_jsonl(truth, WorldTruth)]
    found = find_media([str(data)])
    tell_not_taken(found)
    return [AuditClip(video=path) for path in found.paths]
