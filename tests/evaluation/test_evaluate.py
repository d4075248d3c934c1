"""Evaluation from matched captions to the files of its folder, and going on after a stop."""

import dataclasses
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support.scripted_chat import ScriptedChat

from avcap.errors import UserError
from avcap.evaluation.evaluate import evaluate, read_evaluation, restrict
from avcap.judge.inputs.events import Correction
from avcap.judge.inputs.ingest import WrittenCaption, match, read_truth, world_samples
from avcap.judge.metrics.error_rates import Scored
from avcap.judge.oracle import OracleJudge
from avcap.judge.types import Case
from avcap.llm.types import ChatRequest
from avcap.records import (
    Event,
    EventVerdict,
    InventedClaim,
    Sample,
    Unscored,
    Verdict,
    read_jsonl,
    write_jsonl,
)
from avcap.world.describe import Annotator, imperfect_caption
from avcap.world.make import clip_truth
from avcap.world.oracle import judge_caption
from avcap.world.scene import make_scene

TRUTHS = [
    clip_truth(make_scene(seed), clip_id=f"w{seed}", video=f"clips/w{seed}.mp4") for seed in range(10**9, 10**9 + 12)
]


class WordJudge:
    """An event is correct if its words stand in the caption, else missing; "fail" in a caption makes it unscored."""

    name, prompt_version = "words", "1"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def judge(self, cases: Sequence[Case]) -> Iterator[Verdict | Unscored]:
        for case in cases:
            if "die" in case.text:
                raise KeyboardInterrupt
            self.asked.append(case.caption_id)
            yield self._answer(case)

    def _answer(self, case: Case) -> Verdict | Unscored:
        if "fail" in case.text:
            return Unscored(caption_id=case.caption_id, reason="the judge refused")
        labels = tuple(
            EventVerdict(event_id=event.event_id, label="correct" if event.text in case.text else "missing")
            for event in case.sample.events
        )
        return Verdict(caption_id=case.caption_id, events=labels, judge=self.name, prompt_version=self.prompt_version)


def intake_of(tmp_path: Path, captions: dict[str, str | None], **truth):
    rows = truth or {"a": ["dog", "cat"], "b": ["man", "sun"], "c": ["rain", "fog"]}
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    written = [WrittenCaption(where="", names=(name,), text=text, error="broken") for name, text in captions.items()]
    return match(written, read_truth(path))


def test_rates_files_and_counts(tmp_path):
    intake = intake_of(tmp_path, {"a": "a dog", "b": "fail", "c": "rain, fog"})
    evaluation = evaluate(intake, judge=WordJudge(), out_dir=tmp_path / "out")
    # b is unscored and in no rate; a misses the cat, c nothing: 1 / 4
    data = json.loads((tmp_path / "out/metrics.json").read_text())
    assert data["global"]["missing_rate"]["value"] == 0.25
    assert (data["global"]["num_scored"], data["global"]["num_unscored"]) == (2, 1)
    assert (evaluation.num_videos, evaluation.num_events, evaluation.num_unscored) == (3, 6, 1)
    (unscored,) = read_jsonl(tmp_path / "out/unscored.jsonl", Unscored)
    assert unscored.reason == "the judge refused"
    saved = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert saved["setting"] == {"protocol": "avcap-1", "judge": "words", "prompt_version": "1", "modality": "both"}
    assert read_evaluation(tmp_path / "out") == (evaluation.setting, list(evaluation.scored))


def test_a_caption_that_failed_is_unscored_and_named(tmp_path):
    evaluation = evaluate(
        intake_of(tmp_path, {"a": "dog cat", "b": None, "c": ""}), judge=WordJudge(), out_dir=tmp_path / "out"
    )
    assert evaluation.num_unscored == 1
    assert evaluation.metrics.global_.missing_rate.value == 0.5  # an empty caption misses both: 2 / 4
    assert [problem.kind for problem in evaluation.problems] == ["empty caption"]


def test_verdicts_are_kept_and_the_unscored_asked_again(tmp_path):
    first, second = WordJudge(), WordJudge()
    captions = {"a": "a dog", "b": "fail", "c": "rain, fog"}
    one = evaluate(intake_of(tmp_path, captions), judge=first, out_dir=tmp_path / "out")
    two = evaluate(intake_of(tmp_path, captions), judge=second, out_dir=tmp_path / "out")
    assert len(first.asked) == 3
    assert second.asked == [one.scored[1].case.caption_id]
    assert two.metrics == one.metrics


@pytest.mark.parametrize("change", ["text", "events"])
def test_a_changed_case_is_judged_again(tmp_path, change):
    evaluate(intake_of(tmp_path, {"a": "dog", "b": "sun"}), judge=WordJudge(), out_dir=tmp_path / "out")
    again = WordJudge()
    if change == "text":
        intake = intake_of(tmp_path, {"a": "dog cat", "b": "sun"})
        # its writer kept the id of the old text: only the text tells them apart
        old = next(read_jsonl(tmp_path / "out/cases.jsonl", Case)).caption_id
        cases = (dataclasses.replace(intake.cases[0], caption_id=old), intake.cases[1])
        intake = dataclasses.replace(intake, cases=cases)
        expected = 0.25  # b misses the man: 1 / 4
    else:
        intake = intake_of(tmp_path, {"a": "dog", "b": "sun"}, a=["dog"], b=["man", "sun"], c=["x"])
        expected = 1 / 3
    evaluation = evaluate(intake, judge=again, out_dir=tmp_path / "out")
    assert again.asked == [intake.cases[0].caption_id]
    assert evaluation.metrics.global_.missing_rate.value == pytest.approx(expected)


