"""A folder that captions go to: the record that a stopped run goes on with, and the forms that are made of it.

    OUT/captions.jsonl    what was captioned, one Caption or CaptionError for each clip; intervals.jsonl for subtitles
    OUT/a/001.txt         side-cars, at the places of the clips below their root
    OUT/dataset.json      tables, of all that the record holds
    OUT/quarantine.jsonl  clips that gave no caption, with their reasons: asked again with --retry-failed alone
    OUT/.avcap/           which files avcap made: all others are left as they are

The record is written first and is durable; everything else can be made from it again, without a model. No torch.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from avcap.bulk.filter import columns_of
from avcap.bulk.forms import FORMS
from avcap.bulk.outputs.clips import CaptionedClip, LeftOut, SideCar, Table, json_lines_bytes
from avcap.bulk.outputs.h3 import is_in_form
from avcap.bulk.outputs.subtitles import srt, vtt
from avcap.bulk.places import Root, Shard, in_order, order_key
from avcap.bulk.where import Where
from avcap.bulk.windows import Measured, cues_of, measure, samples_of
from avcap.bulk.wording import Wording
from avcap.bulk.written import WrittenFiles
from avcap.data.request import Request, Video
from avcap.errors import UserError
from avcap.files.walk import RealPaths
from avcap.files.write import write_errors
from avcap.infer.caption_file import CaptionFile, Row, read_rows
from avcap.records import Caption, CaptionError, Sample

Stream = Callable[[list[Video]], Iterator[Row]]
Watch = Callable[[Iterator[Row], int], Iterable[Row]]
WRITERS = {"srt": srt, "vtt": vtt}


@dataclass(frozen=True, kw_only=True)
class FolderJob:
    """What is to be in a folder in the end."""

    out: Path
    root: Root
    videos: tuple[str, ...]
    """All that the command line means; a shard takes its part."""
    request: Request
    forms: tuple[str, ...] = ()
    subtitles: tuple[str, ...] = ()
    wording: Wording = field(default_factory=Wording)
    every_s: float = 5.0
    where: Where | None = None
    """What a caption must be for any form; the record keeps all."""
    keep_existing: bool = False
    retry_failed: bool = False
    shard: Shard | None = None
    num_samples: int | None = None
    """Only so many, spread over all, for a person to look at."""
    rows_at_once: int = 8
    deadline_s: float = 600.0

    def file(self, name: str) -> Path:
        """ "captions.jsonl" -> its path, of this shard."""
        stem, suffix = os.path.splitext(name)
        return self.out / f"{stem}{self.shard.suffix if self.shard else ''}{suffix}"

    @property
    def record(self) -> Path:
        """Where captions are kept."""
        return self.file("intervals.jsonl" if self.subtitles else "captions.jsonl")


@dataclass(kw_only=True)
class Told:
    """What became of a job."""

    record: Path
    num_new: int = 0
    num_old: int = 0
    new_errors: list[CaptionError] = field(default_factory=list)
    unread: list[CaptionError] = field(default_factory=list)
    """Those of them whose files could not be measured: nothing was asked about them."""
    num_old_errors: int = 0
    """Of runs before, not tried again."""
    num_kept: int = 0
    """Clips with a side-car that was there before, which were not captioned."""
    num_without_audio: int = 0
    num_written: int = 0
    external: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    num_filtered: int = 0
    """Captions that `where` is not true of: in the record alone."""
    num_empty: int = 0
    num_truncated: int = 0
    num_put_into_form: int = 0
    num_gone: int = 0
    """Of the record, but not of tables: their files are no longer there, or not below the root."""
    skipped_tables: tuple[str, ...] = ()
    samples: list[Caption] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether everything that was asked for is there."""
        return not (self.new_errors or self.num_old_errors or self.external or self.left_out)


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
        stream: Captions videos or samples, in order.
        check: UserError for a caption that was made in another way.
        watch: Rows as they come, and how many there will be -> the same, for a progress bar.

    Returns:
        What was done, and all that could not be.

    Raises:
        UserError: The folder has captions of another model in it, or a table that avcap did not make.
    """
    return _Run(job, check=check).run(stream, watch)


class _Run:
    """One run of a job."""

    def __init__(self, job: FolderJob, *, check: Callable[[Caption], None]) -> None:
        self.job, self.check = job, check
        self.told = Told(record=job.record)
        self.real_paths = RealPaths()
        self.files = WrittenFiles(job.out, shard=job.shard)
        names = {video: job.root.relative(video) for video in job.videos}
        shard = job.shard
        self.names = {video: names[video] for video in in_order(names) if shard is None or shard.holds(names[video])}
        """The videos of this run, in order, and their names below the root."""
        self.first_of_stem: dict[str, str] = {}
        """Stem -> the first clip that has it: the side-car of another would take the place of its own."""
        for name in self.names.values():
            self.first_of_stem.setdefault(_stem(name), name)
        self.expected: dict[str, list[str]] = {}
        """Video -> its intervals, of subtitles."""
        forms = [FORMS[name] for name in job.forms]
        self.side_cars = [form for form in forms if isinstance(form, SideCar)]
        self.tables = [form for form in forms if isinstance(form, Table)]
        if job.shard is not None:
            self.told.skipped_tables = tuple(table.file for table in self.tables)
            self.tables = []
        for form in forms:
            form.wording(job.wording)  # refuses what its reader does not take, before any work

    def run(self, stream: Stream, watch: Watch) -> Told:
        job, files = self.job, self.files
        for table in self.tables:
            if table.is_one_file:
                files.refuse_external(table.file)
        self.chosen = self._chosen()
        errors, samples = self._samples()
        self.keys = {self._key(sample.sample_id, sample.video): sample for sample in samples}
        with write_errors(job.out):
            job.out.mkdir(parents=True, exist_ok=True)
        record = CaptionFile(job.record, retry=self._retried(errors), check=self.check, key=self._key_of)
        with record, files:  # first the record, which refuses what is somebody else's
            self._caption(record, errors, stream, watch)
            self._settle()
        self.told.num_written = files.tally.num_written
        self.told.external = list(dict.fromkeys(files.tally.external))
        return self.told

    # --- what is captioned --------------------------------------------------------------------------------------------

    def _key(self, sample_id: str, video: str) -> str:
        """The file and the part of it, whatever way the file is called: `x` and `./x` are one."""
        return self.real_paths(video) + sample_id.removeprefix(video) if sample_id.startswith(video) else sample_id

    def _key_of(self, row: Row) -> str:
        return self._key(row.sample_id, row.video)

    def _retried(self, errors: Sequence[CaptionError]) -> set[str]:
        """Whose old errors are forgotten: with --retry-failed all; without, of files that can be measured by now."""
        unread = {self._key_of(error) for error in errors}
        measured = {self._key(video, video) for video in self.chosen} - unread if self.job.subtitles else set()
        return measured | unread | set(self.keys) if self.job.retry_failed else measured

    def _chosen(self) -> list[str]:
        """The videos of this run: all of them, or samples spread over them; without those whose side-cars are kept."""
        videos, num = list(self.names), self.job.num_samples
        if num is not None and num < len(videos):
            videos = [videos[round(index * (len(videos) - 1) / max(1, num - 1))] for index in range(num)]
        if not self.job.keep_existing:
            return videos
        suffixes = [f".{name}" for name in self.job.subtitles] + [form.suffix for form in self.side_cars]
        kept = {
            video
            for video in videos
            if suffixes and all(self.files.is_external(_stem(self.names[video]) + suffix) for suffix in suffixes)
        }
        self.told.num_kept = len(kept)
        return [video for video in videos if video not in kept]

    def _samples(self) -> tuple[list[CaptionError], list[Sample]]:
        """-> what is asked, and errors of files that cannot even be measured."""
        job = self.job
        if not job.subtitles:
            return [], [job.request.sample(video) for video in self.chosen]
        errors, samples = [], []
        for video, found in zip(self.chosen, self._measured(), strict=True):
            if isinstance(found, CaptionError):
                errors.append(found)
                continue
            some = samples_of(found, job.request, every_s=job.every_s)
            self.told.num_without_audio += not some
            samples += some
            self.expected[video] = [self._key(sample.sample_id, sample.video) for sample in some]
        return errors, samples

    def _measured(self) -> Iterator[Measured | CaptionError]:
        """Lengths, from captions that are there already where there are some."""
        known: dict[str, float] = {}
        if self.job.record.is_file():
            for row in read_rows(self.job.record):
                if isinstance(row, Caption):
                    known[self.real_paths(row.video)] = row.duration_s
        new = [video for video in self.chosen if self.real_paths(video) not in known]
        found = iter(measure(new, deadline_s=self.job.deadline_s)) if new else iter(())
        for video in self.chosen:
            if (duration_s := known.get(self.real_paths(video))) is not None:
                yield Measured(video=video, duration_s=duration_s, has_audio=True)
            else:
                yield next(found)

    def _caption(self, record: CaptionFile, errors: list[CaptionError], stream: Stream, watch: Watch) -> None:
        told = self.told
        new_errors = [error for error in errors if self._key_of(error) not in record.failed]
        if new_errors:
            record.append(new_errors)
        told.new_errors += new_errors
        told.unread = new_errors
        todo = [sample for key, sample in self.keys.items() if key not in record.done and key not in record.failed]
        told.num_old = sum(key in record.done for key in self.keys)
        told.num_old_errors = sum(key in record.failed for key in self.keys) + len(errors) - len(new_errors)
        rows = iter(watch(stream(list(self._as_videos(todo))), len(todo)) if todo else ())
        while batch := list(islice(rows, self.job.rows_at_once)):
            record.append(batch)
            for row in batch:
                if isinstance(row, CaptionError):
                    told.new_errors.append(row)
                else:
                    told.num_new += 1
                    self._write_side_cars(row)

    def _as_videos(self, samples: Sequence[Sample]) -> Iterator[Video]:
        """Whole clips are asked about by their paths, as ever."""
        for sample in samples:
            yield sample if self.job.subtitles else sample.video

    # --- what is made of it -------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """The record -> everything that is made of it; what is there and the same is not touched."""
        rows = list(read_rows(self.job.record))
        captions = {self._key_of(row): row for row in rows if isinstance(row, Caption)}
        failed = [row for row in rows if isinstance(row, CaptionError) and self._key_of(row) not in captions]
        self._quarantine(failed)
        if self.job.subtitles:
            self._write_subtitles(captions, failed)
            return
        ours = [captions[key] for key in self.keys if key in captions]
        self.told.num_truncated = sum(not caption.finished for caption in ours)
        self.told.num_filtered = sum(not self._passes(caption) for caption in ours)
        self.told.num_empty = sum(not caption.text.strip() for caption in ours)
        self.told.samples = ours if self.job.num_samples is not None else []
        for caption in ours:
            name = self.names[self._own_video(caption)]
            first = self.first_of_stem[_stem(name)]
            if self.side_cars and first != name:
                suffix = self.side_cars[0].suffix
                self.told.left_out.append(LeftOut(name=name, reason=f"{_stem(name)}{suffix} is that of {first}"))
            else:
                self._write_side_cars(caption)
        if "h3" in self.job.forms:
            clips = (self._clip(caption, self.job.wording) for caption in ours)
            self.told.num_put_into_form = sum(not is_in_form(clip) for clip in clips if clip)
        self._write_tables(captions)

    def _own_video(self, caption: Caption) -> str:
        """A caption's file, as this run's command line calls it."""
        return self.keys[self._key_of(caption)].video

    def _write_side_cars(self, caption: Caption) -> None:
        if self.job.subtitles or not caption.text.strip():
            return
        for form in self.side_cars:
            clip = self._clip(caption, form.wording(self.job.wording))
            if clip is None or self.first_of_stem.get(clip.stem, clip.name) != clip.name:
                continue
            if not self._passes(caption):
                self.files.remove(clip.stem + form.suffix)  # of a run without the condition
                continue
            self._write(clip.stem + form.suffix, form.render(clip, form.wording(self.job.wording)))

    def _passes(self, caption: Caption) -> bool:
        return self.job.where is None or not self.job.where.reasons(columns_of(caption))

    def _write(self, name: str, text: str) -> None:
        if self.job.keep_existing and self.files.is_external(name):
            return  # it was counted before the captioning
        self.files.write(name, text.encode("utf-8", errors="replace"))

    def _clip(self, caption: Caption, wording: Wording) -> CaptionedClip | None:
        """A caption -> its clip; None: its file is not below the root."""
        key = self._key_of(caption)
        video = self.keys[key].video if key in self.keys else caption.video
        try:
            name = self.names[video] if video in self.names else self.job.root.relative(video)
        except UserError:
            return None
        caption = replace(caption, text=_clean(caption.text))
        return CaptionedClip(path=os.path.abspath(video), name=name, text=wording.apply(caption.text), caption=caption)

    def _write_tables(self, captions: Mapping[str, Caption]) -> None:
        part = self.job.request.sample("").sample_id  # "#t=3,7" of a part of each clip
        asked = [one for key, one in captions.items() if key.removeprefix(self.real_paths(one.video)) == part]
        for table in self.tables:
            wording = table.wording(self.job.wording)
            good = [caption for caption in asked if caption.text.strip() and self._passes(caption)]
            found = [self._clip(caption, wording) for caption in good]
            clips = [clip for clip in found if clip is not None and os.path.isfile(clip.path)]
            self.told.num_gone = len(found) - len(clips)
            made = table.make(sorted(clips, key=lambda clip: order_key(clip.name)), self.job.out, self.job.root)
            self.told.left_out += made.left_out
            for name, content in made.files.items():
                if isinstance(content, bytes):
                    self.files.write(name, content)
                else:
                    self.files.write_by(name, content)

    def _write_subtitles(self, captions: Mapping[str, Caption], failed: Sequence[CaptionError]) -> None:
        """Of each file of which every interval was asked about."""
        tried = set(captions) | {self._key_of(row) for row in failed}
        for video, keys in self.expected.items():
            if not keys or not set(keys) <= tried or not (some := [captions[key] for key in keys if key in captions]):
                continue
            self.told.num_truncated += sum(not caption.finished for caption in some)
            self.told.samples += some if self.job.num_samples is not None else []
            cues = cues_of([replace(caption, text=_clean(caption.text)) for caption in some])
            stem = _stem(self.names[video])
            if self.first_of_stem[stem] != self.names[video]:
                reason = f"its subtitles would take the place of those of {self.first_of_stem[stem]}"
                self.told.left_out.append(LeftOut(name=self.names[video], reason=reason))
                continue
            for name in self.job.subtitles:
                self._write(f"{stem}.{name}", WRITERS[name](cues))

    def _quarantine(self, failed: Sequence[CaptionError]) -> None:
        """Clips without a caption, and why; a list that was there and has become empty is written empty."""
        name = self.job.file("quarantine.jsonl").name
        if self.job.subtitles:
            name = self.job.file("quarantine.intervals.jsonl").name
        if failed or self.files.is_ours(name):
            rows = sorted(failed, key=lambda row: (order_key(row.video), row.sample_id))
            before = self.files.tally.num_written
            self.files.write(name, json_lines_bytes(vars(row) for row in rows))
            self.files.tally.num_written = before  # it is no file of captions


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


_CONTROLS = {code: " " for code in (*range(9), *range(11, 13), *range(14, 32), 127, 0xFEFF)}


def _clean(text: str) -> str:
    """A model's text -> without what no text file should hold: controls, halves of characters."""
    return text.translate(_CONTROLS).replace("\r\n", "\n").encode("utf-8", errors="replace").decode()


def count_reasons(left_out: Iterable[LeftOut]) -> Counter[str]:
    """What was left out -> how often for which reason."""
    return Counter(one.reason for one in left_out)
