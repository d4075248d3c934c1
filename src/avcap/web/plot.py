"""Error rates of several evaluations side by side, as a picture. Needs the extra "plot" (matplotlib)."""

from collections.abc import Mapping
from pathlib import Path

from avcap.errors import UserError
from avcap.judge.bootstrap import Rate
from avcap.judge.metrics import GroupMetrics, Metrics

RATES = {
    "missing": "missing_rate", "hallucination": "hallucination_rate", "total error": "total_error_rate",
    "repetition": "repetition_rate",
}  # fmt: skip
COLOURS = ("#0b57d0", "#d9730d", "#1a7f4b", "#7a1fa0", "#a3270f", "#5c6570")
BAR_SHARE = 0.8  # of the room between two groups of bars


def plot_rates(path: str | Path, runs: Mapping[str, Metrics]) -> None:
    """Metrics by name -> a picture file: for whole videos and for intervals a panel of bars with their intervals."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("no plot without matplotlib; install it: pip install 'avcap[plot]'") from None
    panels = {
        "whole videos": {name: metrics.global_ for name, metrics in runs.items()},
        "intervals": {name: metrics.local for name, metrics in runs.items()},
    }
    shown = {title: groups for title, groups in panels.items() if any(groups.values())}
    figure = Figure(figsize=(6.4 * len(shown), 4.2), layout="constrained")
    for axes, (title, groups) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        _draw_panel(axes, groups)
        axes.set_title(title, loc="left")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(runs)), frameon=False)
    figure.savefig(path, dpi=150)


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
