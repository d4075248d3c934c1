"""An evaluation as one HTML file that opens from the disk, without a network and without anything beside it.

Captions are untrusted. They stand in the page as data in which no "<" is left, and the script puts them in place as
text; a content security policy allows that one script, by its hash, and nothing from outside.
"""

import base64
import hashlib
import html
import json
from pathlib import Path
from typing import Any

from avcap.evaluation.evaluate import Evaluation
from avcap.files.write import write_text
from avcap.judge.metrics.error_rates import Scored
from avcap.judge.metrics.words import count_words
from avcap.judge.tables import COLUMNS, closing_line, table_rows
from avcap.records import Unscored

TEMPLATE = Path(__file__).with_name("report.html")
SCRIPT_TAG = "<script>", "</script>"


def write_report(path: str | Path, evaluation: Evaluation) -> None:
    """Evaluation -> the HTML file."""
    write_text(path, render_report(evaluation))


def render_report(evaluation: Evaluation) -> str:
    """Evaluation -> the text of the page."""
    template = TEMPLATE.read_text(encoding="utf-8")
    script = template.partition(SCRIPT_TAG[0])[2].partition(SCRIPT_TAG[1])[0]
    data = {"captions": [_caption(one) for one in evaluation.scored]}
    parts = {
        "SCRIPT_HASH": "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "TITLE": html.escape(f"Captions of {evaluation.captioner}" if evaluation.captioner else "Captions"),
        "CLOSING": html.escape(_closing(evaluation)),
        "METRICS": _metrics_table(evaluation),
        "PROBLEMS": _problems(evaluation),
        "DATA": _inline_json(data),
    }
    # from one piece of the template to the next: what was put in is never searched for further places
    pieces = template.split("{{")
    return pieces[0] + "".join(_fill(piece, parts) for piece in pieces[1:])


def _fill(piece: str, parts: dict[str, str]) -> str:
    name, _, rest = piece.partition("}}")
    return parts[name] + rest


def _closing(evaluation: Evaluation) -> str:
    setting = evaluation.setting
    closing = closing_line(
        num_videos=evaluation.num_videos,
        num_events=evaluation.num_events,
        num_unscored=evaluation.num_unscored,
        judge=setting.judge,
        protocol=setting.protocol,
    )
    return closing if setting.modality == "both" else f"{closing}; {setting.modality} events only"


def _metrics_table(evaluation: Evaluation) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in ("captions", "events", *COLUMNS))
    rows = []
    for row in table_rows(evaluation.metrics):
        cells = (f"{row.group.num_captions:,}", f"{row.group.num_events:,}", *row.cells())
        kind = ' class="part"' if row.is_part else ""
        label = f'<th scope="row">{html.escape(row.label)}</th>'
        rows.append(f"<tr{kind}>{label}{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>")
    return f'<table class="metrics"><thead><tr><td></td>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _problems(evaluation: Evaluation) -> str:
    """All that could not be used, folded; nothing if there is nothing."""
    if not evaluation.problems:
        return ""
    items = "".join(
        f"<li><b>{html.escape(problem.kind)}</b> {html.escape(_visible(problem.name))} "
        f"<span>{html.escape(_visible(problem.detail))}</span></li>"
        for problem in evaluation.problems
    )
    number = len(evaluation.problems)
    plural = "s" if number > 1 else ""
    return f"<details><summary>{number} remark{plural} on the input</summary><ul>{items}</ul></details>"


def _visible(text: str) -> str:
    """Text -> the same without the lone surrogates that a file name may have and a page may not."""
    return text.encode("utf-8", "backslashreplace").decode()


def _caption(one: Scored) -> dict[str, Any]:
    """A judged caption -> what the page shows of it."""
    sample = one.case.sample
    data: dict[str, Any] = {
        "id": sample.sample_id,
        "video": sample.video,
        "kind": "global" if sample.interval_s is None else "local",
        "interval": sample.interval_s,
        "text": one.case.text,
        "finished": one.case.finished,
        "repetition": count_words(one.case.text).repetition_rate,
    }
    if isinstance(one.verdict, Unscored):
        return data | {"unscored": one.verdict.reason, "reply": one.verdict.reply}
    label_of = {event.event_id: event.label for event in one.verdict.events}
    return data | {
        "events": [[label_of[e.event_id], e.modality, e.start_s, e.text] for e in sample.events],
        "invented": [[claim.modality, claim.start_s, claim.text] for claim in one.verdict.invented],
        "repeated": one.verdict.repeated,
    }


def _inline_json(data: Any) -> str:
    """Data -> JSON that can stand inside a script element: no tag and no comment can begin or end in it."""
    text = json.dumps(data, separators=(",", ":"))  # ASCII: lone surrogates and line separators are escaped too
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
