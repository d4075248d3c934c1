import math

import pytest
import torch
from transformers import DynamicCache, Qwen2Config, Qwen2ForCausalLM

from avcap.infer.kv_cache import SHARED_PROMPT, Attended, OwnPrompts, SharedPrompts, attend, merge
from avcap.model.transformers_renames import cache_of

NUM_HEADS, NUM_KEY_HEADS = 6, 2  # each key head has three query heads
LENGTHS, ANSWERS = (5, 9, 7), 3


@pytest.fixture(scope="module")
def language_model() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=50,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=NUM_HEADS,
        num_key_value_heads=NUM_KEY_HEADS,
    )
    model = Qwen2ForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)  # so that attention is not even, and a wrong key shows
    return model


@torch.no_grad()
def prefill(model: Qwen2ForCausalLM) -> tuple[DynamicCache, torch.Tensor, torch.Tensor]:
    """-> cache of prompts padded on the left, mask (B, L), lengths (B,)."""
    length_B = torch.tensor(LENGTHS)
    mask_BL = (torch.arange(max(LENGTHS)) >= max(LENGTHS) - length_B[:, None]).long()
    ids_BL = torch.randint(0, 50, mask_BL.shape, generator=torch.Generator().manual_seed(1))
    positions_BL = (mask_BL.cumsum(dim=1) - 1).clamp(min=0)
    cache = cache_of(model(ids_BL, attention_mask=mask_BL, position_ids=positions_BL, use_cache=True))
    return cache, mask_BL, length_B


@torch.no_grad()
def test_shared_prompts_give_the_logits_of_own_prompts_as_rows_and_prompts_leave(language_model):
    cache, mask_BL, length_B = prefill(language_model)
    own_cache, *_ = prefill(language_model)
    own_cache.batch_repeat_interleave(ANSWERS)
    own = OwnPrompts(own_cache, mask_BL.repeat_interleave(ANSWERS, dim=0))
    shared = SharedPrompts(cache, mask_BL, answers_per_prompt=ANSWERS)
    positions_R = length_B.repeat_interleave(ANSWERS)
    generator = torch.Generator().manual_seed(2)
    # rows 0-2, 3-5, 6-8 are the answers to the prompts of 5, 9 and 7 tokens
    stay = {1: [0, 1, 3, 4, 5, 6, 8], 3: [0, 1, 5, 6], 4: [1, 3], 5: [0]}  # prompt 1 leaves at 4, and 2 tokens with it
    for step in range(7):
        if rows := stay.get(step):
            own.keep(rows)
            shared.keep(rows)
            positions_R = positions_R[rows]
        ids_R = torch.randint(0, 50, positions_R.shape, generator=generator)
        expected_RV = own.read(language_model, ids_R, positions_R=positions_R)
        torch.testing.assert_close(
            shared.read(language_model, ids_R, positions_R=positions_R), expected_RV, rtol=1e-4, atol=1e-4
        )
        assert expected_RV.std() > 0.1  # logits that differ, else nothing was compared
        positions_R = positions_R + 1
    assert language_model.config._attn_implementation != SHARED_PROMPT


@torch.no_grad()
def test_shared_prompts_are_kept_once(language_model):
    cache, mask_BL, length_B = prefill(language_model)
    shared = SharedPrompts(cache, mask_BL, answers_per_prompt=50)
    shared.read(language_model, torch.zeros(150, dtype=torch.long), positions_R=length_B.repeat_interleave(50))
    assert [keys.shape[0] for keys in shared._keys] == [len(LENGTHS)] * 3
    # of their own the 150 rows have one token each
    assert shared._written.layers[0].keys.shape == (150, NUM_KEY_HEADS, 1, 48 // NUM_HEADS)


def test_two_softmaxes_become_one():
    # scores 0 and ln 3 in one part, ln 4 in the other: weights 1, 3, 4 of 8
    query, shape = torch.ones(1, 1, 1, 1), (1, 1, -1, 1)
    keys, values = torch.tensor([0.0, math.log(3)]).view(shape), torch.tensor([8.0, 0.0]).view(shape)
    one = attend(query, keys, values, scaling=1.0)
    other = attend(query, torch.tensor([math.log(4)]).view(shape), torch.tensor([2.0]).view(shape), scaling=1.0)
    assert one.lse.item() == pytest.approx(math.log(4)) and one.out.item() == pytest.approx(2.0)
    # (1 * 8 + 3 * 0 + 4 * 2) / 8 = 2, and with values that differ between the parts:
    assert merge(one, other).item() == pytest.approx(2.0)
    other = Attended(out=torch.full((1, 1, 1, 1), 6.0), lse=other.lse)
    assert merge(one, other).item() == pytest.approx((8 + 0 + 4 * 6) / 8)


def test_hidden_keys_have_no_part_in_it():
    keys, values = torch.tensor([0.0, 5.0]).view(1, 1, 2, 1), torch.tensor([7.0, 1.0]).view(1, 1, 2, 1)
    found = attend(torch.ones(1, 1, 1, 1), keys, values, scaling=1.0, hidden_BK=torch.tensor([[False, True]]))
    assert (found.out.item(), found.lse.item()) == (7.0, 0.0)


def test_a_sliding_window_is_refused():
    config = Qwen2Config(
        vocab_size=50,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        use_sliding_window=True,
        sliding_window=4,
        max_window_layers=0,
    )
    cache, mask_BL, _ = prefill(Qwen2ForCausalLM(config).eval())
    with pytest.raises(ValueError, match="sliding-window"):
        SharedPrompts(cache, mask_BL, answers_per_prompt=2)
