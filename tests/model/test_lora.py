"""A LoRA on the language model alone: fresh it changes nothing, merged it leaves the same logits and no trace."""

import warnings

import pytest
import torch
from peft.tuners.lora import LoraLayer

from avcap.errors import UserError
from avcap.model import Salmonn2ForCaptioning
from avcap.model.interleave import AUDIO_ID, VISUAL_ID
from avcap.model.lora import LoraConfig, adapter_off, attach_lora, merge_lora, remove_lora, reset_lora
from avcap.model.salmonn2.tiny import tiny_config

CONFIG = LoraConfig(rank=4, alpha=8, dropout=0.0)


@torch.no_grad()
def logits_of(model, make_clip) -> torch.Tensor:
    tokens = model.align(make_clip(frames=2, audio_s=2.0))
    assert {VISUAL_ID, AUDIO_ID} <= set(tokens.ids)
    return model(torch.tensor([[5, *tokens.ids, 6, 7, 8]]), [tokens]).logits


@pytest.fixture
def clip_maker(make_clip):
    """make_clip draws anew at every call; here it gives one and the same clip."""
    clip = make_clip(frames=2, audio_s=2.0)
    return lambda **_: clip


def train_a_bit(model) -> None:
    """Stands for training: B is no longer zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, param in model.named_parameters():
            if "lora_B" in name:
                param.copy_(0.1 * torch.randn(param.shape, generator=generator))


def test_a_fresh_lora_changes_nothing(model, clip_maker):
    before = logits_of(model, clip_maker)
    attach_lora(model, CONFIG)
    assert torch.equal(logits_of(model, clip_maker), before)


def test_it_hits_the_attention_of_the_language_model_and_nothing_else(model):
    attach_lora(model, CONFIG)
    hit = {name for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    assert hit == {
        f"language_model.model.layers.{layer}.self_attn.{name}"
        for layer in range(4)
        for name in ("q_proj", "k_proj", "v_proj")
    }
    # the sound encoder and the tower have a q_proj, k_proj and v_proj as well
    assert any(name.endswith("q_proj") for name, _ in model.audio_encoder.named_modules())
    assert any(name.endswith("q_proj") for name, _ in model.vision_tower.named_modules())
    trained = {name for name, param in model.language_model.named_parameters() if param.requires_grad}
    assert len(trained) == 4 * 3 * 2 and all("lora_" in name for name in trained)


def test_a_head_of_its_own_does_not_train():
    config = tiny_config(vocab_size=64, time_token_ids=[10])
    config.text_config.tie_word_embeddings = config.tie_word_embeddings = False
    untied = Salmonn2ForCaptioning(config)
    head, words = untied.language_model.lm_head.weight, untied.language_model.model.embed_tokens.weight
    assert head is not words and head.requires_grad
    attach_lora(untied, CONFIG)
    assert not head.requires_grad and not words.requires_grad


def test_the_dials_reach_every_layer_of_the_lora(model):
    attach_lora(model, LoraConfig(rank=4, alpha=6, dropout=0.3, targets=("o_proj", "down_proj")))
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    assert len(layers) == 4 * 2
    for layer in layers:
        assert layer.lora_dropout["default"].p == 0.3 and layer.scaling["default"] == 6 / 4
        assert layer.lora_A["default"].weight.shape[0] == 4


def test_a_matrix_that_is_not_there_is_an_error_that_names_those_that_are():
    with pytest.raises(UserError, match=r"targets: got 'query', expected some of q_proj, .*down_proj"):
        LoraConfig(targets=("q_proj", "query"))


def test_merged_gives_the_same_logits_and_leaves_no_adapter(model, clip_maker):
    names = [name for name, _ in model.named_parameters()]
    before = logits_of(model, clip_maker)
    attach_lora(model, CONFIG)
    train_a_bit(model)
    trained = logits_of(model, clip_maker)
    assert not torch.allclose(trained, before, atol=1e-3)
    merge_lora(model)
    assert torch.allclose(logits_of(model, clip_maker), trained, atol=1e-5)
    assert [name for name, _ in model.named_parameters()] == names
    assert not any(isinstance(module, LoraLayer) for module in model.modules())


def test_merge_adds_alpha_over_rank_times_b_a(model):
    weight = model.language_model.model.layers[0].self_attn.q_proj.weight
    before = weight.detach().clone()
    attach_lora(model, CONFIG)
    train_a_bit(model)
    layer = model.language_model.model.layers[0].self_attn.q_proj
    update = 8 / 4 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    merge_lora(model)
    assert torch.allclose(weight, before + update, atol=1e-7)


def test_merge_rounds_to_bfloat16_once_at_the_end(model):
    model.bfloat16()
    attach_lora(model, CONFIG)
    train_a_bit(model)
    layer = model.language_model.model.layers[0].self_attn.q_proj
    weight = layer.get_base_layer().weight
    a, b, before = layer.lora_A["default"].weight, layer.lora_B["default"].weight, weight.detach().clone()
    assert a.dtype == b.dtype == weight.dtype == torch.bfloat16
    # alpha / r = 8 / 4
    expected = (before.float() + 2 * (b.float() @ a.float())).bfloat16()
    assert not torch.equal(expected, (before.float() + 2 * (b @ a).float()).bfloat16())
    assert not torch.equal(expected, before + (2 * (b.float() @ a.float())).bfloat16())
    merge_lora(model)
    assert torch.equal(weight, expected)


def test_a_second_lora_starts_from_nothing(model, clip_maker):
    attach_lora(model, CONFIG)
    train_a_bit(model)
    merge_lora(model)
    merged = logits_of(model, clip_maker)
    attach_lora(model, CONFIG)
    assert torch.equal(logits_of(model, clip_maker), merged)


def test_a_second_lora_after_a_merge_is_the_only_one(model):
    attach_lora(model, CONFIG)
    merge_lora(model)
    assert not hasattr(model.language_model.model, "peft_config")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PEFT warns of a second adapter beside the first
        attach_lora(model, CONFIG)
    layer = model.language_model.model.layers[0].self_attn.q_proj
    assert list(layer.lora_A) == ["default"]


def test_switched_off_the_model_is_the_ref_policy_and_then_itself_again(model, clip_maker):
    before = logits_of(model, clip_maker)
    attach_lora(model, CONFIG)
    train_a_bit(model)
    trained = logits_of(model, clip_maker)
    names = {name for name, param in model.named_parameters() if param.requires_grad}
    with pytest.raises(RuntimeError, match="out of memory"), adapter_off(model):
        assert torch.equal(logits_of(model, clip_maker), before)
        raise RuntimeError("out of memory")
    assert torch.equal(logits_of(model, clip_maker), trained)
    assert {name for name, param in model.named_parameters() if param.requires_grad} == names


def test_removed_it_leaves_the_weights_as_they_were(model, clip_maker):
    before = logits_of(model, clip_maker)
    attach_lora(model, CONFIG)
    train_a_bit(model)
    remove_lora(model)
    assert torch.equal(logits_of(model, clip_maker), before)
    assert not any(isinstance(module, LoraLayer) for module in model.modules())


def test_reset_forgets_what_the_lora_learned(model, clip_maker):
    before = logits_of(model, clip_maker)
    attach_lora(model, CONFIG)
    train_a_bit(model)
    reset_lora(model, CONFIG)
    assert torch.equal(logits_of(model, clip_maker), before)
    assert sum("lora_B" in name for name, _ in model.named_parameters()) == 4 * 3
