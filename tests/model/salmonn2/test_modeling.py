import dataclasses
import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from avcap.model import MediaFeatures, MediaTokens, Salmonn2Config, Salmonn2ForCaptioning
from avcap.model.interleave import AUDIO_ID, VISUAL_ID, ZERO_ID
from avcap.model.salmonn2.tiny import tiny_config

EXACT_ENOUGH = 1e-5


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).abs().max().item()


def without_dtype(config: dict) -> dict:
    """Loading notes in every sub-config the dtype that saving notes only once."""
    config = {name: without_dtype(value) if isinstance(value, dict) else value for name, value in config.items()}
    return {name: value for name, value in config.items() if name != "dtype"}


def test_a_second_costs_six_visual_and_two_audio_tokens(model, make_clip):
    tokens = model.align(make_clip(frames=3, audio_s=3.0))
    assert tokens.ids == ([VISUAL_ID] * 6 + [AUDIO_ID] * 2) * 3
    assert (tokens.num_visual, tokens.num_audio, len(tokens.embeds_MD)) == (18, 6, 24)
    assert tokens.seconds_M.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert tokens.types_M.tolist() == [0, 1, 4, 2, 3, 4, 5, 6] * 3


def test_padding_of_the_last_chunk_gives_no_token(model, make_clip):
    # 2.2 s of sound are ceil(2.2 / 0.5) = 5 windows; the three chunks hold 6
    assert model.align(make_clip(audio_s=2.2)).num_audio == 5


def test_batch_is_the_same_as_one_by_one(model, make_clip):
    full = make_clip(frames=4, audio_s=4.0)
    kept = dataclasses.replace(full, audio_KPA=None, audio_queries_UQ=model.qform_audio(full.audio_KPA).detach())
    clips = [make_clip(audio_s=2.3, start_s=5.0), full, make_clip(frames=2), kept, make_clip(frames=1, audio_s=9.5)]
    for clip, tokens in zip(clips, model.align_batch(clips), strict=True):
        alone = model.align(clip)
        assert tokens.ids == alone.ids == model.placeholders(clip)
        assert distance(tokens.embeds_MD, alone.embeds_MD) < EXACT_ENOUGH
        assert torch.equal(tokens.types_M, alone.types_M)
        assert torch.equal(tokens.seconds_M, alone.seconds_M)


def test_kept_qformer_output_gives_the_same_tokens(model, make_clip):
    clip = make_clip(frames=2, audio_s=1.7)
    kept = dataclasses.replace(clip, audio_KPA=None, audio_queries_UQ=model.qform_audio(clip.audio_KPA))
    assert distance(model.align(kept).embeds_MD, model.align(clip).embeds_MD) < EXACT_ENOUGH


def test_cut_with_lead_in_has_the_tokens_of_the_whole_clip(model, make_clip):
    whole = make_clip(frames=6, audio_s=6.0)
    cut = MediaFeatures(
        vision_TNV=whole.vision_TNV[2:5],
        frame_times_T=[2.0, 3.0, 4.0],
        lead_in_NV=whole.vision_TNV[1],
        audio_KPA=whole.audio_KPA[2:5],
        audio_seconds=3.0,
        start_s=2.0,
    )
    assert distance(model.align(cut).embeds_MD, model.align(whole).embeds_MD[2 * 8 : 5 * 8]) < EXACT_ENOUGH
    without_lead_in = dataclasses.replace(cut, lead_in_NV=None)
    assert distance(model.align(without_lead_in).embeds_MD, model.align(cut).embeds_MD) > 0.1


def test_time_vector_is_all_that_tells_two_seconds_apart(model, make_clip):
    now = make_clip(frames=1)
    later = dataclasses.replace(now, frame_times_T=[7.0])
    beyond_the_list = dataclasses.replace(now, frame_times_T=[500.0])
    assert distance(model.align(later).content_MD, model.align(now).content_MD) == 0.0
    assert distance(model.align(later).embeds_MD, model.align(now).embeds_MD) > 0.1
    last = dataclasses.replace(now, frame_times_T=[29.0])
    assert distance(model.align(beyond_the_list).embeds_MD, model.align(last).embeds_MD) == 0.0


