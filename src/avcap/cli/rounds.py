"""`avcap rounds`: preference rounds, the closed loop, as one command."""

import json
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from avcap.captioners import open_engine_captioner
from avcap.cli.app import App, app, say, tell
from avcap.cli.engines import findings_folder, key_of
from avcap.cli.judges import TIMEOUT_S, JudgeOptions, JudgeProtocol, Timeout, open_judge, read_calibration
from avcap.cli.model_help import WEIGHTS
from avcap.cli.outputs import check_text
from avcap.cli.round_data import claim_run, clause_reader, questions_of, read_truths, samples_of
from avcap.cli.train import find_recipe, overrides
from avcap.config import override
from avcap.engines.spec import EngineSpec, is_engine, read_engine_spec
from avcap.errors import UserError
from avcap.files.lock import lock_folder
from avcap.infer.find_checkpoint import find_checkpoint
from avcap.judge.protocols.registry import AVCAP_1
from avcap.llm.chat import open_chat
from avcap.preference.select import above_noise
from avcap.web.plot import DRAWN_BY
from avcap.world.oracle import JUDGE_NAME

if TYPE_CHECKING:
    from avcap.engines.captioner import EngineCaptioner
    from avcap.infer.settings import CaptionerSettings


class _RunByDefault(TyperGroup):
    """`avcap rounds RECIPE` is `avcap rounds run RECIPE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


rounds_app = App(help="Multi-round preference optimisation.", no_args_is_help=True, cls=_RunByDefault)
app.add_typer(rounds_app, name="rounds")


@rounds_app.command("run", no_args_is_help=True)
def run(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="tiny_rounds or salmonn2_7b_rounds.")],
    model: Annotated[str, typer.Option(metavar="SFT", help=f"What to begin with: {WEIGHTS}.")] = "tiny-sft",
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE|DIR", help="Training videos with their events, or the folder of a world."),
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option(metavar="FILE|DIR", help="Other videos with their events, to measure on.")
    ] = None,
    judge: Annotated[str, typer.Option(help="oracle (of a world), openai:MODEL@URL or local:PATH.")] = JUDGE_NAME,
    judge_protocol: JudgeProtocol = AVCAP_1,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the rounds. Default: out/RECIPE.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Set a field of the recipe; repeatable.")
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE.yaml", help="Set the fields in this file.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same as --set seed=N.")] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Calibration of the judge; margins within its noise make no pair."),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Cache the replies of an LLM judge in this file. Default: in --out."),
    ] = None,
    budget: Annotated[
        float | None, typer.Option(metavar="USD", help="Stop before an LLM judge exceeds this cost.")
    ] = None,
    timeout: Timeout = TIMEOUT_S,
    questions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Questions about --data, for replay or for pairs.")
    ] = None,
    held_out_questions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Questions about --held-out, for the selection. A world has its own."),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            metavar="openai:NAME@URL",
            help="Sample with this engine, or with the first model at this URL. It must serve the round's model.",
        ),
    ] = None,
    from_round: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Move round N and later rounds aside and run them again.")
    ] = None,
) -> None:
    """Run multi-round DPO: sample, judge, pair, train, merge, measure. The same command resumes a stopped run."""
    values = overrides(recipe, config=config, assignments=assignments or [], seed=seed)
    parent, out_dir = find_checkpoint(model, weights=False), out or Path("out") / recipe
    make_config = find_recipe(recipe)  # here torch comes in, and not before the arguments have been read

    from avcap.preference.round_data import RoundData
    from avcap.run_folder import set_aside
    from avcap.stages.rounds import RoundsConfig, run_rounds

    resolved = override(make_config(), values)
    if not isinstance(resolved, RoundsConfig):
        raise UserError(f"got the recipe {recipe}, expected one of rounds; train it by avcap train {recipe}")
    learned, measured = read_truths(data, held_out, world=resolved.world, out_dir=out_dir)

    round_data = RoundData(
        samples=samples_of(learned),
        held_out=samples_of(measured),
        questions=questions_of(learned, questions),
        held_out_questions=questions_of(measured, held_out_questions),
        read_clauses=clause_reader(learned),
    )
    options = JudgeOptions(
        spec=judge,
        protocol=judge_protocol,
        calibration=calibration,
        cache=cache or out_dir / "replies.sqlite",
        budget_usd=budget,
        timeout_s=timeout,
    )
    known = replace(learned, worlds={**learned.worlds, **measured.worlds})
    with ExitStack() as stack:
        stack.enter_context(lock_folder(out_dir))
        if from_round is not None and (place := set_aside(out_dir, first=from_round)):
            say(f"rounds from {from_round} on are in {place}")
        claim_run(out_dir, recipe, resolved, models=[parent])
        parent = find_checkpoint(parent)
        opened = stack.enter_context(open_judge(options, truth=known))
        if calibration is not None:
            noise = read_calibration(calibration, judge=opened.judge).noise_margin
            resolved = replace(resolved, pairs=above_noise(resolved.pairs, noise))
        best = run_rounds(
            parent,
            config=resolved,
            round_data=round_data,
            judge=opened.judge,
            out_dir=out_dir,
            say=say,
            sampler=None if sampler is None else partial(_sampler, sampler_name(sampler)),
        )
    tell(best)


def sampler_name(text: str) -> str:
    """--sampler, as a name or as a URL alone -> openai:NAME@URL; of a URL, the first model that the server lists."""
    if is_engine(text):
        read_engine_spec(text)
        return text
    url, mark, query = text.partition("?")
    with open_chat(f"openai:any@{url}", api_key=key_of(EngineSpec(model="any", url=url)), role="sampler") as chat:
        listed = chat.fetch("models")
    rows = listed.get("data") if isinstance(listed, dict) else None
    name = rows[0].get("id") if isinstance(rows, list) and rows and isinstance(rows[0], dict) else None
    if not isinstance(name, str):
        raise UserError(f"--sampler {url}: no model is listed there, expected a running server, or openai:NAME@URL")
    return f"openai:{name}@{url}{mark}{query}"


def _sampler(name: str, settings: "CaptionerSettings") -> "EngineCaptioner":
    """An engine's name and the settings of the checkpoint that it serves -> its captioner, which asks as that does."""
    from avcap.engines.engine import EngineOptions

    spec = read_engine_spec(name)
    spec = replace(spec, fps=spec.fps or settings.fps, max_frames=spec.max_frames or settings.max_frames)
    options = EngineOptions(key=key_of(spec), findings=findings_folder())
    return open_engine_captioner(spec, options, prompts=settings.prompts)


@rounds_app.command("status", no_args_is_help=True)
def status(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the rounds.")],
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Also draw a figure.")] = None,
) -> None:
    """Print the state of the rounds: the metrics of each, and which is best and why."""
    if plot is not None:
        check_text(plot, sign=DRAWN_BY, expected="a plot of avcap")
    from avcap.evaluation.held_out import describe, read_round_metrics

    all_metrics = read_round_metrics(folder)
    for round_metrics in all_metrics:
        tell(describe(round_metrics))
    best, decision = None, folder / "decision.json"
    if decision.exists():
        found = json.loads(decision.read_text(encoding="utf-8"))
        best = found["best"]
        tell(f"best: round {best}; {found['reason']}")
        for round_number, why in found["refused"].items():
            tell(f"refused: round {round_number}; {why}")
    if plot is not None:
        from avcap.web.plot import plot_rounds

        plot_rounds(plot, all_metrics, best=best)
        say(f"drawn: {plot}")
