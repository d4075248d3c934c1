"""`avcap events`: the atomic events of reference captions, by a language model, and a person's corrections of them."""

from pathlib import Path
from typing import Annotated

import typer

from avcap.cli.app import EXIT_SOME_FAILED, App, app, say, tell
from avcap.cli.evaluate import TRUTH_FILE
from avcap.cli.judges import TIMEOUT_S, JudgeOptions, Timeout, open_language_model
from avcap.cli.outputs import check_records, write_records
from avcap.errors import UserError
from avcap.judge.inputs.events import (
    Corrected,
    Correction,
    ExtractionError,
    apply_corrections,
    corrections_between,
    extract,
    read_corrections,
)
from avcap.judge.inputs.ingest import read_truth
from avcap.records import Sample, read_jsonl

events_app = App(
    help="Atomic events of videos: extract them from reference captions, correct them.", no_args_is_help=True
)
app.add_typer(events_app, name="events")


@events_app.command("extract", no_args_is_help=True)
def extract_events(
    captions: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="Videos with reference captions.")],
    judge: Annotated[str, typer.Option(help="openai:MODEL@URL or local:PATH.")],
    out: Annotated[Path, typer.Option(metavar="FILE.jsonl", help="Samples with their events.")],
    cache: Annotated[Path, typer.Option(metavar="FILE", help="Cache the replies in this file.")] = Path(
        "replies.sqlite"
    ),
    budget: Annotated[float | None, typer.Option(metavar="USD", help="Stop before this cost is exceeded.")] = None,
    prices: Annotated[
        Path | None, typer.Option(metavar="FILE.yaml", help="Prices of models that are not built in.")
    ] = None,
    concurrency: Annotated[int, typer.Option(help="Number of calls at the same time.")] = 8,
    timeout: Timeout = TIMEOUT_S,
) -> int:
    """Split reference captions into atomic events. Samples that have events keep them."""
    if out.resolve() == captions.resolve():
        raise UserError(f"{out}: got the file that is read, expected another one to be written; choose another --out")
    check_records(out, Sample)
    truth = read_truth(captions / TRUTH_FILE if captions.is_dir() else captions)
    options = JudgeOptions(
        spec=judge,
        cache=cache,
        budget_usd=budget,
        prices=prices,
        concurrency=concurrency,
        timeout_s=timeout,
    )
    with open_language_model(options) as chat:
        answers = list(extract(truth.samples, chat=chat))
    found = [answer for answer in answers if isinstance(answer, Sample)]
    failed = [answer for answer in answers if isinstance(answer, ExtractionError)]
    write_records(out, found, Sample)
    for error in failed:
        say(f"{error.sample_id}: {error.reason}")
    num_events = sum(len(sample.events) for sample in found)
    tell(f"{out}: {num_events} events of {len(found)} samples; {len(failed)} samples without")
    return EXIT_SOME_FAILED if failed else 0


@events_app.command("check", no_args_is_help=True)
def check_events(
    events: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="Samples with events, as extracted.")],
    corrections: Annotated[
        Path, typer.Option(metavar="FILE.jsonl", help="A person's corrections, for avcap evaluate --corrections.")
    ],
    edited: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help="A copy of the samples that a person has edited.")
    ] = None,
) -> int:
    """Keep a person's changes to a copy of the events, or report which of them still fit."""
    samples = list(read_jsonl(events, Sample))
    if edited is not None:
        _keep(samples, edited=edited, corrections=corrections)
    known = read_corrections(corrections)
    done = apply_corrections(samples, corrections=known)
    num_stale = len(done.stale)
    tell(f"{corrections}: {len(known)} corrections, {done.num_applied} fit {events}, {num_stale} do not any more")
    return _report_stale(done)


def _keep(samples: list[Sample], *, edited: Path, corrections: Path) -> None:
    """Writes the corrections that lead from the samples to the edited copy, over what the file held."""
    after = {sample.sample_id: sample for sample in read_jsonl(edited, Sample)}
    before = {sample.sample_id for sample in samples}
    if unknown := sorted(after.keys() ^ before):
        where = "edited copy alone" if unknown[0] in after else "original alone"
        raise UserError(f"{edited}: sample {unknown[0]!r} is in the {where}; expected the same samples, events changed")
    made = [c for one in samples for c in corrections_between(one, after=after[one.sample_id])]
    write_records(corrections, made, Correction)


def _report_stale(done: Corrected) -> int:
    for text in done.stale:
        say(f"stale: {text}")
    return EXIT_SOME_FAILED if done.stale else 0
