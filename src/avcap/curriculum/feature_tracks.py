"""Encoded picture tracks and sound tracks: what the language model learns from while the encoders are frozen.

The picture of clip i with the sound of clip j is a new clip whose truth is known just as well, so a few thousand tracks
of each kind make millions of clips. A track is encoded once and kept on disk, in shards that are whole or not there.
T frames  N vectors a frame  V tower width  K chunks of sound  P positions of a chunk  A width of the sound encoder
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from avcap.curriculum.perception import training_seed
from avcap.files.write import replacing
from avcap.media.mel import log_mel
from avcap.model.captioning import CaptioningModel
from avcap.model.checkpoint.load import silence_progress_bars
from avcap.processes import end_with_parent
from avcap.world.render import render_frames
from avcap.world.scene import Scene, make_scene
from avcap.world.sounds import render_audio

TRACKS_PER_SHARD = 50
# Mostly clips of everyday length; some of the longest, so that every word for a second is learned.
TRACK_SECONDS = (12,) * 9 + (20,)


@dataclass(frozen=True, kw_only=True)
class FeatureTrackConfig:
    num_tracks: int = 2000
    """Picture tracks, and as many sound tracks."""
    num_held_out: int = 100
    """Tracks of each kind that no example uses: the run's own check on how it does."""
    difficulty: str = "standard"
    num_processes: int = 2
    """Processes that render and encode side by side."""


@dataclass(frozen=True, kw_only=True)
class FeatureTrack:
    """One encoded track, in float16. Pictures: (T, N, V), a frame a second; sound: (K, P, A), a chunk a second."""

    scene: Scene
    features: Tensor


@dataclass(frozen=True, kw_only=True)
class FeatureTracks:
    """All tracks of a run, by length in seconds: only tracks of one length are paired."""

    video: dict[int, list[FeatureTrack]]
    audio: dict[int, list[FeatureTrack]]


@dataclass(frozen=True, kw_only=True)
class _Shard:
    """TRACKS_PER_SHARD picture tracks and as many sound tracks; what they show follows from these fields."""

    seed: int
    held_out: bool
    number: int
    difficulty: str

    def path(self, folder: Path) -> Path:
        name = f"{'held_out' if self.held_out else 'tracks'}-{self.number:04d}"
        # Other difficulties of one seed share the folder, and their scenes are other scenes.
        suffix = "" if self.difficulty == "standard" else f"-{self.difficulty}"
        return folder / f"{name}{suffix}.safetensors"

    def scene(self, kind: str, index: int) -> Scene:
        seconds = TRACK_SECONDS[index % len(TRACK_SECONDS)]
        stream = {"video": 3, "audio": 4}[kind] + 2 * self.held_out
        seed = training_seed(self.seed, stream, self.number, index)
        return make_scene(seed, difficulty=self.difficulty, seconds=(seconds, seconds))


def _shards(config: FeatureTrackConfig, *, seed: int, held_out: bool) -> list[_Shard]:
    num_tracks = config.num_held_out if held_out else config.num_tracks
    numbers = range(-(-num_tracks // TRACKS_PER_SHARD))
    return [_Shard(seed=seed, held_out=held_out, number=n, difficulty=config.difficulty) for n in numbers]


def make_feature_tracks(model_dir: Path, folder: Path, *, seed: int, config: FeatureTrackConfig) -> None:
    """Encodes the tracks of a run with the encoders saved in `model_dir`; goes on where it stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = _shards(config, seed=seed, held_out=True) + _shards(config, seed=seed, held_out=False)
    with ProcessPoolExecutor(
        config.num_processes, mp_context=get_context("spawn"), initializer=_load_encoders, initargs=(str(model_dir),)
    ) as pool:
        jobs = [pool.submit(_encode_shard, folder, shard) for shard in shards if not shard.path(folder).exists()]
        for job in track(jobs, description="tracks", console=Console(stderr=True), disable=not sys.stderr.isatty()):
            job.result()


def load_feature_tracks(
    folder: Path, *, seed: int, config: FeatureTrackConfig, held_out: bool = False
) -> FeatureTracks:
    """The tracks that `make_feature_tracks` wrote, in memory."""
    feature_tracks = FeatureTracks(video={}, audio={})
    for shard in _shards(config, seed=seed, held_out=held_out):
        tensors = load_file(shard.path(folder))
        for index in range(TRACKS_PER_SHARD):
            for kind, by_length in (("video", feature_tracks.video), ("audio", feature_tracks.audio)):
                scene = shard.scene(kind, index)
                found = FeatureTrack(scene=scene, features=tensors[f"{kind}.{index}"])
                by_length.setdefault(scene.duration_s, []).append(found)
    return feature_tracks


_encoders: CaptioningModel | None = None  # one per worker process


def _load_encoders(model_dir: str) -> None:
    global _encoders
    end_with_parent()
    torch.set_num_threads(1)
    silence_progress_bars()
    _encoders = AutoModelForCausalLM.from_pretrained(model_dir).eval()


def _encode_shard(folder: Path, shard: _Shard) -> None:
    assert _encoders is not None
    tensors: dict[str, Tensor] = {}
    for index in range(TRACKS_PER_SHARD):
        video = encode_video_track(_encoders, shard.scene("video", index))
        audio = _encoders.encode_audio(mel_chunks(_encoders, shard.scene("audio", index)))
        tensors |= {f"video.{index}": video.half(), f"audio.{index}": audio.half()}
    with replacing(shard.path(folder)) as aside:
        save_file(tensors, aside)


def encode_video_track(model: CaptioningModel, scene: Scene) -> Tensor:
    """Scene -> tower features of its frames, one a second: (T, N, V)."""
    size = model.config.vision_config.image_size
    frames = render_frames(scene, [float(second) for second in range(scene.duration_s)], size=size)
    frames_TCHW = torch.from_numpy(frames).permute(0, 3, 1, 2)
    return model.encode_video(frames_TCHW)


def mel_chunks(model: CaptioningModel, scene: Scene) -> Tensor:
    """Scene -> log-mel of its sound in the chunks that the model's sound encoder takes: (K, M, F)."""
    waveform_S = torch.from_numpy(render_audio(scene))
    chunks_KS = waveform_S.reshape(-1, round(model.config.chunk_s * 16_000))
    return log_mel(chunks_KS, num_mel_bins=model.config.audio_config.num_mel_bins)
