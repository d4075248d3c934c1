"""What a model is measured by on held-out videos, besides error rates."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from avcap.data.feature_cache import FeatureCache
from avcap.data.request import Request
from avcap.errors import UserError
from avcap.evaluation.collect import ModelOpener
from avcap.evaluation.held_out import (
    HeldOut,
    RoundMetrics,
    caption_logprobs,
    distinct_ngrams,
    read_round_metrics,
    round_metrics_of,
)
from avcap.infer.captioner import Captioner
from avcap.infer.find_checkpoint import find_checkpoint
from avcap.judge.metrics.error_rates import Scored, compute_metrics
from avcap.judge.oracle import OracleJudge
from avcap.judge.types import Case
from avcap.records import Caption, Decoding, Event, EventVerdict, Sample, Verdict

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_distinct_ngrams_by_hand():
    # "a b a b a b" has the 2-grams ab ba ab ba ab: 2 of 5 are distinct
    assert distinct_ngrams(["a b a b a b"], length=2) == pytest.approx(2 / 5)
    # each alone is all distinct, together the second adds nothing: 2 of 4
    assert distinct_ngrams(["a b c", "A b c"], length=2) == pytest.approx(2 / 4)
    assert distinct_ngrams(["a"], length=2) == 1.0 and distinct_ngrams([], length=2) == 1.0


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner("tiny-sft")


@pytest.fixture(scope="module")
def described(captioner) -> tuple[list[Sample], list[Caption]]:
    """Two example videos and what the model says of them in 60 tokens."""
    samples = [Sample(sample_id=p.name, video=str(p), prompt="") for p in sorted(EXAMPLES.glob("*.mp4"))[:2]]
    return samples, list(captioner.stream(samples, Request(decoding=Decoding(max_new_tokens=60))))


def test_log_probs_of_captions_are_those_of_one_by_one(captioner, described):
    samples, captions = described
    together = caption_logprobs(captioner, samples, captions)
    alone = [caption_logprobs(captioner, [s], [c])[0] for s, c in zip(samples, captions, strict=True)]
    for both, one in zip(together, alone, strict=True):
        assert both.total.item() == pytest.approx(one.total.item(), rel=1e-4) and both.num_tokens == one.num_tokens
    # what the model itself says greedily is likely, the words backwards are not
    backwards = [type(c)(**{**vars(c), "text": " ".join(reversed(c.text.split()))}) for c in captions]
    likely = sum(one.total.item() for one in together) / sum(one.num_tokens for one in together)
    unlikely = caption_logprobs(captioner, samples, backwards)
    total, num_tokens = sum(one.total.item() for one in unlikely), sum(one.num_tokens for one in unlikely)
    assert math.exp(-likely) < 2 < 10 < math.exp(-total / num_tokens)
    assert torch.is_grad_enabled()


def test_perplexity_is_per_token_over_all_captions(captioner, described, tmp_path):
    samples, (whole, other) = described
    captions = [whole, replace(other, text=" ".join(other.text.split()[:20]))]
    held_out = HeldOut(
        start=find_checkpoint("tiny-sft"),
        samples=samples,
        judge=OracleJudge([]),
        models=ModelOpener(features=FeatureCache(tmp_path), batch_size=1),
    )
    first, second = caption_logprobs(captioner, samples, captions)
    assert first.num_tokens != second.num_tokens
    total = (first.total + second.total).item()
    # not the mean of two perplexities, and not per caption
    assert held_out._perplexity(captions) == pytest.approx(
        math.exp(-total / (first.num_tokens + second.num_tokens)), rel=1e-4
    )


def scored(text: str, labels: str, *, interval_s: tuple[float, float] | None = None) -> Scored:
    """A caption of video "v" whose events are labelled c(orrect), m(issing) or i(ncorrect), one letter each."""
    names = {"c": "correct", "m": "missing", "i": "incorrect"}
    events = tuple(Event(event_id=str(i), text="", modality="visual") for i in range(len(labels)))
    sample = Sample(sample_id=f"v{interval_s}", video="v", prompt="", interval_s=interval_s, events=events)
    verdict = Verdict(
        caption_id="c", events=tuple(EventVerdict(event_id=str(i), label=names[one]) for i, one in enumerate(labels))
    )
    return Scored(case=Case(caption_id="c", sample=sample, text=text, finished=interval_s is not None), verdict=verdict)


def test_a_round_metrics_averages_errors_of_both_kinds_and_takes_the_rest_from_global_captions():
    whole = scored("a b c d e a b c d e", "cmmi")  # 5 of 10 words repeated; 2 of 4 missing, 1 incorrect; never ends
    local = scored("one two", "cm", interval_s=(0.0, 2.0))  # none of 2 words repeated; 1 of 2 missing; ends
    right = [("who", True), ("when", False), ("who", True), ("who", False)]
    round_metrics = round_metrics_of(3, compute_metrics([whole, local]), right=right)
    assert round_metrics == RoundMetrics(
        round_number=3,
        total_error=(3 / 4 + 1 / 2) / 2,
        global_error=3 / 4,
        local_error=1 / 2,
        missing=(2 / 4 + 1 / 2) / 2,
        hallucination=(1 / 4 + 0) / 2,
        repetition=5 / 10,
        truncated=1.0,
        words=10.0,
        questions=2 / 4,
        questions_by_kind={"when": 0.0, "who": 2 / 3},
    )
    alone = round_metrics_of(3, compute_metrics([local]))
    assert (alone.total_error, alone.global_error, alone.words, alone.questions) == (1 / 2, None, 2.0, None)


START = RoundMetrics(
    round_number=0,
    total_error=0.5,
    global_error=0.5,
    local_error=0.5,
    missing=0.375,
    hallucination=0.125,
    repetition=0.125,
    truncated=0.0,
    words=50.0,
    distinct=0.5,
    perplexity=2.0,
    questions=0.75,
)


def test_round_metrics_are_read_in_the_order_of_their_rounds(tmp_path):
    for round_number in (10, 2, 0):
        folder = tmp_path / f"round-{round_number}"
        folder.mkdir()
        (folder / "round_metrics.json").write_text(json.dumps(asdict(replace(START, round_number=round_number))))
    (tmp_path / "round-11").mkdir()  # not measured yet
    assert [round_metrics.round_number for round_metrics in read_round_metrics(tmp_path)] == [0, 2, 10]
    with pytest.raises(UserError, match="got no measured round"):
        read_round_metrics(tmp_path / "round-0")
