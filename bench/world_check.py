"""Does the embedded model know its own world from other videos? Scores of world clips and of others.

    python bench/world_check.py [--model tiny] [--clips 5] [OTHER_VIDEO_OR_FOLDER ...]

World clips are made: every difficulty and every domain, with seeds that nothing was fitted on. Others are FFmpeg's test
sources, noise and plain pictures with tones and noise, and whatever real files are named. A score above 1 says: not of
this world. The domains "default", "unseen" and "film" should be in, "paper" (light, outlined, other textures) is out.
"""

import argparse
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from avcap import UserError
from avcap.infer.find_checkpoint import find_checkpoint
from avcap.infer.inputs import find_media
from avcap.infer.world_check import WorldCheck
from avcap.media.load import load_clip
from avcap.world.clip_file import write_media
from avcap.world.domains import get_domain
from avcap.world.make import make_world

SECONDS, FPS, RATE_HZ, SIDE = 8, 15, 16_000, 256
FRAME_SIZE = (96, 96)  # of the embedded model
WORLDS = [
    ("easy", "default"),
    ("standard", "default"),
    ("hard", "default"),
    ("standard", "unseen"),
    ("standard", "film"),
    ("standard", "paper"),
]
TEST_SOURCES = ["testsrc2", "smptebars", "rgbtestsrc", "mandelbrot", "life", "cellauto", "sierpinski", "gradients"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--clips", type=int, default=5)
    parser.add_argument("others", nargs="*")
    arguments = parser.parse_args()
    check = WorldCheck.load(find_checkpoint(arguments.model))
    if check is None:
        raise SystemExit(f"{arguments.model} has no world check: it is for any video")
    with tempfile.TemporaryDirectory() as folder:
        for difficulty, domain in WORLDS:
            out = Path(folder) / f"{domain}-{difficulty}"
            make_world(out, num_clips=arguments.clips, seed=77, difficulty=difficulty, domain=domain)
            report(f"world {domain}, {difficulty}", score_files(check, [str(out / "clips")]))
        made = Path(folder) / "others"
        write_others(made)
        report("test sources, noise and plain pictures", score_files(check, [str(made)]))
        if arguments.others:
            report("other files", score_files(check, arguments.others))


def score_files(check: WorldCheck, inputs: list[str]) -> dict[str, float]:
    """Files and folders -> score of each that can be read."""
    scores = {}
    for path in find_media(inputs).paths:
        try:
            scores[Path(path).name] = check.score(load_clip(path, frame_size=FRAME_SIZE))
        except UserError as error:
            print(error)
    return scores


def report(title: str, scores: dict[str, float]) -> None:
    found_out = sum(score > 1 for score in scores.values())
    print(f"{title}: {found_out} of {len(scores)} found to be of another world")
    print("   ", ", ".join(f"{name} {score:.2f}" for name, score in sorted(scores.items(), key=lambda item: item[1])))


def write_others(folder: Path) -> None:
    """Writes mp4 files of pictures and sounds that are not of the world."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    num_frames, shape = SECONDS * FPS, (SECONDS * FPS, SIDE, SIDE, 3)
    time_S = np.arange(SECONDS * RATE_HZ) / RATE_HZ
    audio_statistics_of = itertools.cycle(
        [0.5 * np.sin(2 * np.pi * 440 * time_S), 0.1 * rng.normal(size=len(time_S)), np.zeros(len(time_S))]
    )
    blocks_THW3 = rng.integers(40, 110, (1, 8, 8, 3)).repeat(32, axis=1).repeat(32, axis=2)
    video_statistics_of = {
        name: np.stack(list(itertools.islice(test_source(name), num_frames))) for name in TEST_SOURCES
    }
    video_statistics_of |= {
        "noise": rng.integers(0, 256, shape),
        "black": np.zeros(shape),
        "white": np.full(shape, 255),
        "plain-grey": np.full(shape, 90),
        "still-blocks": np.broadcast_to(blocks_THW3, shape),
    }
    # plain grey comes with the tone: as a picture it might be the world's, before anything has appeared
    order = sorted(video_statistics_of, key=lambda name: name != "plain-grey")
    for name, waveform_S in zip(order, audio_statistics_of, strict=False):
        frames_THW3 = np.ascontiguousarray(video_statistics_of[name], dtype=np.uint8)
        waveform_S = waveform_S.astype(np.float32)
        write_media(folder / f"{name}.mp4", frames_THW3, waveform_S=waveform_S, fps=FPS, domain=get_domain("default"))


def test_source(name: str) -> Iterator[np.ndarray]:
    """One of FFmpeg's video sources -> its frames (H, W, 3)."""
    graph = av.filter.Graph()
    source = graph.add(name, f"size={SIDE}x{SIDE}:rate={FPS}")
    rgb, sink = graph.add("format", "rgb24"), graph.add("buffersink")
    source.link_to(rgb)
    rgb.link_to(sink)
    graph.configure()
    while True:
        yield graph.pull().to_ndarray(format="rgb24")


if __name__ == "__main__":
    main()
