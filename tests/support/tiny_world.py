"""A few tracks whose features are drawn and not encoded: lessons without rendering anything."""

import torch

from avcap.curriculum.tracks import Track, Tracks
from avcap.world.scene import make_scene

TRACK_S = 12


def drawn_tracks() -> Tracks:
    """Three picture tracks and three sound tracks of 12 s."""
    generator = torch.Generator().manual_seed(0)

    def track(seed: int, *shape: int) -> Track:
        scene = make_scene(seed, difficulty="standard", seconds=(TRACK_S, TRACK_S))
        return Track(scene=scene, features=torch.randn(TRACK_S, *shape, generator=generator).half())

    return Tracks(
        pictures={TRACK_S: [track(seed, 4, 96) for seed in (1, 2, 3)]},
        sounds={TRACK_S: [track(seed, 50, 96) for seed in (11, 12, 13)]},
    )
