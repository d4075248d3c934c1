"""Preference rounds killed (SIGKILL) at random moments: do they end with the same weights, no record lost or doubled?

    OMP_NUM_THREADS=1 python bench/kill_rounds.py --kills 50 --out /tmp/kills

Runs `avcap rounds tiny_rounds` at a small size once undisturbed, then again and again with a kill at a random moment of
each start, until the wanted number of kills has hit a live process; each series that reaches its end is compared with
the undisturbed run byte by byte: weights, captions, verdicts, pairs. Another series begins in a fresh folder.
"""

import argparse
import hashlib
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = (
    "num_rounds=2",
    "sampling.num_prompts=6",
    "sampling.captions_per_prompt=6",
    "sampling.temperature=1.0",
    "pairs.rule=best_vs_worst",
    "pairs.min_gap=0.01",
    "dpo.epochs=2",
    "dpo.batch_size=2",
    "dpo.checkpoint_every=1",
    "stop.patience=9",
)
COMPARED = ("checkpoint/model.safetensors", "captions.jsonl", "verdicts.jsonl", "pairs.jsonl", "round_metrics.json")


def command(data: Path, out: Path) -> list[str]:
    words = [sys.executable, "-m", "avcap", "rounds", "tiny_rounds", "--data", str(data / "learn.jsonl")]
    words += ["--held-out", str(data / "measure.jsonl"), "--out", str(out)]
    return words + [word for value in SMALL for word in ("--set", value)]


def split_examples(folder: Path) -> None:
    """Three of the example videos to learn on, the fourth to measure on."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = (EXAMPLES / "truth.jsonl").read_text().splitlines(keepends=True)
    (folder / "learn.jsonl").write_text("".join(lines[:3]))
    (folder / "measure.jsonl").write_text("".join(lines[3:]))
    for clip in EXAMPLES.glob("*.mp4"):
        if not (folder / clip.name).exists():
            (folder / clip.name).symlink_to(clip.resolve())


def fingerprint(out: Path) -> dict[str, str]:
    files = [folder / name for folder in sorted(out.glob("round-*")) for name in COMPARED if (folder / name).exists()]
    return {str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def start(words: list[str]) -> subprocess.Popen:
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    split_examples(args.out / "data")
    began = time.monotonic()
    whole = start(command(args.out / "data", args.out / "whole"))
    _, errors = whole.communicate()
    assert whole.returncode == 0, errors
    length, expected = time.monotonic() - began, fingerprint(args.out / "whole")
    kills, series, where, wrong = 0, 0, [], 0
    while kills < args.kills:
        series += 1
        out = args.out / "killed"
        shutil.rmtree(out, ignore_errors=True)
        while True:
            run = start(command(args.out / "data", out))
            # a third of the starts are left to go on, or no series would end
            patience = rng.uniform(0.5, length) if kills < args.kills and rng.random() < 0.85 else 10 * length
            try:
                _, errors = run.communicate(timeout=patience)
            except subprocess.TimeoutExpired:
                run.kill()
                run.communicate()
                kills += 1
                last = max(out.rglob("*"), key=lambda path: path.stat().st_mtime, default=out) if out.exists() else out
                where.append(str(last.relative_to(args.out)))
                continue
            assert run.returncode == 0, errors
            break
        found = fingerprint(out)
        wrong += found != expected
        print(
            f"series {series}: {kills} kills so far, {'the same' if found == expected else 'NOT THE SAME'}", flush=True
        )
    print(f"{kills} kills, {series} series, {wrong} of them ended otherwise than the undisturbed run ({length:.0f} s)")
    print("last written before the kills: " + ", ".join(sorted({Path(path).name for path in where})))


if __name__ == "__main__":
    main()
