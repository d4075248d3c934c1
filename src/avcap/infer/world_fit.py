"""Fits the world check of an embedded model: `python -m avcap.infer.world_fit CHECKPOINT_FOLDER`; seconds on a CPU.

Scenes are rendered as the model sees them, without a video file in between: compression does not move the statistics.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch

from avcap.infer.world_check import WorldCheck
from avcap.model.checkpoint.load import open_source
from avcap.world.render import render_frames
from avcap.world.scene import DIFFICULTIES, make_scene
from avcap.world.sounds import render_audio

NUM_SCENES = 400
FIRST_SEED = 900_000_000  # below the seeds of worlds that are made for tests (world/make.py)


def fit_world_check(*, frame_size: int, num_scenes: int = NUM_SCENES) -> WorldCheck:
    """Side of the frames that the model sees -> a check fitted on scenes of all difficulties of the default domain."""
    return WorldCheck.fit(_render(frame_size=frame_size, num_scenes=num_scenes))


def _render(*, frame_size: int, num_scenes: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    difficulties = list(DIFFICULTIES)
    for index in range(num_scenes):
        scene = make_scene(FIRST_SEED + index, difficulty=difficulties[index % len(difficulties)])
        frames_THWC = render_frames(scene, [float(second) for second in range(scene.duration_s)], size=frame_size)
        yield torch.from_numpy(frames_THWC), torch.from_numpy(render_audio(scene))


def main() -> None:
    parser = argparse.ArgumentParser(description="Fits the world check of a checkpoint folder and writes it there.")
    parser.add_argument("checkpoint", type=Path)
    folder: Path = parser.parse_args().checkpoint
    config = open_source(folder).config
    fit_world_check(frame_size=config.vision_config.image_size).save(folder)


if __name__ == "__main__":
    main()
