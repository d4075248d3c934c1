"""`avcap train`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from avcap.cli.app import app, tell
from avcap.cli.model_help import WEIGHTS
from avcap.errors import UserError
from avcap.infer.find_checkpoint import find_checkpoint


@app.command("train", no_args_is_help=True)
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="tiny_base, tiny_align, tiny_sft, ...")],
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Set a field of the recipe; repeatable.")
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE.yaml", help="Set the fields in this file.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same as --set seed=N.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the run. Default: out/RECIPE.")] = None,
    model: Annotated[str | None, typer.Option(metavar="PARENT", help=f"What to begin with: {WEIGHTS}.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the configuration and what would be done.")
    ] = False,
) -> None:
    """Train a model by a recipe. The same command resumes a stopped run, to the same weights."""
    values = overrides(recipe, config=config, assignments=assignments or [], seed=seed)
    parent = None if model is None else find_checkpoint(model, weights=not dry_run)
    out_dir = out or Path("out") / recipe
    make_config = find_recipe(recipe)  # here torch comes in, and not before the arguments have been read

    from avcap.config import override, to_dict
    from avcap.runs.recipe import run_recipe

    resolved = override(make_config(), values)
    if not dry_run:
        tell(run_recipe(recipe, resolved, out_dir=out_dir, parent=parent))
        return
    import yaml

    verb = "go on in" if (out_dir / "config.yaml").exists() else "train into"
    tell(yaml.safe_dump({"recipe": recipe, **to_dict(resolved)}, sort_keys=False), end="")
    tell(f"# Would {verb} {out_dir}, from {parent or 'nothing'}, and leave the model in {out_dir / 'checkpoint'}")


def overrides(recipe: str, *, config: Path | None, assignments: list[str], seed: int | None) -> dict[str, Any]:
    """What the command line sets -> dotted field -> value. --seed wins over --set, and that over the file."""
    from avcap.config import flatten, load_yaml, parse_assignments

    values = flatten(load_yaml(config)) if config else {}
    made_for = values.pop("recipe", recipe)  # a run's own config.yaml names its recipe
    if made_for != recipe:
        raise UserError(f"{config}: got the configuration of {made_for!r}, expected one of {recipe!r}")
    return values | parse_assignments(assignments) | ({} if seed is None else {"seed": seed})


def find_recipe(name: str) -> Callable[[], Any]:
    """Name -> the function of recipes.py that returns the configuration. UserError that lists the names."""
    from avcap.recipes import RECIPES

    if name not in RECIPES:
        raise UserError(f"got the recipe {name!r}, expected one of {', '.join(RECIPES)}")
    return RECIPES[name]
