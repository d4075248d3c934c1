"""A packed row gives what separate forwards give: the same log-probs and the same gradients; mistakes are found."""

import copy
import inspect
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from support import ASSETS
from torch.nn.attention import varlen
from transformers import (
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3Model,
)

from avcap.curriculum.examples import pair_feature_tracks
from avcap.errors import UserError
from avcap.model.lora import LoraConfig, attach_lora
from avcap.model.transformers_renames import enable_activation_checkpointing
from avcap.train import packing
from avcap.train.losses import PreferenceConfig, preference_loss
from avcap.train.packing import (
    Blocks,
    Branch,
    EncodedExample,
    PairExample,
    Span,
    SplitConcat,
    Varlen,
    answer_token_logprobs,
    pack,
    read_row,
    response_logprobs,
    split_logprobs,
)

RELEASED_STEP = ASSETS / "plus_dpo.safetensors"
VOCAB, WIDTH = 41, 32
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
}
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}


def example(name: str, prompt: int, *answers: int, seed: int = 0, mrope: bool = False) -> PairExample:
    """Random ids of these lengths: chosen, rejected and, where there is a third length, target."""
    generator = torch.Generator().manual_seed(seed)
    prompt_ids, *parts = (torch.randint(0, VOCAB, (n,), generator=generator).tolist() for n in (prompt, *answers))
    names = ("chosen_ids", "rejected_ids", "target_ids")
    positions = torch.randint(0, prompt, (3, prompt), generator=generator) if mrope else None
    return PairExample(
        sample_id=name, prompt_ids=prompt_ids, prompt_positions=positions, **dict(zip(names, parts, strict=False))
    )


def ragged(*, mrope: bool = False) -> list[PairExample]:
    lengths = ((19, 7, 3, 11), (5, 1, 9, 4), (13, 6, 6))
    return [example(f"s{i}", *one, seed=i, mrope=mrope) for i, one in enumerate(lengths)]


def text_model(kind: str):
    torch.manual_seed(0)
    if kind == "qwen3":
        return Qwen3Model(Qwen3Config(**SIZES, head_dim=8)).eval()
    if kind == "qwen2_5_vl":
        return Qwen2_5_VLTextModel(Qwen2_5_VLTextConfig(**SIZES, rope_parameters=MROPE)).eval()
    return Qwen2Model(Qwen2Config(**SIZES)).eval()


def frozen_head() -> torch.nn.Linear:
    torch.manual_seed(1)
    return torch.nn.Linear(WIDTH, VOCAB, bias=False).requires_grad_(False)


def separate_logprobs(model, head, examples) -> torch.Tensor:
    """The oracle: one unpadded forward for each answer, stock attention, log_softmax of all logits."""
    parts = []
    for one in examples:
        start = len(one.prompt_ids)
        prompt = torch.arange(start) if one.prompt_positions is None else one.prompt_positions
        for answer in one.answers:
            own = int(prompt.max()) + 1 + torch.arange(len(answer))
            positions = torch.cat([prompt, own.expand(*prompt.shape[:-1], -1)], dim=-1).unsqueeze(-2)
            embeds = model.embed_tokens(torch.tensor([[*one.prompt_ids, *answer]]))
            hidden = model(inputs_embeds=embeds, position_ids=positions, use_cache=False).last_hidden_state[0]
            logprobs = head(hidden[start - 1 : -1]).log_softmax(-1)
            parts.append(logprobs[torch.arange(len(answer)), torch.tensor(answer)])
    return torch.cat(parts)


def packed_logprobs(model, head, examples, row_class=SplitConcat) -> torch.Tensor:
    packed = pack(examples)
    ids = [token_id for one in examples for part in (one.prompt_ids, *one.answers) for token_id in part]
    embeds = model.embed_tokens(torch.tensor([ids]))
    row = row_class(packed.groups, like=embeds)
    return answer_token_logprobs(head, read_row(model, embeds_1LD=embeds, positions=packed.positions, row=row), packed)


def gradients(model, logprobs_T) -> dict[str, torch.Tensor]:
    """Of a loss in which every token counts differently."""
    weights = torch.randn(len(logprobs_T), generator=torch.Generator().manual_seed(2))
    model.zero_grad()
    (logprobs_T * weights).sum().backward()
    return {name: param.grad.clone() for name, param in model.named_parameters() if param.grad is not None}


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    return ((got - expected).norm() / expected.norm()).item()


