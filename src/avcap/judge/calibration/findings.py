"""What a judge makes of each kind of planted error: the share that it finds, with intervals over videos. No torch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from avcap.judge.calibration.cases import Labelled
from avcap.judge.metrics.bootstrap import Rate, ratio_rates
from avcap.records import Unscored, Verdict
from avcap.world.oracle import PlantedError


@dataclass(frozen=True, kw_only=True)
class KindFinding:
    """What a judge makes of one kind of planted error ("drop", "change", "shift", "invent", "repeat", "split").

    An effect is one event that became missing or incorrect, one claim invented or one repeated. `found`: share judged
    to be just that. `noticed`: share judged to be any error. Claims are matched by their number.
    """

    kind: str
    num_planted: int
    num_effects: int
    found: Rate
    noticed: Rate


def kind_findings(
    cases: Iterable[Labelled], verdicts: Mapping[str, Verdict | Unscored], *, num_resamples: int, seed: int
) -> tuple[KindFinding, ...]:
    """Captions with planted errors and their verdicts -> findings by kind, with intervals over videos."""
    planted = [
        (error, one, verdict)
        for one in cases
        if isinstance(verdict := verdicts[one.case.caption_id], Verdict)
        for error in one.planted
    ]
    kinds = sorted({error.kind for error, _, _ in planted})
    videos = {video: i for i, video in enumerate(sorted({one.case.sample.video for _, one, _ in planted}))}
    above_V2K, below_VK = np.zeros((len(videos), 2, len(kinds))), np.zeros((len(videos), len(kinds)))
    for error, one, verdict in planted:
        video, kind = videos[one.case.sample.video], kinds.index(error.kind)
        num_effects, found, noticed = _effects(error, truth=one.truth, judged=verdict)
        above_V2K[video, :, kind] += found, noticed
        below_VK[video, kind] += num_effects
    rates = ratio_rates(
        above_V2K.reshape(len(videos), 2 * len(kinds)),
        np.concatenate([below_VK, below_VK], axis=1),
        num_resamples=num_resamples,
        seed=seed,
    )
    return tuple(
        KindFinding(
            kind=kind,
            num_planted=sum(error.kind == kind for error, _, _ in planted),
            num_effects=int(below_VK[:, i].sum()),
            found=rates[i],
            noticed=rates[len(kinds) + i],
        )
        for i, kind in enumerate(kinds)
    )


def _effects(error: PlantedError, *, truth: Verdict, judged: Verdict) -> tuple[int, float, float]:
    """A planted error -> (its effects, how many are judged to be just that, how many to be any error)."""
    label_of = {event.event_id: event.label for event in judged.events}
    expected = {**dict.fromkeys(error.missing, "missing"), **dict.fromkeys(error.incorrect, "incorrect")}
    found = float(sum(label_of[event_id] == label for event_id, label in expected.items()))
    noticed = float(sum(label_of[event_id] != "correct" for event_id in expected))
    # Which of a caption's claims is this one cannot be told: each gets its share of those that were found.
    claims = 0.0
    if error.num_invented:
        claims += error.num_invented * min(1, len(judged.invented) / len(truth.invented))
    if error.num_repeated:
        claims += error.num_repeated * min(1, len(judged.repeated) / len(truth.repeated))
    num_effects = len(expected) + error.num_invented + error.num_repeated
    return num_effects, found + claims, noticed + claims
