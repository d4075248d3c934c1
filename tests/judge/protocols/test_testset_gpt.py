"""testset-gpt: seven runs, nine tries and then counts alone, and the run of the median Total."""

import json
from dataclasses import replace

import pytest
from support.scripted_chat import ScriptedChat, in_turn, make_case

from avcap.judge.protocols import prompts
from avcap.judge.protocols.protocol import opening_requests, run_protocol
from avcap.judge.protocols.testset_gpt import GptTestset, RunCounts, SevenRuns, read_counts, read_lists
from avcap.llm.json_reply import BadReply
from avcap.llm.types import ChatRequest, NoReply
from avcap.records import Unscored

EVENTS = ["a man waves", "a ball rolls", "a dog barks", "a bell rings"]


def lists(*, missed: list[int], incorrect: list[int], claims: list[str]) -> str:
    return json.dumps(
        {
            "missed": {"count": len(missed), "events": missed},
            "incorrect": {"count": len(incorrect), "events": incorrect},
            "hallucination": {"count": len(claims), "claims": claims},
        }
    )


GOOD = lists(missed=[1, 3], incorrect=[2], claims=["a cat"])


def case(caption_id: str = "c1", text: str = "A man waves."):
    return make_case(text, events=EVENTS, caption_id=caption_id)


def test_seven_runs_are_seven_requests_of_one_batch():
    chat = ScriptedChat(lambda request: GOOD)
    outcome = run_protocol(GptTestset(), [case()], chat=chat)
    assert chat.batches == [7]
    assert [request.attempt for request in chat.asked] == [0, 1, 2, 3, 4, 5, 6]
    assert {request.temperature for request in chat.asked} == {1.0}
    assert chat.asked == list(opening_requests(GptTestset(), [case()]))
    (score,) = outcome.scores
    assert score.runs == 7 * (
        RunCounts(
            missed=2, incorrect=1, hallucination=1, missed_ids=("e1", "e3"), incorrect_ids=("e2",), claims=("a cat",)
        ),
    )
    # 4 events: 2/4 missed, 1/4 incorrect, 1/4 hallucinated; the paper's hallucination is 1/4 + 1/4
    rates = outcome.summary.median.rates
    assert (rates.missing_rate, rates.hallucination_rate, rates.total_error_rate) == (0.5, 0.5, 1.0)


def test_the_run_of_the_median_total_is_reported():
    """Runs 0 to 6 miss 3, 0, 1, 2, 4, 4, 1 of 4 events; sorted 0 1 1 2 3 4 4, the median is 2 of 4, which run 3 has."""
    missed = [3, 0, 1, 2, 4, 4, 1]
    chat = ScriptedChat(
        lambda request: lists(missed=list(range(1, missed[request.attempt] + 1)), incorrect=[], claims=[])
    )
    summary = run_protocol(GptTestset(), [case()], chat=chat).summary
    assert summary.median_run == 3 and summary.median == summary.runs[3]
    assert summary.median.rates.total_error_rate == 2 / 4
    assert [run.rates.total_error_rate for run in summary.runs] == [count / 4 for count in missed]


def test_rates_are_sums_before_dividing():
    """8 events of which 1 is missed, and 2 of which both are: 3 of 10, where the mean of rates would be 0.5625."""
    long, short = make_case("x y", events=EVENTS * 2), make_case("x z", events=EVENTS[:2], caption_id="c2")
    replies = [lists(missed=missed, incorrect=[], claims=[]) for missed in ([1], [1, 2])]
    chat = ScriptedChat(in_turn(replies))
    summary = run_protocol(GptTestset(num_runs=1), [long, short], chat=chat).summary
    assert summary.median.rates.missing_rate == 3 / 10


def test_nine_tries_then_counts_alone():
    """Each try of a run has an attempt of its own: run, run + 7, ...; the simple prompt begins anew."""

    def script(request: ChatRequest) -> str:
        return '{"missed": 1, "incorrect": 0, "hallucination": 2}' if is_simple(request) else "I think it is fine."

    chat = ScriptedChat(script)
    outcome = run_protocol(GptTestset(), [case()], chat=chat)
    of_run_2 = [request for request in chat.asked if request.attempt % 7 == 2]
    assert [request.attempt for request in of_run_2] == [2, 9, 16, 23, 30, 37, 44, 51, 58, 2]
    assert list(map(is_simple, of_run_2)) == 9 * [False] + [True]
    assert outcome.scores[0].runs == 7 * (RunCounts(missed=1, incorrect=0, hallucination=2),)


