"""The Python API, on real files and a model with random weights."""

import json
import logging
import math
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from support.media_files import set_display_matrix

from avcap import Captioner
from avcap.data.feature_cache import FeatureCache
from avcap.data.request import Request
from avcap.errors import UserError
from avcap.infer.find_checkpoint import find_checkpoint
from avcap.infer.settings import CaptionerSettings, Prompts, read_settings
from avcap.infer.video_encoder import named_memory_error
from avcap.media.reader import read_request
from avcap.records import Caption, CaptionError, Decoding, Sample

AUDIO_TOKENS_PER_S = 2  # windows of half a second
TOKENS_PER_FRAME = 6  # 2 x 2 cells and two newlines


@pytest.fixture(scope="module")
def captioner(random_checkpoint):
    return Captioner(random_checkpoint, batch_size=3)


def test_one_video_gives_a_caption_that_says_what_was_seen(captioner, videos):
    caption = captioner.caption(videos / "a.mp4")
    assert caption.text
    assert caption.sample_id == caption.video == str(videos / "a.mp4")
    assert caption.prompt == "Describe the video in detail."
    assert caption.duration_s == pytest.approx(3, abs=0.05)
    assert (caption.seen.frames, caption.seen.audio_seconds) == (3, pytest.approx(3, abs=0.05))
    assert caption.seen.visual_tokens == 3 * TOKENS_PER_FRAME
    assert caption.seen.audio_tokens == 3 * AUDIO_TOKENS_PER_S
    assert caption.checkpoint.startswith("random@")
    assert caption.in_world is None


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 5}])
def test_a_batch_of_different_lengths_gives_the_captions_of_one_by_one(captioner, videos, options):
    paths = [videos / name for name in ("a.mp4", "b.mp4", "silent.mp4", "c.mp4", "audio.m4a")]
    together = captioner.caption(paths, **options)
    alone = [captioner.caption(path, **options) for path in paths]
    assert together == alone
    assert len({caption.text for caption in alone}) == len(paths)  # else the test could not fail