def assert_exact(kind: str, row_class=SplitConcat, *, mrope: bool = False) -> None:
    model, head, examples = text_model(kind), frozen_head(), ragged(mrope=mrope)
    expected_T = separate_logprobs(copy.deepcopy(model), head, examples)
    assert len(expected_T) == 21 + 14 + 12  # 7 + 3 + 11, 1 + 9 + 4, 6 + 6 answer tokens
    stock = copy.deepcopy(model)
    expected = gradients(stock, separate_logprobs(stock, head, examples))
    got_T = packed_logprobs(model, head, examples, row_class)
    assert relative(got_T, expected_T) < 1e-5, "log-probs"
    got = gradients(model, got_T)
    assert got.keys() == expected.keys()
    assert all(relative(got[name], expected[name]) < 1e-5 for name in expected), "gradients"


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "qwen2_5_vl"])
def test_log_probs_and_gradients_are_those_of_separate_forwards(kind):
    assert_exact(kind)


def test_they_are_with_three_axes_of_positions():
    assert_exact("qwen2_5_vl", mrope=True)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_padded_blocks_give_the_same(kind):
    assert_exact(kind, Blocks)


def test_blocks_are_for_rows_whose_mask_is_small():
    groups = pack([example("a", 700, 12, 12), example("b", 5, 1, 1)]).groups
    assert Blocks.fits(groups * 16)  # 32 groups, the longest of 724: 32 * 724^2 = 16,773,632 <= 2^24 = 16,777,216
    assert not Blocks.fits(groups * 16 + groups[:1])


def test_ids_without_weight_are_read_and_not_learned():
    one = EncodedExample(
        sample_id="a", prompt_ids=[1, 2], branches=[Branch(ids=[3, 4, 5], weights=[0.0, 2.0, 1.0]), Branch(ids=[6])]
    )
    packed = pack([one])
    # row: 1 2 | 3 4 5 | 6. 4 is foretold at 3 (position 2), 5 at 4 (3), 6 at the prompt's last (1)
    assert packed.target_T.tolist() == [4, 5, 6] and packed.predictor_T.tolist() == [2, 3, 1]
    assert packed.weight_T.tolist() == [2.0, 1.0, 1.0] and packed.branch_T.tolist() == [0, 0, 1]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 4, 2]] and one.weight == 4.0


class DenseMask:
    """Another oracle: one attention call over the whole row, its mask written down position by position."""

    name = "dense"

    def __init__(self, groups, *, like):
        length = groups[-1].whole.stop
        self.mask = torch.zeros(length, length, dtype=torch.bool)
        for group in groups:
            for span in (group.prompt, *group.answers):
                for query in range(span.start, span.stop):
                    self.mask[query, group.prompt.start : min(query + 1, group.prompt.stop)] = True
                    self.mask[query, span.start : query + 1] = True

    def attend(self, query, key, value, *, scaling, dropout):
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=self.mask, scale=scaling, enable_gqa=True)
        return out.transpose(1, 2)


class NeighbourSeen(DenseMask):
    """A mistake: an answer sees the one before it."""

    def __init__(self, groups, *, like):
        super().__init__(groups, like=like)
        for group in groups:
            self.mask[group.answers[1].slice, group.answers[0].slice] = True


class DetachedPrompt(DenseMask):
    """A mistake that no log-prob shows: answers give the prompt no gradient."""

    def __init__(self, groups, *, like):
        super().__init__(groups, like=like)
        self.groups = groups

    def attend(self, query, key, value, *, scaling, dropout):
        whole = super().attend(query, key, value, scaling=scaling, dropout=dropout)
        for group in self.groups:
            key, value = key.clone(), value.clone()
            key[:, :, group.prompt.slice] = key[:, :, group.prompt.slice].detach()
            value[:, :, group.prompt.slice] = value[:, :, group.prompt.slice].detach()
        cut = super().attend(query, key, value, scaling=scaling, dropout=dropout)
        is_prompt = torch.zeros(query.shape[2], dtype=torch.bool)
        for group in self.groups:
            is_prompt[group.prompt.slice] = True
        return torch.where(is_prompt[None, :, None, None], whole, cut)


def test_they_are_those_of_a_dense_mask():
    assert_exact("qwen2", DenseMask)


def test_an_answer_that_sees_its_neighbour_is_found():
    with pytest.raises(AssertionError, match="log-probs"):
        assert_exact("qwen2", NeighbourSeen)


