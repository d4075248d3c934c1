"""Long videos -> one row each: cut into windows, each window captioned and kept, then put together.

    OUT/windows.jsonl    a Caption or CaptionError for each window: what a stopped run goes on with

Files that are not longer than a window are captioned as ever. Never more than GROUP files are under way. No torch.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from avcap.bulk.cuts.plan import CutPlan, intervals_of
from avcap.bulk.inputs.spool import Asked, Spool, Stream, rows_of
from avcap.bulk.long.carry import carried_prompt
from avcap.bulk.long.joined import gap_error, joined
from avcap.bulk.long.summary import Summarizer
from avcap.bulk.long.windowing import Windowing
from avcap.data.request import Interval, Prompts, Request
from avcap.errors import RunError, UserError, WriteError
from avcap.infer.caption_file import CaptionFile, Row
from avcap.infer.clip_check import span_asked
from avcap.records import Caption, CaptionError, CutFile, Sample

GROUP = 32


@dataclass(frozen=True, kw_only=True)
class LongJob:
    """How long videos are captioned, and where their windows are kept."""

    windowing: Windowing
    request: Request
    prompts: Prompts
    """What is asked where the request has no prompt."""
    checkpoint: str
    record: Path
    notes: Path
    pending: Container[str]
    """Keys of the videos that are asked about: of others no window is kept in memory."""
    key: Callable[[str, str], str]
    """A sample's id and its video -> what tells it from others."""
    deadline_s: float
    summarizer: Summarizer | None = None
    allows_gaps: bool = False
    """Whether a video is captioned although some of its windows are not."""
    rows_at_once: int = 8


@dataclass(kw_only=True)
class _LongVideo:
    """A video under way."""

    asked: Asked
    intervals: list[Interval]
    duration_s: float
    samples: list[Sample]
    rows: dict[str, Row] = field(default_factory=dict)
    """Id of a window -> its row."""

    @property
    def is_whole(self) -> bool:
        return len(self.rows) == len(self.samples)

    def captions(self) -> list[Caption]:
        found = [self.rows[sample.sample_id] for sample in self.samples]
        return [row for row in found if isinstance(row, Caption)]

    def errors(self) -> list[CaptionError]:
        found = [self.rows[sample.sample_id] for sample in self.samples]
        return [row for row in found if isinstance(row, CaptionError)]


class _Everything:
    """Old errors of windows are always tried again: whether their video is, was decided before."""

    def __contains__(self, key: object) -> bool:
        return True


