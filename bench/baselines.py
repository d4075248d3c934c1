"""What an error rate means: captions that cost no model, to be evaluated beside those of one.

    avcap world make --clips 200 --seed 3 --out out/world
    python bench/baselines.py out/world --out out/baselines
    avcap evaluate out/baselines/label.jsonl --truth out/world --out out/label
    avcap evaluate out/baselines/same.jsonl --truth out/world --out out/same
    avcap evaluate --model tiny --truth out/world --out out/tiny
    avcap compare out/tiny out/label out/same

label: the imperfect annotator's own captions, which supervised fine-tuning imitates. same: one clean caption of a clip
that is not in the world, for every video and every interval.
"""

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

from avcap.records import Sample, WorldTruth, read_jsonl
from avcap.world.describe import Annotator, imperfect_caption, reference_caption
from avcap.world.make import scene_from_dict
from avcap.world.scene import make_scene


def main() -> None:
    parser = argparse.ArgumentParser(description="Baseline captions of a world.")
    parser.add_argument("world", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    truths = list(read_jsonl(arguments.world / "truth.jsonl", WorldTruth))
    same = reference_caption(make_scene(0, difficulty="standard"))
    write(arguments.out / "label.jsonl", ((sample, label_of(truth, sample)) for truth, sample in samples_of(truths)))
    write(arguments.out / "same.jsonl", ((sample, same) for _, sample in samples_of(truths)))


def samples_of(truths: list[WorldTruth]) -> Iterator[tuple[WorldTruth, Sample]]:
    for truth in truths:
        yield truth, Sample(sample_id=truth.clip_id, video=truth.video, prompt="")
        yield from ((truth, sample) for sample in truth.intervals)


def label_of(truth: WorldTruth, sample: Sample) -> str:
    scene = scene_from_dict(truth.scene)
    rng = random.Random(sample.sample_id)
    return imperfect_caption(scene, annotator=Annotator(), rng=rng, interval_s=sample.interval_s)


def write(path: Path, captions: Iterator[tuple[Sample, str]]) -> None:
    rows = [json.dumps({"sample_id": sample.sample_id, "caption": text}) + "\n" for sample, text in captions]
    path.write_text("".join(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
