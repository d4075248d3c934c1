"""`avcap judge calibrate`, and what `avcap evaluate` makes of its file."""

import json
from pathlib import Path

import pytest
from support.scripted_server import ScriptedServer, always
from support.yes_no_model import KnownDoubts, play

from avcap.judge.calibration.calibrate import Calibration
from avcap.judge.calibration.cases import Labelled, make_calibration_cases, shuffled_cases
from avcap.judge.types import Case
from avcap.llm.types import ChatRequest, Message, Reply
from avcap.records import EventVerdict, Sample, Verdict, from_json, write_jsonl
from avcap.world.make import clip_truth
from avcap.world.oracle import judge_caption
from avcap.world.scene import make_scene

TRUTHS = [clip_truth(make_scene(seed), clip_id=f"w{seed}", video=f"w{seed}.mp4") for seed in range(10**9, 10**9 + 6)]


def calibrated(path: Path) -> Calibration:
    return from_json(path.read_text(), Calibration)


def all_missing(sample: Sample) -> Verdict:
    labels = tuple(EventVerdict(event_id=event.event_id, label="missing") for event in sample.events)
    return Verdict(caption_id=sample.sample_id, events=labels)


def test_a_judge_that_never_errs_has_no_noise(tmp_path, run):
    code, out, err = run("judge", "calibrate", "--judge", "oracle", "--videos", 30, "--out", tmp_path / "c.json")
    assert code == 0 and "c.json" in err
    found = calibrated(tmp_path / "c.json")
    assert found.oracle.accuracy.value == 1.0 and found.noise_margin.margin == 0.0
    assert "accuracy 100.0 %" in out


def test_captions_in_other_words_have_the_same_truth(tmp_path, run):
    words = ("judge", "calibrate", "--judge", "oracle", "--videos", 6, "--style", "mixed")
    code, out, _ = run(*words, "--out", tmp_path / "c.json")
    assert code == 0 and "planted errors (mixed)" in out and "accuracy 100.0 %" in out
    assert calibrated(tmp_path / "c.json").style == "mixed"


@pytest.mark.slow
def test_the_noise_that_is_planted_is_the_noise_that_is_found(tmp_path, run):
    run("judge", "calibrate", "--judge", "noisy:0.2", "--videos", 60, "--out", tmp_path / "c.json")
    accuracy = calibrated(tmp_path / "c.json").oracle.accuracy
    assert accuracy.low <= 0.8 <= accuracy.high
    assert calibrated(tmp_path / "c.json").noise_margin.margin > 0.1


def test_a_person_is_compared_with_the_judge(tmp_path, run):
    samples = [Sample(sample_id=t.clip_id, video=t.video, prompt="", events=t.events) for t in TRUTHS]
    cases = [Case(caption_id=s.sample_id, sample=s, text="At 1s a bell rings once.") for s in samples]
    write_jsonl(tmp_path / "cases.jsonl", cases)
    write_jsonl(tmp_path / "person.jsonl", map(all_missing, samples))
    words = ("judge", "calibrate", "--judge", "oracle", "--videos", 5, "--out", tmp_path / "c.json")
    assert run(*words, "--person", tmp_path / "person.jsonl", "--of", tmp_path)[0] == 0
    # The oracle of the command line knows what it was given as true: the person's labels.
    assert calibrated(tmp_path / "c.json").person.accuracy.value == 1.0
    code, _, err = run(*words, "--person", tmp_path / "person.jsonl")
    assert code == 2 and "--of" in err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--judge", "noisy:2", "--videos", 2), "from 0 to 1"),
        (("--judge", "oracle", "--videos", 0), "at least 1"),
        (("--judge", "somebody", "--videos", 2), "openai:MODEL@URL"),
        (("--judge", "oracle", "--judge-protocol", "mine"), "expected avcap-1 or avcap-yesno-1"),
        (("--judge", "oracle", "--style", "poetic"), "expected one of plain, vocabulary"),
    ],
)
def test_bad_input_is_one_line(tmp_path, run, words, expected):
    cache = tmp_path / "replies.sqlite"
    code, out, err = run("judge", "calibrate", *words, "--out", tmp_path / "c.json", "--cache", cache)
    assert code == 2 and not out and err.count("\n") == 1 and expected in err
    assert not (tmp_path / "c.json").exists()


def test_rates_are_corrected_by_the_calibration_of_the_same_judge_only(tmp_path, run):
    write_jsonl(tmp_path / "truth.jsonl", TRUTHS)
    rows = [{"video": truth.video, "pred": truth.reference_caption} for truth in TRUTHS]
    (tmp_path / "captions.json").write_text(json.dumps(rows))
    run("judge", "calibrate", "--judge", "noisy:0.1", "--videos", 5, "--out", tmp_path / "noisy.json")
    words = ("evaluate", tmp_path / "captions.json", "--truth", tmp_path, "--out", tmp_path / "report")
    code, _, err = run(*words, "--calibration", tmp_path / "noisy.json")
    assert code == 2 and "got the calibration of noisy-oracle, expected that of oracle" in err

    calibration = json.loads((tmp_path / "noisy.json").read_text()) | {"judge": "oracle"}
    (tmp_path / "same.json").write_text(json.dumps(calibration))
    code, out, _ = run(*words, "--calibration", tmp_path / "same.json")
    assert code == 0 and "global, without the judge's known mistakes: " in out
    assert json.loads((tmp_path / "report" / "corrected.json").read_text())["global"]["valid"] in (True, False)