def test_what_was_judged_before_an_interruption_is_not_asked_again(tmp_path):
    captions = {"a": "a dog", "b": "sun", "c": "die"}
    with pytest.raises(KeyboardInterrupt):
        evaluate(intake_of(tmp_path, captions), judge=WordJudge(), out_dir=tmp_path / "out")
    with open(tmp_path / "out/verdicts.jsonl", "a") as handle:
        handle.write('{"caption_id": "to')  # torn in the middle of a line, as by kill -9
    again = WordJudge()
    evaluation = evaluate(intake_of(tmp_path, captions | {"c": "fog"}), judge=again, out_dir=tmp_path / "out")
    assert again.asked == [evaluation.scored[2].case.caption_id]
    assert evaluation.metrics.global_.missing_rate.value == 0.5  # cat, man and rain: 3 / 6


def test_a_folder_holds_one_kind_of_evaluation(tmp_path):
    intake = intake_of(tmp_path, {"a": "a dog"})
    evaluate(intake, judge=WordJudge(), out_dir=tmp_path / "out")
    other = WordJudge()
    other.prompt_version = "2"
    with pytest.raises(UserError, match="choose another --out"):
        evaluate(intake, judge=other, out_dir=tmp_path / "out")
    assert not other.asked


def test_reference_captions_need_somebody_to_extract_events(tmp_path):
    intake = intake_of(tmp_path, {"a": "a dog", "b": "sun"}, a="A dog and a cat.", b="?")
    with pytest.raises(UserError, match="expected events, or a judge that can extract them"):
        evaluate(intake, judge=WordJudge(), out_dir=tmp_path / "out")

    def answer(request: ChatRequest) -> str:
        words = [word for word in ("dog", "cat") if word in request.messages[-1].content]
        events = [{"text": word, "modality": "visual", "start_s": None, "end_s": None} for word in words]
        return json.dumps({"events": events})

    evaluation = evaluate(intake, judge=WordJudge(), out_dir=tmp_path / "out", extractor=ScriptedChat(answer))
    assert evaluation.metrics.global_.missing_rate.value == 0.5  # the cat of two
    (unscored,) = [one.verdict for one in evaluation.scored if isinstance(one.verdict, Unscored)]
    assert unscored.reason.startswith("no events from the reference caption")


def test_a_persons_corrections_change_the_events(tmp_path):
    intake = intake_of(tmp_path, {"a": "a dog", "b": "sun"})
    corrections = [
        Correction(sample_id="a", action="delete", event_id="e2", was="cat"),
        Correction(sample_id="b", action="edit", event_id="e1", was="moon", text="night"),  # it says "man" now
        Correction(sample_id="elsewhere", action="delete", event_id="e1"),
    ]
    evaluation = evaluate(intake, judge=WordJudge(), out_dir=tmp_path / "out", corrections=corrections)
    assert evaluation.metrics.global_.missing_rate.value == pytest.approx(1 / 3)  # the man, of dog, man and sun
    assert [p.name for p in evaluation.problems if p.kind == "stale correction"] == ["b"]


@pytest.mark.parametrize("modality", ["visual", "audio"])
def test_one_modality_is_counted_as_the_oracle_judges_it_alone(modality):
    judge = OracleJudge(TRUTHS)
    num_wrong = 0
    for truth in TRUTHS:
        text = imperfect_caption(make_scene(truth.seed), annotator=Annotator(), rng=random.Random(7))
        case = Case(caption_id="c", sample=world_samples(truth)[0], text=text)
        (verdict,) = judge.judge([case])
        got = restrict(Scored(case=case, verdict=verdict), modality=modality)
        alone = judge_caption(text, truth=truth, modality=modality, caption_id="c")
        assert got.verdict.events == alone.events
        assert {event.event_id for event in got.case.sample.events} == {event.event_id for event in alone.events}
        assert len(got.verdict.invented) == len(alone.invented)
        num_wrong += len(alone.invented)
    assert num_wrong > 0  # else the last comparison says nothing


def test_wrong_about_what_was_not_asked_is_invented():
    events = (Event(event_id="v", text="seen", modality="visual"), Event(event_id="s", text="heard", modality="audio"))
    sample = Sample(sample_id="a", video="a", prompt="", events=events)
    verdict = Verdict(
        caption_id="c",
        invented=(InventedClaim(text="x"),),
        events=(EventVerdict(event_id="v", label="missing"), EventVerdict(event_id="s", label="incorrect")),
    )
    got = restrict(Scored(case=Case(caption_id="c", sample=sample, text=""), verdict=verdict), modality="visual")
    assert got.verdict.events == (EventVerdict(event_id="v", label="missing"),)
    assert [claim.text for claim in got.verdict.invented] == ["x", "wrong about: heard"]


def test_an_unfinished_folder_says_so(tmp_path):
    with pytest.raises(UserError, match="as avcap evaluate leaves it"):
        read_evaluation(tmp_path)
    evaluate(intake_of(tmp_path, {"a": "dog", "b": "sun"}), judge=WordJudge(), out_dir=tmp_path / "out")
    write_jsonl(tmp_path / "out/verdicts.jsonl", [])
    with pytest.raises(UserError, match="2 captions have no verdict"):
        read_evaluation(tmp_path / "out")
