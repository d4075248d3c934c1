"""--judge and the options that go with it become a judge. Only here is a key read from the environment."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from avcap.errors import UserError
from avcap.judge.base import EventJudge
from avcap.judge.cache import ReplyCache
from avcap.judge.chat import OpenAIChat, open_chat
from avcap.judge.cost import PRICES, Budget, read_prices
from avcap.judge.ingest import Intake, Problem, Truth
from avcap.judge.llm_judge import LLMJudge
from avcap.judge.local import LocalChat
from avcap.judge.oracle import OracleJudge
from avcap.judge.untrusted import delimit
from avcap.world.oracle import JUDGE_NAME

KEY_VARIABLE = "OPENAI_API_KEY"


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """What the command line says about the judge."""

    spec: str
    cache: Path | None = None
    """File of the replies, made if it is not there; None: none is kept."""
    budget_usd: float | None = None
    prices: Path | None = None
    concurrency: int = 8


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
            for omission in delimit(case.text, name="caption").omissions
        )


@contextmanager
def open_judge(options: JudgeOptions, *, truth: Truth) -> Iterator[OpenedJudge]:
    """Options and the truth that an oracle knows -> the judge; connections and cache are closed behind it."""
    if options.spec == JUDGE_NAME:
        yield OpenedJudge(judge=_oracle(truth))
        return
    with ExitStack() as stack:
        chat = _open_chat(options, stack)
        yield OpenedJudge(judge=LLMJudge(chat), chat=chat)


def _oracle(truth: Truth) -> OracleJudge:
    if not truth.worlds:
        raise UserError(
            "got --judge oracle and a truth that is no world's; wanted the truth.jsonl of avcap world make, or another "
            "judge: --judge openai:MODEL@URL or local:PATH"
        )
    return OracleJudge(truth.worlds.values())


def _open_chat(options: JudgeOptions, stack: ExitStack) -> OpenAIChat | LocalChat:
    """The language model of --judge, with its cache; `stack` closes both."""
    kind, _, place = options.spec.partition(":")
    if kind not in ("openai", "local") or not place:
        raise UserError(f"got --judge {options.spec}, wanted oracle, openai:MODEL@URL or local:PATH")
    cache = None
    if options.cache is not None:
        options.cache.parent.mkdir(parents=True, exist_ok=True)
        cache = ReplyCache(options.cache)
        stack.callback(cache.close)
    if kind == "local":
        from avcap.infer.local_chat import LocalLLM  # torch comes in here

        return LocalChat(LocalLLM(place), cache=cache)
    chat = open_chat(
        options.spec, api_key=os.environ.get(KEY_VARIABLE), cache=cache, concurrency=options.concurrency,
        budget=None if options.budget_usd is None else Budget(options.budget_usd),
        prices=PRICES if options.prices is None else read_prices(options.prices),
    )  # fmt: skip
    return stack.enter_context(chat)
