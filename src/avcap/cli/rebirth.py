"""`avcap rebirth` and `avcap average`: what is done with the model that the rounds ended with."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from avcap.cli.app import app, say, tell
from avcap.cli.judges import TIMEOUT_S, JudgeOptions, JudgeProtocol, Timeout, open_judge
from avcap.cli.model_help import WEIGHTS
from avcap.cli.round_data import (
    claim_run,
    clause_reader,
    is_video_folder,
    pool_of,
    questions_of,
    read_one,
    read_truths,
    samples_of,
)
from avcap.cli.train import find_recipe, overrides
from avcap.config import override
from avcap.errors import UserError
from avcap.files.lock import lock_folder
from avcap.infer.find_checkpoint import find_checkpoint
from avcap.judge.inputs.ingest import Truth
from avcap.judge.protocols.registry import AVCAP_1
from avcap.world.oracle import JUDGE_NAME


@app.command("rebirth", no_args_is_help=True)
def rebirth(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="tiny_rebirth or salmonn2_7b_rebirth.")],
    teacher: Annotated[str, typer.Option(metavar="FINAL", help=f"What the rounds ended with: {WEIGHTS}.")],
    model: Annotated[str, typer.Option(metavar="SFT", help=f"What they began with: {WEIGHTS}.")] = "tiny-sft",
    data: Annotated[
        Path | None, typer.Option(metavar="FILE|DIR", help="Videos to caption: a world, a list, a folder.")
    ] = None,
    questions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Questions with answers to train on. A world has its own.")
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(metavar="FILE|DIR", help="Other videos with their events, to measure before and after."),
    ] = None,
    held_out_questions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Questions about --held-out. A world has its own.")
    ] = None,
    judge: Annotated[str, typer.Option(help="oracle (of a world), openai:MODEL@URL or local:PATH.")] = JUDGE_NAME,
    judge_protocol: JudgeProtocol = AVCAP_1,
    timeout: Timeout = TIMEOUT_S,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the run. Default: out/RECIPE.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Set a field of the recipe; repeatable.")
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE.yaml", help="Set the fields in this file.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same as --set seed=N.")] = None,
) -> None:
    """Fine-tune the model from before the rounds on captions of the final model and on questions."""
    values = overrides(recipe, config=config, assignments=assignments or [], seed=seed)
    student, final = (find_checkpoint(name, weights=False) for name in (model, teacher))
    out_dir = out or Path("out") / recipe
    make_config = find_recipe(recipe)  # here torch comes in, and not before the arguments have been read

    from avcap.preference.round_data import RoundData
    from avcap.stages.rebirth import RebirthConfig
    from avcap.stages.rebirth import rebirth as run

    resolved = override(make_config(), values)
    if not isinstance(resolved, RebirthConfig):
        raise UserError(f"got the recipe {recipe}, expected one of rebirth, such as tiny_rebirth")
    pool_truth: Truth | None
    measured: Truth | None
    if data is None:
        pool_truth, measured = read_truths(None, None, world=resolved.world, out_dir=out_dir)
        pool = [replace(sample, video=pool_truth.video_path(sample), prompt="") for sample in pool_truth.samples]
        asked = questions_of(pool_truth, questions)
    else:
        pool = list(pool_of(data))
        pool_truth = None if is_video_folder(data) else read_one(data)
        measured = None if held_out is None else read_one(held_out)
        asked = questions_of(pool_truth, questions)
    round_data = RoundData(
        samples=pool,
        questions=asked,
        held_out=samples_of(measured) if measured else (),
        held_out_questions=questions_of(measured, held_out_questions) if measured else (),
        read_clauses=clause_reader(pool_truth),
    )
    with ExitStack() as stack:
        stack.enter_context(lock_folder(out_dir))
        claim_run(out_dir, recipe, resolved, models=[student, final])
        student, final = find_checkpoint(student), find_checkpoint(final)
        opened = None
        if measured is not None:
            options = JudgeOptions(
                spec=judge, protocol=judge_protocol, cache=out_dir / "replies.sqlite", timeout_s=timeout
            )
            opened = stack.enter_context(open_judge(options, truth=measured)).judge
        tell(run(student, final, config=resolved, round_data=round_data, judge=opened, out_dir=out_dir, say=say))


@app.command("average", no_args_is_help=True)
def average(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help=f"Of one architecture, each {WEIGHTS}.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The new checkpoint folder.")],
    weights: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Weight of each checkpoint. Default: equal weights.")
    ] = None,
) -> None:
    """Average the weights of several checkpoints."""
    try:
        shares = [float(text) for text in weights.split(",")] if weights else None
    except ValueError:
        raise UserError(f"got --weights {weights}, expected numbers with commas between them, as in 1,1") from None
    folders = [find_checkpoint(model) for model in models]

    from avcap.model.average import average_checkpoints

    tell(average_checkpoints(folders, out=out, weights=shares))
