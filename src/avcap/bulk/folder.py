"""A folder that captions go to: the record that a stopped run goes on with, and the forms that are made of it.

    OUT/captions.jsonl    what was captioned, one Caption or CaptionError for each clip; intervals.jsonl for subtitles
    OUT/a/001.txt         side-cars, at the places of the clips below their root
    OUT/dataset.json      tables, of all that the record holds
    OUT/quarantine.jsonl  clips that gave no caption, with their reasons: asked again with --retry-failed alone
    OUT/.avcap/           which files avcap made: all others are left as they are; how files were cut

The record is written first and is durable; everything else can be made from it again, without a model. No torch.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice

from avcap.bulk.clips import Clips, Part, spread
from avcap.bulk.cuts.plan import CutPlan, intervals_of
from avcap.bulk.forms import FORMS
from avcap.bulk.inputs.spool import Asked, Spool, Stream, rows_of
from avcap.bulk.job import FolderJob, Told, Watch
from avcap.bulk.long.run import LongJob, LongRun
from avcap.bulk.made import Made
from avcap.bulk.written import NOTES, WrittenFiles
from avcap.files.write import write_errors
from avcap.infer.caption_file import CaptionFile, Row
from avcap.records import Caption, CaptionError, CutFile


def caption_folder(
    job: FolderJob,
    *,
    stream: Stream,
    check: Callable[[Caption], None],
    watch: Watch = lambda rows, _: rows,
) -> Told:
    """A job -> its folder, gone on with from wherever it stands; `stream` is not called if all is captioned.

    Args:
        job: What is to be there.
        stream: Captions samples, in order.
        check: UserError for a caption that was made in another way.
        watch: Rows as they come, and how many there will be -> the same, for a progress bar.

    Returns:
        What was done, and all that could not be.

    Raises:
        UserError: The folder has captions of another model in it, or a table that avcap did not make.
    """
    for name in job.forms:
        FORMS[name].wording(job.wording)  # refuses what its reader does not take, before any work
    return _Run(job, check=check).run(stream, watch)


class _Retried:
    """Whose old errors are forgotten: with --retry-failed those of this run's clips, whatever they are cut into."""

    def __init__(self, keys: set[str]) -> None:
        self._keys = keys

    def __contains__(self, key: object) -> bool:
        return key in self._keys or (isinstance(key, str) and key.partition("#t=")[0] in self._keys)


