import json
import logging
import multiprocessing
import os
import time
from dataclasses import replace

import pytest
import torch

from avcap.data.feature_cache import EncodedMedia, FeatureCache, features_id
from avcap.errors import MediaError, UserError
from avcap.media.clip import ClipRequest
from avcap.model.features import MediaFeatures

TENSORS = ("vision_TNV", "lead_in_NV", "audio_KPA", "audio_queries_UQ")


def clip(seed: int = 0, *, frames: int = 3, chunks: int = 3) -> EncodedMedia:
    generator = torch.Generator().manual_seed(seed)
    media = MediaFeatures(
        vision_TNV=torch.randn(frames, 4, 96, generator=generator) if frames else None,
        frame_times_T=[0.1 + frame for frame in range(frames)],
        lead_in_NV=torch.randn(4, 96, generator=generator) if frames else None,
        audio_KPA=torch.randn(chunks, 50, 96, generator=generator) if chunks else None,
        audio_seconds=chunks - 0.3 if chunks else 0.0,
        start_s=0.1,
        time_text_ids=None if chunks else [[5, 6]] * frames,
    )
    return EncodedMedia(media=media, duration_s=9.25, num_bad_packets=2, world_score=0.7)


def assert_same(one: EncodedMedia, other: EncodedMedia) -> None:
    for name in TENSORS:
        ours, theirs = getattr(one.media, name), getattr(other.media, name)
        assert (ours is None) == (theirs is None), name
        assert ours is None or torch.equal(ours, theirs), name
    plain = [{**vars(c.media), **dict.fromkeys(TENSORS)} for c in (one, other)]
    assert plain[0] == plain[1]
    assert replace(one, media=other.media) == other


@pytest.mark.parametrize("shape", [{}, {"frames": 0}, {"chunks": 0}])
def test_what_is_kept_comes_back(tmp_path, shape):
    cache = FeatureCache(tmp_path)
    assert cache.get("k") is None and "k" not in cache
    cache.put("k", clip(**shape))
    again = FeatureCache(tmp_path)
    assert "k" in again
    assert_same(again.get("k"), clip(**shape))
    assert (again.hits, again.misses, cache.hits, cache.misses) == (1, 0, 0, 1)


def test_bfloat16_takes_half_and_gives_the_same_now_and_later(tmp_path):
    cache = FeatureCache(tmp_path / "half", dtype=torch.bfloat16)
    now, later = cache.put("k", clip()), cache.get("k")
    assert_same(now, later)
    assert torch.equal(later.media.audio_KPA, clip().media.audio_KPA.bfloat16().float())
    FeatureCache(tmp_path / "whole").put("k", clip())
    sizes = [next((tmp_path / name).iterdir()).stat().st_size for name in ("half", "whole")]
    # (3 + 1) * 4 * 96 + 3 * 50 * 96 = 15936 numbers of 2 or 4 bytes
    assert sizes[1] - sizes[0] == pytest.approx(2 * 15936, abs=16)


def test_damage_is_found_counted_and_forgotten(tmp_path, caplog):
    cache = FeatureCache(tmp_path)
    cache.put("k", clip())
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    flipped = bytearray(whole)
    flipped[header + 1000] ^= 1  # one bit of one feature
    damages = [bytes(flipped), whole[:-4], whole[:header], b"", whole.replace(b"9.25", b"8.25")]
    with caplog.at_level(logging.WARNING, logger="avcap"):
        for damaged in damages:
            path.write_bytes(damaged)
            assert cache.get("k") is None
            assert not path.exists()
    assert (cache.num_corrupt, cache.hits) == (len(damages), 0)
    assert caplog.text.count("damaged features") == len(damages)
    path.write_bytes(whole)
    assert_same(cache.get("k"), clip())


def test_what_was_not_used_for_longest_goes_first(tmp_path):
    FeatureCache(tmp_path).put("probe", clip())
    size = (tmp_path / "probe.safetensors").stat().st_size
    (tmp_path / "probe.safetensors").unlink()
    cache = FeatureCache(tmp_path, max_bytes=10 * size)
    for index in range(10):
        cache.put(f"k{index}", clip(index))
        os.utime(tmp_path / f"k{index}.safetensors", (index, index))  # seconds of 1970, in this order
    assert len(list(tmp_path.iterdir())) == 10
    assert cache.get("k0") is not None  # used: now it is the youngest
    cache.put("k10", clip(10))
    # 11 files are too many; at 9 of 10 it stops: k1 and k2 went
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(["k0", *(f"k{n}" for n in range(3, 11))])


