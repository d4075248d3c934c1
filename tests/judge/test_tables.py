"""Metrics as tables: every figure where it belongs, in the form that the reader asked for."""

import pytest

from avcap.judge.metrics.error_rates import Scored, compute_metrics
from avcap.judge.tables import TABLES, closing_line, escape_latex, latex_table, markdown_table, terminal_table
from avcap.judge.types import Case
from avcap.records import Event, EventVerdict, InventedClaim, Sample, Verdict

CLOSING = closing_line(num_videos=2, num_events=8, num_unscored=0, judge="oracle", protocol="avcap-1")


def scored(video: str, labels: str, *, num_invented: int = 0, interval_s=None) -> Scored:
    """`labels`: a letter for each event: c, m or i; the first half are seen, the others heard."""
    names = {"c": "correct", "m": "missing", "i": "incorrect"}
    events = tuple(
        Event(event_id=f"e{i}", text="t", modality="visual" if i < len(labels) / 2 else "audio", start_s=float(i))
        for i in range(len(labels))
    )
    sample = Sample(sample_id=f"{video}{interval_s}", video=video, prompt="", interval_s=interval_s, events=events)
    verdict = Verdict(
        caption_id=video,
        events=tuple(EventVerdict(event_id=f"e{i}", label=names[letter]) for i, letter in enumerate(labels)),
        invented=tuple(InventedClaim(text="x", modality="audio") for _ in range(num_invented)),
    )
    return Scored(case=Case(caption_id=video, sample=sample, text="one two"), verdict=verdict)


@pytest.fixture(scope="module")
def metrics():
    # 8 events of two videos that err alike, so that no draw of videos differs from another and intervals are 0:
    # 2 missing / 8 = 0.25; (2 incorrect + 2 invented) / 8 = 0.5; total 0.75
    # seen: 2 missing / 4 = 0.5; heard: (2 incorrect + 2 invented) / 4 = 1
    return compute_metrics([scored(video, "mcic", num_invented=1) for video in ("a", "b")], num_resamples=50)


def test_terminal(metrics):
    assert terminal_table(metrics, closing=CLOSING).split("\n") == [
        "            missing        hallucination   total error     repetition",
        "global      0.250 ±0.000   0.500 ±0.000    0.750 ±0.000    0.000",
        " visual     0.500 ±0.000   0.000 ±0.000    0.500 ±0.000    -",
        " audio      0.000 ±0.000   1.000 ±0.000    1.000 ±0.000    -",
        "2 videos, 8 events, 0 unscored; judge oracle; protocol avcap-1",
    ]


def test_markdown(metrics):
    lines = markdown_table(metrics, closing=CLOSING).split("\n")
    assert lines[0] == "|  | missing | hallucination | total error | repetition |"
    assert lines[2] == "| global | 0.250 ±0.000 | 0.500 ±0.000 | 0.750 ±0.000 | 0.000 |"
    assert {line.count("|") for line in lines[:5]} == {6}


def test_latex(metrics):
    lines = latex_table(metrics, closing=CLOSING).split("\n")
    assert r"global & 0.250 $\pm$0.000 & 0.500 $\pm$0.000 & 0.750 $\pm$0.000 & 0.000 \\" in lines
    assert r"\quad visual & 0.500 $\pm$0.000 & 0.000 $\pm$0.000 & 0.500 $\pm$0.000 & - \\" in lines
    assert escape_latex("50_% & a\\b") == r"50\_\% \& a\textbackslash{}b"


def test_half_an_interval_is_shown_and_nothing_where_there_is_none():
    one = compute_metrics([scored("a", "mc")])  # one video says nothing about others
    assert "global      0.500          0.000" in terminal_table(one, closing="")
    two = compute_metrics([scored("a", "mm"), scored("b", "cc")])
    # drawing two of {1, 0} with replacement: rates 0, 0.5 and 1, each end with probability 1/4: interval 0 to 1
    assert "global      0.500 ±0.500" in terminal_table(two, closing="")


def test_local_captions_stand_below_global_ones():
    both = compute_metrics([scored("a", "mc"), scored("a", "cc", interval_s=(0.0, 2.0))])
    labels = [line.split("  ")[0] for line in terminal_table(both, closing="end").split("\n")]
    assert labels[1:] == ["global", " visual", " audio", "local", " visual", " audio", "end"]


@pytest.mark.parametrize("name", TABLES)
def test_the_closing_line_is_in_every_table(metrics, name):
    assert "2 videos, 8 events, 0 unscored" in TABLES[name](metrics, closing=CLOSING)
