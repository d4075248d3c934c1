"""The thresholds of avcap-yesno-1 for one model, from captions whose truth is known. No torch.

    told_right   where (share of wrong events found) + (share of right ones spared) is largest
    told_at_all  the same for missing against incorrect, among the events that are wrong
    supported    where the number of invented statements of each caption comes nearest to the true number

So found, they do not depend on how many errors the captions have. Labels that a calibration counts are by thresholds
from the other half of the videos: what was fitted to a caption says nothing about it.

    N events or statements  C captions  T candidates
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from avcap.judge.calibration.cases import Labelled
from avcap.judge.metrics.bootstrap import Floats
from avcap.judge.protocols.avcap_yesno1 import AvcapYesNo1, Thresholds, YesNoDoubts, verdict_of
from avcap.judge.types import Case, EventJudge
from avcap.llm.dialogue import Dialogue, converse
from avcap.llm.types import Chat
from avcap.records import Unscored, Verdict

Doubts = Mapping[str, YesNoDoubts | Unscored]


def ask_doubts(chat: Chat, cases: Sequence[Case]) -> dict[str, YesNoDoubts | Unscored]:
    """A model and captions -> caption id -> its answers to all questions."""
    protocol = AvcapYesNo1()
    found = converse((protocol.doubts(case, ask_all=True) for case in cases), chat=chat)
    return {case.caption_id: one for case, one in zip(cases, found, strict=True)}


def fit_thresholds(labelled: Iterable[Labelled], doubts: Doubts) -> Thresholds:
    """Captions with their truth and what the model said of them -> thresholds; 0 where nothing tells one."""
    right: list[tuple[float, bool]] = []
    at_all: list[tuple[float, bool]] = []
    statements: list[Sequence[float]] = []
    num_invented: list[int] = []
    for one in labelled:
        said = doubts[one.case.caption_id]
        if isinstance(said, Unscored):
            continue
        told = {event.event_id: event for event in said.events}
        for event in one.truth.events:
            right.append((told[event.event_id].told_right, event.label != "correct"))
            doubt = told[event.event_id].told_at_all
            if event.label != "correct" and doubt is not None:
                at_all.append((doubt, event.label == "missing"))
        statements.append([claim.supported for claim in said.claims])
        num_invented.append(len(one.truth.invented))
    return Thresholds(
        told_right=_best_split(right),
        told_at_all=_best_split(at_all),
        supported=_nearest_counts(statements, num_invented),
    )


def auc(labelled: Iterable[Labelled], doubts: Doubts) -> float | None:
    """Captions and answers -> how often a wrong event is doubted more than a right one; 0.5 is chance."""
    wrong: list[float] = []
    right: list[float] = []
    for one in labelled:
        said = doubts[one.case.caption_id]
        if not isinstance(said, Unscored):
            told = {event.event_id: event.told_right for event in said.events}
            for event in one.truth.events:
                (right if event.label == "correct" else wrong).append(told[event.event_id])
    if not wrong or not right:
        return None
    sorted_N = np.sort(right)
    below_N, at_most_N = (np.searchsorted(sorted_N, wrong, side=side) for side in ("left", "right"))  # type: ignore[call-overload]
    return float((below_N + at_most_N).mean() / 2 / len(right))


def _best_split(scored: Sequence[tuple[float, bool]]) -> float:
    """(doubt, is it wrong) -> the threshold with the largest sum of both shares; 0 where none tells the two apart."""
    doubts_N = np.array([doubt for doubt, _ in scored], dtype=float)
    wrong_N = np.array([is_wrong for _, is_wrong in scored], dtype=bool)
    if not wrong_N.any() or wrong_N.all():
        return 0.0
    candidates_T = _between(doubts_N)
    wrong, right = np.sort(doubts_N[wrong_N]), np.sort(doubts_N[~wrong_N])
    found_T = 1 - np.searchsorted(wrong, candidates_T, side="right") / len(wrong)
    spared_T = np.searchsorted(right, candidates_T, side="right") / len(right)
    both_T = found_T + spared_T
    if both_T.max() <= 1 + 1e-9:  # no better than chance: then the model's own word is as good as any
        return 0.0
    return _middle_of_best(both_T, candidates_T)


def _nearest_counts(statements: Sequence[Sequence[float]], num_invented: Sequence[int]) -> float:
    """Doubts of the statements of each caption, and how many it truly invents -> the threshold nearest to that."""
    every_N = np.array([doubt for some in statements for doubt in some], dtype=float)
    if not len(every_N):
        return 0.0
    candidates_T = _between(every_N)
    off_T = np.zeros(len(candidates_T))
    for some, expected in zip(statements, num_invented, strict=True):
        judged_T = len(some) - np.searchsorted(np.sort(some), candidates_T, side="right")
        off_T -= np.abs(judged_T - expected)
    return _middle_of_best(off_T, candidates_T)


def _between(doubts_N: Floats) -> Floats:
    """Doubts -> the middles between neighbours, and a point beyond each end."""
    values = np.unique(doubts_N)
    return np.concatenate([[values[0] - 1], (values[:-1] + values[1:]) / 2, [values[-1] + 1]])


def _middle_of_best(score_T: Floats, candidates_T: Floats) -> float:
    """Scores of candidates -> the one in the middle of the best, so that new captions may vary a little."""
    best = np.flatnonzero(score_T >= score_T.max() - 1e-12)
    return float(round(candidates_T[best[len(best) // 2]], 6))


# --- a judge that is fitted -------------------------------------------------------------------------------------------


class FittedJudge:
    """avcap-yesno-1 with thresholds from captions whose truth is known (types.EventJudge).

    A caption that it was fitted on is judged by thresholds from the other half of the videos, all else by those of all.
    """

    def __init__(self, chat: Chat, *, labelled: Sequence[Labelled], seed: int = 0):
        self._chat = chat
        self.doubts = ask_doubts(chat, [one.case for one in labelled])
        self.thresholds = fit_thresholds(labelled, self.doubts)
        self.auc = auc(labelled, self.doubts)
        videos = sorted({one.case.sample.video for one in labelled})
        random.Random(f"thresholds/{seed}").shuffle(videos)
        first = set(videos[: len(videos) // 2])
        ones = [one for one in labelled if one.case.sample.video in first]
        others = [one for one in labelled if one.case.sample.video not in first]
        self._thresholds_of: dict[str, Thresholds] = {}
        for half, other in ((ones, others), (others, ones)):
            found = fit_thresholds(other, self.doubts) if other else self.thresholds
            self._thresholds_of |= {one.case.caption_id: found for one in half}
        card = AvcapYesNo1(thresholds=self.thresholds).card
        self.name, self.prompt_version, self.judge_protocol = chat.name, card.prompt_version, card.name

    def again(self, chat: Chat) -> EventJudge:
        """The same thresholds, with a chat that is asked anew: for a second attempt."""
        return _Asking(chat, thresholds_of=self._thresholds_of, fitted=self)

    def judge(self, cases: Sequence[Case]) -> Iterator[Verdict | Unscored]:
        """One answer for each case, in order; what was asked to fit is not asked again."""
        new = iter(_Asking(self._chat, thresholds_of={}, fitted=self).judge([c for c in cases if not self._knows(c)]))
        for case in cases:
            yield self._kept(case) if self._knows(case) else next(new)

    def _knows(self, case: Case) -> bool:
        return case.caption_id in self._thresholds_of

    def _kept(self, case: Case) -> Verdict | Unscored:
        said = self.doubts[case.caption_id]
        if isinstance(said, Unscored):
            return said
        return verdict_of(said, thresholds=self._thresholds_of[case.caption_id])


class _Asking:
    """Asks about every case, and judges it by its own thresholds."""

    def __init__(self, chat: Chat, *, thresholds_of: Mapping[str, Thresholds], fitted: FittedJudge):
        self._chat, self._thresholds_of, self._fitted = chat, thresholds_of, fitted
        self.name, self.prompt_version = fitted.name, fitted.prompt_version

    def judge(self, cases: Sequence[Case]) -> Iterator[Verdict | Unscored]:
        def dialogue(case: Case) -> Dialogue[Verdict | Unscored]:
            thresholds = self._thresholds_of.get(case.caption_id, self._fitted.thresholds)
            return AvcapYesNo1(thresholds=thresholds).dialogue(case)

        return converse(map(dialogue, cases), chat=self._chat)
