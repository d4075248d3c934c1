"""Rates by hand: of whole captions, by modality, by window; what is not scored; what goes to metrics.json."""

import json
import time
from dataclasses import replace

import pytest

from avcap.errors import UserError
from avcap.judge.metrics.bootstrap import Rate
from avcap.judge.metrics.error_rates import QUARTERS, Scored, compute_metrics, metrics_to_dict
from avcap.judge.types import Case
from avcap.records import Event, EventVerdict, InventedClaim, Modality, Sample, Unscored, Verdict

NOTHING = Rate(value=None, low=None, high=None)
MODALITIES: dict[str, Modality] = {"v": "visual", "s": "audio", "b": "both"}


def scored(
    video: str,
    labels: dict[str, str],
    *,
    invented: tuple[InventedClaim, ...] = (),
    text: str = "",
    finished: bool | None = None,
    interval_s: tuple[float, float] | None = None,
    unscored: bool = False,
) -> Scored:
    """A caption whose events are named by modality and second: v3 is seen from 3 s to 4 s."""
    events = tuple(
        Event(event_id=name, text=name, modality=MODALITIES[name[0]], start_s=float(name[1:]) if name[1:] else None)
        for name in labels
    )
    sample = Sample(sample_id=f"{video}-{interval_s}", video=video, prompt="", interval_s=interval_s, events=events)
    caption_id = f"c-{sample.sample_id}"
    verdict: Verdict | Unscored = Unscored(caption_id=caption_id, reason="no JSON")
    if not unscored:
        verdict = Verdict(
            caption_id=caption_id,
            events=tuple(EventVerdict(event_id=name, label=label) for name, label in labels.items()),
            invented=invented,
        )
    return Scored(case=Case(caption_id=caption_id, sample=sample, text=text, finished=finished), verdict=verdict)


def claim(modality: Modality | None = None, start_s: float | None = None) -> InventedClaim:
    return InventedClaim(text="x", modality=modality, start_s=start_s)


TWO_VIDEOS = (
    scored(
        "a",
        {"v0": "correct", "s0": "missing", "b0": "missing", "v7": "incorrect"},
        invented=(claim("visual", 4.0), claim()),
        text="a b c d e a b c d e",
        finished=False,
    ),
    scored("b", {"v1": "correct", "s9": "correct"}, invented=(claim("audio"),), text="a b", finished=True),
)


def test_rates_divide_sums_over_all_captions():
    whole = compute_metrics(TWO_VIDEOS).global_
    assert whole is not None
    # 6 events: 2 missing, 1 incorrect, 3 invented
    assert whole.num_events == 6
    assert whole.missing_rate.value == pytest.approx(2 / 6)
    assert whole.incorrect_rate.value == pytest.approx(1 / 6)
    assert whole.invented_rate.value == pytest.approx(3 / 6)
    assert whole.hallucination_rate.value == pytest.approx(4 / 6)
    assert whole.total_error_rate.value == pytest.approx(6 / 6)
    assert whole.repetition_rate.value == pytest.approx(5 / 12)  # "a b c d e" again; 10 + 2 words
    assert whole.words_per_caption.value == 6
    assert whole.truncated_rate.value == 0.5
    assert (whole.num_captions, whole.num_videos, whole.num_scored, whole.num_unscored) == (2, 2, 2, 0)
    # Both videos drawn twice are the extremes: a 2/4 missing, b 0/2
    assert (whole.missing_rate.low, whole.missing_rate.high) == (0, 0.5)


def test_modalities_are_parts_and_an_unknown_one_is_in_none():
    metrics = compute_metrics(TWO_VIDEOS)
    visual, audio, both = (metrics.by_modality[name] for name in ("visual", "audio", "both"))
    assert list(metrics.by_modality) == ["visual", "audio", "both"]
    # seen: v0, v7, v1; v7 incorrect, one invented. heard: s0, s9; s0 missing, one invented. both: b0 missing.
    assert [part.num_events for part in (visual, audio, both)] == [3, 2, 1]
    assert [part.total_error_rate.value for part in (visual, audio, both)] == pytest.approx([2 / 3, 2 / 2, 1])
    assert metrics.num_invented_of_unknown_modality == 1
    # Parts and the one without a modality make up the whole: 2 + 2 + 1 + 1 = 6 errors
    assert both.num_captions == 1 and both.missing_rate == Rate(value=1, low=None, high=None)
    assert visual.repetition_rate == visual.words_per_caption == visual.truncated_rate == NOTHING


