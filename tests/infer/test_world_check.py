"""Does the embedded model's check tell its world from other videos? On real mp4 files of both kinds."""

import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from avcap import Captioner
from avcap.errors import UserError
from avcap.infer.find_checkpoint import find_checkpoint
from avcap.infer.world_check import CHECK_FILE, Familiarity, WorldCheck, audio_statistics
from avcap.infer.world_fit import fit_world_check
from avcap.media.clip import SAMPLE_RATE_HZ, Clip
from avcap.media.load import read_clip
from avcap.world.clip_file import write_clip
from avcap.world.make import clip_seed
from avcap.world.scene import make_scene

FRAME_SIZE = 96
WORLD = [("easy", "default"), ("standard", "default"), ("hard", "default"), ("standard", "unseen"), ("easy", "film")]
PARTS_S = (None, (0, 3), (2.5, 5.5), (4, 5))
"""Intervals of a clip, None for all of it."""


@pytest.fixture(scope="module")
def check():
    """The one that the models are shipped with."""
    return WorldCheck.load(find_checkpoint("tiny-base"))


@pytest.fixture(scope="module")
def world_clips(tmp_path_factory):
    """Paths of clips of every difficulty, none of which the check was fitted on."""
    folder = tmp_path_factory.mktemp("world")
    paths = []
    for index, (difficulty, domain) in enumerate(WORLD):
        scene = make_scene(clip_seed(3, index), difficulty=difficulty, domain=domain, seconds=(6, 6))
        paths.append(folder / f"{difficulty}-{domain}.mp4")
        write_clip(paths[-1], scene)
    return paths


def load(path, **options) -> Clip:
    return read_clip(path, frame_size=(FRAME_SIZE, FRAME_SIZE), **options)


def make_clip(frames_THWC=None, waveform_S=None) -> Clip:
    frames_THWC = np.empty((0, 0, 0, 3), np.uint8) if frames_THWC is None else frames_THWC
    waveform_S = np.empty(0, np.float32) if waveform_S is None else waveform_S.astype(np.float32)
    return Clip(
        path="made",
        frames_THWC=frames_THWC,
        frame_times_T=np.arange(len(frames_THWC), dtype=float),
        lead_in_frame_HWC=None,
        waveform_S=waveform_S,
        sample_rate_hz=SAMPLE_RATE_HZ,
        start_s=0.0,
        end_s=6.0,
        duration_s=6.0,
        has_video=True,
        has_audio=True,
        num_bad_packets=0,
    )


def other_videos() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (6, FRAME_SIZE, FRAME_SIZE, 3)
    ramp = np.linspace(0, 255, FRAME_SIZE)
    bars = np.array([[255, 255, 255], [255, 255, 0], [0, 255, 255], [0, 255, 0], [255, 0, 255], [255, 0, 0]])
    return {
        "noise": rng.integers(0, 256, shape),
        "black": np.zeros(shape),
        "white": np.full(shape, 255),
        "colour bars": np.broadcast_to(bars.repeat(FRAME_SIZE // len(bars), axis=0)[:, None], shape),
        "ramp": np.broadcast_to(ramp[:, None, None], shape),
        "blocks": rng.integers(0, 256, (6, 12, 12, 3)).repeat(8, axis=1).repeat(8, axis=2),
    }


def other_audio() -> dict[str, np.ndarray]:
    time_S = np.arange(6 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    return {
        "tone": 0.5 * np.sin(2 * np.pi * 440 * time_S),
        "sweep": 0.5 * np.sin(2 * np.pi * (200 + 300 * time_S) * time_S),
    }


@pytest.mark.slow
def test_held_out_world_clips_are_in_whole_and_in_parts(check, world_clips):
    for path in world_clips:
        for interval_s in PARTS_S:
            assert check.score(load(path, interval_s=interval_s)) <= 1, (path.name, interval_s)


@pytest.mark.parametrize("name", other_videos())
def test_other_videos_are_out(check, name):
    assert check.score(make_clip(other_videos()[name].astype(np.uint8))) > 1


@pytest.mark.parametrize("name", other_audio())
def test_other_audio_is_out(check, name):
    assert check.score(make_clip(waveform_S=other_audio()[name])) > 1


@pytest.mark.slow
def test_a_check_fitted_anew_tells_them_apart_too(world_clips):
    fitted = fit_world_check(frame_size=FRAME_SIZE, num_scenes=90)
    for path in world_clips:
        for interval_s in PARTS_S:
            assert fitted.score(load(path, interval_s=interval_s)) <= 1, (path.name, interval_s)
    for name, frames_THWC in other_videos().items():
        assert fitted.score(make_clip(frames_THWC.astype(np.uint8))) > 1, name
    for name, waveform_S in other_audio().items():
        assert fitted.score(make_clip(waveform_S=waveform_S)) > 1, name


def test_the_stranger_modality_decides(check, world_clips):
    clip = load(world_clips[1])
    assert check.score(replace(clip, waveform_S=other_audio()["tone"].astype(np.float32))) > 1
    assert check.score(replace(clip, frames_THWC=other_videos()["black"].astype(np.uint8))) > 1


def test_seconds_are_those_of_the_whole_video_wherever_the_clip_begins():
    waveform_S = torch.randn(5 * SAMPLE_RATE_HZ)
    whole = audio_statistics(waveform_S)
    late = audio_statistics(waveform_S[SAMPLE_RATE_HZ // 4 :], start_s=0.25)
    torch.testing.assert_close(late, whole[1:], rtol=0, atol=1e-5)


def test_distances_are_those_of_a_gaussian():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(5, 5, generator=generator)
    clips = [torch.randn(20, 5, generator=generator) @ mixing + 3 for _ in range(200)]
    found = Familiarity.fit(clips)
    # the squared distance over the number of statistics has mean 1, whatever the mixing
    assert found.distances(torch.cat(clips)).square().mean().item() == pytest.approx(1, abs=0.1)
    share_beyond = (found.distances(torch.cat(clips)) > found.limits[0]).float().mean().item()
    assert share_beyond == pytest.approx(0.005, abs=0.001)  # 1 - QUANTILE


def test_a_captioner_with_a_check_says_what_is_not_of_its_world(
    check, random_checkpoint, videos, world_clips, tmp_path, caplog
):
    folder = tmp_path / "model"
    shutil.copytree(random_checkpoint, folder)
    check.save(folder)
    captioner = Captioner(folder)
    with caplog.at_level(logging.WARNING, logger="avcap"):
        home, stranger = captioner.caption([world_clips[1], videos / "a.mp4"])
    assert home.in_world is True and home.world_score <= 1
    assert stranger.in_world is False and stranger.world_score > 1
    (record,) = [record for record in caplog.records if record.name.startswith("avcap")]
    assert str(videos / "a.mp4") in record.getMessage() and "--model" in record.getMessage()


def test_a_check_is_saved_and_read_or_the_file_is_named(check, world_clips, tmp_path):
    assert WorldCheck.load(tmp_path) is None
    check.save(tmp_path)
    clip = load(world_clips[0])
    assert WorldCheck.load(tmp_path).score(clip) == check.score(clip)
    replace(check, audio=check.video).save(tmp_path)
    with pytest.raises(UserError, match=r"got audio.mean_F of \[24\], expected \[40\]"):
        WorldCheck.load(tmp_path)
    (tmp_path / CHECK_FILE).write_bytes(b"garbage")
    with pytest.raises(UserError, match="cannot be read"):
        WorldCheck.load(tmp_path)