class _Run:
    """One run of a job."""

    def __init__(self, job: FolderJob, *, check: Callable[[Caption], None]) -> None:
        self.job, self.check = job, check
        self.told = Told(record=job.record)
        self.clips = Clips(job)
        self.files = WrittenFiles(job.out, shard=job.shard)
        self.made = Made(job, clips=self.clips, files=self.files, told=self.told)

    def run(self, stream: Stream, watch: Watch) -> Told:
        job, files = self.job, self.files
        self.made.refuse_external()
        chosen = self._chosen()
        with write_errors(job.out):
            job.out.mkdir(parents=True, exist_ok=True)
        record = CaptionFile(job.record, retry=self._retried(chosen), check=self.check, key=self.clips.key_of)
        with record, files:  # first the record, which refuses what is somebody else's
            self._caption(record, chosen, stream, watch)
            self.made.settle()
        self.told.num_written = files.tally.num_written
        self.told.external = list(dict.fromkeys(files.tally.external))
        return self.told

    # --- what is captioned --------------------------------------------------------------------------------------------

    def _chosen(self) -> list[Part]:
        """The clips of this run, not cut yet: all of them, or samples spread over them."""
        whole, num = self.clips.whole, self.job.num_samples
        return whole if num is None else spread(whole, num)

    def _retried(self, chosen: list[Part]) -> _Retried:
        if not self.job.retry_failed:
            return _Retried(set())
        keys = {self.clips.key_of_part(part) for part in chosen}
        return _Retried(keys | {self.clips.key(part.item.video, part.item.video) for part in chosen})

    def _caption(self, record: CaptionFile, chosen: list[Part], stream: Stream, watch: Watch) -> None:
        told = self.told
        with ExitStack() as stack:
            spool = stack.enter_context(Spool())
            if self.job.cutter is None:
                todo = [asked for part in chosen if (asked := self._asked(part, record)) is not None]
                num_todo: int | None = len(todo)
                captioned = self._whole(todo, stream=stream, spool=spool, stack=stack)
            else:
                notes = self.job.file(f"{NOTES}/cuts.jsonl")
                plan = CutPlan(self.job.cutter, notes=notes, key=self.clips.key, deadline_s=self.job.deadline_s)
                stack.enter_context(plan)
                # what is asked about is found out while it is captioned: of a cut file, one after the other
                captioned = rows_of(self._cut(plan, chosen, record, spool), stream=stream, spool=spool)
                num_todo = None
            rows = iter(watch(captioned, num_todo))
            while batch := list(islice(rows, self.job.rows_at_once)):
                record.append(batch)
                for row in batch:
                    if isinstance(row, CaptionError):
                        told.new_errors.append(row)
                    else:
                        told.num_new += 1
                        self.made.write_side_cars(row)

    def _whole(
        self, todo: Sequence[Asked | CaptionError], *, stream: Stream, spool: Spool, stack: ExitStack
    ) -> Iterator[Row]:
        """What is asked about -> its rows; of files that are longer than a window, made of windows."""
        job = self.job
        if job.long is None or not todo:
            return rows_of(todo, stream=stream, spool=spool)
        long_job = LongJob(
            windowing=job.long,
            request=job.request,
            prompts=job.prompts,
            checkpoint=job.checkpoint,
            record=job.file("windows.jsonl"),
            notes=job.file(f"{NOTES}/cuts.jsonl"),
            pending={self.clips.key(one.item.video, one.item.video) for one in todo if isinstance(one, Asked)},
            key=self.clips.key,
            deadline_s=job.deadline_s,
            summarizer=job.summarizer,
            allows_gaps=job.retry_failed,
            rows_at_once=job.rows_at_once,
        )
        return stack.enter_context(LongRun(long_job, spool=spool)).rows(todo, stream=stream)

    def _asked(self, part: Part, record: CaptionFile) -> Asked | CaptionError | None:
        """A clip -> what is asked about it; None: it is captioned, kept, or failed before."""
        if self.made.is_kept(part):
            self.told.num_kept += 1
            return None
        key = self.clips.add(part)
        if key in record.done or key in record.failed:
            self.told.num_old += key in record.done
            self.told.num_old_errors += key not in record.done
            return None
        if part.item.error:
            return part.item.failed(self.job.request)
        return Asked(item=part.item, sample=part.sample(self.job.request))

    def _cut(
        self, plan: CutPlan, chosen: list[Part], record: CaptionFile, spool: Spool
    ) -> Iterator[Asked | CaptionError]:
        """Clips that are to be cut -> what is asked about each of their parts, as soon as it is known."""
        clips, good = self.clips, dict[int, Part]()
        for part in chosen:
            if part.item.error or clips.key_of_part(part) in record.failed:
                if (asked := self._asked(part, record)) is not None:
                    yield asked
            else:
                good[id(part.item)] = part
        pairs = ((part.sample(self.job.request).sample_id, part.item) for part in good.values())
        for item, found in plan.cut(pairs, spool=spool):
            part = good[id(item)]
            if isinstance(found, CutFile):
                yield from self._parts(part, found, record)
                continue
            clips.add(part)
            yield CaptionError(sample_id=part.sample(self.job.request).sample_id, video=item.video, error=str(found))

    def _clip_prompt(self, found: CutFile) -> str:
        """A file that is cut -> what is asked about each of its clips; "": what is asked about intervals."""
        request, prompts = self.job.request, self.job.clip_prompts
        if prompts is None or request.prompt is not None or self.job.subtitles:
            return ""
        has_audio = request.use_audio and found.has_audio
        return prompts.choose(interval_s=None, has_video=request.use_video, has_audio=has_audio)

    def _parts(self, whole: Part, found: CutFile, record: CaptionFile) -> Iterator[Asked | CaptionError]:
        if self.job.subtitles and not found.has_audio:
            self.told.num_without_audio += 1
            return
        parts = list(self.clips.cut(whole, intervals_of(found), prompt=self._clip_prompt(found)))
        self.told.num_cut += 1
        self.told.num_clips += len(parts)
        self.made.expect(whole, parts)
        if self.job.num_samples is not None and not self.job.subtitles:
            parts = spread(parts, max(1, self.job.num_samples // len(self._chosen())))
        for part in parts:
            if (asked := self._asked(part, record)) is not None:
                yield asked
