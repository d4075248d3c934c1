"""What training computes on a model with three position axes: rows of several answers or questions = separate rows."""

import pytest
import torch
from support.tiny_plus import TOKENIZER_FOLDER, tiny_plus_model

from avcap.model.features import MediaFeatures, VisionGrid
from avcap.model.interleave import VISUAL_ID
from avcap.model.lora import LoraConfig, adapter_off, attach_lora, merge_lora
from avcap.train.examples import Example, ExampleEncoder
from avcap.train.packing import (
    Blocks,
    PairExample,
    SplitConcat,
    pack,
    response_logprobs,
    row_positions,
    target_states,
    token_logprobs,
)

LORA = LoraConfig(rank=4, alpha=8, dropout=0.0)


@pytest.fixture
def model():
    return tiny_plus_model()


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(TOKENIZER_FOLDER)


@pytest.fixture(scope="module")
def clips() -> list[MediaFeatures]:
    """Picture and sound, picture alone, sound alone."""
    generator = torch.Generator().manual_seed(0)

    def clip(grids: int, audio_s: int, *, height: int = 2, width: int = 2) -> MediaFeatures:
        grid = VisionGrid(height=height, width=width, seconds_per_grid=0.5, num_frames=2 * grids) if grids else None
        return MediaFeatures(
            vision_TNV=torch.randn(grids, height * width, 128, generator=generator) if grids else None,
            grid=grid,
            frame_times_T=[0.5 * index for index in range(grids)],
            audio_seconds=float(audio_s),
            audio_KPA=torch.randn(audio_s, 50, 32, generator=generator) if audio_s else None,
        )

    return [clip(5, 3), clip(3, 0, width=9), clip(0, 2)]


def examples(model, clips) -> list[PairExample]:
    generator = torch.Generator().manual_seed(1)

    def answer(length: int) -> list[int]:
        return torch.randint(0, 280, (length,), generator=generator).tolist()

    return [
        PairExample(
            sample_id=str(index),
            prompt_ids=[285, 10, *model.placeholders(clip), 10, 20],
            chosen_ids=answer(5 + index),
            rejected_ids=answer(3),
            target_ids=answer(7),
        )
        for index, clip in enumerate(clips)
    ]


@torch.no_grad()
def separate_logprob(model, example, tokens, answer) -> torch.Tensor:
    ids = [*example.prompt_ids, *answer]
    logprobs_LV = model(torch.tensor([ids]), [tokens]).logits[0].log_softmax(-1)
    predictors = torch.arange(len(example.prompt_ids) - 1, len(ids) - 1)
    return logprobs_LV[predictors, torch.tensor(answer)].sum()


@torch.no_grad()
def test_packed_rows_are_separate_forwards(model, clips):
    tokens, expected = model.align_batch(clips), examples(model, clips)
    packed = response_logprobs(model, pack(expected), tokens)
    for example, media, got in zip(expected, tokens, packed, strict=True):
        for name, answer in zip(("chosen", "rejected", "target"), example.answers, strict=True):
            alone = separate_logprob(model, example, media, answer)
            assert getattr(got, name).total.item() == pytest.approx(alone.item(), rel=1e-5)


def test_answers_go_on_after_the_latest_time_and_not_after_the_widest_frame(model):
    # one grid of 2 x 40 tokens, and a second of sound: columns reach further than times
    clip = MediaFeatures(
        vision_TNV=torch.randn(1, 80, 128),
        frame_times_T=[0.0],
        audio_seconds=1.0,
        audio_KPA=torch.randn(1, 50, 32),
        grid=VisionGrid(height=2, width=40, seconds_per_grid=0.5, num_frames=2),
    )
    tokens, packed = model.align_batch([clip]), pack(examples(model, [clip]))
    prompt_ids = packed.examples[0].prompt_ids
    placed = model.positions(prompt_ids, tokens[0])
    of_row = row_positions(model, packed, tokens)[:, 0]
    for answer in packed.groups[0].answers:
        assert of_row[:, answer.start].tolist() == [placed.following] * 3
    # two words, <|vision_start|>, times 0 and 1 of the audio, <|vision_end|>, two words; the last column is beyond it
    assert placed.following == 2 + 1 + 2 + 1 + 2
    assert int(placed.of_ids.max()) == 2 + 1 + 39


