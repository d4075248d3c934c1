"""`avcap merge` and `avcap filter`: files of captions become one, or fewer."""

import re
from pathlib import Path
from typing import Annotated

import typer

from avcap.bulk.filter import AGREEMENT, AGREEMENT_COLUMNS, filter_captions
from avcap.bulk.merge import merge_captions
from avcap.cli.app import app, say
from avcap.errors import UserError


@app.command("merge", no_args_is_help=True)
def merge(
    out: Annotated[Path, typer.Argument(metavar="OUT.jsonl", help="Where all of them go.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE.jsonl...", help="Captions of shards (--shard).")],
) -> int:
    """Merge captions of shards into one file, sorted as one process would have written it."""
    for path in files:
        if not path.is_file():
            raise UserError(f"{path}: got no such file, expected captions of a shard; check the name")
    told = merge_captions(out, files)
    twice = f", {told.num_same} rows stood twice" if told.num_same else ""
    say(f"{out}: {told.num_captions} captions and {told.num_errors} errors of {len(files)} files{twice}")
    return 0


@app.command("filter", no_args_is_help=True)
def filter_command(
    captions: Annotated[Path, typer.Argument(metavar="CAPTIONS.jsonl", help="Captions, or the folder that has them.")],
    where: Annotated[
        str | None,
        typer.Option(
            metavar="CONDITION",
            help=f"Such as 'repetition<0.1 and finished'. Columns: {', '.join(AGREEMENT_COLUMNS)}. "
            "Default: the half that agrees best with --samples.",
        ),
    ] = None,
    samples: Annotated[
        Path | None,
        typer.Option(metavar="FILE.jsonl", help="Captions of avcap sample, for the column agreement."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where kept.jsonl and dropped.jsonl go; beside CAPTIONS.")
    ] = None,
) -> int:
    """Keep the captions that a condition on their columns holds for; the others get their reasons."""
    if captions.is_dir():
        captions = captions / "captions.jsonl"
    if not captions.is_file():
        raise UserError(f"{captions}: got no such file, expected captions of avcap caption --out; check the name")
    folder = captions.parent if out is None else out
    if folder.exists() and not folder.is_dir():
        raise UserError(
            f"{folder}: got a file, expected a folder for kept.jsonl and dropped.jsonl; choose another --out"
        )
    if samples is not None and not samples.is_file():
        raise UserError(f"{samples}: got no such file, expected captions of avcap sample --out; check the name")
    if where is not None and samples is None and re.search(rf"\b{AGREEMENT}\b", where):
        raise UserError("got --where with agreement and no --samples to agree with; add --samples (avcap sample)")
    told = filter_captions(
        captions, where=where, samples=samples, kept=folder / "kept.jsonl", dropped=folder / "dropped.jsonl"
    )
    if where is None:
        say(f"--where {told.where!r}: half of the captions of {captions}")
    say(f"{folder / 'kept.jsonl'}: {told.num_kept} captions kept")
    say(f"{folder / 'dropped.jsonl'}: {told.num_dropped} dropped, with reasons")
    for reason, count in told.reasons.most_common():
        say(f"{count} dropped: {reason}")
    return 0
