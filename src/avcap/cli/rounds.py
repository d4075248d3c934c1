"""`avcap rounds`: preference rounds, the closed loop, as one command."""

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from avcap.cli.app import app, say
from avcap.cli.evaluate import TRUTH_FILE
from avcap.cli.judges import JudgeOptions, open_judge, read_calibration
from avcap.cli.train import find_recipe, overrides
from avcap.data.qa_files import VideoQuestion, read_questions
from avcap.errors import UserError
from avcap.infer.shipped import find_checkpoint
from avcap.judge.ingest import Truth, read_truth
from avcap.judge.pairs import above_noise
from avcap.records import Sample
from avcap.world.describe import Annotator, imperfect_caption
from avcap.world.make import make_world, scene_from_dict
from avcap.world.oracle import JUDGE_NAME

if TYPE_CHECKING:
    from avcap.stages.rounds import RoundsConfig


class _RunByDefault(TyperGroup):
    """`avcap rounds RECIPE` is `avcap rounds run RECIPE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


rounds_app = typer.Typer(help="Multi-round preference optimisation.", no_args_is_help=True, cls=_RunByDefault)
app.add_typer(rounds_app, name="rounds")


@rounds_app.command("run", no_args_is_help=True)
def run(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="tiny_rounds or salmonn2_7b_rounds.")],
    model: Annotated[str, typer.Option(metavar="SFT", help="The model to begin with.")] = "tiny-sft",
    data: Annotated[
        Path | None, typer.Option(metavar="FILE|DIR", help="Videos to learn on, with their events; a world's folder.")
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option(metavar="FILE|DIR", help="Other videos with their events, to measure on.")
    ] = None,
    judge: Annotated[str, typer.Option(help="oracle (of a world), openai:MODEL@URL or local:PATH.")] = JUDGE_NAME,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the rounds, or else out/RECIPE.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Set a field of the recipe; repeatable.")
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE.yaml", help="Set the fields that this file has.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same as --set seed=N.")] = None,
    calibration: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Take no pair within this judge's known noise.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Replies of an LLM judge are kept here; in --out if left out.")
    ] = None,
    budget: Annotated[float | None, typer.Option(metavar="USD", help="An LLM judge stops before this.")] = None,
    questions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Questions about --data, to replay or to learn.")
    ] = None,
    held_out_questions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Questions about --held-out, for the gate. A world has its own.")
    ] = None,
    from_round: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Set round N and those after it aside; make them anew.")
    ] = None,
) -> None:
    """Sample, judge, pair, learn, merge, measure, again. Run again it goes on, and ends with the same weights."""
    values = overrides(recipe, config=config, assignments=assignments or [], seed=seed)
    parent, out_dir = find_checkpoint(model), out or Path("out") / recipe
    resolved = _resolve(recipe, values)
    learned, measured = _truths(data, held_out, config=resolved, out_dir=out_dir)

    from avcap.stages.rounds import Material, run_rounds, set_aside

    if from_round is not None and (place := set_aside(out_dir, first=from_round)):
        say(f"rounds from {from_round} on are in {place}")
    _claim(out_dir, recipe, resolved, parent=parent)
    material = Material(
        samples=_samples(learned), held_out=_samples(measured), questions=_questions(learned, questions),
        held_out_questions=_questions(measured, held_out_questions),
    )  # fmt: skip
    options = JudgeOptions(spec=judge, cache=cache or out_dir / "replies.sqlite", budget_usd=budget)
    known = replace(learned, worlds={**learned.worlds, **measured.worlds})
    with open_judge(options, truth=known) as opened:
        if calibration is not None:
            noise = read_calibration(calibration, judge=opened.judge).noise_margin
            resolved = replace(resolved, pairs=above_noise(resolved.pairs, noise))
        best = run_rounds(
            parent, config=resolved, material=material, judge=opened.judge, out_dir=out_dir, say=say
        )
    print(best)


@rounds_app.command("status", no_args_is_help=True)
def status(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the rounds.")]) -> None:
    """How far the rounds are: what each measured, which is best, and why."""
    from avcap.stages.gate import describe, read_standings

    for standing in read_standings(folder):
        print(describe(standing))
    decision = folder / "decision.json"
    if decision.exists():
        found = json.loads(decision.read_text(encoding="utf-8"))
        print(f"best: round {found['best']}; {found['reason']}")
        for number, why in found["refused"].items():
            print(f"refused: round {number}; {why}")


def _resolve(recipe: str, values: dict[str, Any]) -> "RoundsConfig":
    make_config = find_recipe(recipe)  # here torch comes in, and not before the arguments have been read

    from avcap.config import override
    from avcap.stages.rounds import RoundsConfig

    resolved = override(make_config(), values)
    if not isinstance(resolved, RoundsConfig):
        raise UserError(f"got the recipe {recipe}, wanted one of rounds; train it by avcap train {recipe}")
    return resolved


def _truths(
    data: Path | None, held_out: Path | None, *, config: "RoundsConfig", out_dir: Path
) -> tuple[Truth, Truth]:
    """Where the videos are -> what is true of those to learn on, and of those to measure on."""
    if (data is None) != (held_out is None):
        raise UserError("got --data without --held-out, or --held-out without --data; wanted both or neither")
    if data is not None and held_out is not None:
        return _read(data), _read(held_out)
    world = config.world
    if world is None:
        raise UserError("got a recipe without a world and no videos; give --data and --held-out")
    numbers = (("learn", world.num_clips, world.seed), ("held-out", world.num_held_out, world.seed + 1))
    paths = [
        make_world(
            out_dir / "world" / name, num_clips=num_clips, seed=seed, difficulty=world.difficulty,
            progress=sys.stderr.isatty(),
        )
        for name, num_clips, seed in numbers
    ]  # fmt: skip
    learn, measure = map(_read, paths)
    return learn, measure


def _read(path: Path) -> Truth:
    return read_truth(path / TRUTH_FILE if path.is_dir() else path)


def _questions(truth: Truth, path: Path | None) -> Sequence[VideoQuestion]:
    """The questions of a file, or those that a world's truth holds. UserError for any that cannot be asked."""
    if path is None:
        return [
            VideoQuestion(
                question_id=question.question_id, video=str(truth.folder / world.video), kind=question.kind,
                text=question.text, answer=question.answer, needs=question.needs,
            )
            for world in truth.worlds.values() for question in world.questions
        ]  # fmt: skip
    found = read_questions(path)
    if found.problems:
        first = found.problems[0]
        raise UserError(f"{path}: {len(found.problems)} questions cannot be asked, the first: {first.reason}")
    return found.questions


