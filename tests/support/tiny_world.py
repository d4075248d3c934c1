"""A few tracks whose features are drawn and not encoded: lessons without rendering anything."""

import torch

from avcap.curriculum.feature_tracks import FeatureTrack, FeatureTracks
from avcap.world.scene import make_scene

FEATURE_TRACK_S = 12


def drawn_feature_tracks() -> FeatureTracks:
    """Three picture tracks and three sound tracks of 12 s."""
    generator = torch.Generator().manual_seed(0)

    def track(seed: int, *shape: int) -> FeatureTrack:
        scene = make_scene(seed, difficulty="standard", seconds=(FEATURE_TRACK_S, FEATURE_TRACK_S))
        return FeatureTrack(scene=scene, features=torch.randn(FEATURE_TRACK_S, *shape, generator=generator).half())

    return FeatureTracks(
        video={FEATURE_TRACK_S: [track(seed, 4, 96) for seed in (1, 2, 3)]},
        audio={FEATURE_TRACK_S: [track(seed, 50, 96) for seed in (11, 12, 13)]},
    )
