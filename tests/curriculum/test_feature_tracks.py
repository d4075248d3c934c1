"""Encoded tracks: made once, the same again, shared by all stages with these encoders."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch

from avcap.curriculum import feature_tracks as feature_tracks_module
from avcap.curriculum.feature_tracks import (
    FeatureTrackConfig,
    encode_video_track,
    load_feature_tracks,
    make_feature_tracks,
    mel_chunks,
)
from avcap.model.encoder_hash import encoder_hash
from avcap.runs.recipe import new_tiny_model

CONFIG = FeatureTrackConfig(num_tracks=2, num_held_out=1, difficulty="easy", num_processes=1)


class HereAndNow:
    """Stands for the pool of processes: the jobs run in this one, which has torch loaded already."""

    def __init__(self, max_workers, *, mp_context, initializer, initargs):
        initializer(*initargs)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def submit(self, function, *args):
        future = Future()
        try:
            future.set_result(function(*args))
        except BaseException as error:
            future.set_exception(error)
        return future


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(feature_tracks_module, "TRACKS_PER_SHARD", 2)
    monkeypatch.setattr(feature_tracks_module, "ProcessPoolExecutor", HereAndNow)
    monkeypatch.setattr(feature_tracks_module, "end_with_parent", lambda: None)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("encoders")
    new_tiny_model(seed=0)[0].save_pretrained(folder)
    return folder


def test_tracks_are_made_once_and_the_same_again(small, model_dir, tmp_path, tiny):
    model, _ = tiny
    make_feature_tracks(model_dir, tmp_path, seed=0, config=CONFIG)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(made) == {"tracks-0000-easy.safetensors", "held_out-0000-easy.safetensors"}

    (tmp_path / "tracks-0000-easy.safetensors").unlink()  # as if it had been stopped between the two
    held_out = tmp_path / "held_out-0000-easy.safetensors"
    stamp = held_out.stat().st_mtime_ns
    make_feature_tracks(model_dir, tmp_path, seed=0, config=CONFIG)
    assert held_out.stat().st_mtime_ns == stamp
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == made

    feature_tracks = load_feature_tracks(tmp_path, seed=0, config=CONFIG)
    learned = feature_tracks.video[12] + feature_tracks.audio[12]
    assert len(learned) == 4
    video, audio = feature_tracks.video[12][1], feature_tracks.audio[12][1]
    # what is on disk is what the encoders make of the scene that the track says it shows
    # up to a step of the 16 bits: the encoders on disk lie elsewhere in memory, and kernels may add in another order
    one_step = {"rtol": 2**-10, "atol": 1e-5}
    torch.testing.assert_close(video.features, encode_video_track(model, video.scene).half(), **one_step)
    torch.testing.assert_close(audio.features, model.encode_audio(mel_chunks(model, audio.scene)).half(), **one_step)
    assert video.features.shape == (12, 4, 96) and audio.features.shape == (12, 50, 96)

    kept = load_feature_tracks(tmp_path, seed=0, config=CONFIG, held_out=True)
    seeds = [track.scene.seed for track in (*learned, *kept.video[12], *kept.audio[12])]
    assert len(set(seeds)) == len(seeds)


def test_shards_of_other_seeds_numbers_and_difficulties_are_others():
    def scenes(*, seed: int = 0, held_out: bool = False, num_tracks: int = 100) -> list[int]:
        config = FeatureTrackConfig(num_tracks=num_tracks, num_held_out=num_tracks)
        shards = feature_tracks_module._shards(config, seed=seed, held_out=held_out)
        kinds = ("video", "audio")
        return [shard.scene(kind, index).seed for shard in shards for kind in kinds for index in range(50)]

    assert len(scenes()) == 200  # 2 shards x 50 tracks x 2 kinds
    together = scenes() + scenes(held_out=True) + scenes(seed=1) + scenes(seed=1, held_out=True)
    assert len(set(together)) == len(together)
    assert scenes(num_tracks=50) == scenes()[:100]  # more tracks are the same ones and others

    names = {
        shard.path(Path("x"))
        for difficulty in ("standard", "hard")
        for held_out in (True, False)
        for shard in feature_tracks_module._shards(FeatureTrackConfig(difficulty=difficulty), seed=0, held_out=held_out)
    }
    assert len(names) == 2 * (2000 + 100) // 50


def test_encoder_hash_changes_with_encoders_and_with_nothing_else():
    model, _ = new_tiny_model(seed=0)
    before = encoder_hash(model)
    with torch.no_grad():
        for part in (model.language_model, model.vision_aligner, model.audio_aligner, model.tags):
            for param in part.parameters():
                param.add_(1.0)
    assert encoder_hash(model) == before
    for part in (model.vision_tower, model.audio_encoder):
        with torch.no_grad():
            next(part.parameters()).view(-1)[0] += 1e-3
        assert encoder_hash(model) != before
        before = encoder_hash(model)


PARENT = textwrap.dedent("""
    import os, sys, time
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context
    from avcap.processes import end_with_parent

    if __name__ == "__main__":
        with ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
            jobs = [pool.submit(time.sleep, 120) for _ in range(2)]
            while len(pool._processes) < 2 or not all(job.running() for job in jobs):
                time.sleep(0.05)
            print(*pool._processes, flush=True)
            jobs[0].result()
""")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_process_that_started_them(tmp_path, how):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=env)
    workers = [int(number) for number in parent.stdout.readline().split()]
    assert len(workers) == 2
    time.sleep(2)  # a job counts as running as soon as it is queued: give the workers time to start
    parent.send_signal(how)
    parent.wait()
    deadline = time.monotonic() + 60
    while any(map(is_alive, workers)):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.1)


def is_alive(process_id: int) -> bool:
    try:
        stat = Path(f"/proc/{process_id}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
