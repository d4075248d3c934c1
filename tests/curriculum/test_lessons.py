"""Two tracks make a clip whose truth is known; lessons about it learn answers and nothing else."""

import random
from dataclasses import fields

import pytest
import torch

from avcap.curriculum.lessons import (
    Lesson,
    LessonMix,
    Teacher,
    TokenWeights,
    make_batches,
    pair_tracks,
    without_picture,
    without_sound,
)
from avcap.model.features import MediaFeatures
from avcap.model.interleave import AUDIO_ID, VISUAL_ID
from avcap.train.examples import ExampleEncoder
from avcap.world import describe

CLEAN = ("slots", "seen", "heard", "interval", "questions")


def test_a_pair_of_tracks_shows_and_tells_both(tracks):
    picture, sound = tracks.pictures[12][0], tracks.sounds[12][1]
    clip = pair_tracks(picture, sound, start_s=0, end_s=12)
    assert clip.scene.visual == picture.scene.visual and clip.scene.sounds == sound.scene.sounds
    assert clip.scene.duration_s == 12
    assert torch.equal(clip.media.vision_TNV, picture.features)
    assert torch.equal(clip.media.sound_KPA, sound.features)
    assert clip.media.frame_times_T == list(range(12)) and clip.media.audio_seconds == 12.0
    assert clip.media.lead_in_NV is None


def test_a_cut_takes_slices_and_keeps_the_seconds_of_the_whole(tracks):
    picture, sound = tracks.pictures[12][0], tracks.sounds[12][0]
    clip = pair_tracks(picture, sound, start_s=4, end_s=7)
    assert torch.equal(clip.media.vision_TNV, picture.features[4:7])
    assert torch.equal(clip.media.sound_KPA, sound.features[4:7])
    assert clip.media.frame_times_T == [4.0, 5.0, 6.0]
    assert clip.media.start_s == 4.0 and clip.media.audio_seconds == 3.0
    assert torch.equal(clip.media.lead_in_NV, picture.features[3])  # the frame before, for its difference
    # what came before the cut has happened; what comes after its end has not
    assert clip.scene.visual == tuple(atom for atom in picture.scene.visual if atom.second < 7)
    assert clip.scene.sounds == tuple(atom for atom in sound.scene.sounds if atom.second < 7)


def test_one_track_alone_has_no_truth_of_the_other_kind(tracks):
    seen = pair_tracks(tracks.pictures[12][0], None, start_s=0, end_s=8)
    assert seen.scene.sounds == () and seen.media.sound_KPA is None and seen.media.audio_seconds == 0.0
    heard = pair_tracks(None, tracks.sounds[12][0], start_s=0, end_s=8)
    assert heard.scene.visual == () and heard.media.vision_TNV is None and heard.media.frame_times_T == []


def test_leaving_out_a_modality_leaves_the_other_as_it_was(tracks):
    media = pair_tracks(tracks.pictures[12][0], tracks.sounds[12][0], start_s=2, end_s=8).media
    silent, dark = without_sound(media), without_picture(media)
    assert silent.vision_TNV is media.vision_TNV and silent.lead_in_NV is media.lead_in_NV and not silent.has_sound
    assert dark.sound_KPA is media.sound_KPA and dark.vision_TNV is None and dark.start_s == 2.0


def draw(tracks, kind: str, number: int = 12) -> list[Lesson]:
    return Teacher(tracks=tracks, mix=LessonMix(**{kind: 1.0})).lessons(number, rng=random.Random(kind))


@pytest.mark.parametrize("kind", [field.name for field in fields(LessonMix)])
def test_lessons_are_the_same_for_the_same_rng(tracks, kind):
    assert [lesson.turns for lesson in draw(tracks, kind)] == [lesson.turns for lesson in draw(tracks, kind)]


def test_slots_ask_for_single_seconds_and_answer_with_their_clause(tracks):
    for lesson in draw(tracks, "slots"):
        assert 1 <= len(lesson.turns) <= 5
        for prompt, answer in lesson.turns:
            second = next(second for second in range(20) if describe.slot_prompt(second) == prompt)
            assert answer == (describe.clause(lesson.scene, second) or describe.NO_EVENT_ANSWER)


