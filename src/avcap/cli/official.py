"""`avcap audit-official`: what a released model is fed by the published code, and what by ours."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from avcap.cli.app import app, say
from avcap.cli.caption import interval_asked
from avcap.cli.model_help import WEIGHTS
from avcap.cli.outputs import check_text
from avcap.files.hub_names import folder_title
from avcap.infer.find_checkpoint import without_weights
from avcap.web.plot import DRAWN_BY

if TYPE_CHECKING:
    from avcap.infer.official.audit import AudioTokens, Fed

MOST_ROWS = 40  # of seconds; a longer file is shown in steps, the picture shows all of it


@app.command("audit-official", no_args_is_help=True)
def audit(
    video: Annotated[str, typer.Argument(metavar="VIDEO", help="A video or audio file.")],
    model: Annotated[str, typer.Option(help=f"What is fed: {WEIGHTS}; no weights are read.")],
    start: Annotated[float | None, typer.Option(metavar="S", help="Start of the interval, in seconds.")] = None,
    end: Annotated[float | None, typer.Option(metavar="S", help="End of the interval, in seconds.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Also draw a figure (extra plot).")] = None,
    prompt: Annotated[str | None, typer.Option(help="Use this prompt instead of the model's own.")] = None,
    deadline: Annotated[float, typer.Option(metavar="S", help="Time limit for decoding, in seconds.")] = 120.0,
) -> None:
    """Show side by side the model input of --official and of the default."""
    if out is not None:
        check_text(out, sign=DRAWN_BY, expected="a plot of avcap")
    with without_weights(model) as folder:
        from avcap.infer.official.audit import audit_official  # here: it loads torch

        official, default = audit_official(
            video, folder, interval_s=interval_asked(start, end), prompt=prompt, deadline_s=deadline
        )
    console = Console(width=110, highlight=False)
    console.print(_overview(official, default))
    if official.num_audio or default.num_audio:
        console.print("\nWhere each second of sound stands in the prompt, and after the frame of which time")
        console.print(_seconds(official, default))
    if isinstance(official.positions[0], tuple):
        console.print("\nPositions (time, height, width)")
        console.print(_positions(official, default))
    if out is not None:
        from avcap.web.plot import plot_official

        plot_official(out, official, default, title=f"{Path(video).name} for {folder_title(folder)}")
        say(f"{out}: written")


def _overview(official: "Fed", default: "Fed") -> Table:
    """The figures of each, one under the other."""
    table = _table("")
    rows = {
        "frames": lambda fed: str(len(fed.frame_times_s)),
        "frame times": lambda fed: _times(fed.frame_times_s),
        "frame size": lambda fed: f"{fed.frame_size[1]}x{fed.frame_size[0]}, {fed.resize}" if fed.num_visual else "",
        "seconds of a grid": lambda fed: "" if fed.seconds_per_grid is None else f"{fed.seconds_per_grid:.4f}",
        "visual tokens": lambda fed: f"{fed.num_visual:,}",
        "audio": lambda fed: f"{fed.audio_s:.3f} s",
        "audio tokens": lambda fed: f"{fed.num_audio:,}, of them {fed.num_padding} of silence that was added",
        "prompt": lambda fed: f"{len(fed.ids):,} tokens",
        "positions": lambda fed: f"{_position(fed, 0)} to {_position(fed, -1)}",
        "audio is off by at most": lambda fed: _farthest(fed),
    }
    for name, describe in rows.items():
        cells = describe(official), describe(default)
        if any(cells):
            table.add_row(name, *cells)
    return table


def _seconds(official: "Fed", default: "Fed") -> Table:
    table = _table("second")
    found = official.audio_of_second(), default.audio_of_second()
    end_s = max(official.audio_end_s, default.audio_end_s)
    seconds = [second for second in sorted({*found[0], *found[1]}) if second < end_s]
    step = -(-len(seconds) // MOST_ROWS)
    for second in seconds[::step]:
        cells = [
            _stands(of.get(second)) if second < fed.audio_end_s else ""
            for of, fed in zip(found, (official, default), strict=True)
        ]
        table.add_row(str(second), *cells)
    added = [
        [one for second, one in of.items() if second >= fed.audio_end_s]
        for of, fed in zip(found, (official, default), strict=True)
    ]
    if any(added):
        table.add_row("added silence", *map(_range, added))
    return table


def _range(tokens: "list[AudioTokens]") -> str:
    """From where to where some seconds of sound stand."""
    if not tokens:
        return "left out"
    return f"{tokens[0].first}..{tokens[-1].last}, {sum(one.number for one in tokens)} tokens"


def _positions(official: "Fed", default: "Fed") -> Table:
    """Positions of the first media tokens, of the first audio token and its neighbours, and of the text behind."""
    from avcap.model.interleave import AUDIO_ID, VISUAL_ID

    table = _table("token")
    kinds = {"video": VISUAL_ID, "audio": AUDIO_ID}
    for name, kind in kinds.items():
        places = [[index for index, _ in fed.placed(kind)] for fed in (official, default)]
        shown = range(3) if kind == AUDIO_ID else _first_of_grids(official)
        for number in shown:
            cells = [
                f"{_position(fed, of[number])}  at {of[number]}" if number < len(of) else ""
                for fed, of in zip((official, default), places, strict=True)
            ]
            if any(cells):
                table.add_row(f"{name} {number}", *cells)
    ends = [max(index for kind in kinds.values() for index, _ in fed.placed(kind)) for fed in (official, default)]
    cells = [f"{_position(fed, end + 2)}  at {end + 2}" for fed, end in zip((official, default), ends, strict=True)]
    table.add_row("first word behind", *cells)
    return table


def _first_of_grids(fed: "Fed") -> list[int]:
    """Indices of visual tokens: the first two, and the first of the next two temporal grids."""
    per_grid = fed.num_visual // max(1, len(fed.group_times_s))
    return sorted({0, 1, per_grid, 2 * per_grid}) if per_grid else []


def _table(first: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for heading in (first, "official", "default"):
        table.add_column(heading)
    return table


def _times(times_s: list[float]) -> str:
    """-> "0, 1, 2, ... 9 s"."""
    shown = [f"{time_s:.4g}" for time_s in times_s]
    if not shown:
        return ""
    return ", ".join(shown if len(shown) <= 5 else [*shown[:4], f"... {shown[-1]}"]) + " s"


def _stands(tokens: "AudioTokens | None") -> str:
    if tokens is None:
        return "nowhere"
    beside = "before all frames" if tokens.beside_s is None else f"after {tokens.beside_s:.2f} s"
    return f"{tokens.first}..{tokens.last}, {tokens.number} tokens {beside}"


def _position(fed: "Fed", index: int) -> str:
    position = fed.positions[index]
    return str(position) if isinstance(position, int) else ", ".join(map(str, position))


def _farthest(fed: "Fed") -> str:
    """How far from its frame the sound of a second stands, at most."""
    rows = fed.audio_of_second().items()
    gaps = [abs(one.beside_s - second) for second, one in rows if second < fed.audio_end_s and one.beside_s is not None]
    return f"{max(gaps):.1f} s" if gaps else ""