def test_windows_of_the_video_and_windows_in_seconds():
    metrics = compute_metrics(TWO_VIDEOS, durations_s={"a": 8.0, "b": 8.0}, windows_s=[(0, 5)])
    # Quarters of 8 s. 0-2 s: v0 s0 b0 v1, 2 missing. 4-6 s: only an invented claim. 6-8 s: v7, and s9 behind the end.
    first, third, last = (metrics.by_window[QUARTERS[i]] for i in (0, 2, 3))
    assert QUARTERS[1] not in metrics.by_window
    assert (first.num_events, first.missing_rate.value) == (4, 0.5)
    assert (third.num_events, third.total_error_rate) == (0, NOTHING)
    assert (last.num_events, last.total_error_rate.value) == (2, 0.5)
    window = metrics.by_window["0-5 s"]  # v0 s0 b0 v1 and the invented claim at 4 s: 3 errors
    assert (window.num_events, window.total_error_rate.value) == (4, 0.75)
    assert metrics.num_invented_without_time == 2
    assert compute_metrics(TWO_VIDEOS).by_window == {}


def test_windows_in_seconds_begin_with_their_start_and_end_before_their_end():
    metrics = compute_metrics([scored("a", {"v0": "correct", "v5": "missing"})], windows_s=[(0, 5), (5, 10)])
    early, late = metrics.by_window["0-5 s"], metrics.by_window["5-10 s"]
    assert (early.num_events, early.missing_rate.value) == (1, 0)  # v0 alone: v5 begins as the window ends
    assert (late.num_events, late.missing_rate.value) == (1, 1)


def test_what_is_in_no_window_is_counted():
    timeless = scored("a", {"v": "missing", "v1": "correct"})
    metrics = compute_metrics([timeless, scored("b", {"v1": "correct"})], durations_s={"a": 4.0})
    assert (metrics.num_events_without_time, metrics.num_videos_without_duration) == (1, 1)
    assert metrics.by_window[QUARTERS[1]].num_events == 1


def test_local_captions_are_apart():
    local = scored("a", {"v3": "missing", "s3": "correct"}, interval_s=(2.0, 5.0), text="one two three")
    metrics = compute_metrics([*TWO_VIDEOS, local])
    assert metrics.local is not None and metrics.global_ is not None
    assert metrics.local.missing_rate == Rate(value=0.5, low=None, high=None)
    assert metrics.local.words_per_caption.value == 3
    assert metrics.by_modality_local["visual"].missing_rate.value == 1
    assert metrics.global_.num_events == 6
    assert compute_metrics([local]).global_ is None


def test_local_captions_have_no_windows_that_a_claim_could_fall_out_of():
    local = scored("a", {"v3": "correct"}, interval_s=(2.0, 5.0), invented=(claim("visual"),))
    whole = scored("a", {"v3": "correct"}, invented=(claim("visual"), claim("visual"), claim("visual", 4.0)))
    assert compute_metrics([local]).num_invented_without_time == 0
    assert compute_metrics([local, whole]).num_invented_without_time == 2


def test_a_caption_without_a_verdict_is_counted_and_in_no_rate():
    unscored = scored("c", {"v0": "missing"}, text="a a a a a a a a", finished=False, unscored=True)
    plain, more = compute_metrics(TWO_VIDEOS), compute_metrics([*TWO_VIDEOS, unscored])
    assert plain.global_ is not None and more.global_ is not None
    assert (more.global_.num_captions, more.global_.num_scored, more.global_.num_unscored) == (3, 2, 1)
    assert more.global_.num_videos == 2
    assert more.by_modality["visual"].num_unscored == 1 and more.by_modality["audio"].num_unscored == 0
    # Rates and intervals are those without it.
    assert more.global_.total_error_rate == plain.global_.total_error_rate
    assert more.global_.repetition_rate == plain.global_.repetition_rate
    only = compute_metrics([unscored]).global_
    assert only is not None and only.total_error_rate == NOTHING and only.num_unscored == 1


