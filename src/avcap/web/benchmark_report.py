"""An evaluation on a benchmark as one HTML file: the numbers, what they may be compared with, and what has none."""

import html
from pathlib import Path

from avcap.evaluation.benchmark import BenchmarkEvaluation
from avcap.files.write import write_text
from avcap.judge.tables import format_value

_PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
td, th {{ padding: .15rem 1rem .15rem 0; text-align: left; font-variant-numeric: tabular-nums }}</style></head>
<body><h1>{title}</h1><p>{closing}</p><p><strong>{remark}</strong></p>
<table><thead><tr><th>number</th><th>value</th><th>95 % interval</th></tr></thead><tbody>{rows}</tbody></table>
{unscored}</body></html>
"""


def write_benchmark_report(path: str | Path, evaluation: BenchmarkEvaluation) -> None:
    """Evaluation -> the HTML file; every text in it is escaped, and it has no script."""
    setting = evaluation.setting
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{format_value(rate.value)}</td>"
        f"<td>{format_value(rate.low)} to {format_value(rate.high)}</td></tr>"
        for name, rate in evaluation.rates.items()
    )
    items = "".join(f"<li>{html.escape(_plain(f'{one.caption_id}: {one.reason}'))}</li>" for one in evaluation.unscored)
    page = _PAGE.format(
        title=html.escape(_plain(f"{setting.benchmark}: {evaluation.captioner or 'captions'}")),
        closing=html.escape(
            f"{evaluation.num_captions - evaluation.num_unscored} captions of {evaluation.num_videos} videos, "
            f"{evaluation.num_unscored} unscored; judge {setting.judge}; protocol {setting.protocol}; prompt version "
            f"{setting.prompt_version}"
        ),
        remark=html.escape(evaluation.remark),
        rows=rows,
        unscored=f"<h2>Unscored</h2><ul>{items}</ul>" if items else "",
    )
    write_text(path, page)


def _plain(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
