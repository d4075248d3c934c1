"""Examples as rows: what is learned, with which weight, and that microbatches are one big batch to 1e-6."""

import copy

import pytest
import torch
from support.tiny_world import FEATURE_TRACK_S

from avcap.curriculum.examples import pair_feature_tracks
from avcap.data.prompt import ChatStyle, encode_chat
from avcap.train.answer_loss import answer_loss
from avcap.train.compute import checkpoint_activations, choose_device, choose_dtype
from avcap.train.examples import Example, ExampleEncoder, divide, read_media

TURNS = (
    (("What happens in this video?", "A red circle appears."),),
    (("What happens in this video?", "A bell rings twice."), ("What happens in this video?", "The circle grows.")),
)


@pytest.fixture
def examples(feature_tracks) -> list[Example]:
    video, audio = feature_tracks.video[FEATURE_TRACK_S], feature_tracks.audio[FEATURE_TRACK_S]
    media = [pair_feature_tracks(video[i], audio[i], start_s=0, end_s=4 + 2 * i).media for i in range(3)]
    return [Example(media=one, turns=TURNS[i % 2], name=str(i)) for i, one in enumerate(media)]


def gradients(model, batches) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    loss = sum(output.loss.item() for output in map(backward(model), batches))
    found = {name: param.grad for name, param in model.named_parameters() if param.grad is not None}
    return found | {"loss": torch.tensor(loss)}


def backward(model):
    def one(batch):
        output = answer_loss(model, batch)
        output.loss.backward()
        return output

    return one


@torch.no_grad()
def test_the_loss_is_the_mean_over_all_target_tokens(tiny, examples):
    model, tokenizer = tiny
    (batch,) = ExampleEncoder(model=model, tokenizer=tokenizer).batches(examples, max_tokens=None)
    total, number = 0.0, 0
    for example in examples:
        for turn in example.turns:
            encoded = encode_chat(tokenizer, [turn], model.placeholders(example.media), ChatStyle(**model.config.chat))
            ids, is_target = encoded.ids, encoded.is_target
            logits_LV = model(torch.tensor([ids]), [model.align(example.media)]).logits[0]
            indices = [index for index, target in enumerate(is_target) if target]
            total -= sum(logits_LV[index - 1].log_softmax(-1)[ids[index]].item() for index in indices)
            number += len(indices)
    assert batch.step_weight == number
    assert answer_loss(model, batch).loss.item() == pytest.approx(total / number, rel=1e-5)


def test_microbatches_are_one_big_batch(tiny, examples):
    model, tokenizer = copy.deepcopy(tiny[0]), tiny[1]
    encoder = ExampleEncoder(model=model, tokenizer=tokenizer)
    whole = gradients(model, encoder.batches(examples, max_tokens=None))
    parts = encoder.batches(examples, max_tokens=1)
    assert len(parts) == 3
    divided = gradients(model, parts)
    assert whole.keys() == divided.keys() and len(whole) > 10
    for name, value in whole.items():
        assert torch.allclose(value, divided[name], rtol=0, atol=1e-6), name


def test_activation_checkpointing_changes_nothing_even_in_eval_mode(tiny, examples):
    model, tokenizer = copy.deepcopy(tiny[0]).eval(), tiny[1]
    batches = ExampleEncoder(model=model, tokenizer=tokenizer).batches(examples, max_tokens=None)
    whole = gradients(model, batches)
    layer, calls = model.language_model.model.layers[0].mlp, []
    layer.register_forward_pre_hook(lambda *_: calls.append(1))
    checkpoint_activations(model)
    again = gradients(model, batches)
    assert len(calls) == 2  # forward, and once more in the backward pass
    assert all(torch.allclose(whole[name], again[name], atol=1e-7) for name in whole)


def test_weights_of_answers_are_those_given(tiny, examples):
    model, tokenizer = tiny
    closing = model.config.chat["answer_suffix"]
    number = len(tokenizer("A red circle appears." + closing, add_special_tokens=False)["input_ids"])
    weights = tuple(float(index) for index in range(1, number + 1))
    encoder = ExampleEncoder(model=model, tokenizer=tokenizer)
    given = Example(media=examples[0].media, turns=TURNS[0], weights=(weights,))
    assert encoder.encode(given, given.media).weight == number * (number + 1) / 2
    with pytest.raises(AssertionError, match="more weights"):
        encoder.encode(Example(media=given.media, turns=TURNS[0], weights=((*weights, 1.0),)), given.media)


def test_a_video_is_read_when_it_is_needed(examples):
    calls = []

    def read():
        calls.append(1)
        return examples[0].media

    late = Example(media=read, turns=TURNS[0])
    assert not calls and read_media(late) is examples[0].media and len(calls) == 1
    assert read_media(examples[0]) is examples[0].media


def test_parts_are_as_long_as_they_may_be():
    assert divide([5, 3, 9, 2, 2], max_tokens=8) == [slice(0, 2), slice(2, 3), slice(3, 5)]  # 8, 9 alone, 4
    assert divide([5, 3], max_tokens=None) == [slice(0, 2)]


def test_device_and_dtype_have_defaults():
    assert choose_device("cpu").type == "cpu"
    assert choose_dtype(None, device=torch.device("cpu")) is torch.float32
    assert choose_dtype(None, device=torch.device("cuda")) is torch.bfloat16
    assert choose_dtype("float32", device=torch.device("cuda")) is torch.float32
