"""The proof that the sound was used: what `avcap audit-audio` runs.

Every clip is captioned and asked about four times: with its sound, mute, with another clip's sound, and without its
picture. `judge/metrics/audio_ablation.py` says what follows from the texts.

    OUT/run.json       of which model
    OUT/texts.jsonl    an AuditText a line: all that the model wrote
    OUT/metrics.json   the AudioAblation: shares with intervals, what is lost without the sound, the verdict
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avcap.captioners import open_answerer
from avcap.data.request import Request
from avcap.errors import MediaError, RunError, UserError
from avcap.files.claim import claim
from avcap.files.lock import lock_folder
from avcap.files.write import write_json
from avcap.judge.metrics.audio_ablation import (
    CONDITIONS,
    AudioAblation,
    AuditClip,
    AuditError,
    AuditText,
    Condition,
    judge_audio_use,
)
from avcap.media.clip import Clip
from avcap.records import Decoding, Sample, read_jsonl, write_jsonl

if TYPE_CHECKING:
    from avcap.captioners import AnyCaptioner

ANSWER_TOKENS = 32
RUN, TEXTS, METRICS = "run.json", "texts.jsonl", "metrics.json"


def audit_audio(
    captioner: "AnyCaptioner",
    clips: Sequence[AuditClip],
    *,
    out_dir: Path,
    progress: Callable[[int], None] = lambda done: None,
) -> AudioAblation:
    """A model and clips, at least two -> whether it uses their sound. `progress(done)`: after each clip."""
    with lock_folder(out_dir):
        ours = (TEXTS, METRICS) if _is_of_version_0_1(out_dir) else ()
        claim(out_dir, RUN, {"command": "audit-audio", "model": captioner.checkpoint}, ours=ours)
        return _audit(captioner, clips, out_dir=out_dir, progress=progress)


def _is_of_version_0_1(folder: Path) -> bool:
    """Whether a folder is an audit without run.json, which version 0.1 did not write."""
    texts = folder / TEXTS
    try:
        return texts.is_file() and all(True for _ in read_jsonl(texts, AuditText))
    except UserError:
        return False


def _audit(
    captioner: "AnyCaptioner", clips: Sequence[AuditClip], *, out_dir: Path, progress: Callable[[int], None]
) -> AudioAblation:
    auditor = _Auditor(captioner)
    texts: list[AuditText] = []
    errors: list[AuditError] = []
    usable: list[tuple[AuditClip, Clip]] = []  # at most the first and the latest
    for index, (asked, decoded) in enumerate(zip(clips, auditor.decode(clips), strict=True)):
        try:
            clip = _with_video_and_audio(decoded)
            if usable:
                # the sound of each clip is lent to the next one, and that of the last to the first, which waits for it
                texts += auditor.write(asked, clip, lent_S=usable[-1][1].waveform_S)
            usable = [*usable[:1], (asked, clip)]
        except RunError:
            raise
        except UserError as error:
            errors.append(AuditError(video=asked.video, error=str(error)))
        progress(index + 1)
    if len(usable) < 2:
        why = f"; the first: {errors[0].error}" if errors else ""
        raise UserError(f"got {len(usable)} usable clips, expected at least 2, as sounds are swapped between them{why}")
    texts += auditor.write(*usable[0], lent_S=usable[-1][1].waveform_S)
    audit = judge_audio_use(clips, texts, errors=errors, checkpoint=captioner.checkpoint)
    write_jsonl(out_dir / TEXTS, texts)
    write_json(out_dir / METRICS, asdict(audit))
    return audit


def _with_video_and_audio(clip: Clip | MediaError) -> Clip:
    """A decoded clip -> itself. UserError if it has nothing that could be taken away."""
    if isinstance(clip, MediaError):
        raise clip
    if not len(clip.waveform_S) or not len(clip.frames_THWC):
        raise UserError(f"{clip.path}: got a file without a picture or without sound, expected both")
    return clip


class _Auditor:
    """Asks a model about clips in all conditions."""

    def __init__(self, captioner: "AnyCaptioner"):
        self.answerer = open_answerer(captioner)
        self.prompts, self.max_new_tokens = self.answerer.prompts, self.answerer.max_new_tokens
        self.request = Request(decoding=Decoding(max_new_tokens=self.max_new_tokens))

    def decode(self, clips: Sequence[AuditClip]) -> Iterator[Clip | MediaError]:
        samples = [Sample(sample_id=clip.video, video=clip.video, prompt="") for clip in clips]
        return self.answerer.clips(samples, self.request)

    def write(self, asked: AuditClip, clip: Clip, *, lent_S: np.ndarray) -> list[AuditText]:
        """A clip and the sound of another -> all texts about it. UserError where it cannot be asked about."""
        variants: dict[Condition, Clip] = {
            "audio": clip,
            "mute": replace(clip, waveform_S=np.zeros_like(clip.waveform_S)),
            "swapped": replace(clip, waveform_S=np.resize(lent_S, len(clip.waveform_S))),
            "no_video": replace(clip, frames_THWC=clip.frames_THWC[:0], frame_times_T=clip.frame_times_T[:0]),
        }
        return [
            text
            for condition in CONDITIONS
            for text in (
                *self._about_all(asked, variants[condition], condition=condition),
                *self._about_intervals(asked, variants[condition], condition=condition),
            )
        ]

    def _about_all(self, asked: AuditClip, clip: Clip, *, condition: Condition) -> Iterator[AuditText]:
        """The caption of the whole clip, and the answers to its questions."""
        looked = self.answerer.look(
            clip, sample=Sample(sample_id=asked.video, video=asked.video, prompt=""), request=self.request
        )
        prompt = self.prompts.choose(interval_s=None, has_video=looked.seen.frames > 0, has_audio=True)
        (caption,) = self.answerer.reply(looked, [prompt], max_new_tokens=self.max_new_tokens)
        yield AuditText(
            video=asked.video,
            condition=condition,
            kind="caption",
            asked=asked.video,
            text=caption.text,
            finished=caption.finished,
        )
        questions = asked.truth.questions if asked.truth else ()
        replies = self.answerer.reply(looked, [q.text for q in questions], max_new_tokens=ANSWER_TOKENS)
        for question, reply in zip(questions, replies, strict=True):
            yield AuditText(
                video=asked.video,
                condition=condition,
                kind="answer",
                asked=question.question_id,
                text=reply.text,
                finished=reply.finished,
            )

    def _about_intervals(self, asked: AuditClip, clip: Clip, *, condition: Condition) -> Iterator[AuditText]:
        for sample in asked.truth.intervals if asked.truth else ():
            assert sample.interval_s is not None, sample
            part = cut(clip, interval_s=sample.interval_s, lead_in=self.answerer.needs_lead_in)
            looked = self.answerer.look(part, sample=sample, request=self.request)
            prompt = self.prompts.choose(interval_s=sample.interval_s, has_video=True, has_audio=True)
            (caption,) = self.answerer.reply(looked, [prompt], max_new_tokens=self.max_new_tokens)
            yield AuditText(
                video=asked.video,
                condition=condition,
                kind="interval",
                asked=sample.sample_id,
                text=caption.text,
                finished=caption.finished,
            )


def cut(clip: Clip, *, interval_s: tuple[float, float], lead_in: bool) -> Clip:
    """A whole clip -> the part of it in [start, end), of the frames and samples that it has. `lead_in`: with the frame
    before the first."""
    start_s, end_s = interval_s
    inside_T = (clip.frame_times_T >= start_s) & (clip.frame_times_T < end_s)
    before_T = clip.frame_times_T < start_s
    first, last = (round((time_s - clip.start_s) * clip.sample_rate_hz) for time_s in interval_s)
    return replace(
        clip,
        frames_THWC=clip.frames_THWC[inside_T],
        frame_times_T=clip.frame_times_T[inside_T],
        lead_in_frame_HWC=clip.frames_THWC[before_T][-1] if lead_in and before_T.any() else None,
        waveform_S=clip.waveform_S[max(0, first) : last],
        start_s=start_s,
        end_s=min(end_s, clip.end_s),
    )
