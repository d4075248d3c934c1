"""The options of a model behind an engine, and what opens it. Only here is its key read from the environment."""

import functools
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avcap.captioners import Source, open_engine_captioner
from avcap.cli.judges import TIMEOUT_S as JUDGE_TIMEOUT_S
from avcap.engines.spec import EngineSpec
from avcap.errors import UserError
from avcap.llm.budget import PRICES, Budget, read_prices
from avcap.llm.cache import ReplyCache

if TYPE_CHECKING:
    from avcap.engines.captioner import EngineCaptioner

TIMEOUT_S = 600.0
CONCURRENCY = 8
PANEL = "A model behind an engine (--model openai:NAME@URL)"
EngineCache = Annotated[
    Path | None, typer.Option("--cache", metavar="FILE", help="Cache its replies in this file.", rich_help_panel=PANEL)
]
EngineBudget = Annotated[
    float | None,
    typer.Option("--budget", metavar="USD", help="Stop before this cost is exceeded.", rich_help_panel=PANEL),
]
EnginePrices = Annotated[
    Path | None,
    typer.Option(
        "--prices", metavar="FILE.yaml", help="Prices of models that are not built in.", rich_help_panel=PANEL
    ),
]
EngineConcurrency = Annotated[
    int, typer.Option("--concurrency", help="Number of requests at the same time.", rich_help_panel=PANEL)
]
EngineTimeout = Annotated[
    float, typer.Option("--timeout", metavar="S", help="Time limit of one request, in seconds.", rich_help_panel=PANEL)
]
SharedBudget = Annotated[
    float | None,
    typer.Option("--budget", metavar="USD", help="Stop before an engine and an LLM judge exceed this cost."),
]
SharedConcurrency = Annotated[
    int, typer.Option("--concurrency", help="Number of requests to an engine, and to an LLM judge, at the same time.")
]
SharedTimeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="S",
        help=f"Seconds that one request may take; {TIMEOUT_S:g} of an engine, {JUDGE_TIMEOUT_S:g} of an LLM judge.",
        show_default=False,
    ),
]
AllowDroppedAudio = Annotated[
    bool,
    typer.Option(
        "--allow-dropped-audio", help="Continue even if the audio does not reach the model.", rich_help_panel=PANEL
    ),
]


@dataclass(frozen=True, kw_only=True)
class EngineFlags:
    """What the command line says about an engine beside its name."""

    cache: Path | None = None
    budget: Budget | None = None
    prices: Path | None = None
    concurrency: int = CONCURRENCY
    timeout_s: float = TIMEOUT_S
    allow_dropped_audio: bool = False


def with_engine_options(command: Callable[..., int]) -> Callable[..., int]:
    """A command whose last parameter is `flags: EngineFlags` -> the same with the six options that make them."""
    signature = inspect.signature(command)
    *own, flags = signature.parameters.values()
    assert flags.name == "flags", f"{command.__name__}: its last parameter is {flags.name}, expected flags"
    block = list(inspect.signature(_engine_flags).parameters.values())

    @functools.wraps(command)
    def run(**options: Any) -> int:
        given = {parameter.name: options.pop(parameter.name) for parameter in block}
        return command(**options, flags=_engine_flags(**given))

    parameters = [*own, *block]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": int}
    return run


def _engine_flags(
    cache: EngineCache = None,
    budget: EngineBudget = None,
    prices: EnginePrices = None,
    concurrency: EngineConcurrency = CONCURRENCY,
    timeout: EngineTimeout = TIMEOUT_S,
    allow_dropped_audio: AllowDroppedAudio = False,
) -> EngineFlags:
    return EngineFlags(
        cache=cache,
        budget=budget_of(budget),
        prices=prices,
        concurrency=concurrency,
        timeout_s=timeout,
        allow_dropped_audio=allow_dropped_audio,
    )


@contextmanager
def opened_engine(source: Source, flags: EngineFlags, *, deadline_s: float) -> "Iterator[EngineCaptioner]":
    """A source that is an engine -> its captioner; connections and cache are closed behind it."""
    from avcap.engines.engine import EngineOptions

    assert source.engine is not None
    with ExitStack() as stack:
        cache = None
        if flags.cache is not None:
            flags.cache.parent.mkdir(parents=True, exist_ok=True)
            cache = ReplyCache(flags.cache)
            stack.callback(cache.close)
        options = EngineOptions(
            key=key_of(source.engine),
            cache=cache,
            concurrency=flags.concurrency,
            timeout_s=flags.timeout_s,
            budget=flags.budget,
            prices=PRICES if flags.prices is None else read_prices(flags.prices),
            findings=findings_folder(),
            allow_dropped_audio=flags.allow_dropped_audio,
        )
        yield stack.enter_context(open_engine_captioner(source.engine, options, deadline_s=deadline_s))


def budget_of(limit_usd: float | None) -> Budget | None:
    """--budget -> the budget; None: it is not limited."""
    return None if limit_usd is None else Budget(limit_usd)


def key_of(spec: EngineSpec) -> str | None:
    """An engine -> its key from the environment, if there is one."""
    return next((key for name in spec.key_variables if (key := os.environ.get(name))), None)


def findings_folder() -> Path:
    """Where what was found out about engines is kept: a folder of the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "avcap" / "engines"


def refuse_weight_options(**options: object) -> None:
    """Raises UserError for options that say how weights are loaded: an engine's are loaded already."""
    for name, value in options.items():
        if value:
            given = f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
            raise UserError(f"got {given} and a model behind an engine, which loads its own weights; leave it out")
