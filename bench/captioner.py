"""How fast does `avcap caption` start, how many captions a second does it write, and does its memory stay flat?

    python bench/captioner.py [--model tiny] [--files 100] [--videos FOLDER]

Prints: start of the process to the printed caption and its peak memory; captions a second one by one and in batches,
with whether the captions are the same; resident memory along a long run.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from avcap import Captioner
from avcap.infer.inputs import find_media
from avcap.world.make import make_world

REPEATS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--videos", help="folder of videos; without it, world clips are made")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not arguments.videos:
            make_world(folder, num_clips=arguments.files, seed=8)
        paths = find_media([arguments.videos or folder + "/clips"]).paths
        paths = (paths * -(-arguments.files // len(paths)))[: arguments.files]
        measure_start(arguments.model, paths[0])
        torch.set_num_threads(1)  # as the command does for small models
        texts = {batch_size: measure_speed(arguments.model, paths, batch_size=batch_size) for batch_size in (1, 8, 32)}
        same = [sum(a == b for a, b in zip(texts[1], other, strict=True)) for other in texts.values()]
        print(f"captions that are the same as one by one, for each batch size: {same} of {len(paths)}")


def measure_start(model: str, path: str) -> None:
    """Prints the time from the start of the process to its end, and its peak memory; the first run warms the disk."""
    seconds = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "avcap", "caption", path, "--model", model], check=True, capture_output=True
        )
        seconds.append(time.perf_counter() - began)
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"avcap caption one.mp4: first {seconds[0]:.1f} s, then median {statistics.median(seconds[1:]):.1f} s "
        f"(min {min(seconds[1:]):.1f}), peak {peak_mb:.0f} MB"
    )


def measure_speed(model: str, paths: list[str], *, batch_size: int) -> list[str]:
    """Prints captions a second and resident memory along the way -> the captions."""
    captioner = Captioner(model, batch_size=batch_size)
    captioner.caption(paths[0])  # what only the first one pays
    texts, memory_mb = [], []
    began = time.perf_counter()
    for index, row in enumerate(captioner.caption(iter(paths))):
        texts.append(row.text)
        if index % max(1, len(paths) // 5) == 0:
            memory_mb.append(resident_mb())
    seconds = time.perf_counter() - began
    along = " ".join(f"{value:.0f}" for value in [*memory_mb, resident_mb()])
    print(f"batches of {batch_size:2}: {len(paths) / seconds:.2f} captions/s, resident MB along the run: {along}")
    return texts


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
