"""Differences of paired runs by hand; what is left out is named; what must not be mixed is refused."""

import json
import random
from dataclasses import replace

import pytest

from avcap.errors import UserError
from avcap.judge.metrics.compare import Setting, compare, comparison_to_dict
from avcap.judge.metrics.error_rates import Scored, compute_metrics
from avcap.judge.types import Case
from avcap.records import Event, EventVerdict, InventedClaim, Sample, Unscored, Verdict

SETTING = Setting(protocol="avcap-1", judge="oracle", prompt_version="", modality="both")


def scored(
    sample_id: str,
    labels: str,
    *,
    num_invented: int = 0,
    video: str | None = None,
    judge: str = "oracle",
    prompt_version: str = "",
    unscored: bool = False,
) -> Scored:
    """A caption whose events are labelled by letters: "cmi" is one correct, one missing, one incorrect."""
    names = {"c": "correct", "m": "missing", "i": "incorrect"}
    ids = [f"v{i}" for i in range(len(labels))]
    sample = Sample(
        sample_id=sample_id,
        video=video or f"{sample_id}.mp4",
        prompt="",
        events=tuple(Event(event_id=name, text=name, modality="visual") for name in ids),
    )
    verdict: Verdict | Unscored = Unscored(caption_id=sample_id, reason="no JSON")
    if not unscored:
        verdict = Verdict(
            caption_id=sample_id,
            events=tuple(EventVerdict(event_id=n, label=names[x]) for n, x in zip(ids, labels, strict=True)),
            invented=(InventedClaim(text="x", modality="visual"),) * num_invented,
            judge=judge,
            prompt_version=prompt_version,
        )
    return Scored(case=Case(caption_id=sample_id, sample=sample, text="word " * 3), verdict=verdict)


OLD = [scored("a", "mmcc"), scored("b", "mccc"), scored("c", "cccc"), scored("d", "cc", num_invented=1)]
NEW = [scored("a", "cccc"), scored("b", "cccc", num_invented=1), scored("c", "icmc"), scored("d", "cc")]


def test_differences_by_hand():
    comparison = compare({"old": OLD, "new": NEW})
    (pair,) = comparison.pairs
    assert (pair.run, pair.baseline, pair.num_paired) == ("new", "old", 4)
    whole = pair.groups["global"]
    # 14 events. old: 3 missing, 1 invented. new: 1 missing, 1 incorrect, 1 invented.
    missing, total = whole.rates["missing_rate"], whole.rates["total_error_rate"]
    assert (missing.baseline, missing.run) == (pytest.approx(3 / 14), pytest.approx(1 / 14))
    assert missing.difference.value == pytest.approx(-2 / 14)
    assert (total.baseline, total.run) == (pytest.approx(4 / 14), pytest.approx(3 / 14))
    # total errors: a 2 -> 0 won, b 1 -> 1 tied, c 0 -> 2 lost, d 1 -> 0 won
    assert [share.value for share in (whole.won, whole.tied, whole.lost)] == [0.5, 0.25, 0.25]
    assert (whole.num_videos, whole.num_events) == (4, 14)
    # The extremes: only a drawn, 0/4 - 2/4; only c drawn, 2/4 - 0/4 (each 1 in 256, beyond 2.5 %, so near them)
    low, high = total.difference.low, total.difference.high
    assert low is not None and high is not None
    assert -0.5 <= low < -0.3 and 0.3 < high <= 0.5
    assert whole.won.low is not None and 0 <= whole.won.low < 0.5
    assert pair.groups["global visual"].rates["missing_rate"] == missing
    assert "local" not in pair.groups


def test_a_run_against_itself_differs_in_nothing():
    (pair,) = compare({"old": OLD, "same": OLD}).pairs
    whole = pair.groups["global"]
    for name, rate in whole.rates.items():
        if rate.run is not None:
            assert (rate.difference.value, rate.difference.low, rate.difference.high) == (0, 0, 0), name
            assert rate.sign_share == 0.5
    assert (whole.tied.value, whole.tied.low, whole.tied.high) == (1, 1, 1)
    assert whole.rates["truncated_rate"].difference.value is None  # nobody said whether captions ended


