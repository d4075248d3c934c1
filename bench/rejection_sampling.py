"""What preferences add: fine-tuning on the best of N samples, round after round, at the cost of preference rounds.

    python bench/rejection_sampling.py --model SFT --data out/world200 --held-out out/world --out out/rejection

Each round samples as `avcap rounds tiny_rounds` does (same prompts, same seeds, same judge), but then learns the best
caption of each prompt by cross-entropy, with the same LoRA, rate, batch and number of passes. A prompt whose captions
are all alike teaches nothing new and is left out, as there.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from avcap.cli.round_data import read_one, samples_of
from avcap.data.feature_cache import FeatureCache
from avcap.data.request import Request
from avcap.evaluation.collect import ModelOpener, collect_captions, collect_verdicts
from avcap.evaluation.held_out import HeldOut, describe
from avcap.infer.find_checkpoint import find_checkpoint
from avcap.judge.oracle import OracleJudge
from avcap.model.checkpoint.load import silence_progress_bars
from avcap.recipes import tiny_rounds
from avcap.records import Caption, Decoding, PreferencePair, Sample, Verdict
from avcap.runs.dpo_from_file import DpoFromFileConfig, run_dpo_from_file


def best_of(captions: list[Caption], verdicts: list[Verdict], samples: list[Sample]) -> list[PreferencePair]:
    """Captions with their verdicts -> for each prompt its best caption, as the preference stage learns it."""
    by_sample: dict[str, list[tuple[float, Caption]]] = {}
    for caption, verdict in zip(captions, verdicts, strict=True):
        wrong = sum(event.label != "correct" for event in verdict.events) + len(verdict.invented)
        by_sample.setdefault(caption.sample_id, []).append((wrong + len(verdict.repeated), caption))
    sample_of = {sample.sample_id: sample for sample in samples}
    pairs = []
    for sample_id, found in by_sample.items():
        found.sort(key=lambda item: item[0])
        if found[0][0] < found[-1][0]:
            best, worst = found[0][1], found[-1][1]
            pairs.append(
                PreferencePair(
                    sample_id=sample_id,
                    video=sample_of[sample_id].video,
                    prompt=best.prompt,
                    chosen=best.text,
                    rejected=worst.text,
                    interval_s=best.interval_s,
                    reference_caption=best.text,
                )
            )
    return pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--data", "--held-out", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--features", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    silence_progress_bars()
    config = tiny_rounds()
    learned, measured = read_one(args.data), read_one(args.held_out)
    judge = OracleJudge([*learned.worlds.values(), *measured.worlds.values()])
    features = FeatureCache(args.features or args.out / "features", max_bytes=20 * 2**30)
    start = model = find_checkpoint(args.model)
    models = ModelOpener(features=features, batch_size=16)
    held_out = HeldOut(start=start, samples=samples_of(measured), judge=judge, models=models)
    for round_number in range(1, args.rounds + 1):
        folder = args.out / f"round-{round_number}"
        folder.mkdir(parents=True, exist_ok=True)
        captioner = models.open(model)
        prompts = config.sampling.draw_prompts(samples_of(learned), seed=config.seed, round_number=round_number)
        per_prompt = config.sampling.captions_per_prompt
        decoding = Decoding(
            max_new_tokens=captioner.settings.max_new_tokens,
            temperature=config.sampling.temperature,
            seed=(config.seed * 1000 + round_number) * per_prompt,
        )
        captions = collect_captions(
            captioner, prompts, Request(decoding=decoding), path=folder / "captions.jsonl", num_answers=per_prompt
        )
        verdicts = collect_verdicts(captions, prompts, judge=judge, path=folder / "verdicts.jsonl", max_unscored=0.0)
        pairs = best_of(captions, [v for v in verdicts if isinstance(v, Verdict)], prompts)
        dpo = replace(config.dpo, loss=replace(config.dpo.loss, loss="sft"))
        model = run_dpo_from_file(
            model, pairs, config=DpoFromFileConfig(dpo=dpo, seed=round_number), out_dir=folder, allow_others=True
        )
        round_metrics = held_out.measure(model, round_number=round_number, folder=folder)
        print(f"{len(pairs)} best captions; {describe(round_metrics)}", flush=True)


if __name__ == "__main__":
    main()
