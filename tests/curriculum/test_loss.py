"""The loss of lessons is what its docstring says, computed here once more by hand."""

import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from avcap.curriculum import loss as loss_module
from avcap.curriculum.examples import (
    ExampleMix,
    ExampleSampler,
    TokenWeights,
    WorldExample,
    make_batches,
    pair_feature_tracks,
)
from avcap.curriculum.loss import answer_logits, example_loss, kind_accuracy, right_answers
from avcap.data.prompt import ChatStyle, encode_chat
from avcap.train.examples import ExampleEncoder


def batches_of(tiny, examples: list[WorldExample], *, max_tokens: int | None = None):
    encoder = ExampleEncoder(model=tiny[0], tokenizer=tiny[1])
    return make_batches(examples, encoder=encoder, weights=TokenWeights(), max_tokens=max_tokens)


def batch_of(tiny, examples: list[WorldExample]):
    (batch,) = batches_of(tiny, examples)
    return batch


def draw(feature_tracks, number: int) -> list[WorldExample]:
    return ExampleSampler(feature_tracks=feature_tracks, mix=ExampleMix(seconds=1.0, visual=1.0)).examples(
        number, rng=random.Random(0)
    )


def hand_computed(tiny, example: WorldExample) -> tuple[Tensor, Tensor]:
    """Lesson with one turn -> sum of weighted -log p of its targets, and the sum of their weights, by the model's own
    forward over the chat as `avcap caption` would read it."""
    model, tokenizer = tiny
    chat = ChatStyle(**model.config.chat)
    encoded = encode_chat(tokenizer, example.turns, model.placeholders(example.media), chat)
    ids, is_target = encoded.ids, encoded.is_target
    logits_LV = model(torch.tensor([ids]), [model.align(example.media)]).logits[0]
    weights = iter(batch_of(tiny, [example]).answers.packed.weight_T)
    total, total_weight = torch.zeros(()), torch.zeros(())
    for index in (index for index, target in enumerate(is_target) if target):
        weight = next(weights)  # the token at `index` is predicted by the logits one before it
        total = total - weight * logits_LV[index - 1].log_softmax(-1)[ids[index]]
        total_weight = total_weight + weight
    return total, total_weight


@torch.no_grad()
def test_example_loss_is_the_weighted_mean_over_answers_of_all_examples(tiny, feature_tracks):
    model, tokenizer = tiny
    examples = draw(feature_tracks, 3)
    output = example_loss(model, batch_of(tiny, examples), tokenizer=tokenizer, alignment_weight=0.0)
    alone = [replace(example, turns=(turn,)) for example in examples for turn in example.turns]
    assert len(alone) > len(examples)  # in the batch, questions of one lesson are branches behind one clip
    sums = [hand_computed(tiny, example) for example in alone]  # one by one: no other clip, no other question
    expected = sum(total for total, _ in sums) / sum(weights for _, weights in sums)
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert output.metrics["answer_loss"] == pytest.approx(output.loss.item())
    assert "alignment_loss" not in output.metrics


def test_microbatches_of_examples_are_one_big_batch(tiny, feature_tracks):
    model, tokenizer = tiny
    examples = draw(feature_tracks, 6)
    names = [name for name, _ in model.named_parameters()]
    grads = []
    for max_tokens in (None, 300):
        parts = batches_of(tiny, examples, max_tokens=max_tokens)
        total = 0.0
        for part in parts:
            output = example_loss(model, part, tokenizer=tokenizer, alignment_weight=0.5)
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
def test_a_question_is_answered_as_if_it_were_the_only_one(tiny, feature_tracks):
    model, _ = tiny
    examples = draw(feature_tracks, 4)
    alone = [replace(example, turns=(turn,)) for example in examples for turn in example.turns]
    batches = [batch_of(tiny, found) for found in (examples, alone)]
    together, apart = (answer_logits(model, batch, model.align_batch(batch.answers.media)) for batch in batches)
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)
    for name in ("target_T", "weight_T"):
        assert torch.equal(*(getattr(batch.answers.packed, name) for batch in batches))


@torch.no_grad()
def test_an_answer_is_right_when_all_of_its_tokens_are(tiny, feature_tracks, monkeypatch):
    examples = draw(feature_tracks, 4)
    batch = batch_of(tiny, examples)
    num_answers = sum(len(example.turns) for example in examples)
    target_T = batch.answers.packed.target_T
    perfect_TV = torch.nn.functional.one_hot(target_T, tiny[0].config.text_config.vocab_size).float()
    flawed_TV = perfect_TV.clone()
    flawed_TV[0] = -flawed_TV[0]  # one token of the first answer
    for given_TV, expected in ((perfect_TV, 1.0), (flawed_TV, 1 - 1 / num_answers)):
        monkeypatch.setattr(loss_module, "answer_logits", lambda *_, given_TV=given_TV: given_TV)
        assert right_answers(tiny[0], batch) == pytest.approx(expected)


@torch.no_grad()
def test_alignment_loss_is_added_with_its_weight(tiny, feature_tracks):
    model, tokenizer = tiny
    batch = batch_of(tiny, draw(feature_tracks, 2))
    output = example_loss(model, batch, tokenizer=tokenizer, alignment_weight=0.5)
    expected = output.metrics["answer_loss"] + 0.5 * output.metrics["alignment_loss"]
    assert output.loss.item() == pytest.approx(expected, rel=1e-6)


def test_kind_accuracy_counts_right_words_of_each_kind(tiny, feature_tracks):
    _, tokenizer = tiny
    media = pair_feature_tracks(feature_tracks.video[12][0], None, start_s=0, end_s=6).media
    scene = feature_tracks.video[12][0].scene
    turns = (("What happens in this video?", "At 3s, a red circle appears top-left."),)
    batch = batch_of(tiny, [WorldExample(media=media, scene=scene, turns=turns)])
    target_T = batch.answers.packed.target_T
    guess_T = target_T.clone()
    guess_T[target_T == tokenizer.convert_tokens_to_ids("red")] = tokenizer.convert_tokens_to_ids("blue")
    logits_TV = torch.nn.functional.one_hot(guess_T, len(tokenizer)).float()
    # content is red (wrong), circle, appears, top-left: 3 of 4
    expected = {"colour": 0.0, "shape": 1.0, "verb": 1.0, "place": 1.0, "time": 1.0, "content": 0.75}
    assert kind_accuracy(batch, logits_TV) == {f"accuracy/{kind}": value for kind, value in expected.items()}


def test_gradient_reaches_both_connectors_through_the_answers(tiny, feature_tracks):
    model, tokenizer = tiny
    clip = pair_feature_tracks(feature_tracks.video[12][0], feature_tracks.audio[12][0], start_s=0, end_s=8)
    example = WorldExample(
        media=clip.media, scene=clip.scene, turns=(("What happens in this video?", "A red circle."),)
    )
    example_loss(model, batch_of(tiny, [example]), tokenizer=tokenizer, alignment_weight=0.0).loss.backward()
    for name, part in (("video", model.vision_aligner), ("audio", model.audio_aligner), ("tags", model.tags)):
        without = [key for key, param in part.named_parameters() if param.grad is None or not param.grad.any()]
        # keys' biases shift all scores of a softmax alike: their gradient is rounding at most
        assert not [key for key in without if "key.bias" not in key], name
    assert all(param.grad is None for part in (model.vision_tower, model.audio_encoder) for param in part.parameters())
    model.zero_grad(set_to_none=True)