def test_every_tiny_option_changes_the_tokens(make_clip):
    clip = make_clip(frames=3, audio_s=3.0)
    times = list(range(30))
    for option in ("connector_norm", "time_vectors", "type_vectors"):
        config = tiny_config(vocab_size=64, time_token_ids=times)
        torch.manual_seed(0)
        model = Salmonn2ForCaptioning(config).eval()
        with_option = model.align(clip).embeds_MD
        setattr(config, option, False)
        without = Salmonn2ForCaptioning(config).eval()
        without.load_state_dict(model.state_dict(), strict=False)
        assert distance(without.align(clip).embeds_MD, with_option) > 0.1, option


def test_encoders_give_no_gradient_unless_asked_and_aligners_always_do(model):
    frames = torch.randint(0, 256, (3, 3, 96, 96), dtype=torch.uint8)
    pixels = model.normalize_pixels(frames)
    assert pixels.min() >= -1 and pixels.max() <= 1
    vision, audio = model.encode_frames(pixels), model.encode_audio(torch.randn(3, 80, 100))
    assert not vision.requires_grad and not audio.requires_grad
    assert model.encode_frames(pixels, with_grad=True).requires_grad
    assert model.encode_audio(torch.randn(1, 80, 100), with_grad=True).requires_grad
    clip = MediaFeatures(vision_TNV=vision, frame_times_T=[0.0, 1.0, 2.0], audio_KPA=audio, audio_seconds=3.0)
    model.align(clip).embeds_MD.square().sum().backward()
    for module in (model.vision_aligner, model.audio_aligner, model.tags):
        assert all(parameter.grad is not None for parameter in module.parameters())


def test_micro_batches_do_not_matter(model):
    pixels, mel = torch.randn(5, 3, 96, 96), torch.randn(5, 80, 100)
    assert distance(model.encode_frames(pixels, micro_batch=2), model.encode_frames(pixels)) < EXACT_ENOUGH
    assert distance(model.encode_audio(mel, micro_batch=2), model.encode_audio(mel)) < EXACT_ENOUGH


def test_media_stand_in_their_own_row_and_text_around_them(model, make_clip):
    first, second = model.align_batch([make_clip(frames=1), make_clip(audio_s=1.0)])
    input_ids = torch.tensor([[5, *first.ids, 6], [7, 8, *second.ids, 9, 0, 0, 0], [1, 2, 3, 4, 5, 6, 7, 8]])
    embeds_BLD = model.embed(input_ids, [first, second, None])
    assert torch.equal(embeds_BLD[0, 1:7], first.embeds_MD)
    assert torch.equal(embeds_BLD[1, 2:4], second.embeds_MD)
    words_VD = model.get_input_embeddings().weight
    assert torch.equal(embeds_BLD[0, 7], words_VD[6])
    assert torch.equal(embeds_BLD[2], words_VD[1:9])
    logits = model(input_ids, [first, second, None]).logits
    assert logits.shape == (3, 8, 64)


def test_time_text_stays_text_and_its_padding_is_zero(model, make_clip):
    clip = dataclasses.replace(make_clip(frames=2), time_text_ids=[[11, ZERO_ID], [12, 13]])
    tokens = model.align(clip)
    assert tokens.ids == [VISUAL_ID] * 6 + [11, ZERO_ID] + [VISUAL_ID] * 6 + [12, 13]
    embeds_BLD = model.embed(torch.tensor([tokens.ids]), [tokens])
    assert torch.equal(embeds_BLD[0, 6], model.get_input_embeddings().weight[11])
    assert embeds_BLD[0, 7].abs().max() == 0


def test_a_lost_token_is_an_error_that_names_both_counts(model, make_clip):
    tokens = model.align(make_clip(frames=1, audio_s=1.0))
    with pytest.raises(ValueError, match="row 0: 5 visual placeholders, but 6 visual tokens"):
        model.embed(torch.tensor([tokens.ids[1:]]), [tokens])
    with pytest.raises(ValueError, match="row 0: 2 audio placeholders, but 0 audio tokens"):
        model.embed(torch.tensor([[AUDIO_ID, AUDIO_ID]]), [None])
    with pytest.raises(ValueError, match="media for 1 rows, expected 2"):
        model.embed(torch.tensor([[1], [2]]), [None])