@pytest.mark.parametrize(
    "kind, prompt_of, modality, other",
    [
        ("seen", describe.PICTURE_PROMPT, "visual", "sound_KPA"),
        ("heard", describe.SOUND_PROMPT, "audio", "vision_TNV"),
    ],
)
def test_one_modality_is_told_and_the_other_is_there_or_not(tracks, kind, prompt_of, modality, other):
    lessons = draw(tracks, kind, 40)
    for lesson in lessons:
        ((prompt, answer),) = lesson.turns
        assert answer == describe.reference_caption(lesson.scene, modality=modality)
        if getattr(lesson.media, other) is not None:
            assert prompt == prompt_of  # a global prompt would ask for the other modality too
        else:
            assert prompt in (prompt_of, *describe.GLOBAL_PROMPTS)
    assert {getattr(lesson.media, other) is None for lesson in lessons} == {True, False}


def test_intervals_show_the_interval_alone_and_tell_it(tracks):
    for lesson in draw(tracks, "interval"):
        ((prompt, answer),) = lesson.turns
        start, end = int(lesson.media.frame_times_T[0]), int(lesson.media.frame_times_T[-1]) + 1
        assert prompt == describe.interval_prompt(start, end) and 2 <= end - start <= 6
        assert answer == describe.reference_caption(lesson.scene, interval_s=(start, end))


def test_only_labels_are_imperfect(tracks):
    wrong = [
        lesson.turns[0][1] != describe.reference_caption(lesson.scene) for lesson in draw(tracks, "captions", 30)
    ]
    assert sum(wrong) > 15  # a hurried labeller gets hardly any caption of several seconds wholly right


def batch_of(tiny, lessons: list[Lesson], **weights: float):
    model, tokenizer = tiny
    encoder = ExampleEncoder(model=model, tokenizer=tokenizer)
    (batch,) = make_batches(lessons, encoder=encoder, weights=TokenWeights(**weights))
    return batch


def test_a_batch_learns_the_answers_and_nothing_else(tiny, tracks):
    _, tokenizer = tiny
    lessons = [lesson for kind in CLEAN for lesson in draw(tracks, kind, 2)]
    packed = batch_of(tiny, lessons).answers.packed
    answers = [answer for lesson in lessons for _, answer in lesson.turns]
    assert len(packed.groups) == len(lessons) and int(packed.branch_T.max()) + 1 == len(answers)
    for number, answer in enumerate(answers):
        learned = packed.target_T[packed.branch_T == number].tolist()
        assert learned == tokenizer(f"{answer}{tokenizer.eos_token}", add_special_tokens=False)["input_ids"]


def test_placeholders_are_as_many_as_media_tokens(tiny, tracks):
    model, _ = tiny
    lessons = [lesson for kind in CLEAN for lesson in draw(tracks, kind, 2)]
    batch = batch_of(tiny, lessons).answers
    with torch.no_grad():
        media_tokens = model.align_batch(batch.media)
    for ids_1S, tokens in zip(batch.packed.ids, media_tokens, strict=True):
        assert (ids_1S == VISUAL_ID).sum() == tokens.num_visual
        assert (ids_1S == AUDIO_ID).sum() == tokens.num_audio


def test_weights_are_those_of_the_kind_of_word(tiny, tracks):
    _, tokenizer = tiny
    media = MediaFeatures(vision_TNV=torch.zeros(1, 4, 96), frame_times_T=[0.0])
    text = "At 3s, a red circle appears top-left."
    scene = tracks.pictures[12][0].scene
    lesson = Lesson(media=media, scene=scene, turns=((describe.GLOBAL_PROMPTS[0], text),))
    batch = batch_of(tiny, [lesson], content=4.0, time=3.0, end=2.0, other=1.0)
    words = tokenizer.convert_ids_to_tokens(batch.answers.packed.target_T.tolist())
    weight = dict(zip(words, batch.answers.packed.weight_T.tolist(), strict=True))
    assert weight["red"] == weight["circle"] == weight["appears"] == weight["top-left"] == 4.0
    assert weight["3s"] == 3.0
    assert weight[tokenizer.eos_token] == 2.0
    assert weight["At"] == weight["a"] == weight["."] == 1.0
    kinds = dict(zip(words, batch.kinds_T, strict=True))
    assert (kinds["red"], kinds["circle"], kinds["3s"], kinds["At"]) == ("colour", "shape", "time", None)
