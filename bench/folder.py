"""Clips a second of `avcap caption DIR --out OUT/` with the tiny model, against a plain loop over Captioner.

    OMP_NUM_THREADS=1 python bench/folder.py --clips 1000 --out /tmp/folder

The loop captions one file after the other and writes each line itself; the command decodes ahead in other processes,
captions in batches, and keeps a record that outlasts a kill. Both start from nothing, a process each, in turn, and what
starting takes (a run of one clip) is told apart. Two cores that other work uses give other figures: --force runs it
on such a machine all the same.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
QUIET_LOAD = 2.0
LOOP = """
import json, sys
from pathlib import Path
from avcap import Captioner
captioner = Captioner("tiny", batch_size=1)
with open(sys.argv[2], "w") as out:
    for path in sorted(Path(sys.argv[1]).glob("*.mp4")):
        out.write(json.dumps({"video": str(path), "text": captioner.caption(str(path)).text}) + "\\n")
"""


def make_clips(folder: Path, num: int) -> None:
    videos = sorted((ROOT / "examples").glob("*.mp4"))
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(num):
        if not (path := folder / f"{index:05}.mp4").exists():
            shutil.copy(videos[index % len(videos)], path)


def seconds(words: list[str]) -> float:
    began = time.monotonic()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if (load := os.getloadavg()[0]) >= QUIET_LOAD and not args.force:
        sys.exit(f"got a load of {load:.1f}, expected less than {QUIET_LOAD:g}: wait, or --force")
    os.environ["PYTHONPATH"] = str(ROOT / "src")
    make_clips(args.out / "one", 1)
    make_clips(args.out / "clips", args.clips)
    for _ in range(args.rounds):
        for name in ("loop", "avcap"):
            spent = []
            for clips in (args.out / "one", args.out / "clips"):
                target = args.out / f"{name}-{clips.name}"
                shutil.rmtree(target, ignore_errors=True)
                target.mkdir()
                loop = [sys.executable, "-c", LOOP, str(clips), str(target / "captions.jsonl")]
                command = [sys.executable, "-m", "avcap", "caption", str(clips), "--out", f"{target}/"]
                spent.append(seconds(loop if name == "loop" else command))
            start_s, whole_s = spent
            print(
                f"{name:6} {args.clips} clips in {whole_s:.1f} s, {args.clips / whole_s:.1f} a second; without the "
                f"{start_s:.1f} s of one clip {(args.clips - 1) / (whole_s - start_s):.1f} a second",
                flush=True,
            )


if __name__ == "__main__":
    main()
