"""Metrics as tables: for a terminal, for markdown, for LaTeX. Every table shows the same rows and figures.

            missing        hallucination   total error     repetition
global      0.310 ±0.022   0.032 ±0.007    0.343 ±0.024    0.007
 seen       0.112 ±0.020   ...
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from avcap.judge.calibration.correction import CorrectedRates
from avcap.judge.metrics.bootstrap import Rate
from avcap.judge.metrics.compare import Comparison, GroupComparison, PairComparison
from avcap.judge.metrics.error_rates import MODALITY_NAMES, GroupMetrics, Metrics

COLUMNS = ("missing", "hallucination", "total error", "repetition")
LABEL_WIDTH, COLUMN_WIDTHS = 12, (15, 16, 16, 10)
COMPARED = ("missing_rate", "hallucination_rate", "total_error_rate", "repetition_rate")
COMPARED_WIDTH, OUTCOME_WIDTH = 18, 7
LATEX_SPECIALS = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A line of a table: all captions of a kind, or a part of them (`is_part`)."""

    label: str
    is_part: bool
    group: GroupMetrics

    def cells(self) -> tuple[str, ...]:
        """The figures, in the order of COLUMNS. The interval of the repetition is in metrics.json alone."""
        group = self.group
        rates = (group.missing_rate, group.hallucination_rate, group.total_error_rate)
        return *map(format_rate, rates), format_value(group.repetition_rate.value)


def table_rows(metrics: Metrics) -> Iterator[TableRow]:
    """Metrics -> the rows of the table: global and local captions, each with its modalities."""
    kinds = (
        ("global", metrics.global_, metrics.by_modality),
        ("local", metrics.local, metrics.by_modality_local),
    )
    for label, whole, parts in kinds:
        if whole is not None:
            yield TableRow(label=label, is_part=False, group=whole)
            for name, group in parts.items():
                yield TableRow(label=name, is_part=True, group=group)


def format_rate(rate: Rate) -> str:
    """
    >>> format_rate(Rate(value=0.31, low=0.29, high=0.334)), format_rate(Rate(value=None, low=None, high=None))
    ('0.310 ±0.022', '-')
    """
    if rate.low is None or rate.high is None:
        return format_value(rate.value)
    return f"{format_value(rate.value)} ±{(rate.high - rate.low) / 2:.3f}"


def rate_lines(rates: Mapping[str, Rate], *, signed: bool = False) -> Iterator[str]:
    """Numbers of a benchmark -> a line each. `signed`: differences; * behind one: its interval does not hold 0."""
    width = max(map(len, rates), default=0) + 2
    for name, rate in rates.items():
        yield name.ljust(width) + (_format_difference(rate) if signed else format_rate(rate))


def format_value(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def closing_line(*, num_videos: int, num_events: int, num_unscored: int, judge: str, protocol: str) -> str:
    """-> "24 videos, 226 events, 0 unscored; judge oracle; protocol avcap-1"."""
    return f"{num_videos} videos, {num_events} events, {num_unscored} unscored; judge {judge}; protocol {protocol}"


def terminal_table(metrics: Metrics, *, closing: str) -> str:
    """Metrics -> lines for a terminal, in columns; the last one says what was judged, and by whom."""
    lines = [_in_columns("", COLUMNS)]
    lines += [_in_columns(" " * row.is_part + row.label, row.cells()) for row in table_rows(metrics)]
    return "\n".join([*lines, closing])


def _in_columns(label: str, cells: Sequence[str]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, COLUMN_WIDTHS, strict=True))
    return (label.ljust(LABEL_WIDTH) + "".join(padded)).rstrip()


def markdown_table(metrics: Metrics, *, closing: str) -> str:
    """Metrics -> a table for a README or an issue."""
    lines = [_in_pipes("", COLUMNS), _in_pipes("---", ["---"] * len(COLUMNS))]
    lines += [_in_pipes("&nbsp;" * row.is_part + row.label, row.cells()) for row in table_rows(metrics)]
    return "\n".join([*lines, "", escape_markdown(closing)])


def _in_pipes(label: str, cells: Sequence[str]) -> str:
    return f"| {' | '.join([label, *cells])} |"


