"""`avcap evaluate`."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.progress import track

from avcap.captioners import find_source
from avcap.cli.app import EXIT_SOME_FAILED, PrivateCommand, app, say, stderr, tell
from avcap.cli.benchmarks import BenchmarkFlags, print_problems, read_wordings, run_benchmark
from avcap.cli.caption import started
from avcap.cli.engines import (
    CONCURRENCY,
    AllowDroppedAudio,
    EngineFlags,
    EnginePrices,
    SharedBudget,
    SharedConcurrency,
    SharedTimeout,
    budget_of,
)
from avcap.cli.engines import TIMEOUT_S as ENGINE_TIMEOUT_S
from avcap.cli.judges import TIMEOUT_S, JudgeOptions, JudgeProtocol, open_judge, protocol_of, read_calibration
from avcap.cli.model_help import ANY_MODEL
from avcap.data.request import Request
from avcap.errors import UserError
from avcap.evaluation.caption import caption_samples
from avcap.evaluation.evaluate import (
    EVALUATION,
    EVENTS,
    UNSCORED,
    Evaluation,
    claim_evaluation,
    evaluate,
    setting_of,
)
from avcap.files.write import write_json
from avcap.judge.benchmarks.registry import BENCHMARKS
from avcap.judge.calibration.calibrate import Calibration
from avcap.judge.calibration.correction import correct_rates
from avcap.judge.inputs.events import extraction, read_corrections
from avcap.judge.inputs.ingest import Intake, Truth, match, read_captions, read_truth
from avcap.judge.protocols.protocol import opening_requests
from avcap.judge.protocols.registry import AVCAP_1, VerdictProtocol, check_judge_protocol
from avcap.judge.tables import TABLES, closing_line, corrected_line
from avcap.llm.chat import OpenAIChat
from avcap.llm.dialogue import first_requests
from avcap.llm.local import LocalChat
from avcap.records import Caption, CaptionError, Decoding, Modality, Sample, Unscored, read_jsonl
from avcap.web.report import write_report
from avcap.world.oracle import JUDGE_NAME

DEADLINE_S = 120.0
OUT, CAPTIONS, CACHE, REPORT = Path("report"), "captions.jsonl", "replies.sqlite", "report.html"
CORRECTED = "corrected.json"
NUM_SHOWN = 3  # events of the first reference caption
TRUTH_FILE = "truth.jsonl"


@app.command("evaluate", no_args_is_help=True, cls=PrivateCommand)
def evaluate_captions(
    truth: Annotated[
        Path,
        typer.Option(metavar="FILE|DIR", help="Events or reference captions of the videos, or the folder of a world."),
    ],
    captions: Annotated[
        list[Path] | None,
        typer.Argument(metavar="CAPTIONS...", help="Captions as JSONL, JSON or CSV: videos with texts."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help=f"Caption the videos of the truth first, with this: {ANY_MODEL}."),
    ] = None,
    judge: Annotated[str, typer.Option(help="oracle (of a world), openai:MODEL@URL or local:PATH.")] = JUDGE_NAME,
    judge_protocol: JudgeProtocol = AVCAP_1,
    benchmark: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"By the data (--truth) and rules of a benchmark: {', '.join(BENCHMARKS)}."),
    ] = None,
    prompt_file: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]FILE", help="Use this prompt, such as the published one; repeatable."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the report. The same command resumes.")] = OUT,
    modality: Annotated[str, typer.Option(help="Events that count: both, visual or audio.")] = "both",
    table: Annotated[str, typer.Option(help="Format of the table: terminal, markdown or latex.")] = "terminal",
    caption_field: Annotated[
        str | None, typer.Option(metavar="NAME", help="Field of the caption files that holds the caption.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Number of videos in a batch, with --model.")] = 8,
    max_unscored: Annotated[
        float, typer.Option(metavar="SHARE", help="Exit with 1 if a larger share of the captions has no verdict.")
    ] = 0.0,
    corrections: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A person's corrections of events (see avcap events check).")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Cache the replies of an engine and of an LLM judge in this file. Default: in --out."
        ),
    ] = None,
    budget: SharedBudget = None,
    prices: EnginePrices = None,
    concurrency: SharedConcurrency = CONCURRENCY,
    timeout: SharedTimeout = None,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Also print rates corrected for this judge's known mistakes."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what an LLM judge would cost.")] = False,
    allow_dropped_audio: AllowDroppedAudio = False,
) -> int:
    """Evaluate captions by atomic events: error rates with intervals, and a report."""
    _check(captions, model=model, modality=modality, table=table, max_unscored=max_unscored, dry_run=dry_run)
    if benchmark is not None and (modality != "both" or table != "terminal" or corrections is not None):
        raise UserError("got --benchmark and --modality, --table or --corrections, which belong to events of one's own")
    check_judge_protocol(judge_protocol)
    replies = cache or out / CACHE
    wordings = {} if benchmark else read_wordings(prompt_file or (), names=("judge",))
    options = JudgeOptions(
        spec=judge,
        protocol=judge_protocol,
        wordings=wordings,
        calibration=calibration,
        cache=replies if replies.exists() or not dry_run else None,
        budget=budget_of(budget),
        prices=prices,
        concurrency=concurrency,
        timeout_s=TIMEOUT_S if timeout is None else timeout,
    )
    flags = EngineFlags(
        cache=cache,
        budget=options.budget,
        prices=prices,
        concurrency=concurrency,
        timeout_s=ENGINE_TIMEOUT_S if timeout is None else timeout,
        allow_dropped_audio=allow_dropped_audio,
    )

    def caption(known: Truth, asked: Modality = "both") -> tuple[Path, str]:
        assert model is not None
        path = out / CAPTIONS
        return path, _caption(known, model=model, out=path, modality=asked, batch_size=batch_size, flags=flags)

    if benchmark is not None:
        asked_for = BenchmarkFlags(
            benchmark=benchmark,
            data=truth,
            captions=tuple(captions or ()),
            out=out,
            judge=options,
            prompt_files=tuple(prompt_file or ()),
            caption_field=caption_field,
            max_unscored=max_unscored,
            dry_run=dry_run,
            caption=None if model is None else caption,
        )
        return run_benchmark(asked_for, watch=partial(_watch, "judging"))
    truth_file = truth / TRUTH_FILE if truth.is_dir() else truth
    known = read_truth(truth_file)
    asked = _modality(modality, known)
    with open_judge(options, truth=known) as opened:
        noise = None if calibration is None else read_calibration(calibration, judge=opened.judge)
        files = list(captions or [])
        captioner = ", ".join(path.name for path in files)
        if model is not None:
            claim_evaluation(out, setting_of(opened.judge, modality=asked, judge_protocol=judge_protocol))
            path, captioner = caption(known, asked)
            files = [path]
        intake = match(read_captions(files, text_field=caption_field), known)
        intake = replace(intake, problems=(*intake.problems, *opened.remarks(intake)))
        if dry_run:
            tell(_describe_cost(intake, opened.chat, protocol=protocol_of(options)))
            return 0
        evaluation = evaluate(
            intake,
            judge=opened.judge,
            out_dir=out,
            modality=asked,
            judge_protocol=judge_protocol,
            captioner=captioner,
            files=[*files, truth_file],
            extractor=opened.chat,
            corrections=() if corrections is None else read_corrections(corrections),
            watch=partial(_watch, "judging"),
        )
    write_report(out / REPORT, evaluation)
    code = _print(evaluation, out=out, table=table, max_unscored=max_unscored)
    if intake.needs_events:
        _show_extracted(out)
    if noise is not None:
        _print_corrected(evaluation, noise, out=out)
    return code


def _show_extracted(out: Path) -> None:
    """Says where the events are that were taken from reference captions, and shows the first."""
    samples = list(read_jsonl(out / EVENTS, Sample))
    num_events = sum(len(sample.events) for sample in samples)
    first = "; ".join(event.text for event in samples[0].events[:NUM_SHOWN]) if samples else "none"
    say(
        f"{out / EVENTS}: {num_events} events were taken from {len(samples)} reference captions, such as: {first}; "
        "check them (avcap events check), they decide the rates"
    )


def _print_corrected(evaluation: Evaluation, calibration: Calibration, *, out: Path) -> None:
    """Rates without the mistakes that the judge was found to make, to stdout and to a file."""
    corrected = {}
    for kind in ("global", "local"):
        scored = [one for one in evaluation.scored if (one.case.sample.interval_s is None) == (kind == "global")]
        if scored:
            corrected[kind] = correct_rates(scored, noise=calibration.noise)
            tell(corrected_line(kind, corrected[kind]))
    write_json(out / CORRECTED, {kind: asdict(rates) for kind, rates in corrected.items()})


def _check(
    captions: list[Path] | None, *, model: str | None, modality: str, table: str, max_unscored: float, dry_run: bool
) -> None:
    """Raises UserError for what is wrong whatever the files hold."""
    if dry_run and not captions:
        raise UserError("got --dry-run without captions; what a judge costs depends on them: caption the videos first")
    if bool(captions) == (model is not None):
        raise UserError("got captions and --model, or neither; expected files of captions or a model that writes them")
    if modality not in get_args(Modality):
        raise UserError(f"got --modality {modality}, expected one of {', '.join(get_args(Modality))}")
    if table not in TABLES:
        raise UserError(f"got --table {table}, expected one of {', '.join(TABLES)}")
    if not 0 <= max_unscored <= 1:
        raise UserError(f"got --max-unscored {max_unscored:g}, expected a share from 0 to 1")


def _modality(name: str, truth: Truth) -> Modality:
    """--modality -> the modality; UserError where the truth cannot tell its events apart."""
    if name != "both" and truth.num_without_modality:
        raise UserError(
            f"got --modality {name} and {truth.num_without_modality} events that do not say whether they are seen or "
            'heard; expected "modality" in each of them'
        )
    return next(modality for modality in get_args(Modality) if modality == name)


def _describe_cost(intake: Intake, chat: OpenAIChat | LocalChat | None, *, protocol: VerdictProtocol) -> str:
    """What judging will cost, before anything is asked."""
    if chat is None:
        return f"{len(intake.cases)} captions to judge; the oracle costs nothing"
    told = [case for case in intake.cases if case.sample not in intake.needs_events]
    lines = [f"{len(told)} captions to judge: {chat.estimate(opening_requests(protocol, told))}"]
    if intake.needs_events:
        extracting = chat.estimate(first_requests(extraction(sample) for sample in intake.needs_events))
        lines.append(f"{len(intake.needs_events)} reference captions to take events from: {extracting}")
        lines.append("what judging those captions costs depends on the events; ask again with --dry-run then")
    return "\n".join(lines)


def _caption(truth: Truth, *, model: str, out: Path, modality: Modality, batch_size: int, flags: EngineFlags) -> str:
    """Captions the samples of the truth that have no caption in `out` yet -> the name of the checkpoint."""
    source = find_source(model)  # no weights yet: what is captioned already needs none
    request = Request(
        decoding=Decoding(max_new_tokens=source.max_new_tokens),
        use_audio=modality != "visual",
        use_video=modality != "audio",
    )

    def stream(samples: Sequence[Sample]) -> Iterator[Caption | CaptionError]:
        with started(source, flags, batch_size=batch_size, deadline_s=DEADLINE_S) as captioner:
            yield from captioner.stream(samples, request)

    num_old = caption_samples(
        truth,
        out=out,
        request=request,
        checkpoint=source.name,
        stream=stream,
        rows_at_once=1 if source.engine else batch_size,
        watch=partial(_watch, "captioning"),
    )
    say(f"{out}: {len(truth.samples) - num_old} samples captioned, {num_old} captions were there already")
    return source.name


def _watch(what: str, items: Iterator[Any], total: int) -> Iterable[Any]:
    """Items -> the same, with a progress bar on a terminal."""
    return track(items, total=total, description=what, console=stderr, disable=not sys.stderr.isatty())


def _print(evaluation: Evaluation, *, out: Path, table: str, max_unscored: float) -> int:
    """The table to stdout, problems to stderr -> exit code."""
    closing = closing_line(
        num_videos=evaluation.num_videos,
        num_events=evaluation.num_events,
        num_unscored=evaluation.num_unscored,
        judge=evaluation.setting.judge,
        protocol=evaluation.setting.protocol,
    )
    tell(TABLES[table](evaluation.metrics, closing=closing))
    if evaluation.setting.dropped:
        dropped = ", ".join(evaluation.setting.dropped)
        say(f"the server refused {dropped}, and was asked without; {out / EVALUATION} says so")
    print_problems(evaluation.problems, out=out)
    if evaluation.num_unscored > max_unscored * evaluation.num_captions:
        reasons = [one.verdict.reason for one in evaluation.scored if isinstance(one.verdict, Unscored)]
        say(
            f"{evaluation.num_unscored} of {evaluation.num_captions} captions are unscored, above --max-unscored "
            f"{max_unscored:g}; the first: {reasons[0]}; all in {out / UNSCORED}"
        )
        return EXIT_SOME_FAILED
    return 0
