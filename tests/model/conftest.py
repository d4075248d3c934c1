"""A tiny untrained model, and features of made-up clips for it."""

from pathlib import Path

import pytest
import torch
from support import ASSETS

from avcap.model import MediaFeatures, Salmonn2ForCaptioning
from avcap.model.salmonn2.tiny import tiny_config

FIRST_TIME_TOKEN, NUM_TIME_TOKENS = 10, 30


@pytest.fixture(scope="session")
def released_folder() -> Path:
    """A checkpoint in the released layout that is a recorded case of parity.py as well."""
    return ASSETS / "v1_av_31s"


@pytest.fixture(scope="session")
def plus_folder() -> Path:
    """The same of video-SALMONN 2+."""
    return ASSETS / "plus_av_10s"


@pytest.fixture
def model() -> Salmonn2ForCaptioning:
    torch.manual_seed(0)
    times = range(FIRST_TIME_TOKEN, FIRST_TIME_TOKEN + NUM_TIME_TOKENS)
    return Salmonn2ForCaptioning(tiny_config(vocab_size=64, time_token_ids=times)).eval()


@pytest.fixture
def make_clip():
    """-> function: seconds of picture and of sound -> random features of the tiny model's sizes, one frame a second."""
    generator = torch.Generator().manual_seed(1)

    def make(frames: int = 0, audio_s: float = 0.0, start_s: float = 0.0) -> MediaFeatures:
        chunks = int(-(-audio_s // 1))
        return MediaFeatures(
            vision_TNV=torch.randn(frames, 4, 96, generator=generator) if frames else None,
            frame_times_T=[start_s + frame for frame in range(frames)],
            audio_KPA=torch.randn(chunks, 50, 96, generator=generator) if chunks else None,
            audio_seconds=audio_s,
            start_s=start_s,
        )

    return make
