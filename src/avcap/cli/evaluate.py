"""`avcap evaluate` and `avcap compare`."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.progress import track

from avcap.cli.app import EXIT_SOME_FAILED, app, say, stderr
from avcap.cli.caption import start_captioner
from avcap.errors import UserError
from avcap.infer.request import Request
from avcap.infer.settings import checkpoint_name, read_settings
from avcap.infer.shipped import find_checkpoint
from avcap.judge.base import EventJudge
from avcap.judge.ingest import Problem, Truth, match, read_captions, read_truth
from avcap.judge.oracle import OracleJudge
from avcap.judge.tables import TABLES, closing_line
from avcap.records import Caption, CaptionError, Decoding, Modality, Sample, Unscored
from avcap.stages.caption import caption_samples
from avcap.stages.evaluate import EVALUATION, UNSCORED, Evaluation, evaluate
from avcap.web.report import write_report
from avcap.world.oracle import JUDGE_NAME

DEADLINE_S = 120.0
OUT = Path("report")
TRUTH_FILE = "truth.jsonl"
NUM_NAMED = 3  # of each kind of problem on the terminal; evaluation.json has them all


@app.command("evaluate", no_args_is_help=True)
def evaluate_captions(
    truth: Annotated[
        Path, typer.Option(metavar="FILE|DIR", help="Events or reference captions of the videos; a world's folder.")
    ],
    captions: Annotated[
        list[Path] | None, typer.Argument(metavar="CAPTIONS...", help="JSONL, JSON or CSV: videos with texts.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Caption the videos of the truth first, with this model.")
    ] = None,
    judge: Annotated[str, typer.Option(help="oracle (of a world), openai:MODEL@URL or local:PATH.")] = JUDGE_NAME,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the report. Run again, it goes on.")] = OUT,
    modality: Annotated[str, typer.Option(help="Which events are asked for: both, visual or audio.")] = "both",
    table: Annotated[str, typer.Option(help="How the table is printed: terminal, markdown or latex.")] = "terminal",
    caption_field: Annotated[
        str | None, typer.Option(metavar="NAME", help="Field of the caption files that holds the caption.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Videos captioned side by side, with --model.")] = 8,
    max_unscored: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of captions without a verdict above which the exit code is 1.")
    ] = 0.0,
) -> int:
    """Evaluate captions against what is true: error rates with intervals, and a report to look into."""
    _check(captions, model=model, modality=modality, table=table, max_unscored=max_unscored)
    truth_file = truth / TRUTH_FILE if truth.is_dir() else truth
    known = read_truth(truth_file)
    setting: Modality = next(name for name in get_args(Modality) if name == modality)
    if setting != "both" and known.num_without_modality:
        raise UserError(
            f"got --modality {modality} and {known.num_without_modality} events that do not say whether they are seen "
            'or heard; wanted "modality" in each of them'
        )
    event_judge = _open_judge(judge, known)
    files = list(captions or [])
    captioner = ", ".join(path.name for path in files)
    if model is not None:
        files = [out / "captions.jsonl"]
        captioner = _caption(known, model=model, out=files[0], modality=setting, batch_size=batch_size)
    intake = match(read_captions(files, text_field=caption_field), known)
    evaluation = evaluate(
        intake, judge=event_judge, out_dir=out, modality=setting, captioner=captioner, files=[*files, truth_file],
        watch=partial(_watch, "judging"),
    )  # fmt: skip
    write_report(out / "report.html", evaluation)
    return _print(evaluation, out=out, table=table, max_unscored=max_unscored)


def _check(captions: list[Path] | None, *, model: str | None, modality: str, table: str, max_unscored: float) -> None:
    """Raises UserError for what is wrong whatever the files hold."""
    if bool(captions) == (model is not None):
        raise UserError("got captions and --model, or neither; wanted files of captions or a model that writes them")
    if modality not in get_args(Modality):
        raise UserError(f"got --modality {modality}, wanted one of {', '.join(get_args(Modality))}")
    if table not in TABLES:
        raise UserError(f"got --table {table}, wanted one of {', '.join(TABLES)}")
    if not 0 <= max_unscored <= 1:
        raise UserError(f"got --max-unscored {max_unscored:g}, wanted a share from 0 to 1")


def _open_judge(spec: str, truth: Truth) -> EventJudge:
    """What --judge says -> the judge."""
    if spec == JUDGE_NAME:
        if not truth.worlds:
            raise UserError(
                "got --judge oracle and a truth that is no world's; wanted the truth.jsonl of avcap world make, or "
                "another judge: --judge openai:MODEL@URL or local:PATH"
            )
        return OracleJudge(truth.worlds.values())
    raise UserError(f"got --judge {spec}, wanted oracle")


def _caption(truth: Truth, *, model: str, out: Path, modality: Modality, batch_size: int) -> str:
    """Captions the samples of the truth that have no caption in `out` yet -> the name of the checkpoint."""
    folder = find_checkpoint(model)
    settings = read_settings(folder)
    request = Request(
        decoding=Decoding(max_new_tokens=settings.max_new_tokens), use_sound=modality != "visual",
        use_picture=modality != "audio",
    )  # fmt: skip
    checkpoint = checkpoint_name(folder, settings)

    def stream(samples: Sequence[Sample]) -> Iterator[Caption | CaptionError]:
        return start_captioner(folder, batch_size=batch_size, deadline_s=DEADLINE_S).stream(samples, request)

    num_old = caption_samples(
        truth, out=out, request=request, checkpoint=checkpoint, stream=stream, rows_at_once=batch_size,
        watch=partial(_watch, "captioning"),
    )  # fmt: skip
    say(f"{out}: {len(truth.samples) - num_old} samples captioned, {num_old} captions were there already")
    return checkpoint


def _watch(what: str, items: Iterator[Any], total: int) -> Iterable[Any]:
    """Items -> the same, with a progress bar on a terminal."""
    return track(items, total=total, description=what, console=stderr, disable=not sys.stderr.isatty())


def _print(evaluation: Evaluation, *, out: Path, table: str, max_unscored: float) -> int:
    """The table to stdout, problems to stderr -> exit code."""
    closing = closing_line(
        num_videos=evaluation.num_videos, num_events=evaluation.num_events, num_unscored=evaluation.num_unscored,
        judge=evaluation.setting.judge, protocol=evaluation.setting.protocol,
    )  # fmt: skip
    print(TABLES[table](evaluation.metrics, closing=closing))
    for kind, problems in groupby(sorted(evaluation.problems, key=_kind), key=_kind):
        names = list(dict.fromkeys(problem.name for problem in problems))
        more = ", ..." if len(names) > NUM_NAMED else ""
        say(f"{kind}: {len(names)} ({', '.join(names[:NUM_NAMED])}{more}); see {out / EVALUATION}")
    if evaluation.num_unscored > max_unscored * evaluation.num_captions:
        reasons = [one.verdict.reason for one in evaluation.scored if isinstance(one.verdict, Unscored)]
        say(
            f"{evaluation.num_unscored} of {evaluation.num_captions} captions are unscored, above --max-unscored "
            f"{max_unscored:g}; the first: {reasons[0]}; all in {out / UNSCORED}"
        )
        return EXIT_SOME_FAILED
    return 0


def _kind(problem: Problem) -> str:
    return problem.kind
