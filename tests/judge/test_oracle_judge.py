"""The exact judge behind the same interface as all others."""

import random

from avcap.judge.inputs.ingest import world_samples
from avcap.judge.oracle import OracleJudge
from avcap.judge.types import Case
from avcap.records import Event, Sample, Unscored, Verdict
from avcap.world.make import clip_truth
from avcap.world.oracle import corrupt
from avcap.world.scene import make_scene

SEEDS = range(10**9, 10**9 + 40)
TRUTHS = [clip_truth(make_scene(seed), clip_id=f"w{seed}", video=f"clips/w{seed}.mp4") for seed in SEEDS]


def case_of(sample: Sample, text: str) -> Case:
    return Case(caption_id=f"c/{sample.sample_id}", sample=sample, text=text)


def test_truth_has_no_errors_in_whole_clips_and_in_intervals():
    samples = [sample for truth in TRUTHS for sample in world_samples(truth)]
    cases = [case_of(sample, sample.reference_caption or "") for sample in samples]
    verdicts = list(OracleJudge(TRUTHS).judge(cases))
    assert len(verdicts) == len(cases) > 100
    for case, verdict in zip(cases, verdicts, strict=True):
        assert isinstance(verdict, Verdict)
        assert verdict.caption_id == case.caption_id
        assert [event.event_id for event in verdict.events] == [event.event_id for event in case.sample.events]
        assert {event.label for event in verdict.events} <= {"correct"}
        assert not verdict.invented and not verdict.repeated


def test_an_empty_caption_misses_all():
    (verdict,) = OracleJudge(TRUTHS).judge([case_of(world_samples(TRUTHS[0])[0], "")])
    assert {event.label for event in verdict.events} == {"missing"}


def test_planted_errors_are_found():
    judge = OracleJudge(TRUTHS)
    for truth in TRUTHS[:20]:
        text, planted = corrupt(truth.reference_caption, 2, rng=random.Random(truth.seed))
        (verdict,) = judge.judge([case_of(world_samples(truth)[0], text)])
        found = {label: {e.event_id for e in verdict.events if e.label == label} for label in ("missing", "incorrect")}
        assert found["missing"] == {event_id for error in planted for event_id in error.missing}
        assert found["incorrect"] == {event_id for error in planted for event_id in error.incorrect}
        assert len(verdict.invented) == sum(error.num_invented for error in planted)


def test_what_it_does_not_know_is_unscored():
    judge = OracleJudge(TRUTHS)
    stranger = Sample(sample_id="x", video="x.mp4", prompt="")
    edited = Sample(
        sample_id=TRUTHS[0].clip_id,
        video=TRUTHS[0].video,
        prompt="",
        events=(Event(event_id="e1", text="a dog barks", modality="audio"),),
    )
    answers = list(judge.judge([case_of(stranger, "A."), case_of(edited, "A.")]))
    assert all(isinstance(answer, Unscored) for answer in answers)
    assert "no clip of the world" in answers[0].reason and "not those of its scene" in answers[1].reason
