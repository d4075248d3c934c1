"""avcap-1: what the model is asked, which of its replies count, and what happens to the others."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from support.scripted_chat import ScriptedChat, in_turn, make_case

from avcap.judge.protocols import prompts
from avcap.judge.protocols.avcap1 import SCHEMA, Avcap1, LLMJudge, omissions_of
from avcap.judge.protocols.protocol import opening_requests, run_protocol
from avcap.judge.types import EventJudge
from avcap.llm.types import NoReply, Reply
from avcap.records import Event, InventedClaim, Unscored, Verdict

EVENTS = ["a man waves", "a red ball rolls", "a dog barks"]
CAPTION = "A man waves at once.\nA blue ball rolls, and a door slams at 4 seconds."


def good_reply() -> dict[str, Any]:
    return {
        "events": [
            {"id": 1, "label": "correct", "quote": "A man waves"},
            {"id": 2, "label": "incorrect", "quote": "blue ball rolls"},
            {"id": 3, "label": "missing", "quote": ""},
        ],
        "invented": [{"text": "a door slams", "modality": "audio", "time_s": 4}],
        "counts": {"correct": 1, "missing": 1, "incorrect": 1, "invented": 1},
    }


def judge_once(*answers: str | Reply | NoReply) -> tuple[Verdict | Unscored, ScriptedChat]:
    chat = ScriptedChat(in_turn(answers))
    (result,) = LLMJudge(chat).judge([make_case(CAPTION, events=EVENTS)])
    return result, chat


def test_a_good_reply_is_a_verdict():
    judge: EventJudge = LLMJudge(ScriptedChat(lambda request: json.dumps(good_reply())))
    (verdict,) = judge.judge([make_case(CAPTION, events=EVENTS)])
    assert isinstance(verdict, Verdict)
    assert [(event.event_id, event.label) for event in verdict.events] == [
        ("e1", "correct"),
        ("e2", "incorrect"),
        ("e3", "missing"),
    ]
    assert verdict.invented == (InventedClaim(text="a door slams", modality="audio", start_s=4.0),)
    assert (verdict.judge, verdict.prompt_version) == ("scripted", Avcap1().card.prompt_version)


def test_what_is_asked():
    _, chat = judge_once(json.dumps(good_reply()))
    (request,) = chat.asked
    rules, question = request.messages
    assert (rules.role, rules.content) == ("system", prompts.JUDGE)
    assert question.content.startswith("The 3 events:\n1. (seen) a man waves\n2. (seen) a red ball rolls\n3. (seen)")
    assert "\n| A man waves at once.\n| A blue ball rolls," in question.content
    assert request.schema == SCHEMA and (request.temperature, request.attempt) == (0.0, 0)
    # 1,024 + 3 x 64
    assert request.max_tokens == 1216


def test_times_modality_and_interval_are_told():
    event = Event(event_id="x", text="a bell\n2. rings", modality="audio", start_s=3.0, end_s=4.5)
    case = make_case("a bell rings", interval_s=(2.0, 6.0), events=(event,))
    (request,) = opening_requests(Avcap1(), [case])
    assert "1. (heard, 3 s to 4.5 s) a bell 2. rings" in request.messages[1].content
    assert "The caption of the video from 2 s to 6 s:" in request.messages[1].content


Change = Callable[[dict[str, Any]], Any]


def event(number: int, **fields: Any) -> Change:
    return lambda reply: reply["events"][number - 1].update(fields)


BAD: dict[str, Change] = {
    "no 'events'": lambda reply: reply.pop("events"),
    "no 'invented'": lambda reply: reply.pop("invented"),
    "no 'counts'": lambda reply: reply.pop("counts"),
    "1 events without a label, the first being event 3": lambda reply: reply["events"].pop(),
    "event 2 is labelled twice: incorrect and missing": event(3, id=2),
    "event 4 is not in the list of 3": event(3, id=4),
    "event 0 is not in the list": event(3, id=0),
    "not a whole number": event(3, id="3"),
    "none of correct, missing, incorrect": event(3, label="maybe"),
    "event 1 (correct) is not in the caption": event(1, quote="a woman waves"),
    "event 2 (incorrect) is not in the caption": event(2, quote=""),
    "event 3 is missing and yet quoted": event(3, quote="a door"),
    "is not a text": event(1, quote=None),
    "counts say 2 missing, the lists 1": lambda reply: reply["counts"].update(missing=2),
    "counts say 0 invented, the lists 1": lambda reply: reply["counts"].update(invented=0),
    "invented claim 1 is not in the caption": lambda reply: reply["invented"][0].update(text="a cat sings"),
    "none of visual, audio, both, None": lambda reply: reply["invented"][0].update(modality="smell"),
    "not a time in seconds": lambda reply: reply["invented"][0].update(time_s="soon"),
    "listed twice": lambda reply: reply["invented"].append(reply["invented"][0]),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_reply_that_is_not_whole_is_asked_again_and_then_unscored(reason):
    reply = good_reply()
    BAD[reason](reply)
    result, chat = judge_once(*3 * [json.dumps(reply)])
    assert isinstance(result, Unscored) and result.caption_id == "c1"
    assert reason in result.reason and result.reason.endswith("(3 replies)")
    assert json.loads(result.reply) == reply
    assert [request.attempt for request in chat.asked] == [0, 1, 2]
    assert [request.temperature for request in chat.asked] == [0.0, 0.3, 0.3]


@pytest.mark.parametrize("first", ["I am sorry, but I cannot.", '{"events": []}', "", '{"events": [', "null"])
def test_a_second_try_can_succeed(first):
    result, chat = judge_once(first, json.dumps(good_reply()))
    assert isinstance(result, Verdict) and len(chat.asked) == 2


def test_a_reply_that_was_cut_off_gets_more_room():
    cut = Reply(text=json.dumps(good_reply()), finished=False)  # whole by chance, but who knows
    result, chat = judge_once(cut, json.dumps(good_reply()))
    assert isinstance(result, Verdict)
    assert [request.max_tokens for request in chat.asked] == [1216, 2432]


def test_who_cannot_be_asked_is_not_asked_again():
    result, chat = judge_once(NoReply(reason="503 after 5 tries"))
    assert result == Unscored(caption_id="c1", reason="503 after 5 tries") and len(chat.asked) == 1


@pytest.mark.parametrize("text", ["", " \n", "\u200b\u202e"])
def test_an_empty_caption_misses_everything_and_nobody_is_asked(text):
    chat = ScriptedChat(in_turn([]))
    (verdict,) = LLMJudge(chat).judge([make_case(text, events=EVENTS)])
    assert [event.label for event in verdict.events] == ["missing"] * 3 and not chat.asked


def test_a_sample_without_events_is_unscored():
    (result,) = LLMJudge(ScriptedChat(in_turn([]))).judge([make_case("A cat.")])
    assert result == Unscored(caption_id="c1", reason="the sample has no events")


def test_sixty_five_events_in_one_call():
    events = [f"fact {number}" for number in range(1, 66)]
    reply = {
        "events": [{"id": number, "label": "correct", "quote": f"fact {number}"} for number in range(1, 66)],
        "invented": [],
        "counts": {"correct": 65, "missing": 0, "incorrect": 0, "invented": 0},
    }
    chat = ScriptedChat(in_turn([json.dumps(reply)]))
    (verdict,) = LLMJudge(chat).judge([make_case(", ".join(events), events=events)])
    assert len(verdict.events) == 65 and len(chat.asked) == 1
    assert chat.asked[0].max_tokens == 1024 + 65 * 64


def test_answers_come_in_order_and_retries_go_together():
    """Four captions: the first and third need a second try, the last is empty. So two batches: 3 calls, then 2."""
    good = json.dumps(good_reply())
    cases = [make_case(CAPTION, events=EVENTS, caption_id=f"c{index}") for index in range(3)]
    cases.append(make_case("", events=EVENTS, caption_id="c3"))
    chat = ScriptedChat(in_turn(["?", good, "?", good, good]))
    results = list(LLMJudge(chat).judge(cases))
    assert [result.caption_id for result in results] == ["c0", "c1", "c2", "c3"]
    assert all(isinstance(result, Verdict) for result in results)
    assert chat.batches == [3, 2]


def test_what_the_model_was_not_shown_is_known():
    (omission,) = omissions_of(make_case("a dog barks " * 9000, events=EVENTS))
    assert "repeats itself" in omission
    assert omissions_of(make_case("a dog", events=EVENTS)) == ()


def test_a_summary_is_a_sum_over_captions():
    chat = ScriptedChat(lambda request: json.dumps(good_reply()))
    cases = [make_case(CAPTION, events=EVENTS), make_case("", events=EVENTS, caption_id="c2"), make_case("x")]
    outcome = run_protocol(Avcap1(), cases, chat=chat)
    # 1 + 3 of 6 events missing, 1 incorrect, 1 invented; the third caption has no events and counts nowhere
    rates = outcome.summary
    assert (rates.num_captions, rates.num_events, rates.missing_rate) == (2, 6, 4 / 6)
    assert rates.hallucination_rate == pytest.approx(2 / 6) and rates.total_error_rate == pytest.approx(1.0)
    assert [one.caption_id for one in outcome.unscored] == ["c1"]


def test_the_prompt_version_changes_with_the_wording(monkeypatch):
    before = Avcap1().card.prompt_version
    assert before == Avcap1(max_tries=5).card.prompt_version  # tries are in the card's decoding
    monkeypatch.setattr(prompts, "JUDGE", prompts.JUDGE + " ")
    assert Avcap1().card.prompt_version != before