def test_features_that_do_not_cover_the_audio_are_an_error(model, make_clip):
    clip = dataclasses.replace(make_clip(audio_s=3.0), audio_seconds=3.4)
    with pytest.raises(ValueError, match=r"3\.4.*3 chunks of 1\.0 s"):
        model.align(clip)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "neither"),
        ({"vision_TNV": torch.zeros(2, 4, 96), "frame_times_T": [0.0]}, "1 times for 2 frames"),
        ({"audio_KPA": torch.zeros(1, 50, 96)}, "audio_seconds"),
        (
            {
                "audio_KPA": torch.zeros(1, 50, 96),
                "audio_queries_UQ": torch.zeros(2, 96),
                "audio_seconds": 1.0,
            },
            "same sound",
        ),
        ({"audio_KPA": torch.zeros(1, 50, 96), "audio_seconds": 1.0, "time_text_ids": []}, "without sound"),
    ],
)
def test_features_that_contradict_themselves_are_an_error(fields, message):
    with pytest.raises(ValueError, match=message):
        MediaFeatures(**fields)


def test_loss_is_the_mean_over_labelled_positions(model, make_clip):
    tokens: MediaTokens = model.align(make_clip(frames=1))
    ids = torch.tensor([[*tokens.ids, 5, 6, 7]])
    labels = torch.where(ids >= 6, ids, -100)
    output = model(ids, [tokens], labels=labels)
    log_probs = output.logits[0].log_softmax(dim=-1)
    # tokens 6 and 7 stand at positions 7 and 8 and are told by positions 6 and 7
    expected = -(log_probs[6, 6] + log_probs[7, 7]) / 2
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_saved_folder_comes_back_through_the_auto_classes(model, make_clip, tmp_path):
    model.save_pretrained(tmp_path / "first")
    assert isinstance(AutoConfig.from_pretrained(tmp_path / "first"), Salmonn2Config)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "first")
    assert isinstance(again, Salmonn2ForCaptioning) and not again.training
    again.save_pretrained(tmp_path / "second")
    first, second = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("first", "second"))
    assert without_dtype(first) == without_dtype(second)
    clip = make_clip(frames=2, audio_s=2.0)
    ids = torch.tensor([[*model.placeholders(clip), 5]])
    # not 0: loaded weights lie elsewhere in memory, and matrix kernels may add in another order there
    assert distance(again(ids, [again.align(clip)]).logits, model(ids, [model.align(clip)]).logits) < 1e-5
    assert again.language_model.lm_head.weight is again.get_input_embeddings().weight


def test_config_without_arguments_is_the_released_model():
    config = Salmonn2Config()
    assert config.chunk_s == 30.0 and config.mel_frames_per_chunk == 3000
    assert config.audio_tokens_per_chunk == 60
    assert config.visual_tokens_per_frame == 13 * (13 + 1)
    # too small to show in logits, so held here
    assert config.qformer_config.layer_norm_eps == 1e-12
    assert config.vision_config.layer_norm_eps == 1e-6
    assert config.text_config.rms_norm_eps == 1e-6
    assert config.text_config.rope_parameters["rope_theta"] == 1e6


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"projector": "mlp3x"}, "projector: got 'mlp3x'"),
        ({"sync": "late"}, "sync: got 'late'"),
        ({"time_vectors": True}, "time_token_ids"),
        ({"window_s": 31.0}, "window_s: got 31.0"),
        ({"window_stride_s": 0.0}, "window_stride_s"),
        ({"pool_stride": 28}, "pool_stride: got 28"),
        ({"text_config": {"model_type": "gpt2"}}, "text_config.model_type: got 'gpt2'"),
    ],
)
def test_impossible_dials_are_errors(fields, message):
    with pytest.raises(ValueError, match=message):
        Salmonn2Config(**fields)
