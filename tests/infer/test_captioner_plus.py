"""The public API with a model of the salmonn2_plus family: the same promises as with any other."""

from dataclasses import replace

import pytest
from support.tiny_plus import QWEN3, write_tiny_plus

from avcap.data.feature_cache import FeatureCache
from avcap.data.request import Request
from avcap.infer.captioner import Captioner
from avcap.infer.question_answering import Answerer
from avcap.infer.settings import read_settings
from avcap.records import Decoding, Sample


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_plus(tmp_path_factory.mktemp("plus") / "model")


@pytest.fixture(scope="module")
def captioner(folder):
    return Captioner(folder)


@pytest.fixture(scope="module")
def paths(videos):
    return [str(videos / name) for name in ("a.mp4", "silent.mp4", "short_audio.mp4", "audio.m4a")]


def test_batches_write_what_one_by_one_would(captioner, paths):
    together = captioner.caption(paths)
    assert [captioner.caption(path).text for path in paths] == [row.text for row in together]
    assert len({row.text for row in together}) > 1


def test_what_was_seen_is_counted(captioner, paths):
    seen = [row.seen for row in captioner.caption(paths, max_new_tokens=1)]
    # 4 frames a second: 3 s are 12 frames, 6 grids of 2 x 2 tokens, and 6 half seconds
    assert (seen[0].frames, seen[0].visual_tokens, seen[0].audio_tokens) == (12, 24, 6)
    assert (seen[1].frames, seen[1].visual_tokens, seen[1].audio_tokens) == (8, 16, 0)
    # a little more than 1 s of sound under 4 s of picture: two chunks of a second, the second nearly all padding
    assert (seen[2].frames, seen[2].audio_tokens, round(seen[2].audio_seconds)) == (16, 4, 1)
    assert (seen[3].frames, seen[3].visual_tokens, seen[3].audio_tokens) == (0, 0, 4)


def test_padding_may_be_left_out(folder, paths, tmp_path):
    dropping = write_tiny_plus(tmp_path / "model", padded_audio=False)
    # 1.003 s of sound: windows that begin at 0, 0.5 and 1.0 s
    assert Captioner(dropping).caption(paths[2], max_new_tokens=1).seen.audio_tokens == 3


def test_an_interval_is_seen_alone(captioner, videos):
    caption = captioner.caption(videos / "c.mp4", interval_s=(1, 3), max_new_tokens=1)
    assert (caption.seen.frames, caption.seen.audio_tokens, caption.interval_s) == (8, 4, (1, 3))


def test_answers_from_one_prefill_are_those_of_separate_calls(captioner, paths):
    request = Request(decoding=Decoding(max_new_tokens=8, temperature=1.0, seed=3))
    together = [row.text for row in captioner.sample(paths[:2], request, num_answers=3)]
    apart = [
        row.text
        for path in paths[:2]
        for k in range(3)
        for row in captioner.sample(
            [path], replace(request, decoding=replace(request.decoding, seed=3 + k)), num_answers=1
        )
    ]
    assert together == apart and len(set(together)) > 2


def test_kept_features_give_the_same_captions(folder, captioner, paths, tmp_path):
    kept = Captioner(folder, feature_cache=FeatureCache(tmp_path / "features"))
    first = [row.text for row in kept.caption(paths)]
    again = [row.text for row in kept.caption(paths)]
    assert first == again == [row.text for row in captioner.caption(paths)]
    assert (kept.encoder.feature_cache.hits, kept.encoder.feature_cache.num_corrupt) == (len(paths), 0)


def test_answers_after_a_shared_beginning_are_captions(captioner, paths):
    prompt = "What happens?"
    request = Request(decoding=Decoding(max_new_tokens=8), prompt=prompt)
    answerer = Answerer(captioner)
    samples = [Sample(sample_id=path, video=path, prompt=prompt) for path in paths]
    for sample, clip in zip(samples, answerer.clips(samples, request), strict=True):
        looked = answerer.look(clip, sample=sample, request=request)
        (reply,) = answerer.reply(looked, [prompt], max_new_tokens=8)
        assert reply.text == captioner.caption(sample.video, prompt=prompt, max_new_tokens=8).text


def test_another_backbone_captions_too(paths, tmp_path):
    captioner = Captioner(write_tiny_plus(tmp_path / "model", **QWEN3))
    together = captioner.caption(paths)
    assert [captioner.caption(path).text for path in paths] == [row.text for row in together]
    # patches of 16 pixels: frames of 32 x 32 or 64 x 64 are 1 or 4 tokens a grid
    assert together[0].seen.frames == 12 and together[0].seen.visual_tokens in (6, 24)


def test_command_captions_with_a_folder(run, folder, videos):
    code, out, _ = run("caption", videos / "b.mp4", "--model", folder, "--max-new-tokens", 4)
    assert code == 0 and "8 frames, 2.0 s of sound" in out


def test_released_folders_are_looked_at_as_they_were_trained(plus_released):
    settings = read_settings(plus_released)
    assert (settings.fps, settings.max_frames) == (10.0, 768)


@pytest.fixture
def plus_released(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    return tmp_path
