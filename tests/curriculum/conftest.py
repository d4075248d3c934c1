"""The embedded model, untrained, and a few tracks whose features are drawn and not encoded."""

import pytest
from support.tiny_world import drawn_feature_tracks

from avcap.curriculum.feature_tracks import FeatureTracks
from avcap.runs.recipe import new_tiny_model


@pytest.fixture(scope="session")
def tiny():
    """-> (model, tokenizer). Shared: leave the weights as they are."""
    model, tokenizer = new_tiny_model(seed=0)
    return model.eval(), tokenizer


@pytest.fixture(scope="session")
def feature_tracks() -> FeatureTracks:
    return drawn_feature_tracks()
