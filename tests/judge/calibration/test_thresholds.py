"""Thresholds of avcap-yesno-1: found from doubts whose truth is known, used on captions that did not choose them."""

import pytest
from support.scripted_chat import ScriptedChat
from support.yes_no_model import KnownDoubts, reply_to

from avcap.judge.calibration.calibrate import calibrate
from avcap.judge.calibration.cases import Labelled, make_calibration_cases, shuffled_cases
from avcap.judge.calibration.thresholds import FittedJudge, ask_doubts, auc, fit_thresholds
from avcap.judge.protocols.avcap_yesno1 import ClaimDoubt, EventDoubts, Thresholds, YesNoDoubts
from avcap.judge.protocols.claims import Claim
from avcap.judge.types import Case
from avcap.records import Event, EventVerdict, InventedClaim, Sample, Unscored, Verdict


@pytest.fixture(scope="module")
def cases() -> tuple[Labelled, ...]:
    return make_calibration_cases(num_videos=16, seed=0)


def labelled(labels: str, *, invented: int = 0, caption_id: str = "c") -> Labelled:
    """ "cmi" -> a caption with three events of these labels."""
    names = {"c": "correct", "m": "missing", "i": "incorrect"}
    ids = [f"e{number}" for number in range(len(labels))]
    sample = Sample(
        sample_id=caption_id,
        video=f"{caption_id}.mp4",
        prompt="",
        events=tuple(Event(event_id=event_id, text="x", modality="visual") for event_id in ids),
    )
    truth = Verdict(
        caption_id=caption_id,
        events=tuple(EventVerdict(event_id=i, label=names[c]) for i, c in zip(ids, labels, strict=True)),
        invented=tuple(InventedClaim(text=f"claim {number}") for number in range(invented)),
    )
    return Labelled(case=Case(caption_id=caption_id, sample=sample, text="x"), truth=truth)


def said(right: list[float], *, at_all: list[float] | None = None, claims: tuple[float, ...] = ()) -> YesNoDoubts:
    pairs = zip(right, at_all or right, strict=True)
    return YesNoDoubts(
        caption_id="c",
        events=tuple(EventDoubts(event_id=f"e{i}", told_right=r, told_at_all=a) for i, (r, a) in enumerate(pairs)),
        claims=tuple(ClaimDoubt(claim=Claim(text="x"), supported=doubt) for doubt in claims),
    )


def test_a_threshold_lies_where_found_and_spared_are_most_together():
    one = labelled("cccmi")
    found = fit_thresholds([one], {"c": said([-3.0, -2.0, -0.5, -1.0, 2.0])})
    # above -1.5 lie both wrong ones and one right one: 2/2 + 2/3 = 1.67; above 0.75: 1/2 + 3/3 = 1.5
    assert found.told_right == -1.5


def test_missing_and_incorrect_are_told_apart_among_the_wrong_alone():
    one = labelled("ccmmi")
    found = fit_thresholds([one], {"c": said([-3.0, -3.0, 2.0, 2.0, 2.0], at_all=[9.0, 9.0, 1.0, 2.0, 0.0])})
    assert found.told_at_all == 0.5


def test_invented_statements_are_as_many_as_there_truly_are():
    ones = [labelled("c", invented=1, caption_id="a"), labelled("c", invented=0, caption_id="b")]
    doubts = {"a": said([0.0], claims=(-2.0, 1.0, 3.0)), "b": said([0.0], claims=(0.0, 2.0))}
    # above 2.5 lies one of a and none of b, as is true
    assert fit_thresholds(ones, doubts).supported == 2.5


def test_nothing_to_tell_apart_leaves_0_and_the_unscored_count_nowhere():
    assert fit_thresholds([labelled("ccc")], {"c": said([1.0, 2.0, 3.0])}) == Thresholds()
    assert fit_thresholds([labelled("cm")], {"c": Unscored(caption_id="c", reason="x")}) == Thresholds()
    # the wrong ones are doubted alike, missing or not: the word decides, which is No for both
    assert fit_thresholds([labelled("cmi")], {"c": said([-1.0, 3.0, 3.0])}).told_at_all == 0.0


def test_auc_is_how_often_the_wrong_is_doubted_more():
    one = labelled("ccm")
    # 1.0 is above one of two right ones, and ties with the other: (1 + 0.5) / 2
    assert auc([one], {"c": said([0.0, 1.0, 1.0])}) == 0.75
    assert auc([labelled("ccc")], {"c": said([0.0, 1.0, 1.0])}) is None


def test_a_model_that_always_leans_to_no_is_put_right(cases):
    """Each doubt is 10 too large: by the word alone, everything is missing; by its thresholds, all is right."""
    chat = ScriptedChat(reply_to(KnownDoubts(cases, offset=10.0)))
    judge = FittedJudge(chat, labelled=cases)
    assert judge.thresholds.told_right == pytest.approx(10.0) and judge.auc == 1.0
    found = calibrate(lambda attempt: judge, cases=cases, thresholds=judge.thresholds, num_resamples=100)
    assert found.oracle.accuracy.value == 1.0 and found.oracle.invented_recall.value == 1.0
    asked = len(chat.asked)
    list(judge.judge([one.case for one in cases]))
    assert len(chat.asked) == asked  # what was asked to fit is not asked again


def test_labels_are_by_thresholds_from_other_videos(cases):
    """One video's doubts are shifted: fitted to all captions alike it would not show."""
    odd = cases[0].case.sample.video
    others = [one for one in cases if one.case.sample.video != odd]
    known = KnownDoubts(others)
    shifted = KnownDoubts([one for one in cases if one.case.sample.video == odd], offset=-10.0)
    chat = ScriptedChat(reply_to(lambda question: (shifted if question in shifted._wrong else known)(question)))
    judge = FittedJudge(chat, labelled=cases)
    verdicts = {v.caption_id: v for v in judge.judge([one.case for one in cases])}
    # doubts of 3 - 10 = -7 are far below every threshold of the others
    assert {event.label for event in verdicts[cases[0].case.caption_id].events} == {"correct"}
    exact = [one for one in others if verdicts[one.case.caption_id].events == one.truth.events]
    assert len(exact) > len(others) / 2


def test_captions_it_was_not_fitted_on_are_asked_about(cases):
    new = shuffled_cases(cases)
    chat = ScriptedChat(reply_to(KnownDoubts([*cases, *new])))
    judge = FittedJudge(chat, labelled=cases)
    mixed = [new[0].case, cases[0].case, new[1].case]
    found = list(judge.judge(mixed))
    assert [one.caption_id for one in found] == [case.caption_id for case in mixed]
    assert [one.events for one in found] == [one.truth.events for one in (new[0], cases[0], new[1])]
    again = judge.again(chat)
    assert list(again.judge(mixed)) == found


def test_every_event_is_asked_the_second_question_to_calibrate(cases):
    chat = ScriptedChat(reply_to(KnownDoubts(cases)))
    doubts = ask_doubts(chat, [cases[0].case])
    assert all(event.told_at_all is not None for event in doubts[cases[0].case.caption_id].events)
