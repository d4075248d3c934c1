"""`avcap judge calibrate`: how far a judge can be trusted, before anything is decided by it."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from avcap.cli.app import App, PrivateCommand, app, say, tell
from avcap.cli.judges import (
    NOISY,
    TIMEOUT_S,
    JudgeOptions,
    JudgeProtocol,
    Timeout,
    check_spec,
    noisy_share,
    open_language_model,
)
from avcap.cli.outputs import check_record
from avcap.errors import UserError
from avcap.evaluation.evaluate import CASES
from avcap.files.write import write_json
from avcap.judge.calibration.calibrate import Calibration, calibrate
from avcap.judge.calibration.cases import Labelled, make_calibration_cases, shuffled_cases
from avcap.judge.calibration.noisy_oracle import NoisyOracle, even_noise
from avcap.judge.calibration.text import calibration_text
from avcap.judge.calibration.thresholds import FittedJudge
from avcap.judge.protocols.avcap1 import LLMJudge
from avcap.judge.protocols.avcap_yesno1 import Thresholds
from avcap.judge.protocols.registry import AVCAP_1, AVCAP_YESNO_1, check_judge_protocol
from avcap.judge.types import Case, EventJudge
from avcap.llm.types import Chat, ChatRequest, NoReply, Reply
from avcap.records import Verdict, read_jsonl, to_json
from avcap.world.oracle import JUDGE_NAME
from avcap.world.paraphrase import PLAIN, STYLES

SECOND_ATTEMPT = 1000  # far from the tries that a bad reply costs: those of the first attempt end below it

judge_app = App(help="Measure how far a judge of captions can be trusted.", no_args_is_help=True)
app.add_typer(judge_app, name="judge")


@judge_app.command("calibrate", no_args_is_help=True, cls=PrivateCommand)
def calibrate_judge(
    judge: Annotated[
        str, typer.Option(help="openai:MODEL@URL, local:PATH or oracle; noisy:SHARE is an oracle that makes errors.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.json", help="Write the calibration to this file.")],
    protocol: JudgeProtocol = AVCAP_1,
    videos: Annotated[int, typer.Option(metavar="N", help="Number of scenes whose captions get planted errors.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the scenes and the errors.")] = 0,
    style: Annotated[str, typer.Option(help=f"How the captions are worded: {', '.join(STYLES)}.")] = PLAIN,
    person: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help="A person's verdicts to compare with; needs --of.")
    ] = None,
    of: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The evaluation whose captions the person judged.")
    ] = None,
    cache: Annotated[Path, typer.Option(metavar="FILE", help="Cache the replies in this file.")] = Path(
        "replies.sqlite"
    ),
    budget: Annotated[float | None, typer.Option(metavar="USD", help="Stop before this cost is exceeded.")] = None,
    prices: Annotated[
        Path | None, typer.Option(metavar="FILE.yaml", help="Prices of models that are not built in.")
    ] = None,
    concurrency: Annotated[int, typer.Option(help="Number of calls at the same time.")] = 8,
    timeout: Timeout = TIMEOUT_S,
) -> None:
    """Measure a judge on captions with planted errors: what it finds, misses and invents, and its noise."""
    if videos < 1:
        raise UserError(f"got --videos {videos}, expected at least 1")
    check_spec(judge)
    check_judge_protocol(protocol)
    if style not in STYLES:
        raise UserError(f"got --style {style}, expected one of {', '.join(STYLES)}")
    check_record(out, Calibration)
    cases = make_calibration_cases(num_videos=videos, seed=seed, style=style)
    labelled_by_person = _person_labels(person, of)
    shuffled = shuffled_cases(cases)
    known = [*cases, *shuffled, *labelled_by_person]
    options = JudgeOptions(
        spec=judge,
        protocol=protocol,
        cache=cache,
        budget_usd=budget,
        prices=prices,
        concurrency=concurrency,
        timeout_s=timeout,
    )
    with _judge_factory(options, cases=cases, known=known, seed=seed) as (make_judge, thresholds):
        found = calibrate(
            make_judge,
            cases=cases,
            person=labelled_by_person,
            shuffled=shuffled,
            judge_protocol=protocol,
            style=style,
            thresholds=thresholds,
            seed=seed,
        )
    write_json(out, json.loads(to_json(found)))
    tell(calibration_text(found))
    say(f"written: {out}; avcap evaluate --calibration {out} corrects rates by it")


@contextmanager
def _judge_factory(
    options: JudgeOptions, *, cases: Sequence[Labelled], known: Iterable[Labelled], seed: int
) -> Iterator[tuple[Callable[[int], EventJudge], Thresholds | None]]:
    """--judge -> (what makes the judge of the first and of the second attempt, its thresholds where it has some)."""
    if options.spec == JUDGE_NAME or options.spec.startswith(NOISY):
        truths = {one.case.caption_id: one.truth for one in known}
        noise = even_noise(0.0 if options.spec == JUDGE_NAME else noisy_share(options.spec))
        yield lambda attempt: NoisyOracle(truths, noise=noise, seed=2 * seed + attempt), None
        return
    with open_language_model(options) as chat:
        if options.protocol == AVCAP_YESNO_1:
            fitted = FittedJudge(chat, labelled=cases, seed=seed)
            again = fitted.again(_Again(chat, attempt_step=SECOND_ATTEMPT))
            yield lambda attempt: again if attempt else fitted, fitted.thresholds
        else:
            yield lambda attempt: LLMJudge(_Again(chat, attempt_step=SECOND_ATTEMPT * attempt)), None


@dataclass(frozen=True)
class _Again:
    """A chat that is asked the same once more: without another attempt the cache would give the first replies."""

    chat: Chat
    attempt_step: int

    @property
    def name(self) -> str:
        return self.chat.name

    @property
    def dropped(self) -> tuple[str, ...]:
        return self.chat.dropped

    def ask(self, requests: Iterable[ChatRequest]) -> Iterator[Reply | NoReply]:
        return self.chat.ask(replace(request, attempt=request.attempt + self.attempt_step) for request in requests)


def _person_labels(path: Path | None, folder: Path | None) -> list[Labelled]:
    """Verdicts of a person and the evaluation whose captions they are about -> captions with these as their truth."""
    if path is None and folder is None:
        return []
    if path is None or folder is None:
        raise UserError("got --person without --of, or --of without --person; expected both or neither")
    cases = {case.caption_id: case for case in read_jsonl(folder / CASES, Case)}
    labelled = []
    for verdict in read_jsonl(path, Verdict):
        case = cases.get(verdict.caption_id)
        if case is None:
            raise UserError(f"{path}: caption {verdict.caption_id!r} is none of the {len(cases)} in {folder / CASES}")
        if {event.event_id for event in verdict.events} != {event.event_id for event in case.sample.events}:
            raise UserError(f"{path}: caption {verdict.caption_id!r}: expected one label for each event of its sample")
        labelled.append(Labelled(case=case, truth=verdict))
    return labelled
