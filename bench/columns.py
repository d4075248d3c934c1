"""How well columns without ground truth rank captions by their true error: Spearman's rank correlation, with intervals.

    OMP_NUM_THREADS=1 python bench/columns.py --clips 100 --seed 11 --out out/columns

Makes a world that no training clip comes from, captions each clip greedily and 8 times at a temperature with two of the
shipped models, judges all of it by the exact oracle, and prints for each column the correlation with the true total
error, the interval of 2,000 resamples of clips, and the true error of the half of the captions that it likes better
against that of all. +1 would be a column that grows just as the error does, -1 one that falls as it grows.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from avcap.bulk.agreement import runs_of, shared
from avcap.bulk.quality import quality_of
from avcap.data.request import Request
from avcap.infer.captioner import Captioner
from avcap.judge.metrics.error_counts import count_errors
from avcap.records import Caption, Decoding, ErrorCounts, WorldTruth, read_jsonl
from avcap.world.make import make_world
from avcap.world.oracle import judge_caption

NUM_SAMPLES, TEMPERATURE, NUM_RESAMPLES = 8, 0.7, 2000


def ranks(values: Sequence[float]) -> np.ndarray:
    """Values -> their ranks; equal ones share the mean of theirs."""
    values_N = np.asarray(values, float)
    _, inverse, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts + ends - 1) / 2)[inverse]


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Two rows of values -> their rank correlation; nan if one of them never changes."""
    a, b = ranks(one), ranks(other)
    if a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def interval(one: Sequence[float], other: Sequence[float], *, seed: int) -> tuple[float, float]:
    """The 95 % interval of `spearman` over resampled clips."""
    rng = np.random.default_rng(seed)
    a, b = np.asarray(one, float), np.asarray(other, float)
    drawn = (rng.integers(0, len(a), len(a)) for _ in range(NUM_RESAMPLES))
    found = [value for index in drawn if not np.isnan(value := spearman(a[index], b[index]))]
    return tuple(np.quantile(found, [0.025, 0.975])) if found else (float("nan"),) * 2


def total_error(counts: ErrorCounts) -> float:
    return (counts.missing + counts.incorrect + counts.invented) / counts.num_events


def wrong_share(counts: ErrorCounts) -> float:
    return (counts.incorrect + counts.invented) / counts.num_events


def agreement(length: int, num: int) -> Callable[[Caption, Sequence[Caption]], float]:
    """Words of a run, and number of samples -> the mean share of runs with them."""

    def column(caption: Caption, samples: Sequence[Caption]) -> float:
        own = runs_of(caption.text, length=length)
        return float(np.mean([shared(own, runs_of(one.text, length=length)) for one in samples[:num]]))

    return column


def of_record(name: str) -> Callable[[Caption, Sequence[Caption]], float]:
    """A column of the record alone."""

    def column(caption: Caption, _: Sequence[Caption]) -> float:
        value = getattr(quality_of(caption), name)
        return float("nan") if value is None else float(value)

    return column


COLUMNS = {
    **{name: of_record(name) for name in ("repetition", "words", "truncated", "world_score", "audio_confirmed")},
    **{f"agreement, runs of {n}, 8 samples": agreement(n, 8) for n in (1, 2, 3, 5)},
    **{f"agreement, runs of 3, {k} samples": agreement(3, k) for k in (2, 4)},
}


def measure(name: str, truths: Sequence[WorldTruth], world: Path, *, seed: int, greedy: bool) -> dict[str, dict]:
    """A model and a world -> column -> its figures. `greedy` False: the captions judged are sampled ones, too."""
    captioner = Captioner(name)
    paths = [str(world / truth.video) for truth in truths]
    limit = captioner.settings.max_new_tokens
    one = Request(decoding=Decoding(max_new_tokens=limit, temperature=0.0 if greedy else 1.0, seed=seed + 1000))
    several = Request(decoding=Decoding(max_new_tokens=limit, temperature=TEMPERATURE, seed=seed))
    captions = list(captioner.stream(paths, one))
    drawn = list(captioner.sample(paths, several, num_answers=NUM_SAMPLES))
    counts = [count_errors(judge_caption(row.text, truth=t)) for row, t in zip(captions, truths, strict=True)]
    error, wrong = [total_error(c) for c in counts], [wrong_share(c) for c in counts]
    result = {"all": {"error": float(np.mean(error)), "wrong": float(np.mean(wrong))}}
    for column, value_of in COLUMNS.items():
        values = [value_of(row, drawn[NUM_SAMPLES * i : NUM_SAMPLES * (i + 1)]) for i, row in enumerate(captions)]
        rho = spearman(values, error)
        better = np.argsort(ranks(values) * (1 if rho > 0 else -1), kind="stable")[: len(values) // 2]
        result[column] = {
            "spearman": rho,
            "interval": interval(values, error, seed=seed),
            "spearman, incorrect and invented": spearman(values, wrong),
            "interval, incorrect and invented": interval(values, wrong, seed=seed),
            "error of the better half": float(np.mean(np.asarray(error)[better])),
            "median": float(np.median(values)),
            "distinct": len(set(values)),
        }
    return result


def show(title: str, figures: dict[str, dict]) -> None:
    every = figures["all"]
    print(f"\n{title}: mean total error {every['error']:.3f}, of it incorrect and invented {every['wrong']:.3f}")
    for name, row in figures.items():
        if name == "all":
            continue
        if np.isnan(row["spearman"]):
            print(f"  {name:34} never changes here: it ranks nothing")
            continue
        (low, high), (wrong_low, wrong_high) = row["interval"], row["interval, incorrect and invented"]
        print(
            f"  {name:34}{row['spearman']:+.2f} [{low:+.2f}, {high:+.2f}]   wrong alone "
            f"{row['spearman, incorrect and invented']:+.2f} [{wrong_low:+.2f}, {wrong_high:+.2f}]   better half "
            f"{row['error of the better half']:.3f}   median {row['median']:.3f}, {row['distinct']} values"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--models", nargs="+", default=["tiny", "tiny-sft"])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    world = args.out / f"world-{args.clips}-{args.seed}"
    if not (world / "truth.jsonl").exists():
        make_world(world, num_clips=args.clips, seed=args.seed, num_workers=1, progress=False)
    truths = list(read_jsonl(world / "truth.jsonl", WorldTruth))
    found = {}
    for name in args.models:
        for greedy in (True, False):
            title = f"{name}, {'greedy' if greedy else 'temperature 1'}"
            found[title] = measure(name, truths, world, seed=args.seed, greedy=greedy)
            show(title, found[title])
    (args.out / "columns.json").write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