def test_videos_without_a_verdict_are_not_drawn():
    # i of 11 events missed in video i: the draws differ, and so would the interval among 24 videos
    good = [scored(f"g{i}", {f"v{k}": "missing" if k < i else "correct" for k in range(11)}) for i in range(12)]
    down = [scored(f"d{i}", {"v0": "missing"}, unscored=True) for i in range(12)]
    alone, together = compute_metrics(good).global_, compute_metrics([*down, *good]).global_
    assert alone is not None and together is not None and together.num_unscored == 12
    assert alone.missing_rate.value == pytest.approx(66 / 132)  # 0 + 1 + ... + 11 = 66 of 12 x 11
    assert together.missing_rate == alone.missing_rate
    assert alone.missing_rate.low is not None and 0 < alone.missing_rate.low < 0.5


def test_captions_that_do_not_say_whether_they_ended_have_no_truncated_rate():
    whole = compute_metrics([scored("a", {"v0": "correct"}), scored("b", {"v0": "correct"})]).global_
    assert whole is not None and whole.truncated_rate == NOTHING


def test_all_captions_of_a_video_stay_together():
    """Ten copies of a caption say no more about other videos than one."""
    one = compute_metrics([scored("a", {"v0": "missing"}), scored("b", {"v0": "correct"})])
    copies = [scored(name, {"v0": label}) for name, label in [("a", "missing"), ("b", "correct")] for _ in range(10)]
    assert one.global_ is not None
    many = compute_metrics(copies).global_
    assert many is not None and many.missing_rate == one.global_.missing_rate
    assert (many.missing_rate.low, many.missing_rate.high) == (0, 1)


def test_a_verdict_about_other_events_is_an_error():
    good = scored("a", {"v0": "correct"})
    stale = Scored(case=scored("a", {"v1": "correct"}).case, verdict=good.verdict)
    with pytest.raises(UserError, match=r"event 'v0' is in the verdict, but not in the truth .* judge it again"):
        compute_metrics([stale])
    less = Scored(case=scored("a", {"v0": "correct", "v1": "correct"}).case, verdict=good.verdict)
    with pytest.raises(UserError, match="event 'v1' is in the truth, but not in the verdict"):
        compute_metrics([less])


def test_an_event_id_that_occurs_twice_is_an_error():
    once = scored("a", {"v0": "correct"})
    sample, verdict = once.case.sample, once.verdict
    assert isinstance(verdict, Verdict)
    in_truth = replace(once, case=replace(once.case, sample=replace(sample, events=sample.events * 2)))
    in_verdict = replace(once, verdict=replace(verdict, events=verdict.events * 2))
    for one in (in_truth, in_verdict):
        with pytest.raises(UserError, match="an event id occurs twice"):
            compute_metrics([one])


def test_json_has_the_promised_shape():
    data = metrics_to_dict(compute_metrics(TWO_VIDEOS, durations_s={"a": 8.0, "b": 8.0}))
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert {"global", "local", "by_modality", "by_window"} <= data.keys() and data["local"] is None
    assert set(data["global"]["missing_rate"]) == {"value", "low", "high"}
    assert data["global"]["num_events"] == 6 and data["by_modality"]["audio"]["num_scored"] == 2
    assert data["by_modality"]["visual"]["repetition_rate"] == {"value": None, "low": None, "high": None}


def test_the_size_of_the_official_test_set_takes_seconds():
    labels = {f"v{i}": ("correct", "missing", "incorrect")[i % 3] for i in range(34)}  # 483 x 34 = 16,422 events
    captions = [scored(f"video {i}", labels, invented=(claim("visual", 3.0),), text="word " * 200) for i in range(483)]
    start_s = time.process_time()
    compute_metrics(captions, durations_s={f"video {i}": 34.0 for i in range(483)})
    assert time.process_time() - start_s < 3
