"""The loss of lessons is what its docstring says, computed here once more by hand."""

import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from avcap.curriculum import loss as loss_module
from avcap.curriculum.lessons import Lesson, LessonMix, Teacher, TokenWeights, make_batches, pair_tracks
from avcap.curriculum.loss import answer_logits, kind_accuracy, lesson_loss, right_answers
from avcap.data.prompt import ChatStyle, encode_chat
from avcap.train.examples import ExampleEncoder


def batches_of(tiny, lessons: list[Lesson], *, max_tokens: int | None = None):
    encoder = ExampleEncoder(model=tiny[0], tokenizer=tiny[1])
    return make_batches(lessons, encoder=encoder, weights=TokenWeights(), max_tokens=max_tokens)


def batch_of(tiny, lessons: list[Lesson]):
    (batch,) = batches_of(tiny, lessons)
    return batch


def draw(tracks, number: int) -> list[Lesson]:
    return Teacher(tracks=tracks, mix=LessonMix(slots=1.0, seen=1.0)).lessons(number, rng=random.Random(0))


def hand_computed(tiny, lesson: Lesson) -> tuple[Tensor, Tensor]:
    """Lesson with one turn -> sum of weighted -log p of its targets, and the sum of their weights, by the model's own
    forward over the chat as `avcap caption` would read it."""
    model, tokenizer = tiny
    chat = ChatStyle(**model.config.chat)
    ids, is_target = encode_chat(tokenizer, lesson.turns, model.placeholders(lesson.media), chat)
    logits_LV = model(torch.tensor([ids]), [model.align(lesson.media)]).logits[0]
    weights = iter(batch_of(tiny, [lesson]).answers.packed.weight_T)
    total, total_weight = torch.zeros(()), torch.zeros(())
    for place in (place for place, target in enumerate(is_target) if target):
        weight = next(weights)  # the token at `place` is foretold by the logits one before it
        total = total - weight * logits_LV[place - 1].log_softmax(-1)[ids[place]]
        total_weight = total_weight + weight
    return total, total_weight


@torch.no_grad()
def test_lesson_loss_is_the_weighted_mean_over_answers_of_all_lessons(tiny, tracks):
    model, tokenizer = tiny
    lessons = draw(tracks, 3)
    output = lesson_loss(model, batch_of(tiny, lessons), tokenizer=tokenizer, alignment_weight=0.0)
    alone = [replace(lesson, turns=(turn,)) for lesson in lessons for turn in lesson.turns]
    assert len(alone) > len(lessons)  # in the batch, questions of one lesson are branches behind one clip
    sums = [hand_computed(tiny, lesson) for lesson in alone]  # one by one: no other clip, no other question
    wanted = sum(total for total, _ in sums) / sum(weights for _, weights in sums)
    assert output.loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert output.metrics["answer_loss"] == pytest.approx(output.loss.item())
    assert "alignment_loss" not in output.metrics


def test_microbatches_of_lessons_are_one_big_batch(tiny, tracks):
    model, tokenizer = tiny
    lessons = draw(tracks, 6)
    names = [name for name, _ in model.named_parameters()]
    grads = []
    for max_tokens in (None, 300):
        parts = batches_of(tiny, lessons, max_tokens=max_tokens)
        total = 0.0
        for part in parts:
            output = lesson_loss(model, part, tokenizer=tokenizer, alignment_weight=0.5)
            output.loss.backward()
            total += output.loss.item()
        grads.append([total, *(param.grad.clone() for param in model.parameters() if param.grad is not None)])
        model.zero_grad(set_to_none=True)
    assert len(parts) > 2 and len(names) > 10
    whole, divided = grads
    assert divided[0] == pytest.approx(whole[0], rel=1e-6)
    for one, other in zip(whole[1:], divided[1:], strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_a_question_is_answered_as_if_it_were_the_only_one(tiny, tracks):
    model, _ = tiny
    lessons = draw(tracks, 4)
    alone = [replace(lesson, turns=(turn,)) for lesson in lessons for turn in lesson.turns]
    batches = [batch_of(tiny, found) for found in (lessons, alone)]
    together, apart = (answer_logits(model, batch, model.align_batch(batch.answers.media)) for batch in batches)
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)
    for name in ("target_T", "weight_T"):
        assert torch.equal(*(getattr(batch.answers.packed, name) for batch in batches))