def test_a_detached_prompt_is_found():
    with pytest.raises(AssertionError, match="gradients"):
        assert_exact("qwen2", DetachedPrompt)


def test_activation_checkpointing_changes_nothing_and_recomputes_the_packed_row():
    calls = []

    class Counted(SplitConcat):
        def attend(self, *tensors, **options):
            calls.append(1)
            return super().attend(*tensors, **options)

    model, head, examples = text_model("qwen2"), frozen_head(), ragged()
    expected = gradients(model, packed_logprobs(model, head, examples))
    model.train()
    enable_activation_checkpointing(model)
    got = gradients(model, packed_logprobs(model, head, examples, Counted))
    assert len(calls) == 2 * 2  # two layers, forward and once more in the backward pass
    assert all(relative(got[name], expected[name]) < 1e-6 for name in expected)


def flash_by_hand(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size, enable_gqa):
    """What flash attention computes from borders: causal, the last query on the last key; one head at a time."""
    assert window_size == (-1, 0)
    assert max_q == cu_seq_q.diff().max() and max_k == cu_seq_k.diff().max()
    assert len(query) == cu_seq_q[-1] and len(key) == len(value) == cu_seq_k[-1]
    parts = []
    borders = zip(cu_seq_q[:-1], cu_seq_q[1:], cu_seq_k[:-1], cu_seq_k[1:], strict=True)
    for first_q, last_q, first_k, last_k in borders:
        queries, keys, values = query[first_q:last_q], key[first_k:last_k], value[first_k:last_k]
        mask = torch.ones(len(queries), len(keys), dtype=torch.bool).tril(len(keys) - len(queries))
        heads = []
        for index in range(query.shape[1]):
            shared = index // (query.shape[1] // key.shape[1])
            scores = (queries[:, index] @ keys[:, shared].T * scale).masked_fill(~mask, float("-inf"))
            heads.append(scores.softmax(-1) @ values[:, shared])
        parts.append(torch.stack(heads, dim=1))
    return torch.cat(parts)


def test_the_flash_path_has_the_right_borders_and_keys(monkeypatch):
    real = inspect.signature(varlen.varlen_attn)
    seen = []

    def stand_in(*tensors, **options):
        real.bind(*tensors, **options)  # what is passed is what torch takes
        seen.append([tensors[3].tolist(), tensors[4].tolist()])
        return flash_by_hand(*tensors, **options)

    monkeypatch.setattr(varlen, "varlen_attn", stand_in)
    assert_exact("qwen2", Varlen)
    # prompts of 19, 5, 13; answers 7 3 11, 1 9 4, 6 6. Keys: prompt, or prompt + answer: 19, 26, 22, 30, 5, 6, ...
    assert seen[0][0] == [0, 19, 26, 29, 40, 45, 46, 55, 59, 72, 78, 84]
    assert seen[0][1] == [0, 19, 45, 67, 97, 102, 108, 122, 131, 144, 163, 182]


def test_flash_attention_is_for_16_bit_numbers_on_a_gpu():
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert packing.attention_for(dtype=torch.bfloat16, device=gpu) is Varlen
    assert packing.attention_for(dtype=torch.float32, device=gpu) is SplitConcat
    assert packing.attention_for(dtype=torch.bfloat16, device=cpu) is SplitConcat


def test_a_row_is_laid_out_by_example():
    packed = pack([example("a", 4, 2, 3, 1), example("b", 2, 1, 2)])
    first, second = packed.groups
    assert first.prompt == Span(start=0, stop=4)
    assert first.answers == (Span(start=4, stop=6), Span(start=6, stop=9), Span(start=9, stop=10))
    assert second.prompt == Span(start=10, stop=12)
    assert packed.num_tokens == 15  # 4 + 2 + 3 + 1 and 2 + 1 + 2
    assert packed.positions.tolist() == [[0, 1, 2, 3, 4, 5, 4, 5, 6, 4, 0, 1, 2, 2, 3]]
    # every first token of an answer is predicted by the last position of its prompt: 3 and 11
    assert packed.predictor_T.tolist() == [3, 4, 3, 6, 7, 3, 11, 11, 13]


def test_answers_go_on_after_the_largest_position_of_any_axis():
    one = replace(example("a", 3, 2, 1), prompt_positions=torch.tensor([[0, 1, 2], [0, 5, 1], [0, 0, 3]]))
    assert pack([one]).positions.tolist() == [[[0, 1, 2, 6, 7, 6]], [[0, 5, 1, 6, 7, 6]], [[0, 0, 3, 6, 7, 6]]]


