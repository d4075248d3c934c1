"""Two tracks make a clip whose truth is known; lessons about it learn answers and nothing else."""

import random
from dataclasses import fields

import pytest
import torch

from avcap.curriculum.examples import (
    ExampleMix,
    ExampleSampler,
    TokenWeights,
    WorldExample,
    make_batches,
    pair_feature_tracks,
    without_audio,
    without_video,
)
from avcap.model.features import MediaFeatures
from avcap.model.interleave import AUDIO_ID, VISUAL_ID
from avcap.train.examples import ExampleEncoder
from avcap.world import describe

CLEAN = ("seconds", "visual", "audio", "interval", "questions")


def test_a_pair_of_tracks_shows_and_tells_both(feature_tracks):
    video, audio = feature_tracks.video[12][0], feature_tracks.audio[12][1]
    clip = pair_feature_tracks(video, audio, start_s=0, end_s=12)
    assert clip.scene.visual == video.scene.visual and clip.scene.sounds == audio.scene.sounds
    assert clip.scene.duration_s == 12
    assert torch.equal(clip.media.vision_TNV, video.features)
    assert torch.equal(clip.media.audio_KPA, audio.features)
    assert clip.media.frame_times_T == list(range(12)) and clip.media.audio_seconds == 12.0
    assert clip.media.lead_in_NV is None


def test_a_cut_takes_slices_and_keeps_the_seconds_of_the_whole(feature_tracks):
    video, audio = feature_tracks.video[12][0], feature_tracks.audio[12][0]
    clip = pair_feature_tracks(video, audio, start_s=4, end_s=7)
    assert torch.equal(clip.media.vision_TNV, video.features[4:7])
    assert torch.equal(clip.media.audio_KPA, audio.features[4:7])
    assert clip.media.frame_times_T == [4.0, 5.0, 6.0]
    assert clip.media.start_s == 4.0 and clip.media.audio_seconds == 3.0
    assert torch.equal(clip.media.lead_in_NV, video.features[3])  # the frame before, for its difference
    # what came before the cut has happened; what comes after its end has not
    assert clip.scene.visual == tuple(atom for atom in video.scene.visual if atom.second < 7)
    assert clip.scene.sounds == tuple(atom for atom in audio.scene.sounds if atom.second < 7)


def test_one_track_alone_has_no_truth_of_the_other_kind(feature_tracks):
    visual = pair_feature_tracks(feature_tracks.video[12][0], None, start_s=0, end_s=8)
    assert visual.scene.sounds == () and visual.media.audio_KPA is None and visual.media.audio_seconds == 0.0
    audio = pair_feature_tracks(None, feature_tracks.audio[12][0], start_s=0, end_s=8)
    assert audio.scene.visual == () and audio.media.vision_TNV is None and audio.media.frame_times_T == []


def test_leaving_out_a_modality_leaves_the_other_as_it_was(feature_tracks):
    media = pair_feature_tracks(feature_tracks.video[12][0], feature_tracks.audio[12][0], start_s=2, end_s=8).media
    silent, dark = without_audio(media), without_video(media)
    assert silent.vision_TNV is media.vision_TNV and silent.lead_in_NV is media.lead_in_NV and not silent.has_audio
    assert dark.audio_KPA is media.audio_KPA and dark.vision_TNV is None and dark.start_s == 2.0


def draw(feature_tracks, kind: str, number: int = 12) -> list[WorldExample]:
    return ExampleSampler(feature_tracks=feature_tracks, mix=ExampleMix(**{kind: 1.0})).examples(
        number, rng=random.Random(kind)
    )


@pytest.mark.parametrize("kind", [field.name for field in fields(ExampleMix)])
def test_examples_are_the_same_for_the_same_rng(feature_tracks, kind):
    assert [example.turns for example in draw(feature_tracks, kind)] == [
        example.turns for example in draw(feature_tracks, kind)
    ]


def test_seconds_ask_for_single_seconds_and_answer_with_their_clause(feature_tracks):
    for example in draw(feature_tracks, "seconds"):
        assert 1 <= len(example.turns) <= 5
        for prompt, answer in example.turns:
            second = next(second for second in range(20) if describe.second_prompt(second) == prompt)
            assert answer == (describe.clause(example.scene, second) or describe.NO_EVENT_ANSWER)