def test_tokens_counted_would_not_be_the_same(model, clips):
    tokens, expected = model.align_batch(clips[:1]), examples(model, clips[:1])
    counted = torch.arange(len(expected[0].prompt_ids)).expand(3, -1)
    right, wrong = (
        response_logprobs(model, pack([example]), tokens)[0].chosen.total
        for example in (expected[0], PairExample(**{**vars(expected[0]), "prompt_positions": counted}))
    )
    assert abs(right - wrong) > 0.01


def test_gradients_reach_the_aligners_through_a_packed_row(model, clips):
    model.requires_grad_(True)
    logprobs = response_logprobs(model, pack(examples(model, clips)), model.align_batch(clips))
    sum(one.chosen.total for one in logprobs).backward()
    for parameter in (model.vision_aligner.mlp[0].weight, model.audio_aligner.proj.weight):
        assert parameter.grad.abs().max() > 0


@torch.no_grad()
def test_questions_as_branches_are_separate_rows(model, clips, tokenizer):
    encoder = ExampleEncoder(model=model, tokenizer=tokenizer)
    turns = (("What is it?", "a cat"), ("Who sits?", "the dog"), ("Where?", "here"))

    def logprobs(turns, attention):
        packed = pack([encoder.encode(Example(media=clips[0], turns=turns), clips[0])])
        states_TD = target_states(model, packed, model.align_batch(clips[:1]), attention=attention)
        return token_logprobs(model.language_model.lm_head, states_TD, packed.target_T)

    for attention in (SplitConcat, Blocks):
        apart = torch.cat([logprobs((turn,), attention) for turn in turns])
        assert torch.allclose(logprobs(turns, attention), apart, atol=1e-4)


@torch.no_grad()
def test_lora_is_on_the_language_model_alone_and_merges(model, clips):
    tokens, expected = model.align_batch(clips), examples(model, clips)

    def chosen() -> torch.Tensor:
        return torch.stack([one.chosen.total for one in response_logprobs(model, pack(expected), tokens)])

    before = chosen()
    attach_lora(model, LORA)
    assert torch.allclose(chosen(), before, rtol=1e-6)
    names = [name for name, _ in model.named_parameters() if "lora_" in name]
    assert len(names) == 2 * 2 * 3 and all(name.startswith("language_model.model.layers.") for name in names)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(2))
    learned = chosen()
    with adapter_off(model):
        assert torch.allclose(chosen(), before, rtol=1e-6)
    merge_lora(model)
    assert not torch.allclose(learned, before) and torch.allclose(chosen(), learned, rtol=1e-5)


def test_batches_of_clips_are_aligned_as_one_by_one(model, clips):
    together, apart = model.align_batch(clips), [model.align(clip) for clip in clips]
    for one, other in zip(together, apart, strict=True):  # kernels add in another order for other shapes
        assert one.ids == other.ids and torch.allclose(one.embeds_MD, other.embeds_MD, atol=1e-5)


def test_a_grid_that_does_not_fit_is_refused(model, clips):
    grid = VisionGrid(height=3, width=3, seconds_per_grid=1.0, num_frames=2)
    with pytest.raises(ValueError, match="features of 4 tokens a grid"):
        model.align(MediaFeatures(vision_TNV=clips[0].vision_TNV[:1], frame_times_T=[0.0], grid=grid))


def test_a_prompt_that_ends_with_the_media_says_where_text_goes_on(model, clips):
    tokens = model.align(clips[1])  # 3 grids of 2 rows of 9 tokens: the width axis is the longest
    shared = [285, 10, *tokens.ids]
    whole = model.positions([*shared, 10, 20], tokens)
    assert model.positions(shared, tokens).following == whole.of_ids[0, len(shared)] == whole.following - 2
    assert whole.of_ids[:, shared.index(VISUAL_ID)].tolist() == [3, 3, 3]
    assert (whole.of_ids[:, len(shared) - 1] == 3 + 9).all()  # widths 0..8