def test_answers_go_on_where_the_model_says_if_it_says_so():
    one = replace(example("a", 3, 2, 1), prompt_positions=torch.tensor([[0, 1, 2], [0, 5, 1], [0, 0, 3]]), following=4)
    assert pack([one]).positions.tolist() == [[[0, 1, 2, 4, 5, 4]], [[0, 5, 1, 4, 5, 4]], [[0, 0, 3, 4, 5, 4]]]


@pytest.mark.parametrize("chunk", [3, 256])
def test_the_frozen_head_gives_log_softmax_and_its_gradient_and_keeps_no_logits(monkeypatch, chunk):
    monkeypatch.setattr(packing, "HEAD_CHUNK", chunk)
    head, packed = frozen_head(), pack(ragged())
    hidden = torch.randn(packed.num_tokens, WIDTH, requires_grad=True)
    expected = head(hidden[packed.predictor_T]).log_softmax(-1)[torch.arange(47), packed.target_T]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: kept.append(saved.shape) or saved, lambda saved: saved):
        got = answer_token_logprobs(head, hidden, packed)
    assert relative(got, expected) < 1e-6 and got.dtype == torch.float32
    assert (47, WIDTH) in kept and not any(VOCAB in shape for shape in kept)
    (expected_grad,) = torch.autograd.grad(expected.sin().sum(), hidden)
    (got_grad,) = torch.autograd.grad(got.sin().sum(), hidden)
    assert relative(got_grad, expected_grad) < 1e-5


def test_a_head_that_trains_gets_its_gradient(monkeypatch):
    monkeypatch.setattr(packing, "HEAD_CHUNK", 5)
    head, packed = frozen_head().requires_grad_(True), pack(ragged())
    hidden = torch.randn(packed.num_tokens, WIDTH, requires_grad=True)
    expected = head(hidden[packed.predictor_T]).log_softmax(-1)[torch.arange(47), packed.target_T]
    expected_grads = torch.autograd.grad(expected.sin().sum(), (hidden, head.weight))
    got = answer_token_logprobs(head, hidden, packed)
    grads = torch.autograd.grad(got.sin().sum(), (hidden, head.weight))
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert relative(grad, expected_grad) < 1e-5


def test_without_a_layout_the_model_reads_as_before():
    model, head = text_model("qwen2"), frozen_head()
    ids = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    before = model(ids, attention_mask=mask).last_hidden_state
    packed_logprobs(model, head, ragged())
    assert torch.equal(model(ids, attention_mask=mask).last_hidden_state, before)


def test_layers_with_a_sliding_window_are_refused():
    model = Qwen2Model(Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=4, max_window_layers=1))
    with pytest.raises(UserError, match=r"sliding_attention.*use_sliding_window"):
        packed_logprobs(model, frozen_head(), ragged())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt_ids": []}, "sample a: an empty prompt"),
        ({"chosen_ids": []}, "sample a: an empty prompt or answer"),
        ({"rejected_ids": None}, "sample a: one caption of a pair"),
        ({"chosen_ids": None, "rejected_ids": None}, "sample a: an empty prompt or answer"),
    ],
)
def test_half_an_example_is_an_error_that_names_it(change, message):
    with pytest.raises(UserError, match=message):
        replace(example("a", 3, 2, 2), **change)


def test_positions_that_do_not_fit_the_prompt_are_an_error():
    with pytest.raises(UserError, match="sample a: 2 positions for 3 prompt tokens"):
        pack([replace(example("a", 3, 2, 1), prompt_positions=torch.arange(2))])


@pytest.fixture
def trained(tiny):
    """The embedded model with a LoRA that is not fresh; its aligners train too."""
    model = copy.deepcopy(tiny[0])
    model.requires_grad_(False)
    attach_lora(model, LoraConfig(rank=4, alpha=8, dropout=0.0))
    model.vision_aligner.requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, param in model.named_parameters():
            if "lora_B" in name:
                param.copy_(0.1 * torch.randn(param.shape, generator=generator))
    return model


def clips(feature_tracks):
    (video,), (audio,) = feature_tracks.video.values(), feature_tracks.audio.values()
    return [
        pair_feature_tracks(video[0], audio[1], start_s=0, end_s=6).media,
        pair_feature_tracks(None, audio[0], start_s=2, end_s=5).media,
    ]


