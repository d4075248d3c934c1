"""The exact judge of rendered clips: labels from the world's own truth, without a model."""

from collections.abc import Iterable, Iterator, Sequence

from avcap.judge.types import Case
from avcap.records import Unscored, Verdict, WorldTruth
from avcap.world.oracle import JUDGE_NAME, judge_caption


class OracleJudge:
    """An EventJudge that reads the grammar of the world and knows what was rendered."""

    name = JUDGE_NAME
    prompt_version = ""

    def __init__(self, truths: Iterable[WorldTruth]):
        """`truths`: the lines of a world's truth.jsonl; a case is found in them by its sample's id, or by its video."""
        self._truths: dict[str, WorldTruth] = {}
        for truth in truths:
            self._truths |= dict.fromkeys([truth.video, truth.clip_id, *(s.sample_id for s in truth.intervals)], truth)

    def judge(self, cases: Sequence[Case]) -> Iterator[Verdict | Unscored]:
        """One verdict for each case, in order."""
        return map(self._judge, cases)

    def _judge(self, case: Case) -> Verdict | Unscored:
        truth = self._truths.get(case.sample.sample_id) or self._truths.get(case.sample.video)
        if truth is None:
            return _unscored(case, f"{case.sample.video} is no clip of the world whose truth was given")
        verdict = judge_caption(case.text, truth=truth, interval_s=case.sample.interval_s, caption_id=case.caption_id)
        known = {event.event_id for event in case.sample.events}
        if known != {event.event_id for event in verdict.events}:
            return _unscored(case, f"the events given for {case.sample.sample_id} are not those of its scene")
        return verdict


def _unscored(case: Case, reason: str) -> Unscored:
    return Unscored(caption_id=case.caption_id, reason=reason)