def _samples(truth: Truth) -> Sequence[Sample]:
    """Truth -> its samples, with paths that lead to the videos.

    The reference captions of a world are perfect, which in life nobody has: the imperfect annotator's stand for them.
    """
    samples = []
    for sample in truth.samples:
        if not sample.events:
            continue  # an interval in which nothing happens: there is nothing to judge
        world = truth.worlds.get(sample.video)
        label = sample.reference_caption
        if world is not None:
            rng = random.Random(f"label/{sample.sample_id}")
            label = imperfect_caption(
                scene_from_dict(world.scene), annotator=Annotator(), rng=rng, interval_s=sample.interval_s
            )
        samples.append(replace(sample, video=truth.video_path(sample), reference_caption=label or None))
    return samples


def _claim(out_dir: Path, recipe: str, config: "RoundsConfig", *, parent: Path) -> None:
    """Makes the folder one of this configuration and this model. UserError if it holds rounds of another."""
    import yaml

    from avcap.config import to_dict
    from avcap.infer.settings import checkpoint_name, read_settings

    model = checkpoint_name(parent, read_settings(parent))
    text = yaml.safe_dump({"recipe": recipe, "model": model, **to_dict(config)}, sort_keys=False)
    path = out_dir / "config.yaml"
    out_dir.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise UserError(f"{path}: these rounds were begun with another configuration or model; use another --out")
    path.write_text(text, encoding="utf-8")
