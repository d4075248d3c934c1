"""--judge and the options that go with it become a judge. Only here is a key read from the environment."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from avcap.cli.app import say
from avcap.errors import UserError
from avcap.infer.find_checkpoint import find_chat_model
from avcap.judge.calibration.calibrate import Calibration
from avcap.judge.calibration.noisy_oracle import NoisyJudge
from avcap.judge.inputs.ingest import Intake, Problem, Truth
from avcap.judge.oracle import OracleJudge
from avcap.judge.protocols.avcap1 import LLMJudge, omissions_of
from avcap.judge.protocols.avcap_yesno1 import Thresholds
from avcap.judge.protocols.registry import AVCAP_1, JUDGE_PROTOCOLS, VerdictProtocol, judge_protocol
from avcap.judge.protocols.wording import Wordings
from avcap.judge.types import EventJudge
from avcap.llm.budget import PRICES, Budget, read_prices
from avcap.llm.cache import ReplyCache
from avcap.llm.chat import OpenAIChat, open_chat, read_chat_spec
from avcap.llm.local import LocalChat
from avcap.records import read_record
from avcap.world.oracle import JUDGE_NAME

KEY_VARIABLE = "OPENAI_API_KEY"
NOISY = "noisy:"
TIMEOUT_S = 120.0
Timeout = Annotated[
    float, typer.Option("--timeout", metavar="S", help="Time limit of one call to an LLM judge's server, in seconds.")
]

JudgeProtocol = Annotated[
    str,
    typer.Option(
        "--judge-protocol",
        metavar="NAME",
        help=f"How a language model is asked: {' or '.join(JUDGE_PROTOCOLS)} (for small models).",
    ),
]


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """What the command line says about the judge."""

    spec: str
    protocol: str = AVCAP_1
    """How a language model is asked."""
    calibration: Path | None = None
    """Where the thresholds of avcap-yesno-1 come from."""
    wordings: Wordings = field(default_factory=dict)
    """Prompts that are not ours."""
    cache: Path | None = None
    """File of the replies, made if it is not there; None: none is kept."""
    budget_usd: float | None = None
    budget: Budget | None = None
    """Instead of `budget_usd`: one that an engine spends from, too."""
    prices: Path | None = None
    concurrency: int = 8
    timeout_s: float = TIMEOUT_S


@dataclass(frozen=True, kw_only=True)
class OpenedJudge:
    """A judge, and the language model behind it, if it is one."""

    judge: EventJudge
    chat: OpenAIChat | LocalChat | None = None

    def remarks(self, intake: Intake) -> tuple[Problem, ...]:
        """What a language model is not shown of the captions: repetitions, and what is beyond its length."""
        if self.chat is None:
            return ()
        return tuple(
            Problem(kind="shortened caption", name=case.sample.sample_id, detail=omission)
            for case in intake.cases
            for omission in omissions_of(case)
        )


@contextmanager
def open_judge(options: JudgeOptions, *, truth: Truth) -> Iterator[OpenedJudge]:
    """Options and the truth that an oracle knows -> the judge; connections and cache are closed behind it."""
    if options.spec == JUDGE_NAME:
        yield OpenedJudge(judge=_oracle(truth))
        return
    if options.spec.startswith(NOISY):
        yield OpenedJudge(judge=NoisyJudge(_oracle(truth), share=noisy_share(options.spec)))
        return
    protocol = protocol_of(options)
    with open_language_model(options) as chat:
        yield OpenedJudge(judge=LLMJudge(chat, protocol=protocol), chat=chat)


def protocol_of(options: JudgeOptions) -> VerdictProtocol:
    """Options -> how a language model is asked, with the thresholds of the calibration."""
    return judge_protocol(options.protocol, thresholds=thresholds_of(options), wordings=options.wordings)


def thresholds_of(options: JudgeOptions) -> Thresholds:
    """Options -> the thresholds of the calibration, 0 without one."""
    found = None if options.calibration is None else _read_calibration(options.calibration).thresholds
    return found or Thresholds()


@contextmanager
def open_language_model(options: JudgeOptions) -> Iterator[OpenAIChat | LocalChat]:
    """Options -> the language model that --judge names, with its cache; both are closed behind it."""
    kind, place = _kind_and_place(options.spec)
    with ExitStack() as stack:
        cache = None
        if options.cache is not None:
            options.cache.parent.mkdir(parents=True, exist_ok=True)
            cache = ReplyCache(options.cache)
            stack.callback(cache.close)
        if kind == "local":
            from avcap.infer.local_chat import LocalLLM  # torch comes in here

            yield LocalChat(LocalLLM(find_chat_model(place)), cache=cache)
        else:
            chat = stack.enter_context(_open_server(options, cache))
            yield chat
            if chat.advice:  # not said of a run that was ended: it has one line
                say(chat.advice)


def check_spec(spec: str) -> None:
    """Raises UserError for a --judge that is none, before anything is prepared for it."""
    if spec.startswith(NOISY):
        noisy_share(spec)
    elif spec != JUDGE_NAME and _kind_and_place(spec)[0] == "openai":
        read_chat_spec(spec)


def _kind_and_place(spec: str) -> tuple[str, str]:
    kind, _, place = spec.partition(":")
    if kind not in ("openai", "local") or not place:
        raise UserError(f"got --judge {spec}, expected oracle, noisy:SHARE, openai:MODEL@URL or local:PATH")
    return kind, place


def _open_server(options: JudgeOptions, cache: ReplyCache | None) -> OpenAIChat:
    return open_chat(
        options.spec,
        api_key=os.environ.get(KEY_VARIABLE),
        cache=cache,
        concurrency=options.concurrency,
        timeout_s=options.timeout_s,
        budget=options.budget or (None if options.budget_usd is None else Budget(options.budget_usd)),
        prices=PRICES if options.prices is None else read_prices(options.prices),
    )


def noisy_share(spec: str) -> float:
    """ "noisy:0.2" -> 0.2; UserError for anything but a share."""
    try:
        share = float(spec.removeprefix(NOISY))
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UserError(f"got --judge {spec}, expected a share of wrong labels from 0 to 1, such as noisy:0.1")
    return share


def _oracle(truth: Truth) -> OracleJudge:
    if not truth.worlds:
        raise UserError(
            "got --judge oracle and a truth that is no world's; expected the truth.jsonl of avcap world make, or "
            "another judge: --judge openai:MODEL@URL or local:PATH"
        )
    return OracleJudge(truth.worlds.values())


def read_calibration(path: Path, *, judge: EventJudge) -> Calibration:
    """File of `avcap judge calibrate` -> the calibration. UserError if it is of another judge, or asked otherwise."""
    calibration = _read_calibration(path)
    got = f"{calibration.judge} {calibration.prompt_version}".strip()
    expected = f"{judge.name} {judge.prompt_version}".strip()
    if got != expected:
        raise UserError(
            f"{path}: got the calibration of {got}, expected that of {expected}; calibrate the judge in use"
        )
    return calibration


def _read_calibration(path: Path) -> Calibration:
    return read_record(path, Calibration, expected="a file of avcap judge calibrate")
