"""The loss of lessons is what its docstring says, computed here once more by hand."""

import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from avcap.data.prompt import ChatStyle
from avcap.train import language
from avcap.train.language import (
    FIRST_SOUND_TYPE,
    alignment_loss,
    answer_logits,
    kind_accuracy,
    language_loss,
    media_words,
    right_answers,
)
from avcap.train.lessons import Lesson, LessonMix, Teacher, TokenWeights, make_batch, pair_tracks
from avcap.world.scene import Scene, SoundAtom, VisualAtom


def batch_of(tiny, lessons: list[Lesson]):
    model, tokenizer = tiny
    return make_batch(
        lessons, place_tokens=model.placeholders, tokenizer=tokenizer, chat=ChatStyle(**model.config.chat),
        weights=TokenWeights(),
    )  # fmt: skip


def draw(tracks, number: int) -> list[Lesson]:
    return Teacher(tracks=tracks, mix=LessonMix(slots=1.0, seen=1.0)).lessons(number, rng=random.Random(0))


def hand_computed(tiny, lesson: Lesson) -> tuple[Tensor, Tensor]:
    """Lesson -> sum of weighted -log p of its targets, and the sum of their weights, by the model's own forward."""
    model, _ = tiny
    batch = batch_of(tiny, [lesson])
    logits_LV = model(batch.ids_BL, [model.align(lesson.media)]).logits[0]
    total, weights = torch.zeros(()), torch.zeros(())
    for place in range(1, batch.ids_BL.shape[1]):
        weight = batch.weight_BL[0, place]
        if weight > 0:  # the token at `place` is foretold by the logits one before it
            total = total - weight * logits_LV[place - 1].log_softmax(-1)[batch.ids_BL[0, place]]
            weights = weights + weight
    return total, weights


@torch.no_grad()
def test_language_loss_is_the_weighted_mean_over_answers_of_all_lessons(tiny, tracks):
    model, tokenizer = tiny
    lessons = draw(tracks, 3)
    output = language_loss(model, batch_of(tiny, lessons), tokenizer=tokenizer, alignment_weight=0.0)
    alone = [replace(lesson, turns=(turn,)) for lesson in lessons for turn in lesson.turns]
    assert len(alone) > len(lessons)  # in the batch, questions of one lesson are branches of one row
    sums = [hand_computed(tiny, lesson) for lesson in alone]  # one by one: no padding, no other question
    wanted = sum(total for total, _ in sums) / sum(weights for _, weights in sums)
    assert output.loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert output.metrics["answer_loss"] == output.loss.item()
    assert "alignment_loss" not in output.metrics


@torch.no_grad()
def test_a_question_is_answered_as_if_it_were_the_only_one(tiny, tracks):
    model, _ = tiny
    lessons = draw(tracks, 4)
    alone = [replace(lesson, turns=(turn,)) for lesson in lessons for turn in lesson.turns]
    batches = [batch_of(tiny, found) for found in (lessons, alone)]
    together, apart = (answer_logits(model, batch, model.align_batch(batch.media)) for batch in batches)
    torch.testing.assert_close(together[0], apart[0], atol=1e-5, rtol=1e-5)
    assert torch.equal(together[1], apart[1]) and torch.equal(together[2], apart[2])


@torch.no_grad()
def test_an_answer_is_right_when_all_of_its_tokens_are(tiny, tracks, monkeypatch):
    batch = batch_of(tiny, draw(tracks, 4))
    num_answers = sum(len(set(row.tolist()) - {0}) for row in batch.branches_BL)
    logits_ZV, target_Z, weight_Z = answer_logits(tiny[0], batch, tiny[0].align_batch(batch.media))
    perfect_ZV = torch.nn.functional.one_hot(target_Z, logits_ZV.shape[1]).float()
    flawed_ZV = perfect_ZV.clone()
    flawed_ZV[0] = -flawed_ZV[0]  # one token of the first answer
    for given_ZV, wanted in ((perfect_ZV, 1.0), (flawed_ZV, 1 - 1 / num_answers)):
        monkeypatch.setattr(language, "answer_logits", lambda *_, given_ZV=given_ZV: (given_ZV, target_Z, weight_Z))
        assert right_answers(tiny[0], batch) == pytest.approx(wanted)


@torch.no_grad()
def test_alignment_loss_is_added_with_its_weight(tiny, tracks):
    model, tokenizer = tiny
    batch = batch_of(tiny, draw(tracks, 2))
    output = language_loss(model, batch, tokenizer=tokenizer, alignment_weight=0.5)
    wanted = output.metrics["answer_loss"] + 0.5 * output.metrics["alignment_loss"]
    assert output.loss.item() == pytest.approx(wanted, rel=1e-6)


