"""A judge with known noise around an exact one."""

from pathlib import Path

import pytest

from avcap.errors import UserError
from avcap.judge.calibration.noisy_oracle import NoisyJudge
from avcap.judge.inputs.ingest import read_truth
from avcap.judge.oracle import OracleJudge
from avcap.judge.types import Case
from avcap.records import Verdict

EXAMPLES = Path(__file__).parents[3] / "examples" / "truth.jsonl"


@pytest.fixture(scope="module")
def oracle_and_cases():
    truth = read_truth(EXAMPLES)
    cases = [
        Case(caption_id=f"{sample.sample_id}/{k}", sample=sample, text=sample.reference_caption or "")
        for sample in truth.samples
        if sample.events and sample.reference_caption
        for k in range(40)
    ]
    return OracleJudge(truth.worlds.values()), cases


def test_the_share_of_wrong_labels_is_as_expected(oracle_and_cases):
    oracle, cases = oracle_and_cases
    verdicts = [found for found in NoisyJudge(oracle, share=0.2).judge(cases) if isinstance(found, Verdict)]
    labels = [event.label for verdict in verdicts for event in verdict.events]
    # the reference captions have no error; three standard errors of 2,000 draws or more are below 0.03
    assert len(labels) > 2000
    assert sum(label != "correct" for label in labels) / len(labels) == pytest.approx(0.2, abs=0.03)


def test_the_same_caption_gets_the_same_noise(oracle_and_cases):
    oracle, cases = oracle_and_cases
    first, again = (list(NoisyJudge(oracle, share=0.3, seed=1).judge(cases[:50])) for _ in range(2))
    assert first == again != list(NoisyJudge(oracle, share=0.3, seed=2).judge(cases[:50]))
    assert [v.caption_id for v in first] == [case.caption_id for case in cases[:50]]


def test_no_noise_is_the_judge_itself(oracle_and_cases):
    oracle, cases = oracle_and_cases
    for noisy, true in zip(NoisyJudge(oracle, share=0.0).judge(cases[:9]), oracle.judge(cases[:9]), strict=True):
        assert isinstance(noisy, Verdict) and isinstance(true, Verdict) and noisy.events == true.events


def test_a_share_is_a_share(oracle_and_cases):
    with pytest.raises(UserError, match="0 to 1"):
        NoisyJudge(oracle_and_cases[0], share=1.5)
