"""A judge whose noise is known, to see whether calibration finds it: true verdicts with labels flipped by chance."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from avcap.judge.agreement import LABELS
from avcap.judge.base import Case
from avcap.records import EventLabel, EventVerdict, InventedClaim, Unscored, Verdict


@dataclass(frozen=True, kw_only=True)
class JudgeNoise:
    """`labels[i][j]`: the chance that an event whose label is LABELS[i] is given LABELS[j]."""

    labels: tuple[tuple[float, float, float], ...]
    invented_recall: float = 1.0
    false_invented_per_event: float = 0.0
    """The chance that, for an event of the video, a claim is called invented that is not."""
    unscored: float = 0.0


def even_noise(share: float) -> JudgeNoise:
    """Share of wrong answers -> noise that gives every label and every claim the same chance of being wrong."""
    rows = tuple(tuple(1 - share if i == j else share / 2 for j in range(len(LABELS))) for i in range(len(LABELS)))
    return JudgeNoise(labels=rows, invented_recall=1 - share, false_invented_per_event=share / 2)  # type: ignore[arg-type]


class NoisyOracle:
    """Gives the true verdicts, with noise that depends on the seed and the caption alone."""

    name = "noisy-oracle"
    prompt_version = ""

    def __init__(self, truths: Mapping[str, Verdict], *, noise: JudgeNoise, seed: int):
        """`truths`: the true verdict of every caption id that will be asked for."""
        self.truths = truths
        self.noise = noise
        self.seed = seed

    def judge(self, cases: Sequence[Case]) -> Iterator[Verdict | Unscored]:
        for case in cases:
            yield self._noisy(self.truths[case.caption_id], rng=random.Random(f"{self.seed}/{case.caption_id}"))

    def _noisy(self, truth: Verdict, *, rng: random.Random) -> Verdict | Unscored:
        if rng.random() < self.noise.unscored:
            return Unscored(caption_id=truth.caption_id, reason="simulated failure")
        events = tuple(
            EventVerdict(event_id=event.event_id, label=self._flipped(event.label, rng=rng)) for event in truth.events
        )
        found = tuple(claim for claim in truth.invented if rng.random() < self.noise.invented_recall)
        false = tuple(
            InventedClaim(text="a claim that is true")
            for _ in truth.events
            if rng.random() < self.noise.false_invented_per_event
        )
        return Verdict(
            caption_id=truth.caption_id,
            events=events,
            invented=found + false,
            repeated=truth.repeated,
            judge=self.name,
            prompt_version=self.prompt_version,
        )

    def _flipped(self, label: EventLabel, *, rng: random.Random) -> EventLabel:
        return rng.choices(LABELS, weights=self.noise.labels[LABELS.index(label)])[0]
