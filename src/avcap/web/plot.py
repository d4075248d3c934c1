"""Error rates side by side, preference rounds one after the other, and what a released model is fed, as pictures.

Needs the extra "plot" (matplotlib).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avcap.errors import UserError
from avcap.files.write import replacing
from avcap.judge.metrics.bootstrap import Rate
from avcap.judge.metrics.error_rates import GroupMetrics, Metrics

if TYPE_CHECKING:
    from avcap.evaluation.held_out import RoundMetrics
    from avcap.infer.official.audit import Fed

RATES = {
    "missing": "missing_rate",
    "hallucination": "hallucination_rate",
    "total error": "total_error_rate",
    "repetition": "repetition_rate",
}
COLOURS = ("#0b57d0", "#d9730d", "#1a7f4b", "#7a1fa0", "#a3270f", "#5c6570")
DRAWN_BY = "avcap plot"
BAR_SHARE = 0.8  # of the room between two groups of bars


def plot_rates(path: str | Path, runs: Mapping[str, Metrics]) -> None:
    """Metrics by name -> an image file: for whole videos and for intervals a panel of bars with their intervals."""
    panels = {
        "whole videos": {name: metrics.global_ for name, metrics in runs.items()},
        "intervals": {name: metrics.local for name, metrics in runs.items()},
    }
    shown = {title: groups for title, groups in panels.items() if any(groups.values())}
    figure = _figure(width=6.4 * len(shown))
    for axes, (title, groups) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        _draw_panel(axes, groups)
        axes.set_title(title, loc="left")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(runs)), frameon=False)
    _save(figure, Path(path))


def plot_rounds(path: str | Path, all_metrics: "Sequence[RoundMetrics]", *, best: int | None = None) -> None:
    """Metrics of rounds -> an image file: errors, signs of unnatural text, questions; the best round is marked."""
    rounds = [round_metrics.round_number for round_metrics in all_metrics]
    start = all_metrics[0]

    def against_start(name: str) -> list[float | None]:
        before = getattr(start, name)
        return [
            getattr(one, name) / before if before and getattr(one, name) is not None else None for one in all_metrics
        ]

    kinds = sorted(start.questions_by_kind)
    panels: dict[str, dict[str, list[float | None]]] = {
        "rates on held-out videos": {
            name: [getattr(one, name) for one in all_metrics]
            for name in ("global_error", "local_error", "missing", "hallucination", "repetition")
        },
        "against the start (1 = the same)": {name: against_start(name) for name in ("words", "distinct", "perplexity")},
        "questions answered right": {"all": [one.questions for one in all_metrics]}
        | {kind: [one.questions_by_kind.get(kind) for one in all_metrics] for kind in kinds},
    }
    shown = {title: lines for title, lines in panels.items() if any(v is not None for v in next(iter(lines.values())))}
    figure = _figure(width=4.6 * len(shown))
    for axes, (title, lines) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        for i, (name, values) in enumerate(lines.items()):
            if any(value is not None for value in values):
                style = {"color": COLOURS[i], "marker": "o"} if i < len(COLOURS) else {"alpha": 0.5}
                axes.plot(rounds, values, label=name.replace("_", " "), **style)
        if best is not None:
            axes.axvline(best, color="black", linewidth=1, linestyle=":")
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xticks(rounds)
        axes.set_xlabel("round" + ("" if best is None else f" (dotted: the best, {best})"))
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    _save(figure, Path(path))


def plot_official(path: str | Path, official: "Fed", default: "Fed", *, title: str) -> None:
    """What a model is fed by the published rules and by ours -> an image file: order of tokens, sound against picture,
    and positions, or frame times where positions only count."""
    figure = _figure(width=11, height=7.2)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    rows = figure.subplots(2, 2)
    for axes, fed in zip(rows[0], (official, default), strict=True):
        _draw_order(axes, fed)
    rows[0][1].sharey(rows[0][0])
    handles, labels = rows[0][0].get_legend_handles_labels()
    rows[0][0].legend(handles, labels, frameon=False, fontsize=8, markerscale=1.5, loc="upper left")
    _draw_sync(rows[1][0], official, default)
    if isinstance(official.positions[0], tuple):
        _draw_positions(rows[1][1], official, default)
    else:
        _draw_frame_times(rows[1][1], official, default)
    for axes in rows.flat:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    _save(figure, Path(path))


def _save(figure: Any, path: Path) -> None:
    """Figure -> an image file that says who drew it: by that, the next one may take its place."""
    suffix = path.suffix.lower()
    name = {".png": "Software", ".pdf": "Creator", ".svg": "Creator", ".ps": "Creator", ".eps": "Creator"}.get(suffix)
    try:
        with replacing(path) as aside, open(aside, "wb") as handle:
            metadata = {name: DRAWN_BY} if name else None
            figure.savefig(handle, dpi=150, format=suffix.lstrip(".") or "png", metadata=metadata)
    except ValueError as error:
        raise UserError(f"{path}: cannot be drawn ({error}); name a file that ends in .png, .pdf or .svg") from None


def _draw_order(axes: Any, fed: "Fed") -> None:
    """Every media token: where it stands in the prompt, and of which second it tells."""
    from avcap.model.interleave import AUDIO_ID, VISUAL_ID  # torch comes in here

    kinds = {
        "video": fed.placed(VISUAL_ID),
        "audio": [(i, second) for i, second in fed.placed(AUDIO_ID) if second < fed.audio_end_s],
        "silence that fills the last chunk": [(i, s) for i, s in fed.placed(AUDIO_ID) if s >= fed.audio_end_s],
    }
    for (name, points), colour in zip(kinds.items(), (COLOURS[0], COLOURS[1], "#b0b6bd"), strict=True):
        x, y = zip(*points, strict=True) if points else ((), ())
        axes.plot(x, y, ".", color=colour, markersize=3 if name == "video" else 6, label=name)
    axes.set_title(f"{fed.name}: {fed.num_visual:,} picture + {fed.num_audio:,} audio tokens", loc="left", fontsize=10)
    axes.set_xlim(0, len(fed.ids))
    axes.set_xlabel("index in the prompt")
    axes.set_ylabel("second of the file it tells of")


def _draw_sync(axes: Any, official: "Fed", default: "Fed") -> None:
    """Beside which frame each second of real sound stands."""
    axes.axline((0, 0), slope=1, color="black", linewidth=1, linestyle=":", label="in step")
    for fed, colour, width in ((default, COLOURS[2], 3.5), (official, COLOURS[4], 1.5)):
        rows = [(second, one.beside_s) for second, one in fed.audio_of_second().items() if second < fed.audio_end_s]
        placed = [row for row in rows if row[1] is not None]
        if placed:
            style = {"color": colour, "linewidth": width, "markersize": width + 1}
            axes.plot(*zip(*placed, strict=True), "o-", label=fed.name, **style)
    axes.set_title("sound against picture", loc="left", fontsize=10)
    axes.set_xlabel("second of sound")
    axes.set_ylabel("time of the frame before it (s)")
    last_s = max([1.0, official.audio_end_s, *official.group_times_s])
    axes.set_xlim(-0.02 * last_s, last_s)
    axes.set_ylim(-0.02 * last_s, last_s)
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def _draw_positions(axes: Any, official: "Fed", default: "Fed") -> None:
    """Of each second, the position on the time axis of its first visual token and of its first token of real sound."""
    from avcap.model.interleave import AUDIO_ID, VISUAL_ID  # torch comes in here

    for fed, colour in ((official, COLOURS[4]), (default, COLOURS[2])):
        for name, kind, style in (("video", VISUAL_ID, "-"), ("audio", AUDIO_ID, "o--")):
            first: dict[int, int] = {}
            for index, second in fed.placed(kind):
                if kind == VISUAL_ID or second < fed.audio_end_s:
                    first.setdefault(second, fed.positions[index][0])  # type: ignore[index]
            axes.plot(
                list(first),
                list(first.values()),
                style,
                color=colour,
                linewidth=1.5,
                markersize=4,
                label=f"{name}, {fed.name}",
            )
    axes.set_title("position on the time axis", loc="left", fontsize=10)
    axes.set_xlabel("second of the file")
    axes.set_ylabel("t of its first token")
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def _draw_frame_times(axes: Any, official: "Fed", default: "Fed") -> None:
    """When the frames are that are looked at."""
    names = []
    for row, (fed, colour) in enumerate(((default, COLOURS[2]), (official, COLOURS[4]))):
        axes.eventplot([fed.frame_times_s], lineoffsets=row, linelengths=0.6, linewidths=1.5, colors=colour)
        names.append(f"{fed.name}\n{len(fed.frame_times_s)}")
    axes.set_title("frames looked at", loc="left", fontsize=10)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, 1.6)
    axes.set_xlabel("time (s)")


def _figure(*, width: float, height: float = 4.2) -> Any:
    """An empty figure of so many inches; UserError where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("no plot without matplotlib; install it: pip install 'avcap[plot]'") from None
    return Figure(figsize=(width, height), layout="constrained")


def _draw_panel(axes, groups: Mapping[str, GroupMetrics | None]) -> None:  # type: ignore[no-untyped-def]
    width = BAR_SHARE / len(groups)
    for i, (name, group) in enumerate(groups.items()):
        rates: list[Rate] = [getattr(group, field) for field in RATES.values()] if group else []
        places = [x + (i - (len(groups) - 1) / 2) * width for x in range(len(rates))]
        values = [rate.value or 0.0 for rate in rates]
        # a name that begins with "_" would be left out of the legend
        axes.bar(places, values, width * 0.92, color=COLOURS[i % len(COLOURS)], label=f"\u200b{name}")
        for x, value, rate in zip(places, values, rates, strict=True):
            if rate.low is not None and rate.high is not None:
                # the interval need not hold the value itself
                spread = [[max(0.0, value - rate.low)], [max(0.0, rate.high - value)]]
                axes.errorbar(x, value, spread, color="black", elinewidth=1, capsize=3)
    axes.set_xticks(range(len(RATES)), list(RATES))
    axes.set_xlim(-0.5, len(RATES) - 0.5)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("rate (95 % interval over videos)")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