def test_kind_accuracy_counts_right_words_of_each_kind(tiny, tracks):
    _, tokenizer = tiny
    media = pair_tracks(tracks.pictures[12][0], None, start_s=0, end_s=6).media
    scene = tracks.pictures[12][0].scene
    turns = (("What happens in this video?", "At 3s, a red circle appears top-left."),)
    batch = batch_of(tiny, [Lesson(media=media, scene=scene, turns=turns)])
    target_Z = batch.ids_BL[:, 1:][batch.weight_BL[:, 1:] > 0]
    guess_Z = target_Z.clone()
    guess_Z[target_Z == tokenizer.convert_tokens_to_ids("red")] = tokenizer.convert_tokens_to_ids("blue")
    logits_ZV = torch.nn.functional.one_hot(guess_Z, len(tokenizer)).float()
    # content is red (wrong), circle, appears, top-left: 3 of 4
    wanted = {"colour": 0.0, "shape": 1.0, "verb": 1.0, "place": 1.0, "time": 1.0, "content": 0.75}
    assert kind_accuracy(batch, logits_ZV, target_Z) == {f"accuracy/{kind}": value for kind, value in wanted.items()}


SCENE = Scene(
    seed=0, difficulty="easy", domain="default", duration_s=6,
    visual=(
        VisualAtom(second=1, kind="appear", colour="red", shape="circle", place="top-left", size=1),
        VisualAtom(
            second=2, kind="move", colour="red", shape="circle", place="top-left", size=1, new_place="bottom-right"
        ),
    ),
    sounds=(
        SoundAtom(second=3, kind="counted", name="knock", count=2),
        SoundAtom(second=4, kind="say", words=("tiger", "apple")),
        SoundAtom(second=5, kind="plain", name="applause"),
    ),
)  # fmt: skip


def test_media_words_tell_what_each_token_shows():
    first, second = FIRST_SOUND_TYPE, FIRST_SOUND_TYPE + 1
    words = media_words(SCENE)
    assert {key: set(told) for key, told in words.items()} == {
        (1, 0): {"appears", "red", "circle", "top-left"},
        (2, 3): {"moves", "red", "circle", "bottom-right"},  # where it arrives
        (2, 0): {"top-left", "red", "circle"},  # what it left names itself
        (3, first): {"somebody", "twice"}, (3, second): {"somebody", "twice"},
        (4, first): {"voice", "tiger"}, (4, second): {"voice", "apple"},  # a word in each half second
        (5, first): {"people"}, (5, second): {"people"},
    }  # fmt: skip


def test_all_media_words_are_words_of_the_tokenizer(tiny, tracks):
    _, tokenizer = tiny
    scenes = [track.scene for found in (tracks.pictures, tracks.sounds) for track in found[12]]
    for scene in (*scenes, SCENE):
        told = [word for words in media_words(scene).values() for word in words]
        assert told and tokenizer.unk_token_id not in tokenizer.convert_tokens_to_ids(told)


def test_alignment_loss_pulls_told_tokens_only(tiny, tracks):
    model, tokenizer = tiny
    clip = pair_tracks(tracks.pictures[12][0], tracks.sounds[12][0], start_s=0, end_s=6)
    (tokens,) = model.align_batch([clip.media])
    tokens.content_MD.retain_grad()
    loss = alignment_loss(model, [tokens], [clip.scene], tokenizer=tokenizer)
    loss.backward()
    wanted = media_words(clip.scene)
    places = list(zip(tokens.seconds_M.tolist(), tokens.types_M.tolist(), strict=True))
    is_pulled = tokens.content_MD.grad.abs().sum(-1) > 0
    assert is_pulled.tolist() == [place in wanted for place in places]
    assert 0 < is_pulled.sum() < len(places)

    log_probs = [model.language_model.lm_head(row).log_softmax(-1) for row in tokens.content_MD.detach()]
    by_hand = [
        -log_probs[row][tokenizer.convert_tokens_to_ids(word)].item()
        for row, place in enumerate(places) for word in wanted.get(place, ())
    ]  # fmt: skip
    assert loss.item() == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-5)
    model.zero_grad(set_to_none=True)


def test_alignment_loss_of_clips_that_nobody_knows_is_zero(tiny, tracks):
    model, tokenizer = tiny
    media = pair_tracks(tracks.pictures[12][0], None, start_s=0, end_s=6).media
    assert alignment_loss(model, model.align_batch([media]), [None], tokenizer=tokenizer).item() == 0.0


def test_gradient_reaches_both_connectors_through_the_answers(tiny, tracks):
    model, tokenizer = tiny
    clip = pair_tracks(tracks.pictures[12][0], tracks.sounds[12][0], start_s=0, end_s=8)
    lesson = Lesson(media=clip.media, scene=clip.scene, turns=(("What happens in this video?", "A red circle."),))
    language_loss(model, batch_of(tiny, [lesson]), tokenizer=tokenizer, alignment_weight=0.0).loss.backward()
    for name, part in (("picture", model.vision_aligner), ("sound", model.sound_aligner), ("tags", model.tags)):
        without = [key for key, param in part.named_parameters() if param.grad is None or not param.grad.any()]
        # keys' biases shift all scores of a softmax alike: their gradient is rounding at most
        assert not [key for key in without if "key.bias" not in key], name
    assert all(param.grad is None for part in (model.vision_tower, model.sound_encoder) for param in part.parameters())
    model.zero_grad(set_to_none=True)