class LongRun:
    """Context manager: what is asked about, long videos among it -> a row for each."""

    def __init__(self, job: LongJob, *, spool: Spool) -> None:
        self.job, self.spool = job, spool
        self._stack = ExitStack()
        self._known: dict[str, Caption] = {}
        self._plan = CutPlan(job.windowing, notes=job.notes, key=job.key, deadline_s=job.deadline_s)
        self._record = CaptionFile(job.record, retry=_Everything(), check=self._check, key=self._key_of)

    def __enter__(self) -> "LongRun":
        self._stack.enter_context(self._plan)
        self._stack.enter_context(self._record)
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.close()

    def rows(self, asked: Iterable[Asked | CaptionError], *, stream: Stream) -> Iterator[Row]:
        """What is asked about -> rows; within a group of files in the order in which they are done."""
        rest = iter(asked)
        while group := list(islice(rest, GROUP)):
            yield from self._group(group, stream=stream)

    # --- what was captioned before ------------------------------------------------------------------------------------

    def _key_of(self, row: Row) -> str:
        return self.job.key(row.sample_id, row.video)

    def _check(self, caption: Caption) -> None:
        """Keeps what is there; UserError where it was made otherwise."""
        job = self.job
        base = self._prompt(caption.interval_s, duration_s=caption.duration_s)
        is_carried = caption.prompt != base and caption.prompt.startswith(base)
        same_prompt = caption.prompt == base or (is_carried and job.windowing.carry)
        if not same_prompt or (caption.checkpoint, caption.decoding) != (job.checkpoint, job.request.decoding):
            raise UserError(
                f"got windows of the model {caption.checkpoint!r} that were asked about otherwise than now "
                f"({caption.prompt[:60]!r}); expected one folder for one way of captioning; choose another --out"
            )
        if job.key(caption.video, caption.video) in job.pending:
            self._known[self._key_of(caption)] = caption

    def _prompt(self, interval_s: Interval | None, *, duration_s: float) -> str:
        """What is asked about a window that is told nothing of others."""
        assert interval_s is not None, "a window is a part of a video"
        span_s = span_asked(interval_s, duration_s=duration_s)
        request = self.job.request
        return request.prompt or self.job.prompts.choose(
            interval_s=span_s, has_video=request.use_video, has_audio=request.use_audio
        )

    # --- a group of files ---------------------------------------------------------------------------------------------

    def _group(self, group: Sequence[Asked | CaptionError], *, stream: Stream) -> Iterator[Row]:
        good = {id(one.item): one for one in group if isinstance(one, Asked)}
        first: list[Asked | CaptionError] = [one for one in group if isinstance(one, CaptionError)]
        videos: dict[str, _LongVideo] = {}
        pairs = ((one.sample.sample_id, one.item) for one in good.values())
        for item, found in self._plan.cut(pairs, spool=self.spool):
            one = good[id(item)]
            if not isinstance(found, CutFile):
                first.append(CaptionError(sample_id=one.sample.sample_id, video=one.sample.video, error=str(found)))
            elif len(found.starts_s) < 2:
                first.append(one)
            else:
                videos[one.sample.sample_id] = self._long_video(one, found)
        yield from rows_of(first, stream=stream, spool=self.spool)
        yield from self._windows(list(videos.values()), stream=stream)

    def _long_video(self, asked: Asked, cut: CutFile) -> _LongVideo:
        item, intervals = replace(asked.item, interval_s=None), intervals_of(cut)
        samples = [item.sample(replace(self.job.request, interval_s=one)) for one in intervals]
        video = _LongVideo(asked=asked, intervals=intervals, duration_s=cut.duration_s, samples=samples)
        for sample in samples:
            if (known := self._known.pop(self.job.key(sample.sample_id, sample.video), None)) is not None:
                video.rows[sample.sample_id] = replace(known, sample_id=sample.sample_id)
        return video

    def _windows(self, videos: Sequence[_LongVideo], *, stream: Stream) -> Iterator[Row]:
        """Videos -> their rows; with --carry the n-th windows of all are asked about together, before the next ones."""
        if not self.job.windowing.carry:
            waves = [[(video, index) for video in videos for index in range(len(video.samples))]]
        else:
            most = max((len(video.samples) for video in videos), default=0)
            waves = [[(video, index) for video in videos if index < len(video.samples)] for index in range(most)]
        yielded: set[int] = set()
        for wave in waves:
            todo = [(video, index) for video, index in wave if video.samples[index].sample_id not in video.rows]
            owners = {video.samples[index].sample_id: video for video, index in todo}
            rows = rows_of((self._asked(video, index) for video, index in todo), stream=stream, spool=self.spool)
            while batch := list(islice(rows, self.job.rows_at_once)):
                self._record.append(batch)
                for row in batch:
                    video = owners[row.sample_id]
                    video.rows[row.sample_id] = row
                    yield from self._done(video, yielded)
        for video in videos:  # whose windows were all there before
            yield from self._done(video, yielded)

    def _done(self, video: _LongVideo, yielded: set[int]) -> Iterator[Row]:
        if video.is_whole and id(video) not in yielded:
            yielded.add(id(video))
            yield self._joined(video)
            video.rows.clear()

    def _asked(self, video: _LongVideo, index: int) -> Asked:
        sample = video.samples[index]
        before = video.rows.get(video.samples[index - 1].sample_id) if index else None
        if self.job.windowing.carry and isinstance(before, Caption):
            base = sample.prompt or self._prompt(sample.interval_s, duration_s=video.duration_s)
            sample = replace(sample, prompt=carried_prompt(base, before=before.text))
        return Asked(item=video.asked.item, sample=sample)

    def _joined(self, video: _LongVideo) -> Row:
        job, sample, errors = self.job, video.asked.sample, video.errors()
        captions = video.captions()
        if not captions or (errors and not job.allows_gaps):
            return gap_error(sample, errors, num_windows=len(video.samples))
        has_audio = any(one.seen.audio_tokens or one.seen.audio_seconds for one in captions)
        has_video = any(one.seen.frames for one in captions)
        prompt = sample.prompt or job.prompts.choose(
            interval_s=sample.interval_s, has_video=has_video, has_audio=has_audio
        )
        try:
            return joined(
                captions,
                sample=sample,
                prompt=prompt,
                made_by=job.windowing.made_by,
                failed=errors,
                summarizer=job.summarizer,
            )
        except (RunError, WriteError):
            raise
        except UserError as error:
            return CaptionError(sample_id=sample.sample_id, video=sample.video, error=f"{sample.video}: {error}")
