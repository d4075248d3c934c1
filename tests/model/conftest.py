"""A tiny untrained model, and features of made-up clips for it."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import settings

from avcap.model import MediaFeatures, Salmonn2ForCaptioning
from avcap.model.tiny import tiny_config

# A busy machine may stall any single example; how long one takes says nothing about the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

TESTS = Path(__file__).parents[1]
FIRST_TIME_TOKEN, NUM_TIME_TOKENS = 10, 30


@pytest.fixture(scope="session")
def released_folder() -> Path:
    """A checkpoint in the released layout that is a recorded case of parity.py as well."""
    return TESTS / "data" / "v1_av_31s"


@pytest.fixture(scope="session")
def plus_folder() -> Path:
    """The same of video-SALMONN 2+."""
    return TESTS / "data" / "plus_av_10s"


@pytest.fixture(scope="session")
def parity() -> ModuleType:
    """tests/parity.py, which is a script."""
    spec = importlib.util.spec_from_file_location("parity", TESTS / "parity.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["parity"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def model() -> Salmonn2ForCaptioning:
    torch.manual_seed(0)
    times = range(FIRST_TIME_TOKEN, FIRST_TIME_TOKEN + NUM_TIME_TOKENS)
    return Salmonn2ForCaptioning(tiny_config(vocab_size=64, time_token_ids=times)).eval()


@pytest.fixture
def make_clip():
    """-> function: seconds of picture and of sound -> random features of the tiny model's sizes, one frame a second."""
    generator = torch.Generator().manual_seed(1)

    def make(frames: int = 0, sound_s: float = 0.0, start_s: float = 0.0) -> MediaFeatures:
        chunks = int(-(-sound_s // 1))
        return MediaFeatures(
            vision_TNV=torch.randn(frames, 4, 96, generator=generator) if frames else None,
            frame_times_T=[start_s + frame for frame in range(frames)],
            sound_KPA=torch.randn(chunks, 50, 96, generator=generator) if chunks else None,
            audio_seconds=sound_s,
            start_s=start_s,
        )

    return make
