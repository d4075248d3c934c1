"""Numbers of benchmarks from the shares of captions: sums, medians and means over sources, with intervals."""

import numpy as np
import pytest

from avcap.errors import UserError
from avcap.judge.benchmarks.benchmark import CaptionShares, benchmark_rates, compare_rates
from avcap.judge.benchmarks.registry import BENCHMARKS, find_benchmark
from avcap.judge.protocols.dream1k import Dream1k, DreamScore
from avcap.judge.protocols.testset_gpt import GptTestset, RunCounts, SevenRuns
from avcap.records import Unscored


def shares(video: str, **told: tuple[float, float]) -> CaptionShares:
    named = {name.replace("_", " "): list(share) for name, share in told.items()}
    return CaptionShares(caption_id=f"c{video}", sample_id=video, video=video, shares=named)


def seven(num_events: int, totals: list[int | None]) -> SevenRuns:
    runs = tuple(
        Unscored(caption_id="c", reason="x") if total is None else RunCounts(missed=total, incorrect=0, hallucination=0)
        for total in totals
    )
    return SevenRuns(caption_id="c", num_events=num_events, runs=runs)


def test_sums_are_divided_once():
    rates = benchmark_rates(BENCHMARKS["omni-cloze"], [shares("1", accuracy=(1, 2)), shares("2", accuracy=(9, 10))])
    assert rates["accuracy"].value == pytest.approx(10 / 12)
    # two videos: each draw has one of them twice, or both
    assert rates["accuracy"].low == pytest.approx(0.5) and rates["accuracy"].high == pytest.approx(0.9)


@pytest.mark.parametrize(
    "totals", [[3, 1, 2, 5, 4, 6, 7], [3, None, 2, None, 4, None, 7], [None, 5, None, 2, None, None, None]]
)
def test_the_median_run_is_that_of_the_protocol(totals):
    benchmark = BENCHMARKS["testset-gpt"]
    scores = [seven(10, totals), seven(10, totals[::-1])]
    told = [
        CaptionShares(caption_id="c", sample_id=str(n), video=str(n), shares=dict(benchmark.tally(score)))
        for n, score in enumerate(scores)
    ]
    expected = GptTestset().summarise(scores).median.rates
    rates = benchmark_rates(benchmark, told, num_resamples=50)
    assert rates["total"].value == pytest.approx(expected.total_error_rate)
    assert rates["missing"].value == pytest.approx(expected.missing_rate)


def test_f1_is_that_of_the_means_over_sources():
    scores = [
        DreamScore(caption_id=str(n), source=source, recall=recall, precision=precision,
                   reference_caption_events=(), caption_events=())
        for n, (source, recall, precision) in enumerate(
            [("a", 1.0, 0.5), ("a", 0.0, 0.5), ("b", 0.25, 1.0), ("c", 0.0, 0.0)]
        )
    ]  # fmt: skip
    benchmark = BENCHMARKS["dream-1k"]
    told = [
        CaptionShares(
            caption_id=s.caption_id, sample_id=s.caption_id, video=s.caption_id, shares=dict(benchmark.tally(s))
        )
        for s in scores
    ]
    rates = benchmark_rates(benchmark, told, num_resamples=200)
    overall = Dream1k().summarise(scores).overall
    assert (rates["recall"].value, rates["precision"].value) == pytest.approx((overall.recall, overall.precision))
    assert rates["f1"].value == pytest.approx(overall.f1) and rates["f1 c"].value == 0.0
    assert rates["f1"].low <= rates["f1"].value <= rates["f1"].high  # draws without a source do not spoil it


def test_a_difference_is_paired_by_video():
    """Videos differ much from each other and the runs by the same 0.1 in each: the interval is narrow."""
    rng = np.random.default_rng(0)
    base = [shares(str(n), accuracy=(float(value), 1.0)) for n, value in enumerate(rng.uniform(0, 0.9, 30))]
    run = [shares(one.video, accuracy=(one.shares["accuracy"][0] + 0.1, 1.0)) for one in base]
    found = compare_rates(BENCHMARKS["omni-cloze"], run, baseline=[*base, shares("alone", accuracy=(1, 1))])["accuracy"]
    assert found.value == pytest.approx(0.1) and found.high - found.low < 1e-6
    alone = benchmark_rates(BENCHMARKS["omni-cloze"], base)["accuracy"]
    assert alone.high - alone.low > 0.1


def test_nothing_scored_is_no_number():
    for benchmark in BENCHMARKS.values():
        assert benchmark_rates(benchmark, []) == {}


def test_a_name_with_its_version_is_known_and_no_other():
    assert find_benchmark("vdc-1") is find_benchmark("vdc")
    with pytest.raises(UserError, match="expected one of testset-gpt"):
        find_benchmark("vdc-2")