@pytest.mark.parametrize(
    "kind, prompt_of, modality, other",
    [
        ("visual", describe.VIDEO_PROMPT, "visual", "audio_KPA"),
        ("audio", describe.AUDIO_PROMPT, "audio", "vision_TNV"),
    ],
)
def test_one_modality_is_told_and_the_other_is_there_or_not(feature_tracks, kind, prompt_of, modality, other):
    examples = draw(feature_tracks, kind, 40)
    for example in examples:
        ((prompt, answer),) = example.turns
        assert answer == describe.reference_caption(example.scene, modality=modality)
        if getattr(example.media, other) is not None:
            assert prompt == prompt_of  # a global prompt would ask for the other modality too
        else:
            assert prompt in (prompt_of, *describe.GLOBAL_PROMPTS)
    assert {getattr(example.media, other) is None for example in examples} == {True, False}


def test_intervals_show_the_interval_alone_and_tell_it(feature_tracks):
    for example in draw(feature_tracks, "interval"):
        ((prompt, answer),) = example.turns
        start, end = int(example.media.frame_times_T[0]), int(example.media.frame_times_T[-1]) + 1
        assert prompt == describe.interval_prompt(start, end) and 2 <= end - start <= 6
        assert answer == describe.reference_caption(example.scene, interval_s=(start, end))


def test_only_labels_are_imperfect(feature_tracks):
    wrong = [
        example.turns[0][1] != describe.reference_caption(example.scene)
        for example in draw(feature_tracks, "captions", 30)
    ]
    assert sum(wrong) > 15  # a hurried labeller gets hardly any caption of several seconds wholly right


def batch_of(tiny, examples: list[WorldExample], **weights: float):
    model, tokenizer = tiny
    encoder = ExampleEncoder(model=model, tokenizer=tokenizer)
    (batch,) = make_batches(examples, encoder=encoder, weights=TokenWeights(**weights))
    return batch


def test_a_batch_learns_the_answers_and_nothing_else(tiny, feature_tracks):
    _, tokenizer = tiny
    examples = [example for kind in CLEAN for example in draw(feature_tracks, kind, 2)]
    packed = batch_of(tiny, examples).answers.packed
    answers = [answer for example in examples for _, answer in example.turns]
    assert len(packed.groups) == len(examples) and int(packed.branch_T.max()) + 1 == len(answers)
    for index, answer in enumerate(answers):
        learned = packed.target_T[packed.branch_T == index].tolist()
        assert learned == tokenizer(f"{answer}{tokenizer.eos_token}", add_special_tokens=False)["input_ids"]


def test_placeholders_are_as_many_as_media_tokens(tiny, feature_tracks):
    model, _ = tiny
    examples = [example for kind in CLEAN for example in draw(feature_tracks, kind, 2)]
    batch = batch_of(tiny, examples).answers
    with torch.no_grad():
        media_tokens = model.align_batch(batch.media)
    for ids_1S, tokens in zip(batch.packed.ids, media_tokens, strict=True):
        assert (ids_1S == VISUAL_ID).sum() == tokens.num_visual
        assert (ids_1S == AUDIO_ID).sum() == tokens.num_audio


def test_weights_are_those_of_the_kind_of_word(tiny, feature_tracks):
    _, tokenizer = tiny
    media = MediaFeatures(vision_TNV=torch.zeros(1, 4, 96), frame_times_T=[0.0])
    text = "At 3s, a red circle appears top-left."
    scene = feature_tracks.video[12][0].scene
    example = WorldExample(media=media, scene=scene, turns=((describe.GLOBAL_PROMPTS[0], text),))
    batch = batch_of(tiny, [example], content=4.0, time=3.0, end=2.0, other=1.0)
    words = tokenizer.convert_ids_to_tokens(batch.answers.packed.target_T.tolist())
    weight = dict(zip(words, batch.answers.packed.weight_T.tolist(), strict=True))
    assert weight["red"] == weight["circle"] == weight["appears"] == weight["top-left"] == 4.0
    assert weight["3s"] == 3.0
    assert weight[tokenizer.eos_token] == 2.0
    assert weight["At"] == weight["a"] == weight["."] == 1.0
    kinds = dict(zip(words, batch.kinds_T, strict=True))
    assert (kinds["red"], kinds["circle"], kinds["3s"], kinds["At"]) == ("colour", "shape", "time", None)
