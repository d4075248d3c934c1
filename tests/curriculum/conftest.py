"""The embedded model, untrained, and a few tracks whose features are drawn and not encoded."""

import pytest
from support.tiny_world import drawn_tracks

from avcap.curriculum.tracks import Tracks
from avcap.stages.train import new_tiny_model


@pytest.fixture(scope="session")
def tiny():
    """-> (model, tokenizer). Shared: leave the weights as they are."""
    model, tokenizer = new_tiny_model(seed=0)
    return model.eval(), tokenizer


@pytest.fixture(scope="session")
def tracks() -> Tracks:
    return drawn_tracks()
