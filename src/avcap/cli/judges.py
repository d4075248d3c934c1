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
from avcap.judge.ingest import Truth
from avcap.judge.llm_judge import LLMJudge
from avcap.judge.oracle import OracleJudge
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
    chat: OpenAIChat | None = None


@contextmanager
def open_judge(options: JudgeOptions, *, truth: Truth) -> Iterator[OpenedJudge]:
    """Options and the truth that an oracle knows -> the judge; connections and cache are closed behind it."""
    if options.spec == JUDGE_NAME:
        yield OpenedJudge(judge=_oracle(truth))
        return
    if not options.spec.startswith("openai:"):
        raise UserError(f"got --judge {options.spec}, wanted oracle or openai:MODEL@URL")
    with ExitStack() as stack:
        chat = stack.enter_context(_open_chat(options, stack))
        yield OpenedJudge(judge=LLMJudge(chat), chat=chat)


def _oracle(truth: Truth) -> OracleJudge:
    if not truth.worlds:
        raise UserError(
            "got --judge oracle and a truth that is no world's; wanted the truth.jsonl of avcap world make, or another "
            "judge: --judge openai:MODEL@URL"
        )
    return OracleJudge(truth.worlds.values())


def _open_chat(options: JudgeOptions, stack: ExitStack) -> OpenAIChat:
    cache = None
    if options.cache is not None:
        options.cache.parent.mkdir(parents=True, exist_ok=True)
        cache = ReplyCache(options.cache)
        stack.callback(cache.close)
    return open_chat(
        options.spec, api_key=os.environ.get(KEY_VARIABLE), cache=cache, concurrency=options.concurrency,
        budget=None if options.budget_usd is None else Budget(options.budget_usd),
        prices=PRICES if options.prices is None else read_prices(options.prices),
    )  # fmt: skip