def escape_markdown(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|" else letter for letter in text)


def latex_table(metrics: Metrics, *, closing: str) -> str:
    """Metrics -> a tabular in the style of booktabs; what was judged stands above it as a comment."""
    lines = [f"% {closing}", r"\begin{tabular}{lrrrr}", r"\toprule", _in_ampersands("", COLUMNS), r"\midrule"]
    for row in table_rows(metrics):
        label = r"\quad " * row.is_part + escape_latex(row.label)
        lines.append(_in_ampersands(label, [cell.replace("±", r"$\pm$") for cell in row.cells()]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _in_ampersands(label: str, cells: Sequence[str]) -> str:
    return f"{' & '.join([label, *cells])} \\\\"


def escape_latex(text: str) -> str:
    return "".join(LATEX_SPECIALS.get(letter, f"\\{letter}" if letter in "&%$#_{}" else letter) for letter in text)


TABLES = {"terminal": terminal_table, "markdown": markdown_table, "latex": latex_table}


def corrected_line(kind: str, corrected: CorrectedRates) -> str:
    """-> "global, without the judge's known mistakes: missing 0.310 ±0.022   ...", or why there is no such rate."""
    head = f"{kind}, without the judge's known mistakes"
    if not corrected.valid:
        return f"{head}: not to be had: {corrected.reason}"
    rates = {
        "missing": corrected.missing_rate,
        "hallucination": corrected.hallucination_rate,
        "total error": corrected.total_error_rate,
    }
    return f"{head}: {'   '.join(f'{name} {format_rate(rate)}' for name, rate in rates.items())}"


# --- comparisons ------------------------------------------------------------------------------------------------------


def comparison_table(comparison: Comparison) -> str:
    """Every run against the first -> lines for a terminal: differences, and on which share of the videos it is better.

    * behind a difference: its 95 % interval does not hold 0.
    """
    blocks = [_compared_lines(pair) for pair in comparison.pairs]
    lines = [line for block in blocks for line in block]
    if comparison.mixed:
        lines.append(f"MIXED, so no measure of the captions alone: {'; '.join(comparison.mixed)}")
    lines.append("below 0: fewer errors; ± half of the 95 % interval over videos; * the interval does not hold 0")
    return "\n".join(lines)


def _compared_lines(pair: PairComparison) -> Iterator[str]:
    """A pair of runs -> its block of the table, and what was left out of it."""
    heads = [name.ljust(COMPARED_WIDTH) for name in COLUMNS] + [name.ljust(OUTCOME_WIDTH) for name in ("won", "tied")]
    yield f"{pair.run} against {pair.baseline}"
    yield (" " * LABEL_WIDTH + "".join(heads) + "lost").rstrip()
    for kind in ("global", "local"):
        for name in (kind, *(f"{kind} {part}" for part in MODALITY_NAMES.values())):
            if group := pair.groups.get(name):
                label = name if name == kind else name.replace(kind, "")
                yield label.ljust(LABEL_WIDTH) + _compared_cells(group)
    left_out = {
        f"only in {pair.baseline}": pair.only_in_baseline,
        f"only in {pair.run}": pair.only_in_run,
        "without a verdict in one of them": pair.unscored,
    }
    remarks = [f"{len(ids)} {why} ({ids[0]}{', ...' if len(ids) > 1 else ''})" for why, ids in left_out.items() if ids]
    yield "; ".join([f"{pair.num_paired} captions of both", *remarks])


def _compared_cells(group: GroupComparison) -> str:
    cells = [_format_difference(group.rates[name].difference).ljust(COMPARED_WIDTH) for name in COMPARED]
    outcomes = (group.won, group.tied, group.lost)
    shares = ["-" if rate.value is None else f"{rate.value:.0%}" for rate in outcomes]
    return "".join([*cells, *(share.ljust(OUTCOME_WIDTH) for share in shares)]).rstrip()


def _format_difference(rate: Rate) -> str:
    """
    >>> _format_difference(Rate(value=-0.05, low=-0.07, high=-0.02))
    '-0.050 ±0.025 *'
    """
    if rate.value is None:
        return "-"
    if rate.low is None or rate.high is None:
        return f"{rate.value:+.3f}"
    sure = " *" if rate.low > 0 or rate.high < 0 else ""
    return f"{rate.value:+.3f} ±{(rate.high - rate.low) / 2:.3f}{sure}"
