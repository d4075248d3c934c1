"""Whether a model uses the sound: its texts about the same clips with their sound, mute, and with another's. No torch.

    sound       the clip as it is
    mute        silence of the same length: as many audio tokens, with nothing in them
    swapped     the sound of another clip
    no_video  the clip's own sound alone

With truth, a model uses the sound if silence and another's sound both make it worse at something that can only be
heard: questions about the sound answered right, or sounds told in captions. Worse is a difference whose 95 % interval
over videos lies above 0. Without truth all that shows is whether its texts change.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from avcap.data.qa_files import VideoQuestion
from avcap.judge.metrics.answers import is_right
from avcap.judge.metrics.bootstrap import Floats, Rate, divide, rates_of, ratio_rates, resampled_sums
from avcap.judge.metrics.error_rates import Column, Group, Scored, count_captions
from avcap.judge.oracle import OracleJudge
from avcap.judge.types import Case
from avcap.records import Sample, WorldTruth

Condition = Literal["audio", "mute", "swapped", "no_video"]
CONDITIONS: tuple[Condition, ...] = ("audio", "mute", "swapped", "no_video")
WITHOUT_ITS_AUDIO: tuple[Condition, ...] = ("mute", "swapped")

ANSWERS = "answers about the sound right"
ANSWERS_VISUAL = "answers about the picture right"
AUDIO = "heard events told right, whole clips"
AUDIO_LOCAL = "heard events told right, intervals"
VISUAL = "seen events told right, whole clips"
CHANGED = "texts as with sound"
PROOFS = (ANSWERS, AUDIO, AUDIO_LOCAL)
"""What silence must make worse."""


@dataclass(frozen=True, kw_only=True)
class AuditClip:
    """A video to be audited with; `truth` is None where nobody knows it."""

    video: str
    truth: WorldTruth | None = None


@dataclass(frozen=True, kw_only=True)
class AuditText:
    """One line of texts.jsonl: what the model wrote about a clip in one condition. `asked` names the question."""

    video: str
    condition: Condition
    kind: Literal["caption", "interval", "answer"]
    asked: str
    text: str
    finished: bool


@dataclass(frozen=True, kw_only=True)
class AuditError:
    """A clip that could not be used, and why."""

    video: str
    error: str


@dataclass(frozen=True, kw_only=True)
class AudioAblation:
    """The outcome. `figures`: name -> condition -> share; `losses`: proof -> condition -> share lost in it."""

    checkpoint: str
    uses_audio: bool
    verdict: str
    conditions: tuple[Condition, ...]
    figures: dict[str, dict[Condition, Rate]]
    losses: dict[str, dict[Condition, Rate]]
    num_clips: int
    errors: tuple[AuditError, ...]


Hits = dict[tuple[Condition, str], tuple[float, float]]
"""(condition, video) -> (how many are as they should be, of how many)"""


def judge_audio_use(
    clips: Sequence[AuditClip], texts: Sequence[AuditText], *, errors: Sequence[AuditError], checkpoint: str
) -> AudioAblation:
    """Clips and what a model wrote about them in all conditions -> whether it uses their sound, and how that shows."""
    used = {text.video for text in texts}
    audited = [clip for clip in clips if clip.video in used]
    hits: dict[str, Hits] = {CHANGED: _unchanged(texts)}
    has_truth = any(clip.truth for clip in audited)
    if has_truth:
        hits = {**_answer_hits(audited, texts), **_event_hits(audited, texts), **hits}
    videos = [clip.video for clip in audited]
    figures = {
        name: {condition: _rate(found, condition, videos=videos) for condition in CONDITIONS}
        for name, found in hits.items()
    }
    losses = {
        name: {condition: _loss(hits[name], condition, videos=videos) for condition in WITHOUT_ITS_AUDIO}
        for name in (PROOFS if has_truth else (CHANGED,))
    }
    proven = [name for name, lost in losses.items() if all(is_sure(lost[condition]) for condition in lost)]
    return AudioAblation(
        checkpoint=checkpoint,
        uses_audio=bool(proven),
        verdict=_verdict(losses, proven=proven, has_truth=has_truth),
        conditions=CONDITIONS,
        figures=figures,
        losses=losses,
        num_clips=len(audited),
        errors=tuple(errors),
    )


def is_sure(loss: Rate) -> bool:
    """Whether something is lost, for all that the number of videos can tell."""
    return loss.low is not None and loss.low > 0


def _verdict(losses: dict[str, dict[Condition, Rate]], *, proven: list[str], has_truth: bool) -> str:
    """-> one sentence, with the figures of the clearest proof."""
    clearest = max(proven or losses, key=lambda name: min(rate.value or 0.0 for rate in losses[name].values()))
    lost = losses[clearest]
    points = f"{_points(lost['mute'])} with silence and {_points(lost['swapped'])} with another clip's sound"
    if not has_truth:
        if proven:
            return f"The model uses the sound: of its texts, {points} change (whether for the better, no truth tells)."
        return f"The model does NOT use the sound: of its texts, {points} change."
    verb = "uses" if proven else "does NOT use"
    return f"The model {verb} the sound: of {clearest}, it loses {points}."


def _points(rate: Rate) -> str:
    """-> "31.2 points [25.0, 37.1]"; a point is a hundredth of all."""
    if rate.value is None:
        return "nothing that could be counted"
    interval = "" if rate.low is None or rate.high is None else f" [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"
    return f"{100 * rate.value:.1f} points{interval}"


# --- what is counted --------------------------------------------------------------------------------------------------


def _unchanged(texts: Iterable[AuditText]) -> Hits:
    """Texts that are word for word those with sound. Decoding is greedy: nothing but the media can change them."""
    with_audio = {(text.video, text.asked): text.text for text in texts if text.condition == "audio"}
    return _count(texts, of=lambda text: True, is_hit=lambda text: with_audio[text.video, text.asked] == text.text)


def _answer_hits(clips: Sequence[AuditClip], texts: Iterable[AuditText]) -> dict[str, Hits]:
    questions = {q.question_id: q for clip in clips if clip.truth for q in clip.truth.questions}
    answers = [text for text in texts if text.kind == "answer"]

    def is_hit(text: AuditText) -> bool:
        q = questions[text.asked]
        asked = VideoQuestion(question_id=q.question_id, video=text.video, kind=q.kind, text=q.text, answer=q.answer)
        return is_right(text.text, asked)

    def about_audio(text: AuditText) -> bool:
        return questions[text.asked].needs != "visual"

    return {
        ANSWERS: _count(answers, of=about_audio, is_hit=is_hit),
        ANSWERS_VISUAL: _count(answers, of=lambda text: not about_audio(text), is_hit=is_hit),
    }


def _count(texts: Iterable[AuditText], *, of: Callable[[AuditText], bool], is_hit: Callable[[AuditText], bool]) -> Hits:
    hits: Hits = {}
    for text in texts:
        if of(text):
            good, total = hits.get((text.condition, text.video), (0.0, 0.0))
            hits[text.condition, text.video] = (good + is_hit(text), total + 1)
    return hits


def _event_hits(clips: Sequence[AuditClip], texts: Iterable[AuditText]) -> dict[str, Hits]:
    """Events that a caption tells right, whatever it invents beside them."""
    truths = {clip.video: clip.truth for clip in clips if clip.truth}
    judge = OracleJudge(truths.values())
    groups = {AUDIO: Group("global", "audio"), AUDIO_LOCAL: Group("local", "audio"), VISUAL: Group("global", "visual")}
    hits: dict[str, Hits] = {name: {} for name in groups}
    for condition in CONDITIONS:
        cases = [
            Case(caption_id=f"{condition} {text.asked}", sample=_sample(text, truths[text.video]), text=text.text)
            for text in texts
            if text.condition == condition and text.kind != "answer" and text.video in truths
        ]
        counts = count_captions(
            Scored(case=case, verdict=verdict) for case, verdict in zip(cases, judge.judge(cases), strict=True)
        )
        for name, group in groups.items():
            for video, truth in truths.items():
                counts_C = counts.get((group, truth.video))
                if counts_C is not None and counts_C[Column.EVENTS]:
                    right = counts_C[Column.EVENTS] - counts_C[Column.MISSING] - counts_C[Column.INCORRECT]
                    hits[name][condition, video] = (float(right), float(counts_C[Column.EVENTS]))
    return hits


def _sample(text: AuditText, truth: WorldTruth) -> Sample:
    if text.kind == "interval":
        return next(sample for sample in truth.intervals if sample.sample_id == text.asked)
    return Sample(sample_id=truth.clip_id, video=truth.video, prompt="", events=truth.events)


# --- rates ------------------------------------------------------------------------------------------------------------


def _column(hits: Hits, condition: Condition, *, videos: Sequence[str]) -> Floats:
    """-> (V, 2): hits and totals of each video in a condition."""
    return np.array([hits.get((condition, video), (0.0, 0.0)) for video in videos]).reshape(len(videos), 2)


def _rate(hits: Hits, condition: Condition, *, videos: Sequence[str]) -> Rate:
    counts_V2 = _column(hits, condition, videos=videos)
    (rate,) = ratio_rates(counts_V2[:, :1], counts_V2[:, 1:])
    return rate


def _loss(hits: Hits, condition: Condition, *, videos: Sequence[str]) -> Rate:
    """Share of hits with sound minus that in the condition, on the same videos, drawn together."""
    counts_V4 = np.concatenate([_column(hits, "audio", videos=videos), _column(hits, condition, videos=videos)], axis=1)

    def lost(sums: Floats) -> Floats:
        return divide(sums[..., 0], sums[..., 1]) - divide(sums[..., 2], sums[..., 3])

    (rate,) = rates_of(
        np.atleast_1d(lost(counts_V4.sum(axis=0))),
        lost(resampled_sums(counts_V4))[:, None],
        num_videos_K=int((counts_V4[:, 1] > 0).sum()),
    )
    return rate
