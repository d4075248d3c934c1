"""The report is one file, shows what was judged, and lets no caption out of its place."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from avcap.evaluation.evaluate import Evaluation
from avcap.judge.inputs.ingest import Problem
from avcap.judge.metrics.compare import Setting
from avcap.judge.metrics.error_rates import Scored, compute_metrics
from avcap.judge.types import Case
from avcap.records import Event, EventVerdict, InventedClaim, Sample, Unscored, Verdict
from avcap.web.report import render_report

HOSTILE = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> {{METRICS}} & \ud800 \u2028 \" ' `${x}`"


def evaluation_of(*scored: Scored, problems: tuple[Problem, ...] = (), captioner: str = "test") -> Evaluation:
    return Evaluation(
        setting=Setting(protocol="avcap-1", judge="oracle", prompt_version="", modality="both"),
        captioner=captioner,
        num_videos=1,
        num_events=2,
        num_captions=len(scored),
        num_unscored=0,
        files={},
        problems=problems,
        scored=scored,
        metrics=compute_metrics(scored),
    )


def scored(text: str, *, video: str = "a.mp4", reason: str | None = None) -> Scored:
    events = (
        Event(event_id="v", text=f"seen {text}", modality="visual", start_s=1.0),
        Event(event_id="s", text="heard", modality="audio"),
    )
    case = Case(caption_id=video, sample=Sample(sample_id=video, video=video, prompt="", events=events), text=text)
    if reason is not None:
        return Scored(case=case, verdict=Unscored(caption_id=video, reason=reason, reply=text))
    verdict = Verdict(
        caption_id=video,
        repeated=(text,),
        invented=(InventedClaim(text=text, modality="visual", start_s=3.0),),
        events=(EventVerdict(event_id="v", label="missing"), EventVerdict(event_id="s", label="incorrect")),
    )
    return Scored(case=case, verdict=verdict)


class Page(HTMLParser):
    """Which elements a browser would make of a page, and what the scripts hold."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.scripts: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.tags and self.lasttag == "script" and self.cdata_elem == "script":
            self.scripts[-1] += data

    def data(self) -> dict:
        return json.loads(self.scripts[0])


@pytest.fixture
def hostile() -> Page:
    problem = Problem(kind=HOSTILE, name=HOSTILE, detail=HOSTILE)
    one, two = scored(HOSTILE, video=HOSTILE), scored(HOSTILE, video="b", reason=HOSTILE)
    return Page(render_report(evaluation_of(one, two, problems=(problem,), captioner=HOSTILE)))


def test_captions_cannot_become_markup(hostile):
    plain = Page(render_report(evaluation_of(scored("x"), problems=(Problem(kind="k", name="n"),))))
    assert hostile.tags == plain.tags
    assert len(hostile.scripts) == 2 and "img" not in hostile.tags
    assert not [name for name, _ in hostile.attributes if name.startswith("on")]


def test_captions_arrive_as_they_are(hostile):
    one, two = hostile.data()["captions"]
    assert one["text"] == one["video"] == one["repeated"][0] == HOSTILE
    assert one["events"] == [["missing", "visual", 1.0, f"seen {HOSTILE}"], ["incorrect", "audio", None, "heard"]]
    assert one["invented"] == [["visual", 3.0, HOSTILE]]
    assert two["unscored"] == HOSTILE and "events" not in two


def test_only_the_script_of_the_template_may_run(hostile):
    (policy,) = [value for name, value in hostile.attributes if name == "content" and "default-src" in (value or "")]
    digest = base64.b64encode(hashlib.sha256(hostile.scripts[1].encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    # text is put in place as text, never parsed
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", hostile.scripts[1])


def test_nothing_is_loaded_from_outside(hostile):
    assert not [value for name, value in hostile.attributes if name in ("src", "href", "srcset", "action")]
    assert "http" not in hostile.scripts[1]
    assert not re.search(r"@import|url\(", render_report(evaluation_of(scored("x"))))


def test_head_shows_the_metrics():
    # 1 missing, 1 incorrect and 1 invented of 2 events: 0.5, (1 + 1) / 2 = 1.0, 1.5
    text = render_report(evaluation_of(scored("a dog")))
    row = re.search(r'<th scope="row">global</th>(.*?)</tr>', text).group(1)
    assert re.findall(r"<td>(.*?)</td>", row) == ["1", "2", "0.500", "1.000", "1.500", "0.000"]
    assert "1 videos, 2 events, 0 unscored; judge oracle; protocol avcap-1" in text