def test_sampling_depends_on_the_seed_alone(captioner, videos):
    path = videos / "a.mp4"
    first, again, other = (captioner.caption(path, temperature=1.0, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.text != other.text


def test_an_iterator_works_while_it_is_read(captioner, videos):
    taken = []

    def endless():
        while True:
            taken.append(videos / "b.mp4")
            yield taken[-1]

    rows = captioner.caption(endless())
    assert not taken
    assert isinstance(next(rows), Caption)
    # a batch of 3, what waits decoded, and what is being decoded
    assert len(taken) <= 3 + 2 * 4 + 1
    rows.close()


def test_a_bad_file_is_an_error_in_its_place(captioner, videos, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_text("this is no video")
    first, bad, last = captioner.caption([videos / "a.mp4", broken, videos / "b.mp4"])
    assert isinstance(first, Caption) and isinstance(last, Caption)
    assert bad == CaptionError(sample_id=str(broken), video=str(broken), error=bad.error)
    assert str(broken) in bad.error
    with pytest.raises(UserError, match=r"broken\.mp4"):
        captioner.caption(broken)


def test_the_deadline_covers_what_comes_after_decoding(captioner, videos):
    request = Request(decoding=Decoding(max_new_tokens=4))
    sample = request.sample(videos / "a.mp4")
    clip = read_request(captioner.encoder.clip_request(sample, request))
    captioner.encoder.encode_clip(clip, sample=sample, request=request)
    late = replace(clip, decoding_s=captioner.encoder.deadline_s + 1)
    with pytest.raises(UserError, match="got no features after 600 s of decoding and encoding"):
        captioner.encoder.encode_clip(late, sample=sample, request=request)


def test_memory_that_runs_out_over_one_file_is_its_error():
    for allocate in (lambda: torch.empty(2**60), lambda: bytearray(2**62)):
        with pytest.raises(UserError, match=r"a\.mp4: memory ran out"), named_memory_error("a.mp4"):
            allocate()
    with pytest.raises(RuntimeError, match=r"size mismatch|shapes"), named_memory_error("a.mp4"):
        torch.ones(2, 3) @ torch.ones(2, 3)


def test_what_was_corrected_stands_in_the_record(random_checkpoint, captioner, videos, tmp_path):
    path = tmp_path / "mirrored.mp4"
    path.write_bytes((videos / "a.mp4").read_bytes())
    set_display_matrix(path, (-1, 0, 0, 1))
    caption = captioner.caption(path)
    assert caption.seen.notes == ("shown mirrored, as its display matrix says",)
    assert captioner.caption(videos / "a.mp4").seen.notes == ()
    cached = Captioner(random_checkpoint, feature_cache=FeatureCache(tmp_path / "features"))
    assert [cached.caption(path).seen.notes for _ in range(2)] == [caption.seen.notes] * 2
    assert cached.encoder.feature_cache.hits == 1


def test_a_silent_video_is_legal_and_says_so(captioner, videos):
    caption = captioner.caption(videos / "silent.mp4")
    assert (caption.seen.frames, caption.seen.audio_seconds, caption.seen.audio_tokens) == (2, 0.0, 0)
    assert caption.prompt == "Describe only what is seen."


def test_audio_or_video_can_be_left_out(captioner, videos):
    looked = captioner.caption(videos / "a.mp4", use_audio=False)
    assert (looked.seen.frames, looked.seen.audio_tokens) == (3, 0)
    assert looked.sample_id.endswith("#track=picture")
    audio = captioner.caption(videos / "a.mp4", use_video=False)
    assert (audio.seen.visual_tokens, audio.seen.audio_tokens) == (0, 3 * AUDIO_TOKENS_PER_S)
    assert audio.prompt == "Describe only what is heard."


def test_an_interval_is_cut_and_asked_about(captioner, videos):
    caption = captioner.caption(videos / "c.mp4", interval_s=(1, 3))
    assert caption.interval_s == (1.0, 3.0)
    assert caption.prompt == "Describe what happens from 1s to 3s."
    assert (caption.seen.frames, caption.seen.audio_seconds) == (2, 2.0)
    assert caption.duration_s == pytest.approx(4, abs=0.05)  # of the file
    assert caption.sample_id.endswith("c.mp4#t=1,3")
    assert captioner.caption(videos / "c.mp4", interval_s=(1, math.inf)).prompt.endswith("from 1s to 4s.")
    assert captioner.caption(videos / "c.mp4", interval_s=(1, 2.25)).prompt.endswith("from 1s to 2.25s.")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interval_s": (3, 1)}, "interval 3 to 1"),
        ({"interval_s": (-1, 1)}, "interval -1 to 1"),
        ({"interval_s": (math.nan, 1)}, "interval nan to 1"),
        ({"interval_s": (1, 9)}, "lasts 3.0 s"),
        ({"interval_s": (7, 9)}, "lasts 3.0"),
        ({"use_audio": False, "use_video": False}, "neither"),
        ({"temperature": -1.0}, "temperature=-1"),
        ({"top_p": 0.0}, "top_p=0"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"max_new_tokens": 5000}, "expected at most 4096"),
        ({"prompt": " "}, "empty prompt"),
    ],
)
def test_what_cannot_be_done_is_said(captioner, videos, options, message):
    with pytest.raises(UserError, match=message):
        captioner.caption(videos / "a.mp4", **options)


def test_an_audio_track_without_audio_where_it_was_asked_for_is_an_error(captioner, videos):
    with pytest.raises(UserError, match="sound track but no sound from 2 to 4 s"):
        captioner.caption(videos / "short_audio.mp4", interval_s=(2, 4))
    assert captioner.caption(videos / "short_audio.mp4", interval_s=(2, 4), use_audio=False).seen.frames == 2


def test_nothing_left_to_caption_is_an_error(captioner, videos):
    with pytest.raises(UserError, match="got a file with audio, and nothing of it to"):
        captioner.caption(videos / "audio.m4a", use_audio=False)


def test_unknown_words_of_a_prompt_are_named_once(captioner, videos, caplog):
    with caplog.at_level(logging.WARNING, logger="avcap"):
        captioner.caption([videos / "a.mp4", videos / "b.mp4"], prompt="Describe the zeppelin in detail.")
    (record,) = caplog.records
    assert "'zeppelin'" in record.getMessage() and "'Describe'" not in record.getMessage()


def test_a_sample_brings_its_own_prompt_and_interval(captioner, videos):
    sample = Sample(
        sample_id="q1", video=str(videos / "c.mp4"), prompt="What happens in this video?", interval_s=(0.0, 2.0)
    )
    caption = captioner.caption(sample)
    assert (caption.sample_id, caption.prompt) == ("q1", "What happens in this video?")
    assert (caption.seen.frames, caption.interval_s) == (2, (0.0, 2.0))


