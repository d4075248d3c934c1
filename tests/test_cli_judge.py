"""`avcap judge calibrate`, and what `avcap evaluate` makes of its file."""

import json
from pathlib import Path

import pytest

from avcap.judge.calibration.calibrate import Calibration
from avcap.judge.types import Case
from avcap.llm.types import ChatRequest, Message, Reply
from avcap.records import EventVerdict, Sample, Verdict, from_json, write_jsonl
from avcap.world.make import clip_truth
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