def test_what_is_larger_than_the_cache_does_not_empty_it(tmp_path):
    FeatureCache(tmp_path).put("small", clip(frames=1, chunks=0))
    size = (tmp_path / "small.safetensors").stat().st_size
    cache = FeatureCache(tmp_path, max_bytes=2 * size)
    assert_same(cache.put("large", clip(chunks=50)), clip(chunks=50))
    assert cache.num_unkept == 1
    assert [path.stem for path in tmp_path.iterdir()] == ["small"]


def test_a_disk_that_takes_nothing_costs_the_cache_alone(tmp_path, monkeypatch):
    cache = FeatureCache(tmp_path)

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    assert_same(cache.put("k", clip()), clip())
    assert cache.num_unkept == 1 and not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_cleared_away_but_not_what_another_is_writing(tmp_path):
    for name, age_s in (("old", 7200), ("new", 60)):
        (tmp_path / f"{name}.partial").write_bytes(b"half")
        os.utime(tmp_path / f"{name}.partial", (time.time() - age_s,) * 2)
    FeatureCache(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["new.partial"]


def test_the_key_is_the_content_the_plan_and_the_encoders(tmp_path):
    cache = FeatureCache(tmp_path / "cache")
    video, copy = tmp_path / "a.mp4", tmp_path / "b.mp4"
    video.write_bytes(b"content")
    copy.write_bytes(b"content")
    request = ClipRequest(path=str(video), frame_size=(96, 96))
    key = cache.key(request, encoders="one")
    assert cache.key(replace(request, path=str(copy)), encoders="one") == key
    others = [
        replace(request, fps=2.0),
        replace(request, max_frames=9),
        replace(request, interval_s=(1.0, 2.0)),
        replace(request, frame_size=(48, 96)),
        replace(request, with_audio=False),
        replace(request, with_video=False),
        replace(request, lead_in=True),
    ]
    keys = {key, cache.key(request, encoders="two"), *(cache.key(other, encoders="one") for other in others)}
    keys.add(FeatureCache(tmp_path / "half", dtype=torch.bfloat16).key(request, encoders="one"))
    video.write_bytes(b"Content")
    os.utime(video, (1, 1))
    keys.add(cache.key(request, encoders="one"))
    assert len(keys) == 3 + len(others) + 1
    with pytest.raises(MediaError, match=r"none\.mp4"):
        cache.key(replace(request, path=str(tmp_path / "none.mp4")), encoders="one")


def test_other_encoders_or_other_settings_of_them_are_other_features(random_checkpoint):
    from avcap.model.checkpoint.load import load

    model, tokenizer = load(random_checkpoint)
    before = features_id(model, tokenizer)
    with torch.no_grad():
        next(model.vision_aligner.parameters()).add_(1)
        model.language_model.model.norm.weight.add_(1)
    assert features_id(model, tokenizer) == before  # what comes after the encoders does not count
    names = {before}
    for name, value in (("pool_mode", "max"), ("image_mean", 0.4), ("time_text", True)):
        setattr(model.config, name, value)
        names.add(features_id(model, tokenizer))
    with torch.no_grad():
        model.audio_encoder.layers[0].fc1.weight.view(-1)[0] += 1e-3
    names.add(features_id(model, tokenizer))
    assert len(names) == 5


def _use(folder: str, seed: int) -> None:
    cache = FeatureCache(folder, max_bytes=400_000)  # room for about five clips of 66 kB
    for step in range(80):
        # each clip twice: eight in turn are never among the last five, unless another process put them there
        number = (seed * 7 + step // 2 * 3) % 8
        found = cache.get(f"k{number}")
        assert_same(found or cache.put(f"k{number}", clip(number)), clip(number))
    assert cache.num_corrupt == cache.num_unkept == 0 and cache.hits > 0


def test_several_processes_share_a_folder(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_use, args=(str(tmp_path), seed)) for seed in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert not list(tmp_path.glob("*.partial"))
    FeatureCache(tmp_path, max_bytes=400_000)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 400_000


def test_a_folder_that_cannot_be_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text(json.dumps({}))
    with pytest.raises(UserError, match="cannot keep features"):
        FeatureCache(tmp_path / "file" / "cache")
    with pytest.raises(UserError, match="at least 1"):
        FeatureCache(tmp_path, max_bytes=0)
