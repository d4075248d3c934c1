"""Fixtures of several rooms: a tiny captioner with random weights, and small real mp4 files for it."""

import logging
import os
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from avcap.cli import main

os.environ.setdefault("OMP_NUM_THREADS", "1")  # models this small lose more to a second thread's start than it gives

FPS = 5
SOUND_RATE_HZ = 48_000
TINY_PROMPTS = {
    "global_caption": "Describe the video in detail.",
    "interval_caption": "Describe what happens from {start}s to {end}s.",
    "picture_only": "Describe only what is seen.",
    "sound_only": "Describe only what is heard.",
}


def write_video(
    path: Path, *, seconds: float, sound_s: float | None = None, seed: int = 0, picture: bool = True
) -> Path:
    """-> an mp4 file of moving random blocks, with noise for `sound_s` seconds (None: as the picture; 0: none)."""
    rng = np.random.default_rng(seed)
    sound_s = seconds if sound_s is None else sound_s
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": "30"}) if picture else None
        audio = container.add_stream("aac", rate=SOUND_RATE_HZ, layout="mono") if sound_s else None
        if video:
            video.height = video.width = 64
            video.pix_fmt = "yuv420p"
            for index in range(round(seconds * FPS)):
                blocks = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
                frame = av.VideoFrame.from_ndarray(blocks, format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, FPS)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        if audio:
            waveform_S = rng.normal(0, 0.1, round(sound_s * SOUND_RATE_HZ)).astype(np.float32)
            for first in range(0, len(waveform_S), 1024):
                block_1S = np.ascontiguousarray(waveform_S[None, first : first + 1024])
                sound = av.AudioFrame.from_ndarray(block_1S, format="fltp", layout="mono")
                sound.sample_rate, sound.pts, sound.time_base = SOUND_RATE_HZ, first, Fraction(1, SOUND_RATE_HZ)
                container.mux(audio.encode(sound))
            container.mux(audio.encode(None))
    return path


class _NoDeprecations(logging.Handler):
    """transformers tells some deprecations to its logger alone, where pytest's filters do not see them."""

    def emit(self, record: logging.LogRecord) -> None:
        if "deprecated" in record.getMessage():
            raise DeprecationWarning(record.getMessage())


@pytest.fixture(scope="session", autouse=True)
def deprecations_in_logs_are_errors(request: pytest.FixtureRequest) -> Iterator[None]:
    """For the whole run, unless warnings were asked to be shown only (`make test-newest`)."""
    if any(option.startswith("default::") for option in request.config.getoption("pythonwarnings") or []):
        yield
        return
    handler = _NoDeprecations()
    logging.getLogger("transformers").addHandler(handler)
    yield
    logging.getLogger("transformers").removeHandler(handler)


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder of the embedded model with random weights: it writes words, others for other videos."""
    import torch

    from avcap.infer.settings import CaptionerSettings, Prompts, write_settings
    from avcap.stages.train import new_tiny_model

    folder = tmp_path_factory.mktemp("model") / "random"
    model, tokenizer = new_tiny_model(seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(4)  # as initialised, the words hardly depend on the media
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = CaptionerSettings(name="random", prompts=Prompts(**TINY_PROMPTS), max_new_tokens=12, max_frames=20)
    write_settings(folder, settings)
    return folder


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos: a, b, c of 3, 2 and 4 s with sound, silent (2 s), short_sound (4 s, sound for 1 s), sound.m4a."""
    folder = tmp_path_factory.mktemp("videos")
    for seed, (name, seconds) in enumerate({"a": 3, "b": 2, "c": 4}.items()):
        write_video(folder / f"{name}.mp4", seconds=seconds, seed=seed)
    write_video(folder / "silent.mp4", seconds=2, sound_s=0, seed=3)
    write_video(folder / "short_sound.mp4", seconds=4, sound_s=1, seed=4)
    write_video(folder / "sound.m4a", seconds=2, picture=False, seed=5)
    return folder


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs `avcap WORDS` -> (exit code, stdout, stderr)."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["avcap", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return stopped.value.code, out, err

    return run
