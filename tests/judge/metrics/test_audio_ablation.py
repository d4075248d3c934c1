"""Verdicts on made-up texts of models that listen, that do not, and that only react."""

from pathlib import Path

import pytest

from avcap.judge.metrics.audio_ablation import (
    ANSWERS,
    ANSWERS_VISUAL,
    AUDIO,
    AUDIO_LOCAL,
    CHANGED,
    CONDITIONS,
    AuditClip,
    AuditError,
    AuditText,
    judge_audio_use,
)
from avcap.records import WorldTruth, read_jsonl

TRUTHS = list(read_jsonl(Path(__file__).parents[3] / "examples" / "truth.jsonl", WorldTruth))
CLIPS = [AuditClip(video=f"{truth.clip_id}.mp4", truth=truth) for truth in TRUTHS]
VISUAL_ONLY = "At 1s a white ring appears in the top-left corner."


def texts(write) -> list[AuditText]:
    """All texts of a model that writes `write(condition, kind, truth, item)`."""
    rows = []
    for clip in CLIPS:
        truth = clip.truth
        items = [("caption", clip.video, truth), *(("interval", s.sample_id, s) for s in truth.intervals)]
        items += [("answer", q.question_id, q) for q in truth.questions]
        rows += [
            AuditText(
                video=clip.video,
                condition=condition,
                kind=kind,
                asked=asked,
                text=write(condition, kind, item),
                finished=True,
            )
            for condition in CONDITIONS
            for kind, asked, item in items
        ]
    return rows


def true_text(kind, item) -> str:
    return item.answer if kind == "answer" else item.reference_caption


def listens(condition, kind, item) -> str:
    return true_text(kind, item) if condition == "audio" else "no." if kind == "answer" else VISUAL_ONLY


def has_no_audio(condition, kind, item) -> str:
    return "yes." if kind == "answer" else VISUAL_ONLY


def listens_when_asked(condition, kind, item) -> str:
    return listens(condition, kind, item) if kind == "answer" else VISUAL_ONLY


def notices_only_that_there_is_audio(condition, kind, item) -> str:
    """Right with sound of any clip: what it says cannot come from the sound."""
    return listens("audio" if condition != "mute" else "mute", kind, item)


def judge(write):
    return judge_audio_use(CLIPS, texts(write), errors=(), checkpoint="m")


def test_a_model_that_listens():
    audit = judge(listens)
    assert audit.uses_audio and audit.verdict.startswith("The model uses the sound: of ")
    assert audit.figures[AUDIO]["audio"].value == 1.0 and audit.figures[AUDIO]["mute"].value == 0.0
    assert audit.losses[AUDIO]["swapped"].value == audit.losses[AUDIO_LOCAL]["mute"].value == 1.0
    assert audit.figures[ANSWERS]["audio"].value == audit.figures[ANSWERS_VISUAL]["audio"].value == 1.0
    assert audit.num_clips == len(CLIPS) and audit.conditions == CONDITIONS


def test_a_model_that_ignores_audio():
    audit = judge(has_no_audio)
    assert not audit.uses_audio and audit.verdict.startswith("The model does NOT use the sound: of ")
    assert "0.0 points [0.0, 0.0] with silence and 0.0 points [0.0, 0.0] with another clip's sound" in audit.verdict
    assert audit.figures[CHANGED]["swapped"].value == 1.0


def test_answers_alone_are_proof():
    audit = judge(listens_when_asked)
    assert audit.uses_audio and ANSWERS in audit.verdict
    assert audit.losses[AUDIO]["mute"].value == 0.0


def test_right_with_any_audio_is_no_proof():
    audit = judge(notices_only_that_there_is_audio)
    assert audit.losses[ANSWERS]["mute"].value > 0.5 and audit.losses[ANSWERS]["swapped"].value == 0.0
    assert not audit.uses_audio


@pytest.mark.parametrize(("changes", "uses_audio"), [(True, True), (False, False)])
def test_without_truth_a_change_of_the_texts_decides(changes, uses_audio):
    clips = [AuditClip(video=str(index)) for index in range(4)]
    rows = [
        AuditText(
            video=clip.video,
            condition=condition,
            kind="caption",
            asked=clip.video,
            finished=True,
            text=condition if changes else "the same",
        )
        for clip in clips
        for condition in CONDITIONS
    ]
    audit = judge_audio_use(clips, rows, errors=[AuditError(video="x", error="bad")], checkpoint="m")
    assert audit.uses_audio == uses_audio
    share = "100.0 points [100.0, 100.0]" if changes else "0.0 points [0.0, 0.0]"
    assert f"of its texts, {share} with silence and {share} with another clip's sound change" in audit.verdict
    assert list(audit.figures) == [CHANGED] and audit.num_clips == 4 and len(audit.errors) == 1
