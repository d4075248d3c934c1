"""The embedded model, untrained, and a few tracks whose features are drawn and not encoded."""

import pytest
import torch

from avcap.stages.train import new_tiny_model
from avcap.train.tracks import Track, Tracks
from avcap.world.scene import make_scene

TRACK_S = 12


@pytest.fixture(scope="session")
def tiny():
    """-> (model, tokenizer). Shared: leave the weights as they are."""
    model, tokenizer = new_tiny_model(seed=0)
    return model.eval(), tokenizer


@pytest.fixture(scope="session")
def tracks() -> Tracks:
    """Three picture tracks and three sound tracks of 12 s."""
    generator = torch.Generator().manual_seed(0)

    def track(seed: int, *shape: int) -> Track:
        scene = make_scene(seed, difficulty="standard", seconds=(TRACK_S, TRACK_S))
        return Track(scene=scene, features=torch.randn(TRACK_S, *shape, generator=generator).half())

    return Tracks(
        pictures={TRACK_S: [track(seed, 4, 96) for seed in (1, 2, 3)]},
        sounds={TRACK_S: [track(seed, 50, 96) for seed in (11, 12, 13)]},
    )
