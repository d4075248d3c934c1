"""What long videos and long lists cost: peak memory of `avcap caption`, and seconds until it has its first caption.

    python bench/folders.py film --minutes 1 180      # films of those lengths, captioned in windows
    python bench/folders.py rows --rows 1000 100000   # lists of so many rows, and a stand-in for the model

Films have one frame a second and a beep every ten seconds. Memory is the sum over all processes, looked at five times a
second, and the largest that one process ever had.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

RATE_HZ = 8000
LOOK_EVERY_S = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    film = kinds.add_parser("film")
    film.add_argument("--minutes", type=float, nargs="+", default=[1, 180])
    film.add_argument("--window", type=float, default=120.0)
    film.add_argument("--model", default="tiny")
    film.add_argument("--folder", type=Path, help="where films are made and kept; a temporary one if not given")
    rows = kinds.add_parser("rows")
    rows.add_argument("--rows", type=int, nargs="+", default=[1000, 100_000])
    one = kinds.add_parser("one-list")
    one.add_argument("list", type=Path)
    one.add_argument("out", type=Path)
    arguments = parser.parse_args()
    if arguments.kind == "one-list":
        caption_list(arguments.list, arguments.out)
    elif arguments.kind == "rows":
        measure_lists(arguments.rows)
    else:
        measure_films(arguments)


# --- films ------------------------------------------------------------------------------------------------------------


def measure_films(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        for minutes in arguments.minutes:
            path = folder / f"film-{minutes:g}.mkv"
            if not path.exists():
                write_film(path, seconds=round(60 * minutes))
            out = Path(scratch) / f"out-{minutes:g}"
            words = ["caption", str(path), "--model", arguments.model, "--out", str(out), "--max-new-tokens", "40"]
            words += ["--window", str(arguments.window), "--no-carry", "--batch-size", "4"]
            start_s = time.monotonic()
            both_mb, largest_mb = watched([sys.executable, "-m", "avcap", *words])
            windows = out / "windows.jsonl"
            count = len(windows.read_text().splitlines()) if windows.exists() else 0
            print(
                f"{minutes:g} min: {count} windows, {time.monotonic() - start_s:.0f} s, peak of all processes "
                f"{both_mb:.0f} MB, of the largest {largest_mb:.0f} MB",
                flush=True,
            )


def write_film(path: Path, *, seconds: int) -> None:
    """-> a film of one frame a second, whose colour changes every 15 s, with a beep every ten seconds."""
    import av
    import numpy as np

    beep_S = (8000 * np.sin(np.arange(RATE_HZ // 4) * 2 * np.pi * 440 / RATE_HZ)).astype(np.int16)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=1, options={"preset": "ultrafast", "g": "10"})
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        audio = container.add_stream("flac", rate=RATE_HZ, layout="mono")
        for second in range(seconds):
            colour = np.random.default_rng(second // 15).integers(0, 256, 3)
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), colour, np.uint8), format="rgb24")
            frame.pts, frame.time_base = second, Fraction(1)
            container.mux(video.encode(frame))
            wave_S = np.zeros(RATE_HZ, np.int16)
            if second % 10 == 0:
                wave_S[: len(beep_S)] = beep_S
            block = av.AudioFrame.from_ndarray(wave_S[None], format="s16", layout="mono")
            block.sample_rate, block.pts, block.time_base = RATE_HZ, second * RATE_HZ, Fraction(1, RATE_HZ)
            container.mux(audio.encode(block))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def watched(command: list[str]) -> tuple[float, float]:
    """Runs a command -> the most memory of it and its children together, and of the largest process ever, in MB."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    most = 0.0
    while process.poll() is None:
        most = max(most, sum(resident_mb(pid) for pid in tree(process.pid)))
        time.sleep(LOOK_EVERY_S)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: ended with {process.returncode}")
    return most, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def tree(pid: int) -> Iterable[int]:
    """A process and those below it."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from tree(int(child))


def resident_mb(pid: int) -> float:
    """What of a process is in memory; 0 if it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


# --- lists ------------------------------------------------------------------------------------------------------------


def measure_lists(counts: list[int]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for count in counts:
            path = Path(scratch) / f"list-{count}.jsonl"
            with open(path, "w") as handle:
                for index in range(count):
                    row = {"video": f"clips/{index // 1000:03}/{index:06}.mp4", "caption": "old " * 20}
                    handle.write(json.dumps(row) + "\n")
            command = [sys.executable, __file__, "one-list", str(path), str(Path(scratch) / f"out-{count}")]
            print(f"{count} rows: {subprocess.run(command, check=True, capture_output=True, text=True).stdout}", end="")


def caption_list(path: Path, out: Path) -> None:
    """A list -> captions of all its rows by a stand-in that reads no files; prints seconds and memory."""
    from avcap.bulk.folder import caption_folder
    from avcap.bulk.inputs.find import find_items
    from avcap.bulk.inputs.items import root_of
    from avcap.bulk.job import FolderJob
    from avcap.data.request import Request
    from avcap.records import Caption, Decoding, Seen

    first_s = None
    decoding, seen = Decoding(max_new_tokens=9), Seen(frames=1, audio_seconds=1.0, visual_tokens=1, audio_tokens=1)
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def stream(samples):
        nonlocal first_s
        for sample in samples:
            first_s = first_s or time.process_time()
            yield Caption(
                caption_id=sample.sample_id,
                sample_id=sample.sample_id,
                video=sample.video,
                prompt="?",
                text="A dog runs. " * 40,
                checkpoint="stand-in",
                decoding=decoding,
                seen=seen,
                finished=True,
                duration_s=1.0,
            )

    found = find_items([str(path)])
    root = root_of([str(path)], found.items, lists=found.lists)
    job = FolderJob(
        out=out,
        root=root,
        videos=tuple(found.items),
        request=Request(decoding=decoding),
        forms=("txt",),
        rows_at_once=64,
    )
    told = caption_folder(job, stream=stream, check=lambda row: None)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"first caption after {first_s:.1f} s of CPU, {told.num_new} after {time.process_time():.0f} s; "
        f"peak {peak_mb:.0f} MB, {before_mb:.0f} MB of it before the list"
    )


if __name__ == "__main__":
    main()