def is_simple(request: ChatRequest) -> bool:
    return request.messages[0].content == prompts.TESTSET_COUNTS


def test_a_caption_that_is_never_counted_is_unscored_and_named():
    chat = ScriptedChat(lambda request: "No." if "| bad" in request.messages[1].content else GOOD)
    outcome = run_protocol(GptTestset(), [case("good"), case("bad", text="bad")], chat=chat)
    # 7 calls for the good one, 7 x (9 + 3) for the other
    assert len(chat.asked) == 7 + 84
    assert [one.caption_id for one in outcome.unscored] == ["bad"]
    assert outcome.unscored[0].reason.startswith("no run gave counts") and outcome.unscored[0].reply == "No."
    assert outcome.summary.median.rates.num_events == 4


def test_a_caption_that_one_run_cannot_count_is_out_of_that_run_alone():
    def script(request: ChatRequest) -> str:
        return "No." if request.attempt % 7 == 0 and "| bad" in request.messages[1].content else GOOD

    outcome = run_protocol(GptTestset(), [case("good"), case("bad", text="bad")], chat=ScriptedChat(script))
    assert isinstance(outcome.scores[1].runs[0], Unscored)
    assert [run.num_unscored for run in outcome.summary.runs] == [1, 0, 0, 0, 0, 0, 0]
    assert [run.rates.num_events for run in outcome.summary.runs] == [4, 8, 8, 8, 8, 8, 8]


def test_a_server_that_is_away_is_asked_once_a_run():
    chat = ScriptedChat(lambda request: NoReply(reason="503"))
    outcome = run_protocol(GptTestset(), [case()], chat=chat)
    assert len(chat.asked) == 7 and outcome.unscored[0].reason.endswith("503")
    assert outcome.summary.median.rates.total_error_rate is None


def test_an_empty_caption_misses_all_in_all_runs_unasked():
    chat = ScriptedChat(in_turn([]))
    outcome = run_protocol(GptTestset(), [case(text=" ")], chat=chat)
    assert isinstance(outcome.scores[0], SevenRuns)
    assert outcome.summary.median.rates.missing_rate == 1.0 and not chat.asked


@pytest.mark.parametrize(("finished", "shown"), [(False, 1), (True, 3), (None, 3)])
def test_repetitions_of_a_caption_that_never_ended_are_taken_out(finished, shown):
    looping = replace(case(text="A dog barks. " * 50), finished=finished)
    (request, *_) = opening_requests(GptTestset(), [looping])
    assert request.messages[1].content.count("A dog barks.") == shown


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"missed": {"count": 1, "events": [1, 3]}}, "missed counts 1 and lists 2"),
        ({"incorrect": {"count": 1, "events": [3]}}, "event 3 is both missed and incorrect"),
        ({"missed": {"count": 2, "events": [1, 1]}}, "twice"),
        ({"missed": {"count": 1, "events": [5]}}, "not the number of one of the 4"),
        ({"missed": {"count": 1, "events": [True]}}, "not the number"),
        ({"missed": {"count": 1, "events": ["a man waves"]}}, "not the number"),
        ({"hallucination": {"count": 0, "claims": ["x"]}}, "counts 0 and lists 1"),
        ({"hallucination": {"count": 1, "claims": [3]}}, "not a text"),
        ({"hallucination": ["x"]}, "not an object"),
    ],
)
def test_lists_that_do_not_fit(change, reason):
    with pytest.raises(BadReply, match=reason):
        read_lists(json.dumps(json.loads(GOOD) | change), sample=case().sample)


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ({"missed": 3, "incorrect": 2, "hallucination": 0}, "3 missed and 2 incorrect of 4"),
        ({"missed": 5, "incorrect": 0, "hallucination": 0}, "from 0 to 4"),
        ({"missed": -1, "incorrect": 0, "hallucination": 0}, "from 0 to 4"),
        ({"missed": 1.5, "incorrect": 0, "hallucination": 0}, "from 0 to 4"),
        ({"missed": 1, "incorrect": 0}, "no 'hallucination'"),
    ],
)
def test_counts_that_cannot_be(counts, reason):
    with pytest.raises(BadReply, match=reason):
        read_counts(json.dumps(counts), num_events=4)


def test_hallucinations_may_outnumber_events():
    assert read_counts('{"missed": 0, "incorrect": 0, "hallucination": 9}', num_events=4).hallucination == 9
