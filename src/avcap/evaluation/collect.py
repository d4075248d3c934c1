"""Captions and verdicts of many samples, collected in files that a stopped run goes on with.

A line is whole or it does not count: what a killed process left of its last one is written again.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from avcap.data.feature_cache import FeatureCache
from avcap.data.request import Request
from avcap.engines.captioner import EngineCaptioner
from avcap.errors import UserError
from avcap.evaluation.caption import groups_by_sample
from avcap.files.journal import Journal
from avcap.infer.captioner import Captioner
from avcap.judge.types import Case, EventJudge
from avcap.model.features import MediaFeatures
from avcap.records import Caption, CaptionError, Sample, Unscored, Verdict, journal
from avcap.train.compute import choose_device, choose_dtype


def collect_captions(
    captioner: Captioner | EngineCaptioner,
    samples: Sequence[Sample],
    request: Request,
    *,
    path: Path,
    num_answers: int = 1,
) -> list[Caption]:
    """Samples -> num_answers captions of each, in order, also in the file; what a stopped run wrote is kept.

    UserError for a video that cannot be captioned: to leave it out would change what is learned or measured.
    """
    with journal(path, Caption) as lines:
        found = _whole_groups(lines, num_answers=num_answers)
        todo = [sample for sample in samples if sample.sample_id not in found]
        rows = captioner.sample(todo, request, num_answers=num_answers)
        for group in groups_by_sample(rows, num_answers=num_answers):
            captions = [_caption_of(row) for row in group]
            lines.append(captions)
            found[captions[0].sample_id] = captions
    return [caption for sample in samples for caption in found[sample.sample_id]]


def _caption_of(row: Caption | CaptionError) -> Caption:
    if isinstance(row, CaptionError):
        raise UserError(f"{row.error}; leave this sample out, or mend the file, and run it again")
    return row


def _whole_groups(lines: Journal[Caption], *, num_answers: int) -> dict[str, list[Caption]]:
    """What a stopped run left -> the samples that have all their captions; the rest of the file is dropped."""
    groups: dict[str, list[Caption]] = {}
    for caption in lines.read():
        groups.setdefault(caption.sample_id, []).append(caption)
    whole = {sample_id: group for sample_id, group in groups.items() if len(group) == num_answers}
    if len(whole) < len(groups):
        lines.rewrite(caption for group in whole.values() for caption in group)
    return whole


def collect_verdicts(
    captions: Sequence[Caption], samples: Sequence[Sample], *, judge: EventJudge, path: Path, max_unscored: float
) -> list[Verdict | Unscored]:
    """Captions -> a verdict on each, also in the file; those that a stopped run paid for are kept.

    UserError if too many have none: the judge is down, and pairs of what is left would be pairs of chance.
    """
    sample_of = {sample.sample_id: sample for sample in samples}
    with journal(path, Verdict) as lines:
        answers: dict[str, Verdict | Unscored] = {verdict.caption_id: verdict for verdict in lines.read()}
        cases = [
            Case(caption_id=c.caption_id, sample=sample_of[c.sample_id], text=c.text, finished=c.finished)
            for c in captions
            if c.caption_id not in answers
        ]
        for answer in judge.judge(cases):
            answers[answer.caption_id] = answer
            if isinstance(answer, Verdict):
                lines.append([answer])
    unscored = [answer for answer in answers.values() if isinstance(answer, Unscored)]
    if len(unscored) > max_unscored * len(captions):
        reasons = Counter(answer.reason for answer in unscored)
        raise UserError(
            f"{len(unscored)} of {len(captions)} captions have no verdict, expected at most {max_unscored:.0%}; most "
            f"often: {reasons.most_common(1)[0][0]}; {len(captions) - len(unscored)} verdicts are kept, run it again"
        )
    return [answers[caption.caption_id] for caption in captions]


@dataclass(frozen=True, kw_only=True)
class ModelOpener:
    """How the models of a run are opened: all with the same features on disk."""

    features: FeatureCache
    batch_size: int = 8
    """Videos captioned side by side."""
    device: str | None = None
    """cpu, cuda or cuda:N; None: a GPU if there is one."""
    dtype: str | None = None
    """float32 or bfloat16; None: what suits the device."""

    def open(self, model: Path) -> Captioner:
        """Checkpoint folder -> its captioner."""
        device = choose_device(self.device)
        return Captioner(
            model,
            device=device,
            dtype=choose_dtype(self.dtype, device=device),
            batch_size=self.batch_size,
            feature_cache=self.features,
        )


def encoded(captioner: Captioner, sample: Sample, request: Request) -> MediaFeatures:
    """A sample -> its encoded video, from the captioner's cache if it is there; UserError if it cannot be read."""
    (video,) = captioner.encode([sample], request)
    if isinstance(video, CaptionError):
        raise UserError(video.error)
    return video.encoded.media
