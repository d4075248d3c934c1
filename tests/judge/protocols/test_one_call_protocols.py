"""omni-cloze, ugc-videocap and caption-qa: which replies count, and what becomes of the others."""

import json

import pytest
from support.scripted_chat import ScriptedChat, in_turn

from avcap.judge.protocols.caption_qa import NOT_SAID, CaptionQa, CaptionQaCase, ChoiceQuestion
from avcap.judge.protocols.omni_cloze import Blank, ClozeCase, OmniCloze
from avcap.judge.protocols.protocol import run_protocol
from avcap.judge.protocols.ugc_videocap import UgcCase, UgcVideoCap
from avcap.llm.types import NoReply

CLOZE = ClozeCase(
    caption_id="c",
    caption="A dog runs.",
    passage="A (1) (2).",
    blanks=(Blank(options=("dog", "cat", "cow", "pig"), answer="A"), Blank(options=("runs", "sits"), answer="E")),
)
UGC = UgcCase(caption_id="c", caption="A dog runs.", reference_caption="A dog runs and barks.")
QA = CaptionQaCase(
    caption_id="c",
    caption="A dog runs.",
    questions=(ChoiceQuestion(text="What runs?", options=("cat", "dog"), answer="B", kind="k"),),
)


def outcome(protocol, case, *answers):
    chat = ScriptedChat(in_turn(answers))
    return run_protocol(protocol, [case], chat=chat), chat


def test_blanks_are_right_wrong_or_not_given():
    found, chat = outcome(OmniCloze(), CLOZE, json.dumps({"1": "A: dog", "2": "A"}))
    ((first, second),) = [score.blanks for score in found.scores]
    assert (first.outcome, second.outcome) == ("right", "wrong")  # the second is not given in the video's truth
    assert found.summary.accuracy == 0.5 and found.summary.score == 0.0
    question = chat.asked[0].messages[1].content
    assert "1. A: dog; B: cat; C: cow; D: pig; E: not given\n2. A: runs; B: sits; E: not given" in question
    assert question.index("A dog runs.") < question.index("A (1) (2).")  # the caption first


@pytest.mark.parametrize("reply", ['{"1": "A"}', '{"1": "A", "2": "F"}', '{"1": "A", "2": "B", "3": "C"}', "A, B"])
def test_a_cloze_that_is_not_whole_is_asked_again(reply):
    found, chat = outcome(OmniCloze(), CLOZE, reply, json.dumps({"1": "A", "2": "E"}))
    assert found.summary.accuracy == 1.0 and len(chat.asked) == 2
    found, _ = outcome(OmniCloze(), CLOZE, *3 * [reply])
    assert not found.scores and len(found.unscored) == 1


def test_points_in_json_or_as_their_prompt_asks_for_them():
    for reply in ('{"visual": 5, "audio": 1, "details": 3}', "{'visual': 5, 'audio': 1, 'details': 3}"):
        found, _ = outcome(UgcVideoCap(), UGC, reply)
        # (5 + 1 + 3) / 3 points of 5
        assert found.summary == pytest.approx(60.0)


@pytest.mark.parametrize(
    "reply", ['{"visual": 6, "audio": 1, "details": 3}', '{"visual": 0, "audio": 1, "details": 3}', "4"]
)
def test_points_beyond_the_scale_do_not_count(reply):
    found, _ = outcome(UgcVideoCap(), UGC, *3 * [reply])
    assert not found.scores and len(found.unscored) == 1


@pytest.mark.parametrize(
    ("reply", "letter"),
    [("B", "B"), ("**B**", "B"), ("B. dog", "B"), ("(A)", "A"), ("N/A", NOT_SAID), ("n/a.", NOT_SAID)],
)
def test_letters_and_refusals(reply, letter):
    found, _ = outcome(CaptionQa(), QA, reply)
    ((answer,),) = [score.answers for score in found.scores]
    assert answer.letter == letter and answer.is_right == (letter == "B")


def test_what_is_no_letter_is_asked_for_five_times_and_then_not_said():
    found, chat = outcome(CaptionQa(), QA, "Both", "dog", "C", "?", "Because")
    assert found.scores[0].answers[0].letter == NOT_SAID and found.summary == 0.0 and len(chat.asked) == 5


def test_a_question_that_nobody_answers_is_in_no_mean():
    two = CaptionQaCase(caption_id="c", caption="A dog.", questions=QA.questions * 2)
    found, _ = outcome(CaptionQa(), two, "B", NoReply(reason="503"))
    assert found.summary == 1.0 and found.scores[0].answers[1].failed == "503"
    found, _ = outcome(CaptionQa(), QA, NoReply(reason="503"))
    assert not found.scores and "503" in found.unscored[0].reason


def test_an_empty_caption_gets_the_least_and_nobody_is_asked():
    from dataclasses import replace

    empty = [(OmniCloze(), CLOZE), (UgcVideoCap(), UGC), (CaptionQa(), QA)]
    summaries = [outcome(protocol, replace(case, caption=" "))[0].summary for protocol, case in empty]
    # not given is right once of two blanks; 1 of 5 points; nothing answered
    assert (summaries[0].accuracy, summaries[1], summaries[2]) == (0.5, pytest.approx(20.0), 0.0)
