"""Captioning of a folder killed (SIGKILL) at random moments: the same rows in the end, and how many requests twice?

    OMP_NUM_THREADS=1 python bench/kill_captions.py --kills 40 --seed 0 --out /tmp/kills

The model is a scripted engine of this process, reached by HTTP, so what is paid for is counted where it is answered.
Three ways of running: one process, two shards of which one is killed, and `--ray local` (where Ray is installed) with
either the command itself or one of its two actors killed after its first caption. A series begins in an empty folder
and starts the command until it ends by itself; its record, merged, has to equal that of one undisturbed process byte
for byte (records hold no times and no hosts). kills.jsonl says of each series what happened; the same command goes on
after those in it, and a series depends on nothing but the seed, its number, and how fast the machine is.
"""

import argparse
import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.scripted_engine import VLLM, ScriptedEngine  # noqa: E402

from avcap.bulk.merge import merge_captions  # noqa: E402

CLIPS, DELAY_S = 24, 0.2
KILL_CHANCE = 0.75
"""Of a start; the others are left alone, or no series would end."""


@dataclass(kw_only=True)
class Series:
    """What became of one folder."""

    way: str
    number: int
    kills: int = 0
    starts: int = 0
    same: bool = False
    paid: int = 0
    """Captions that the engine answered."""
    needed: int = CLIPS - 1


def make_clips(folder: Path) -> None:
    """Copies of the example videos, in two folders, and one file that is none."""
    videos = sorted((ROOT / "examples").glob("*.mp4"))
    for index in range(CLIPS - 1):
        path = folder / "ab"[index % 2] / f"{index:03}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            shutil.copy(videos[index % len(videos)], path)
    (folder / "broken.mp4").write_text("no video")


def command(engine: ScriptedEngine, clips: Path, out: Path, *more: str) -> list[str]:
    words = [sys.executable, "-m", "avcap", "caption", str(clips), "--model", engine.model, "--out", f"{out}/"]
    return [*words, "--concurrency", "2", *more]


def start(words: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, start_new_session=True
    )


def commands_of(way: str, engine: ScriptedEngine, clips: Path, out: Path) -> list[list[str]]:
    if way == "shards":
        return [command(engine, clips, out, "--shard", f"{index}/2") for index in (1, 2)]
    return [command(engine, clips, out, *(("--ray", "local", "--workers", "2") if way == "ray" else ()))]


def actors_of(pid: int) -> list[int]:
    """A process -> those of its descendants that are actors of Ray Data."""
    parents, found = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if b"MapWorker" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue

    def is_below(child: int) -> bool:
        while child > 1 and child != pid:
            child = parents.get(child, 0)
        return child == pid

    return sorted(child for child in found if is_below(child))


def kill_one(way: str, runs: list[subprocess.Popen], rng: random.Random) -> int:
    """Kills one process of the run, if it still lives -> how many were killed. An actor leaves the command alive."""
    run = rng.choice(runs)
    wants_actor = way == "ray" and rng.random() < 0.5
    if run.poll() is not None:
        return 0
    if wants_actor and (actors := actors_of(run.pid)):
        os.kill(rng.choice(actors), signal.SIGKILL)
        return 1
    os.kill(run.pid, signal.SIGKILL)
    return 1


def wait_for_a_caption(engine: ScriptedEngine, runs: list[subprocess.Popen]) -> None:
    """Until the engine has answered one more, or all have ended: most of a run of Ray is its start."""
    before = len(engine.captions)
    while len(engine.captions) == before and any(run.poll() is None for run in runs):
        time.sleep(0.01)


def merged(out: Path) -> bytes:
    """The record of a folder, or of its shards, merged."""
    files = sorted(out.glob("captions*.jsonl"))
    target = out / "merged.jsonl"
    merge_captions(target, files)
    return target.read_bytes()


def one_series(
    way: str, number: int, *, engine: ScriptedEngine, clips: Path, out: Path, length: float, expected: bytes, seed: int
) -> Series:
    """Starts and kills until a start ends by itself -> what happened."""
    rng = random.Random(f"{seed}/{way}/{number}")
    series = Series(way=way, number=number)
    shutil.rmtree(out, ignore_errors=True)
    before = len(engine.captions)
    while True:
        runs = [start(words) for words in commands_of(way, engine, clips, out)]
        series.starts += 1
        is_hit = False
        if rng.random() < KILL_CHANCE:
            if way == "ray":
                wait_for_a_caption(engine, runs)
                length = CLIPS * DELAY_S / 2
            time.sleep(rng.uniform(0.0 if way == "ray" else 0.3, length))
            killed = kill_one(way, runs, rng)
            series.kills += killed
            is_hit = killed > 0
        codes = [run.wait(timeout=600) for run in runs]
        if not is_hit or all(code in (0, 1) for code in codes):  # 1: the file that is no video
            assert all(code in (0, 1) for code in codes), codes
            break
    series.same = merged(out) == expected
    series.paid = len(engine.captions) - before
    return series


def undisturbed(way: str, engine: ScriptedEngine, clips: Path, out: Path) -> tuple[float, bytes]:
    """-> seconds of a run that nobody kills, and its merged record."""
    shutil.rmtree(out, ignore_errors=True)
    began = time.monotonic()
    runs = [start(words) for words in commands_of(way, engine, clips, out)]
    assert all(run.wait(timeout=600) in (0, 1) for run in runs)
    return time.monotonic() - began, merged(out)


def report(found: list[Series]) -> None:
    for way in dict.fromkeys(one.way for one in found):
        some = [one for one in found if one.way == way]
        kills = sum(one.kills for one in some)
        again = sum(one.paid - one.needed for one in some)
        wrong = sum(not one.same for one in some)
        print(
            f"{way:8} {kills} kills in {len(some)} series, {wrong} ended otherwise than one undisturbed process; "
            f"{again} requests paid again, {again / max(1, kills):.1f} a kill"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ways", nargs="+", default=["single", "shards", "ray"])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(args.out / "cache")  # what is found out about the engine, not the user's
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    log = args.out / "kills.jsonl"
    found = [Series(**json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []
    ways = [way for way in args.ways if way != "ray" or importlib.util.find_spec("ray")]
    clips = args.out / "clips"
    make_clips(clips)
    with ScriptedEngine(VLLM, delay_s=DELAY_S) as engine:
        _, expected = undisturbed("single", engine, clips, args.out / "whole")
        for way in ways:
            length, record = undisturbed(way, engine, clips, args.out / "run")
            assert record == expected, f"{way} differs without any kill"
            quota = args.kills // len(ways) + (way == ways[0]) * (args.kills % len(ways))
            while sum(one.kills for one in found if one.way == way) < quota:
                number = sum(one.way == way for one in found)
                fields = {"engine": engine, "clips": clips, "out": args.out / "run", "length": length}
                series = one_series(way, number, **fields, expected=expected, seed=args.seed)
                found.append(series)
                with open(log, "a", encoding="utf-8") as handle:
                    handle.write(json.dumps(asdict(series)) + "\n")
                print(json.dumps(asdict(series)), flush=True)
    report(found)


if __name__ == "__main__":
    main()
