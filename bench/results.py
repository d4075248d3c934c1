"""Models measured on held-out clips, as the tables of docs/results.md: errors by modality, questions by kind.

    avcap world make --clips 200 --seed 4 --out out/test
    python bench/results.py --world out/test --out out/results --features out/rounds0/features \\
        sft=tiny-sft round-3=out/rounds0/round-3/checkpoint reborn=out/rebirth0/checkpoint

Prints one row a model; percent, 95 % intervals over videos. The first model is the one that perplexity is taken under.
What was measured before (OUT/NAME/round_metrics.json) is not measured again. `--rounds DIR...` prints the rounds of
runs.
"""

import argparse
import json
import random
from pathlib import Path

import torch

from avcap.cli.round_data import questions_of, read_one, samples_of
from avcap.data.feature_cache import FeatureCache
from avcap.evaluation.collect import ModelOpener
from avcap.evaluation.held_out import HELD_OUT, ROUND_METRICS, HeldOut, RoundMetrics, read_round_metrics
from avcap.infer.find_checkpoint import find_checkpoint
from avcap.judge.oracle import OracleJudge
from avcap.model.checkpoint.load import silence_progress_bars
from avcap.records import from_json

MODALITIES = ("visual", "audio", "both")


def percent(rate: dict, *, with_interval: bool = False) -> str:
    value = f"{100 * rate['value']:.1f}"
    return f"{value} [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]" if with_interval else value


def row(name: str, folder: Path) -> str:
    """Folder with held-out/metrics.json and round_metrics.json -> one row of the main table."""
    metrics = json.loads((folder / HELD_OUT / "metrics.json").read_text())
    round_metrics = from_json((folder / ROUND_METRICS).read_text(), RoundMetrics)
    whole, local = metrics["global"], metrics["local"]
    missing = " / ".join(percent(metrics["by_modality"][kind]["missing_rate"]) for kind in MODALITIES)
    questions = "" if round_metrics.questions is None else f"{100 * round_metrics.questions:.1f}"
    perplexity = "" if round_metrics.perplexity is None else f"{round_metrics.perplexity:.2f}"
    cells = [
        name,
        percent(whole["missing_rate"]),
        percent(whole["hallucination_rate"]),
        percent(whole["total_error_rate"], with_interval=True),
        percent(local["total_error_rate"], with_interval=True),
        missing,
        percent(whole["repetition_rate"]),
        f"{round_metrics.words:.0f}",
        perplexity,
        questions,
    ]
    return "| " + " | ".join(cells) + " |"


COLUMNS = (
    "",
    "missing",
    "hallucination",
    "total error",
    "local: total error",
    "missing: visual / audio / both",
    "repetition",
    "words",
    "perplexity",
    "questions",
)
HEADER = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"


def kinds_row(name: str, folder: Path) -> str:
    round_metrics = from_json((folder / ROUND_METRICS).read_text(), RoundMetrics)
    return "| " + " | ".join([name, *(f"{100 * v:.1f}" for v in round_metrics.questions_by_kind.values())]) + " |"


def paired_difference(first: Path, second: Path, *, num_resamples: int = 2000) -> str:
    """Two models' answers to the same questions -> difference of accuracy in points, 95 % interval over videos."""
    answers = [answers_by_video(folder) for folder in (first, second)]
    videos = sorted(answers[0])
    rng, found = random.Random(0), []
    for drawn in [videos, *(rng.choices(videos, k=len(videos)) for _ in range(num_resamples))]:
        rights = [[hit for video in drawn for hit in each[video]] for each in answers]
        found.append(100 * (sum(rights[1]) / len(rights[1]) - sum(rights[0]) / len(rights[0])))
    rest = sorted(found[1:])
    low, high = rest[round(0.025 * len(rest))], rest[round(0.975 * len(rest))]
    return f"{found[0]:+.1f} [{low:+.1f}, {high:+.1f}]"


def answers_by_video(folder: Path) -> dict[str, list[bool]]:
    found: dict[str, list[bool]] = {}
    for line in (folder / "right.jsonl").read_text().splitlines():
        video, right = json.loads(line)
        found.setdefault(video, []).append(right)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="NAME=FOLDER")
    parser.add_argument("--world", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--features", type=Path, help="encoded videos, shared by models with the same encoders")
    parser.add_argument("--rounds", type=Path, nargs="*", default=[])
    args = parser.parse_args()
    torch.set_num_threads(1)
    silence_progress_bars()
    for folder in args.rounds:
        print(HEADER)
        for round_metrics in read_round_metrics(folder):
            print(
                row(
                    f"{folder.name}, round {round_metrics.round_number}", folder / f"round-{round_metrics.round_number}"
                )
            )
    if not args.models:
        return
    truth = read_one(args.world)
    named = {name: find_checkpoint(folder) for name, folder in (text.split("=", 1) for text in args.models)}
    held_out = HeldOut(
        start=next(iter(named.values())),
        samples=samples_of(truth),
        questions=questions_of(truth, None),
        judge=OracleJudge(truth.worlds.values()),
        models=ModelOpener(
            features=FeatureCache(args.features or args.out / "features", max_bytes=20 * 2**30), batch_size=16
        ),
    )
    for name, model in named.items():
        if not (args.out / name / ROUND_METRICS).exists():
            held_out.measure(model, round_number=0, folder=args.out / name)
            write_right(held_out, args.out / name)
    print(HEADER)
    for name in named:
        print(row(name, args.out / name))
    first = from_json((args.out / next(iter(named)) / ROUND_METRICS).read_text(), RoundMetrics)
    kinds = list(first.questions_by_kind)
    print("\n| questions | " + " | ".join(kinds) + " |\n|" + "---|" * (len(kinds) + 1))
    for name in named:
        print(kinds_row(name, args.out / name))
    print()
    for name in [*named][1:]:
        difference = paired_difference(args.out / next(iter(named)), args.out / name)
        print(f"questions, {name} against {next(iter(named))}: {difference} points")


def write_right(held_out: HeldOut, folder: Path) -> None:
    """Which answers are right, by video, for paired comparison."""
    from avcap.judge.metrics.answers import is_right

    texts = {}
    for line in (folder / HELD_OUT / "answers.jsonl").read_text().splitlines():
        answer = json.loads(line)
        texts[answer["sample_id"]] = answer["text"]
    lines = [json.dumps([q.video, is_right(texts[q.question_id], q)]) for q in held_out.questions]
    (folder / "right.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