def test_pairing_takes_out_what_makes_a_video_hard_for_everybody():
    rng = random.Random(0)
    hard = [rng.randrange(1, 19) for _ in range(40)]  # 1 to 18 of 20 events missing; the run misses one more of each
    old = [scored(f"{i:02}", "m" * k + "c" * (20 - k)) for i, k in enumerate(hard)]
    new = [scored(f"{i:02}", "m" * (k + 1) + "c" * (19 - k)) for i, k in enumerate(hard)]
    (pair,) = compare({"old": old, "new": new}).pairs
    rate = pair.groups["global"].rates["missing_rate"]
    # 1/20 more on every video, whichever are drawn; the rate itself is known to no better than 0.1
    assert [rate.difference.value, rate.difference.low, rate.difference.high] == pytest.approx([0.05, 0.05, 0.05])
    assert rate.sign_share == 0
    alone = compute_metrics(old).global_
    assert alone is not None and alone.missing_rate.high is not None and alone.missing_rate.low is not None
    assert alone.missing_rate.high - alone.missing_rate.low > 0.1


def test_what_only_one_has_is_named_and_left_out():
    only_old, only_new = scored("only-old", "mmmm"), scored("only-new", "mmmm")
    half = [scored("u", "cc", unscored=True)], [scored("u", "cc")]
    (pair,) = compare({"old": [*OLD, only_old, *half[0]], "new": [*NEW, only_new, *half[1]]}).pairs
    assert (pair.only_in_baseline, pair.only_in_run, pair.unscored) == (("only-old",), ("only-new",), ("u",))
    assert pair.num_paired == 4
    assert pair.groups == compare({"old": OLD, "new": NEW}).pairs[0].groups


def test_samples_of_one_video_stay_together_and_win_together():
    old = [scored("a", "mc", video="x"), scored("b", "cc", video="x"), scored("c", "cc", video="y")]
    new = [scored("a", "cc", video="moved/x"), scored("b", "cm", video="moved/x"), scored("c", "cc", video="moved/y")]
    whole = compare({"old": old, "new": new}).pairs[0].groups["global"]
    # x: 1 error of 4 events in both runs, although another one; y: none
    assert whole.num_videos == 2 and whole.tied.value == 1


def test_three_runs_stand_against_the_first():
    comparison = compare({"old": OLD, "new": NEW, "third": OLD[:2]})
    assert [(pair.run, pair.baseline, pair.num_paired) for pair in comparison.pairs] == [
        ("new", "old", 4),
        ("third", "old", 2),
    ]
    json.dumps(comparison_to_dict(comparison), allow_nan=False)


def test_nothing_in_common_is_no_comparison_but_said():
    (pair,) = compare({"old": OLD[:1], "new": NEW[1:2]}).pairs
    assert (pair.num_paired, pair.groups, pair.only_in_run) == (0, {}, ("b",))


def test_other_judges_and_prompts_are_refused():
    gpt = [scored("a", "mmcc", judge="openai:gpt-4", prompt_version="1f")]
    with pytest.raises(UserError, match="judge is 'oracle' in old, 'openai:gpt-4' in new; prompt version is"):
        compare({"old": OLD, "new": gpt})
    comparison = compare({"old": OLD, "new": gpt}, allow_mixed=True)
    assert len(comparison.mixed) == 2 and comparison.pairs[0].num_paired == 1
    two_judges = [*gpt, scored("b", "mccc")]
    with pytest.raises(UserError, match="judge is 'openai:gpt-4' and 'oracle' in new"):
        compare({"new": two_judges, "same": two_judges})


@pytest.mark.parametrize("field", ["protocol", "modality"])
def test_other_settings_are_refused(field):
    settings = {"old": SETTING, "new": replace(SETTING, **{field: "other"})}
    with pytest.raises(UserError, match=f"{field} is '{getattr(SETTING, field)}' in old, 'other' in new"):
        compare({"old": OLD, "new": NEW}, settings=settings)
    assert compare({"old": OLD, "new": NEW}, settings={"old": SETTING, "new": SETTING}).mixed == ()
    assert len(compare({"old": OLD, "new": NEW}, settings=settings, allow_mixed=True).mixed) == 1


def test_another_truth_is_refused():
    with pytest.raises(UserError, match=r"1 sample\(s\) have other events, the first 'a' in new"):
        compare({"old": OLD, "new": [scored("a", "ccccc"), *NEW[1:]]})


def test_bad_runs_are_refused():
    with pytest.raises(UserError, match="expected at least 2"):
        compare({"old": OLD})
    with pytest.raises(UserError, match="both of sample 'a'"):
        compare({"old": [*OLD, OLD[0]], "new": NEW})