def test_videos_of_the_captioner_share_a_row(trained, feature_tracks):
    media = clips(feature_tracks)
    examples = [
        PairExample(
            sample_id=f"v{i}",
            prompt_ids=[3, *trained.placeholders(clip), 4, 5],
            chosen_ids=[6, 7, 8, 2],
            rejected_ids=[9, 2],
            target_ids=[10, 11, 2],
        )
        for i, clip in enumerate(media)
    ]
    expected, got = [], []
    for one, tokens in zip(examples, trained.align_batch(media), strict=True):
        for answer in one.answers:
            logits_LV = trained(torch.tensor([[*one.prompt_ids, *answer]]), [tokens]).logits[0]
            logprobs = logits_LV[len(one.prompt_ids) - 1 : -1].log_softmax(-1)
            expected.append(logprobs[torch.arange(len(answer)), torch.tensor(answer)].sum())
    expected_grads = gradients(trained, torch.stack(expected))
    for one in response_logprobs(trained, pack(examples), trained.align_batch(media)):
        assert [one.chosen.num_tokens, one.rejected.num_tokens, one.target.num_tokens] == [4, 2, 3]
        got += [one.chosen.total, one.rejected.total, one.target.total]
    assert relative(torch.stack(got), torch.stack(expected)) < 1e-5
    grads = gradients(trained, torch.stack(got))
    assert any("lora_A" in name for name in grads) and any("vision_aligner" in name for name in grads)
    assert grads.keys() == expected_grads.keys()
    assert all(relative(grads[name], expected_grads[name]) < 1e-5 for name in grads)


def test_a_step_of_the_released_training_is_reproduced():
    """video-SALMONN 2+, M-RoPE, beta .1, CE weight .1; its reference is the policy with q, k and v weights times .9."""
    case = load_file(RELEASED_STEP)
    text_config = Qwen2_5_VLTextConfig(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
    )
    model, head = Qwen2_5_VLTextModel(text_config).eval(), torch.nn.Linear(64, 320, bias=False).requires_grad_(False)
    weights = {name: tensor.float() for name, tensor in case.items() if name.startswith(("model.", "lm_head."))}
    head.weight.copy_(weights.pop("lm_head.weight"))
    model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in weights.items()})
    names = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected", "target": "reference"}
    ids = {f"{name}_ids": case[f"{recorded}_ids"].tolist() for name, recorded in names.items()}
    packed = pack([PairExample(sample_id="released", prompt_positions=case["prompt_positions"], **ids)])
    answers = zip(("chosen", "rejected", "reference"), packed.groups[0].answers, strict=True)
    assert all(torch.equal(packed.positions[:, 0, span.slice], case[f"{name}_positions"]) for name, span in answers)

    def logprobs():
        words = model.embed_tokens(torch.tensor([[i for answer in packed.examples[0].answers for i in answer]]))
        embeds = torch.cat((case["prompt_embeds"], words), dim=1)
        row = SplitConcat(packed.groups, like=embeds)
        hidden = read_row(model, embeds_1LD=embeds, positions=packed.positions, row=row)
        return split_logprobs(answer_token_logprobs(head, hidden, packed), packed)

    with torch.no_grad():
        policy = logprobs()
        for name, param in model.named_parameters():
            if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
                param.mul_(0.9)
        target = logprobs()
    output = preference_loss(policy, target, PreferenceConfig(beta=0.1, guidance_weight=0.1))
    for (got,), expected in ((policy, case["policy_logps"]), (target, case["reference_logps"])):
        assert torch.stack((got.chosen.total, got.rejected.total)).tolist() == pytest.approx(
            expected.tolist(), rel=1e-5
        )
    # beta 0.1 times a difference of four sums of 100 to 260 nats, each known to 1e-5 of itself, not of the loss
    assert output.metrics["preference"] == pytest.approx(case["dpo_loss"].item(), abs=1e-4)
    assert output.metrics["guidance"] == pytest.approx(case["ce_gt"].item(), rel=1e-5)
    assert output.loss.item() == pytest.approx(case["total_loss"].item(), abs=1e-4)


def test_media_that_is_not_the_prompts_is_an_error(trained, feature_tracks):
    media = clips(feature_tracks)
    one = PairExample(sample_id="v", prompt_ids=[3, *trained.placeholders(media[0])], chosen_ids=[6], rejected_ids=[9])
    with pytest.raises(ValueError, match="placeholders"):
        response_logprobs(trained, pack([one]), trained.align_batch(media[1:]))
