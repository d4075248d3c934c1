"""Reference log-probs: those of the model with its LoRA off, kept on disk, and refused when they are stale."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from support.tiny_plus import tiny_plus_model

from avcap.errors import UserError
from avcap.model.lora import LoraConfig, attach_lora, merge_lora
from avcap.train.losses import PreferenceConfig, preference_loss
from avcap.train.packing import AnswerLogprobs, ExampleLogprobs, PairExample, pack, response_logprobs
from avcap.train.preference_steps import check_fresh_start
from avcap.train.ref_logprobs import (
    RefLogprobStore,
    ref_logprobs,
    ref_policy,
    weights_hash,
)

EXAMPLES = [
    PairExample(sample_id="a", prompt_ids=[3, 4, 5], chosen_ids=[6, 7, 2], rejected_ids=[8, 2], target_ids=[9, 2]),
    PairExample(sample_id="b", prompt_ids=[3, 4], chosen_ids=[6, 2], rejected_ids=[10, 11, 2]),
]
LORA = LoraConfig(rank=4, alpha=8, dropout=0.5)


@pytest.fixture
def model(tiny):
    return copy.deepcopy(tiny[0])


@pytest.fixture
def policy(model):
    return ref_policy(model)


def learn_something(model) -> None:
    with torch.no_grad():
        for name, param in model.named_parameters():
            if "lora_B" in name:
                param.fill_(0.1)


def totals(logprobs: list[ExampleLogprobs]) -> torch.Tensor:
    return torch.stack([answer.total for one in logprobs for answer in (one.chosen, one.rejected)])


def logprobs_of(model) -> list[ExampleLogprobs]:
    return response_logprobs(model, pack(EXAMPLES), [None, None])


def test_the_ref_policy_is_the_model_with_its_lora_off_and_without_dropout(model):
    with torch.no_grad():
        before = totals(logprobs_of(model))
    attach_lora(model, LORA)
    learn_something(model)
    for layer in model.language_model.model.layers:
        layer.self_attn.attention_dropout = 0.5  # of the base: that of the LoRA is off with it
    model.train()
    model.vision_tower.eval()
    assert not torch.allclose(totals(logprobs_of(model)), totals(logprobs_of(model)), atol=1e-2)
    target = ref_logprobs(model, EXAMPLES, [None, None])
    assert torch.allclose(totals(target), before, atol=1e-4)
    assert not torch.allclose(totals(logprobs_of(model.eval())), before, atol=1e-2)
    assert not any(answer.total.requires_grad for one in target for answer in (one.chosen, one.rejected))


def test_modes_and_the_lora_are_as_they_were(model):
    attach_lora(model, LORA)
    model.train()
    model.vision_tower.eval()
    trained = {name for name, param in model.named_parameters() if param.requires_grad}
    ref_logprobs(model, EXAMPLES, [None, None])
    assert model.language_model.training and not model.vision_tower.training
    assert {name for name, param in model.named_parameters() if param.requires_grad} == trained


def test_a_round_begins_with_policy_and_ref_policy_the_same(model, policy, tmp_path):
    store = RefLogprobStore(tmp_path / "ref_logprobs.jsonl", policy=policy)
    store.add(EXAMPLES, ref_logprobs(model, EXAMPLES, [None, None]))
    attach_lora(model, replace(LORA, dropout=0.0))
    config = PreferenceConfig(guidance_weight=0.0)
    output = preference_loss(logprobs_of(model), store.lookup(EXAMPLES), config)
    assert output.loss.item() == pytest.approx(math.log(2), abs=1e-4)
    check_fresh_start(output, config)
    learn_something(model)
    with pytest.raises(UserError, match="first step of the round"):
        check_fresh_start(preference_loss(logprobs_of(model), store.lookup(EXAMPLES), config), config)


def test_what_was_stored_is_found_again_exactly(model, policy, tmp_path):
    path = tmp_path / "ref_logprobs.jsonl"
    store = RefLogprobStore(path, policy=policy)
    assert store.missing(EXAMPLES) == list(range(len(EXAMPLES)))
    logprobs = ref_logprobs(model, EXAMPLES, [None, None])
    store.add(EXAMPLES[:1], logprobs[:1])
    again = RefLogprobStore(path, policy=policy)
    assert again.missing(EXAMPLES) == list(range(1, len(EXAMPLES)))
    again.add(EXAMPLES[1:], logprobs[1:])
    found = RefLogprobStore(path, policy=policy).lookup(EXAMPLES)
    assert torch.equal(totals(found), totals(logprobs))
    assert [one.chosen.num_tokens for one in found] == [3, 2]


def test_a_caption_without_a_pair_needs_none(policy, tmp_path):
    alone = PairExample(sample_id="c", prompt_ids=[3], target_ids=[4])
    store = RefLogprobStore(tmp_path / "ref_logprobs.jsonl", policy=policy)
    assert store.missing([alone]) == []
    assert store.lookup([alone]) == [ExampleLogprobs()]


def test_half_a_line_of_a_killed_run_is_computed_again(policy, tmp_path):
    path = tmp_path / "ref_logprobs.jsonl"
    store = RefLogprobStore(path, policy=policy)
    answer = AnswerLogprobs(total=torch.tensor(-3.0), num_tokens=2)
    store.add(EXAMPLES, [ExampleLogprobs(chosen=answer, rejected=answer)] * 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert RefLogprobStore(path, policy=policy).missing(EXAMPLES) == list(range(1, len(EXAMPLES)))
    assert path.read_bytes() == whole[: whole.index(b"\n") + 1]


@pytest.mark.parametrize("change", [{"weights": "other"}, {"dtype": "torch.bfloat16"}, {"attention": "varlen"}])
def test_log_probs_of_another_policy_are_an_error(model, policy, tmp_path, change):
    path = tmp_path / "ref_logprobs.jsonl"
    RefLogprobStore(path, policy=policy).add(EXAMPLES, ref_logprobs(model, EXAMPLES, [None, None]))
    with pytest.raises(UserError, match=f"ref_logprobs.jsonl: stale.*{next(iter(change.values()))}.*delete the file"):
        RefLogprobStore(path, policy=replace(policy, **change))


@pytest.mark.parametrize("part", ["prompt_ids", "chosen_ids", "rejected_ids"])
def test_log_probs_of_other_tokens_are_an_error(model, policy, tmp_path, part):
    store = RefLogprobStore(tmp_path / "ref_logprobs.jsonl", policy=policy)
    store.add(EXAMPLES, ref_logprobs(model, EXAMPLES, [None, None]))
    changed = replace(EXAMPLES[0], **{part: [12, *getattr(EXAMPLES[0], part)]})
    with pytest.raises(UserError, match=r"other tokens.*sample a"):
        store.lookup([changed])
    with pytest.raises(UserError, match="no log-probs for sample z"):
        store.lookup([replace(EXAMPLES[0], sample_id="z")])


@pytest.mark.parametrize(("chosen", "rejected"), [("nan", "nan"), ("nan", "-3"), ("-3", "nan"), ("-3", "-inf")])
def test_log_probs_that_are_not_finite_are_not_stored(policy, tmp_path, chosen, rejected):
    path = tmp_path / "ref_logprobs.jsonl"
    answers = [AnswerLogprobs(total=torch.tensor(float(total)), num_tokens=2) for total in (chosen, rejected)]
    with pytest.raises(UserError, match=r"sample a: reference log-probs are .*(nan|inf)"):
        RefLogprobStore(path, policy=policy).add(
            EXAMPLES[:1], [ExampleLogprobs(chosen=answers[0], rejected=answers[1])]
        )
    assert not path.exists()


def test_log_probs_at_other_positions_are_an_error(policy, tmp_path):
    counted, moved = (
        replace(EXAMPLES[0], prompt_positions=torch.tensor([[0, 1, 2], [0, row, 2], [0, 1, 2]])) for row in (1, 5)
    )
    answer = AnswerLogprobs(total=torch.tensor(-3.0), num_tokens=2)
    store = RefLogprobStore(tmp_path / "ref_logprobs.jsonl", policy=policy)
    store.add([counted], [ExampleLogprobs(chosen=answer, rejected=answer)])
    assert store.missing([counted, moved, EXAMPLES[0]]) == [1, 2]
    for other in (moved, EXAMPLES[0]):
        with pytest.raises(UserError, match=r"other tokens.*sample a"):
            store.lookup([other])


def test_a_policy_with_three_position_axes_says_where_its_tokens_stand():
    model = tiny_plus_model()
    of_training = ref_policy(model)
    model.config.positions = "official_generate"
    assert of_training.attention.endswith(", train positions")
    assert ref_policy(model).attention.endswith(", official_generate positions")
    assert ref_policy(model).weights == of_training.weights


def test_the_hash_is_of_the_weights_and_not_of_a_lora(model):
    before = weights_hash(model)
    attach_lora(model, LORA)
    learn_something(model)
    assert weights_hash(model) == before
    merge_lora(model)
    assert weights_hash(model) != before