@torch.no_grad()
def test_an_answer_is_right_when_all_of_its_tokens_are(tiny, tracks, monkeypatch):
    lessons = draw(tracks, 4)
    batch = batch_of(tiny, lessons)
    num_answers = sum(len(lesson.turns) for lesson in lessons)
    target_T = batch.answers.packed.target_T
    perfect_TV = torch.nn.functional.one_hot(target_T, tiny[0].config.text_config.vocab_size).float()
    flawed_TV = perfect_TV.clone()
    flawed_TV[0] = -flawed_TV[0]  # one token of the first answer
    for given_TV, wanted in ((perfect_TV, 1.0), (flawed_TV, 1 - 1 / num_answers)):
        monkeypatch.setattr(loss_module, "answer_logits", lambda *_, given_TV=given_TV: given_TV)
        assert right_answers(tiny[0], batch) == pytest.approx(wanted)


@torch.no_grad()
def test_alignment_loss_is_added_with_its_weight(tiny, tracks):
    model, tokenizer = tiny
    batch = batch_of(tiny, draw(tracks, 2))
    output = lesson_loss(model, batch, tokenizer=tokenizer, alignment_weight=0.5)
    wanted = output.metrics["answer_loss"] + 0.5 * output.metrics["alignment_loss"]
    assert output.loss.item() == pytest.approx(wanted, rel=1e-6)


def test_kind_accuracy_counts_right_words_of_each_kind(tiny, tracks):
    _, tokenizer = tiny
    media = pair_tracks(tracks.pictures[12][0], None, start_s=0, end_s=6).media
    scene = tracks.pictures[12][0].scene
    turns = (("What happens in this video?", "At 3s, a red circle appears top-left."),)
    batch = batch_of(tiny, [Lesson(media=media, scene=scene, turns=turns)])
    target_T = batch.answers.packed.target_T
    guess_T = target_T.clone()
    guess_T[target_T == tokenizer.convert_tokens_to_ids("red")] = tokenizer.convert_tokens_to_ids("blue")
    logits_TV = torch.nn.functional.one_hot(guess_T, len(tokenizer)).float()
    # content is red (wrong), circle, appears, top-left: 3 of 4
    wanted = {"colour": 0.0, "shape": 1.0, "verb": 1.0, "place": 1.0, "time": 1.0, "content": 0.75}
    assert kind_accuracy(batch, logits_TV) == {f"accuracy/{kind}": value for kind, value in wanted.items()}


def test_gradient_reaches_both_connectors_through_the_answers(tiny, tracks):
    model, tokenizer = tiny
    clip = pair_tracks(tracks.pictures[12][0], tracks.sounds[12][0], start_s=0, end_s=8)
    lesson = Lesson(media=clip.media, scene=clip.scene, turns=(("What happens in this video?", "A red circle."),))
    lesson_loss(model, batch_of(tiny, [lesson]), tokenizer=tokenizer, alignment_weight=0.0).loss.backward()
    for name, part in (("picture", model.vision_aligner), ("sound", model.sound_aligner), ("tags", model.tags)):
        without = [key for key, param in part.named_parameters() if param.grad is None or not param.grad.any()]
        # keys' biases shift all scores of a softmax alike: their gradient is rounding at most
        assert not [key for key in without if "key.bias" not in key], name
    assert all(param.grad is None for part in (model.vision_tower, model.sound_encoder) for param in part.parameters())
    model.zero_grad(set_to_none=True)
