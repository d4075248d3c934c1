"""`avcap compare`: evaluations against each other, of events or on one benchmark."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from avcap.cli.app import app, say, tell
from avcap.cli.outputs import check_text
from avcap.errors import UserError
from avcap.evaluation.benchmark import read_benchmark_evaluation, read_setting
from avcap.evaluation.evaluate import read_evaluation
from avcap.files.write import write_json
from avcap.judge.benchmarks.benchmark import compare_rates
from avcap.judge.benchmarks.registry import find_benchmark
from avcap.judge.metrics.bootstrap import Rate
from avcap.judge.metrics.compare import Setting, compare, comparison_to_dict
from avcap.judge.metrics.error_rates import compute_metrics
from avcap.judge.tables import comparison_table, rate_lines
from avcap.web.plot import DRAWN_BY, plot_rates

COMPARISON, PLOT = "comparison.json", "comparison.png"


@app.command("compare", no_args_is_help=True)
def compare_evaluations(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR DIR...", help="Folders of avcap evaluate; the first is the baseline.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write comparison.json and, with matplotlib, a plot here.")
    ] = None,
    allow_mixed: Annotated[
        bool, typer.Option("--allow-mixed", help="Compare even if the judge, protocol, modality or truth differs.")
    ] = False,
) -> None:
    """Compare evaluations: paired differences with intervals, and the share of videos on which each is better."""
    if out is not None:
        check_text(out / COMPARISON, sign='"pairs"', expected="a comparison of avcap")
        check_text(out / PLOT, sign=DRAWN_BY, expected="a plot of avcap")
    names = [str(folder) for folder in folders]
    if len(set(names)) < len(names):
        raise UserError("got a folder twice, expected different ones")
    if any(read_setting(name).benchmark for name in names):
        data = compare_benchmarks(folders, allow_mixed=allow_mixed)
        if out is not None:
            write_json(out / COMPARISON, data)
        return
    read = {name: read_evaluation(name) for name in names}
    runs = {name: scored for name, (_, scored) in read.items()}
    comparison = compare(runs, settings={name: setting for name, (setting, _) in read.items()}, allow_mixed=allow_mixed)
    tell(comparison_table(comparison))
    if out is not None:
        write_json(out / COMPARISON, comparison_to_dict(comparison))
        plot_rates(out / PLOT, {name: compute_metrics(scored) for name, scored in runs.items()})
        say(f"written: {out / COMPARISON}, {out / PLOT}")


def compare_benchmarks(folders: Sequence[Path], *, allow_mixed: bool) -> dict[str, Any]:
    """Folders of one benchmark -> differences to the first, printed, and as plain values."""
    read = {str(folder): read_benchmark_evaluation(folder) for folder in folders}
    mixed = _differences({name: setting for name, (setting, _) in read.items()})
    if mixed and not allow_mixed:
        raise UserError(f"the runs cannot be compared: {'; '.join(mixed)}; judge them alike, or allow mixed runs")
    (baseline, (setting, baseline_shares)), *others = read.items()
    benchmark = find_benchmark(setting.benchmark)
    compared: dict[str, dict[str, Rate]] = {}
    for name, (_, shares) in others:
        num_common = len({one.sample_id for one in shares} & {one.sample_id for one in baseline_shares})
        if not num_common:
            raise UserError(f"{name}: got no sample that {baseline} has a score of, too; expected the same benchmark")
        compared[name] = compare_rates(benchmark, shares, baseline=baseline_shares)
        tell(f"{name} against {baseline}: {setting.benchmark}, {num_common} captions of both")
        for line in rate_lines(compared[name], signed=True):
            tell(line)
    if mixed:
        tell(f"MIXED, so no measure of the captions alone: {'; '.join(mixed)}")
    tell("± half of the 95 % interval over videos; * the interval does not hold 0")
    differences = {name: {key: vars(rate) for key, rate in rates.items()} for name, rates in compared.items()}
    return {"benchmark": setting.benchmark, "baseline": baseline, "differences": differences, "mixed": mixed}


def _differences(settings: dict[str, Setting]) -> list[str]:
    """What differs between runs, in words."""
    found = []
    for field in ("benchmark", "protocol", "judge", "prompt_version", "dropped"):
        values = {name: getattr(setting, field) for name, setting in settings.items()}
        if len(set(values.values())) > 1:
            told = ", ".join(f"{value!r} in {name}" for name, value in values.items())
            found.append(f"{field.replace('_', ' ')} is {told}")
    return found