def test_captions_of_other_weights_have_another_checkpoint(captioner, random_checkpoint, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "other"
    shutil.copytree(random_checkpoint, folder)
    tensors = load_file(folder / "model.safetensors")
    name = min(tensors)
    save_file(tensors | {name: tensors[name] + 1}, folder / "model.safetensors", metadata={"format": "pt"})
    assert Captioner(folder).checkpoint != captioner.checkpoint


def test_an_unknown_model_is_an_error_that_says_what_is_expected(tmp_path):
    with pytest.raises(UserError, match="no model of that name and no such folder; expected the path of a checkpoint"):
        find_checkpoint("gpt-17")
    with pytest.raises(UserError, match="expected a checkpoint folder"):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"max_frame": 3}', "unknown field 'max_frame'"),
        ('{"max_frames": 0}', "max_frames=0"),
        ('{"prompts": {"global": "x"}}', "unknown field 'global'"),
        ("{", "cannot be read as JSON"),
    ],
)
def test_wrong_settings_name_the_file(tmp_path, text, message):
    (tmp_path / "avcap.json").write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        read_settings(tmp_path)
    assert str(raised.value).startswith(str(tmp_path / "avcap.json"))


def test_settings_default_to_the_released_model_s(tmp_path):
    assert read_settings(tmp_path) == CaptionerSettings()
    (tmp_path / "avcap.json").write_text(json.dumps({"prompts": {"audio_only": "Listen."}, "fps": 2}))
    assert read_settings(tmp_path) == CaptionerSettings(prompts=Prompts(audio_only="Listen."), fps=2.0)


def test_importing_avcap_does_not_import_torch():
    code = "import sys, avcap, avcap.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


SAMPLING = Request(decoding=Decoding(max_new_tokens=12, temperature=1.0, top_k=50, repetition_penalty=1.2, seed=5))


def test_samples_are_the_captions_of_calls_with_their_seeds(captioner, videos, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_text("this is no video")
    paths = [videos / "a.mp4", broken, videos / "b.mp4", videos / "audio.m4a", videos / "silent.mp4"]
    rows = list(captioner.sample(paths, SAMPLING, num_answers=3))
    assert len(rows) == 4 * 3 + 1 and isinstance(rows[3], CaptionError)
    captions = rows[:3] + rows[4:]
    assert len({caption.caption_id for caption in captions}) == len(captions)
    for index in range(3):
        alone = replace(SAMPLING, decoding=replace(SAMPLING.decoding, seed=5 + index))
        assert captions[index::3] == [row for row in captioner.stream(paths, alone) if isinstance(row, Caption)]
    assert len({caption.text for caption in captions[:3]}) > 1


def test_samples_of_encoded_videos_are_those_of_the_files(captioner, videos):
    paths = [videos / "a.mp4", videos / "short_audio.mp4"]
    encoded = list(captioner.encode(paths, SAMPLING))
    from_features = list(captioner.sample_encoded(encoded, SAMPLING, num_answers=2))
    assert from_features == list(captioner.sample(paths, SAMPLING, num_answers=2))


def test_greedy_samples_are_refused(captioner, videos):
    with pytest.raises(UserError, match="temperature above 0"):
        captioner.sample([videos / "a.mp4"], Request(decoding=Decoding(max_new_tokens=3)), num_answers=2)


def test_a_cached_video_is_not_decoded_again(random_checkpoint, captioner, videos, tmp_path, monkeypatch):
    paths = [videos / name for name in ("a.mp4", "b.mp4", "silent.mp4", "audio.m4a")]
    expected = [captioner.caption(path) for path in paths]
    cache = FeatureCache(tmp_path / "cache")
    caching = Captioner(random_checkpoint, feature_cache=cache)
    # a mixture of files that are in the cache and files that are not keeps its order
    assert [caching.caption(paths[1]), caching.caption(paths[2])] == expected[1:3]
    assert caching.caption(paths) == expected
    assert (cache.hits, cache.misses, len(list(cache.folder.iterdir()))) == (2, 0, 4)
    damaged = next(cache.folder.iterdir())
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert caching.caption(paths) == expected
    assert (cache.hits, cache.num_corrupt) == (2 + 3, 1)

    def refuse(*arguments):
        raise AssertionError("decoded again")

    monkeypatch.setattr("avcap.media.pool.decode", refuse)
    assert caching.caption(paths) == expected
    with pytest.raises(UserError, match=r"none\.mp4"):
        monkeypatch.undo()
        caching.caption(tmp_path / "none.mp4")


def test_an_interval_and_a_missing_audio_are_other_features(random_checkpoint, captioner, videos, tmp_path):
    caching = Captioner(random_checkpoint, feature_cache=FeatureCache(tmp_path))
    asked = [{}, {"interval_s": (1, 3)}, {"use_audio": False}, {"use_video": False}]
    for _ in range(2):
        for options in asked:
            assert caching.caption(videos / "c.mp4", **options) == captioner.caption(videos / "c.mp4", **options)
    assert (caching.encoder.feature_cache.hits, len(list(tmp_path.iterdir()))) == (len(asked), len(asked))