def test_the_second_attempt_is_asked_anew():
    from avcap.cli.judge import SECOND_ATTEMPT, _Again

    class Chat:
        name = "chat"

        def ask(self, requests):
            return (Reply(text=str(request.attempt)) for request in requests)

    request = ChatRequest(messages=(Message(role="user", content="?"),), max_tokens=1, attempt=2)
    (reply,) = _Again(Chat(), SECOND_ATTEMPT).ask([request])
    assert reply.text == str(SECOND_ATTEMPT + 2)  # another key in the cache than that of the first attempt


@pytest.mark.slow
def test_a_model_asked_for_yes_or_no_is_calibrated_and_judges_with_its_thresholds(tmp_path, run):
    """It leans to No by 4: uncalibrated it would call everything wrong, calibrated it makes no mistake."""
    cases = make_calibration_cases(num_videos=6, seed=0)
    mine = [_labelled(truth) for truth in TRUTHS]
    doubts = KnownDoubts([*cases, *shuffled_cases(cases), *mine], offset=4.0)
    write_jsonl(tmp_path / "truth.jsonl", TRUTHS)
    rows = [{"video": one.case.sample.video, "pred": one.case.text} for one in mine]
    (tmp_path / "captions.json").write_text(json.dumps(rows))
    with ScriptedServer(script=always(play(doubts))) as server:
        judge = ("--judge", f"openai:leaning@{server.url}", "--judge-protocol", "avcap-yesno-1")
        cache = ("--cache", tmp_path / "replies.sqlite")
        code, out, err = run("judge", "calibrate", *judge, *cache, "--videos", 6, "--out", tmp_path / "c.json")
        assert code == 0, err
        assert "by avcap-yesno-1" in out and "accuracy 100.0 %" in out and "thresholds of its doubts +4.000" in out
        found = calibrated(tmp_path / "c.json")
        assert found.judge_protocol == "avcap-yesno-1" and found.thresholds.told_right == pytest.approx(4.0)

        words = ("evaluate", tmp_path / "captions.json", "--truth", tmp_path, *judge, *cache)
        assert run(*words, "--out", tmp_path / "plain")[0] == 0
        code, out, err = run(*words, "--out", tmp_path / "fitted", "--calibration", tmp_path / "c.json")
    assert code == 0, err
    assert "protocol avcap-yesno-1" in out
    metrics = [json.loads((tmp_path / name / "metrics.json").read_text())["global"] for name in ("plain", "fitted")]
    # 3 + 4 and -3 + 4 are both above 0: without its thresholds everything is missing
    assert metrics[0]["missing_rate"]["value"] == 1.0
    expected = [sum(event.label == "missing" for one in mine for event in one.truth.events)]
    assert metrics[1]["missing_rate"]["value"] * metrics[1]["num_events"] == pytest.approx(expected[0])
    verdict = json.loads((tmp_path / "fitted/verdicts.jsonl").read_text().splitlines()[0])
    assert verdict["judge_protocol"] == "avcap-yesno-1" and "+4.000" in verdict["prompt_version"]
    code, _, err = run("compare", tmp_path / "plain", tmp_path / "fitted")
    assert code == 2 and "prompt version is" in err


def _labelled(truth) -> Labelled:
    """The first two sentences of a clip's caption, with what the oracle says of them."""
    text = ". ".join(truth.reference_caption.split(". ")[:2]).rstrip(".") + "."
    sample = Sample(sample_id=truth.clip_id, video=truth.video, prompt="", events=truth.events)
    case = Case(caption_id=truth.clip_id, sample=sample, text=text)
    return Labelled(case=case, truth=judge_caption(text, truth=truth, caption_id=truth.clip_id))


def test_evaluations_asked_in_two_ways_are_not_compared(tmp_path, run):
    write_jsonl(tmp_path / "truth.jsonl", TRUTHS)
    rows = [{"video": truth.video, "pred": ""} for truth in TRUTHS]  # empty captions: nobody is asked
    (tmp_path / "captions.json").write_text(json.dumps(rows))
    for name in ("avcap-1", "avcap-yesno-1"):
        judge = ("--judge", "openai:m@http://127.0.0.1:9/v1", "--judge-protocol", name)
        words = ("evaluate", tmp_path / "captions.json", "--truth", tmp_path, *judge, "--out", tmp_path / name)
        assert run(*words)[0] == 0
    code, _, err = run("compare", tmp_path / "avcap-1", tmp_path / "avcap-yesno-1")
    assert code == 2 and "protocol is 'avcap-1' in" in err
