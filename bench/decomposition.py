"""What wrong events do to error rates and to the order of models: events read from paraphrased references, then spoilt.

    python bench/decomposition.py [VIDEOS]

Six captioners of known quality caption the same scenes. The true events are first read from a paraphrase of the
reference by the world's reader (an extractor that makes no mistake: its events are counted against the true ones).
Then, as real extractors do, a share of them is merged with a neighbour, lost, split in two, or joined by an invented
one. Rates and order are those of a judge without errors: a merged event is correct if both parts are, missing if both
are, else incorrect; a split one counts twice; an invented one is missed by everybody.
"""

import random
import sys

from avcap.world import describe, grammar
from avcap.world.describe import Annotator, imperfect_caption
from avcap.world.oracle import judge_caption
from avcap.world.paraphrase import paraphrase
from avcap.world.scene import DIFFICULTIES, Scene, make_scene

QUALITY = (0.05, 0.1, 0.15, 0.2, 0.3, 0.45)
"""Chance that a captioner leaves out a clause; it slips at a third and invents at a fifth of it."""
SHARES = (0.1, 0.3)
KINDS = ("merge", "lose", "split", "invent")


def captioner(omit: float) -> Annotator:
    kinds = ("appear", "move", "recolour", "grow", "shrink", "vanish", "plain", "counted", "say")
    left_out = {f"omit_{kind}": omit for kind in kinds}
    return Annotator(**left_out, slip=omit / 3, invention=omit / 5, split=0.0, early_stop=0.0, recap=0.0)


def spoilt(labels: list[str], *, kind: str, share: float, rng: random.Random) -> list[str]:
    """Labels of the true events -> those of the spoilt ones; the draws are the same for every captioner."""
    out: list[str] = []
    for label in labels:
        hit = rng.random() < share
        if hit and kind == "lose":
            continue
        if hit and kind == "merge" and out:
            pair = {out.pop(), label}
            out.append(pair.pop() if len(pair) == 1 else "incorrect")
        else:
            out += [label, label] if hit and kind == "split" else [label]
        if hit and kind == "invent":
            out.append("missing")
    return out


def read_back(scene: Scene, *, seed: int) -> tuple[int, int]:
    """Scene -> (true events that its paraphrased reference still tells by the reader, all of them)."""
    text = paraphrase(describe.reference_caption(scene), style="mixed", rng=random.Random(seed))
    told = {statement.claim for statement in grammar.read_caption(text).statements}
    true = [claim for sentence in describe.sentences_of(scene) for claim in sentence.claims]
    return sum(claim in told for claim in true), len(true)


def main() -> None:
    num_videos = int(sys.argv[1]) if len(sys.argv) > 1 else 150
    difficulties = sorted(DIFFICULTIES)
    scenes = [make_scene(5_000_000 + n, difficulty=difficulties[n % len(difficulties)]) for n in range(num_videos)]
    counts = [read_back(scene, seed=n) for n, scene in enumerate(scenes)]
    print(f"read from paraphrased references: {sum(c[0] for c in counts)} of {sum(c[1] for c in counts)} facts")
    verdicts = {
        omit: [
            judge_caption(
                imperfect_caption(scene, annotator=captioner(omit), rng=random.Random(f"{omit}/{n}")), truth=scene
            )
            for n, scene in enumerate(scenes)
        ]
        for omit in QUALITY
    }
    true = totals(verdicts, kind="", share=0.0)
    print("events as they are      " + "  ".join(f"{rate:.3f}" for rate in true.values()))
    for kind in KINDS:
        for share in SHARES:
            found = totals(verdicts, kind=kind, share=share)
            told = "  ".join(f"{rate:.3f}" for rate in found.values())
            print(f"{kind:7} {share:.0%} of events  {told}  pairs in the other order: {swapped(true, found)} of 15")


def totals(verdicts: dict, *, kind: str, share: float) -> dict[float, float]:
    """Verdicts by captioner -> total error of each, with spoilt events."""
    rates = {}
    for omit, judged in verdicts.items():
        errors = events = 0
        for n, verdict in enumerate(judged):
            labels = [event.label for event in verdict.events]
            labels = (
                spoilt(labels, kind=kind, share=share, rng=random.Random(f"{kind}/{share}/{n}")) if kind else labels
            )
            errors += sum(label != "correct" for label in labels) + len(verdict.invented)
            events += len(labels)
        rates[omit] = errors / events
    return rates


def swapped(true: dict[float, float], found: dict[float, float]) -> int:
    names = list(true)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    return sum((true[a] - true[b]) * (found[a] - found[b]) < 0 for a, b in pairs)


if __name__ == "__main__":
    main()
