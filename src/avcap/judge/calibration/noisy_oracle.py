"""A judge whose noise is known, to see whether calibration finds it: true verdicts with labels flipped by chance."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from avcap.errors import UserError
from avcap.judge.calibration.agreement import LABELS
from avcap.judge.types import Case, EventJudge
from avcap.records import EventLabel, InventedClaim, Unscored, Verdict


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


class NoisyJudge:
    """Another judge's verdicts with even noise that depends on the seed and the caption alone."""

    name = "noisy-oracle"
    prompt_version = ""

    def __init__(self, judge: EventJudge, *, share: float, seed: int = 0):
        """`share` of wrong answers, 0 to 1."""
        if not 0 <= share <= 1:
            raise UserError(f"got a share of {share:g} wrong answers, expected 0 to 1")
        self._judge, self._noise, self._seed = judge, even_noise(share), seed

    def judge(self, cases: Sequence[Case]) -> Iterator[Verdict | Unscored]:
        for verdict in self._judge.judge(cases):
            if isinstance(verdict, Verdict):
                rng = random.Random(f"{self._seed}/{verdict.caption_id}")
                yield add_noise(replace(verdict, judge=self.name), noise=self._noise, rng=rng)
            else:
                yield verdict


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
            truth = replace(self.truths[case.caption_id], judge=self.name, prompt_version=self.prompt_version)
            yield add_noise(truth, noise=self.noise, rng=random.Random(f"{self.seed}/{case.caption_id}"))


def add_noise(verdict: Verdict, *, noise: JudgeNoise, rng: random.Random) -> Verdict | Unscored:
    """A verdict -> the same with labels and claims changed by chance, or none at all."""
    if rng.random() < noise.unscored:
        return Unscored(caption_id=verdict.caption_id, reason="simulated failure")
    events = tuple(replace(event, label=_flipped(event.label, noise=noise, rng=rng)) for event in verdict.events)
    found = tuple(claim for claim in verdict.invented if rng.random() < noise.invented_recall)
    false = tuple(
        InventedClaim(text="a claim that is true")
        for _ in verdict.events
        if rng.random() < noise.false_invented_per_event
    )
    return replace(verdict, events=events, invented=found + false)


def _flipped(label: EventLabel, *, noise: JudgeNoise, rng: random.Random) -> EventLabel:
    return rng.choices(LABELS, weights=noise.labels[LABELS.index(label)])[0]
