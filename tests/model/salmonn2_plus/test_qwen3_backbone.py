"""A Qwen3-VL under the same sound branch: nobody published its layout, so it is held to what must hold anyway."""

import pytest
import torch
from support.tiny_plus import QWEN3, tiny_plus_model

from avcap.model.features import MediaFeatures, VisionGrid
from avcap.train.packing import PairExample, pack, response_logprobs


@pytest.fixture
def model():
    return tiny_plus_model(**QWEN3)


def video(model, *, num_frames: int = 4, seed: int = 0) -> MediaFeatures:
    """Random frames of 64 x 64 pixels, which are 4 x 4 patches and 2 x 2 tokens, with two seconds of sound."""
    generator = torch.Generator().manual_seed(seed)
    frames_TCHW = torch.randint(0, 256, (num_frames, 3, 64, 64), generator=generator, dtype=torch.uint8)
    return MediaFeatures(
        vision_TNV=model.encode_video(frames_TCHW),
        frame_times_T=[0.5 * n for n in range(num_frames // 2)],
        grid=VisionGrid(height=2, width=2, seconds_per_grid=0.5, num_frames=num_frames),
        audio_KPA=torch.randn(2, 50, 32, generator=generator),
        audio_seconds=2.0,
    )


@torch.no_grad()
def test_tower_and_mergers_are_the_stock_ones(model):
    from transformers import Qwen3VLVisionModel

    from avcap.model.salmonn2_plus.patches import normalize_patches, to_patches

    stock = Qwen3VLVisionModel(model.config.vision_config).eval()
    ours = model.vision_tower.state_dict()
    for index, merger in enumerate(model.vision_aligner.mergers):
        prefix = f"deepstack_merger_list.{index - 1}." if index else "merger."
        ours |= {prefix + name: tensor for name, tensor in merger.state_dict().items()}
    stock.load_state_dict(ours)
    frames_TCHW = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    rows_RE, grid = to_patches(frames_TCHW, model.config.patch_sizes)
    pixels_RE = normalize_patches(rows_RE, mean=model.config.image_mean, std=model.config.image_std)
    expected = stock(pixels_RE, grid_thw=torch.tensor([grid]))
    features = MediaFeatures(
        vision_TNV=model.encode_video(frames_TCHW),
        frame_times_T=[0.0, 0.5],
        grid=VisionGrid(height=2, width=2, seconds_per_grid=0.5, num_frames=4),
    )
    embeds_MD = model.align(features).embeds_MD
    expected_MD = torch.cat([expected.pooler_output, *expected.deepstack_features], dim=-1)
    assert embeds_MD.shape == (8, 3 * 64) and torch.allclose(embeds_MD, expected_MD, atol=1e-4)


@torch.no_grad()
def test_deeper_layers_see_the_video(model):
    media = model.align(video(model))
    ids_1L = torch.tensor([[285, 10, *media.ids, 10, 20]])
    embeds_1LD = model.embed(ids_1L, [media])
    positions = model.batch_positions(ids_1L, [media])
    without_video_1LD = embeds_1LD.clone()
    without_video_1LD[..., 64:] = 0
    seen, without_video = (
        model(inputs_embeds=e, position_ids=positions).logits[0, -1] for e in (embeds_1LD, without_video_1LD)
    )
    assert (seen - without_video).abs().max() > 0.01
    is_text_1L = ids_1L >= 0
    assert (embeds_1LD[is_text_1L][:, 64:] == 0).all()


@torch.no_grad()
def test_packed_rows_are_separate_forwards(model):
    media = [model.align(video(model)), model.align(video(model, num_frames=6, seed=1))]
    examples = [
        PairExample(
            sample_id=str(n),
            prompt_ids=[285, *one.ids, 10, 20],
            chosen_ids=[5, 6, 7],
            rejected_ids=[8, 9],
            target_ids=[4],
        )
        for n, one in enumerate(media)
    ]
    packed = response_logprobs(model, pack(examples), media)
    for example, tokens, got in zip(examples, media, packed, strict=True):
        ids = [*example.prompt_ids, *example.rejected_ids]
        logprobs_LV = model(torch.tensor([ids]), [tokens]).logits[0].log_softmax(-1)
        alone = logprobs_LV[torch.tensor([len(ids) - 3, len(ids) - 2]), torch.tensor([8, 9])].sum()
        assert got.rejected.total.item() == pytest.approx(alone.item(), rel=1e-5)


def test_it_trains(model):
    model.requires_grad_(False)
    for part in (model.vision_aligner, model.audio_aligner, model.language_model):
        part.requires_grad_(True)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    clips = [video(model, seed=seed) for seed in (0, 1)]
    answers = [[5, 6, 7], [9, 8]]
    losses = []
    for _ in range(40):
        media = model.align_batch(clips)
        examples = [
            PairExample(sample_id=str(n), prompt_ids=[285, *one.ids, 10], target_ids=answer)
            for n, (one, answer) in enumerate(zip(media, answers, strict=True))
        ]
        loss = -sum(one.target.total for one in response_logprobs(model, pack(examples), media))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 10 and losses[-1] < 0.1


def test_the_official_generations_positions_are_of_the_other_backbone():
    with pytest.raises(ValueError, match="got official_generate for qwen3_vl_text"):
        tiny_plus_model(**QWEN3, positions="official_generate")
