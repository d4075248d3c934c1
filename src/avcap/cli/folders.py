"""What --out FOLDER takes, and what is said of it: options, progress, one line for each thing that was not as asked."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from avcap.bulk.filter import COLUMNS
from avcap.bulk.folder import caption_folder
from avcap.bulk.forms import FORMS, SUBTITLES, read_forms
from avcap.bulk.inputs.items import Item
from avcap.bulk.job import FolderJob, Stream, Told
from avcap.bulk.made import count_reasons
from avcap.bulk.outputs.h3 import H3_PROMPT
from avcap.bulk.outputs.subtitles import SUBTITLE_PROMPT
from avcap.bulk.places import Root, Shard, read_shard
from avcap.bulk.subtitles import EVERY_S, audio_request, check_every
from avcap.bulk.where import read_where
from avcap.bulk.wording import Wording
from avcap.bulk.written import shown
from avcap.captioners import Source
from avcap.cli.app import EXIT_SOME_FAILED, say, stderr
from avcap.data.request import Request
from avcap.errors import UserError
from avcap.infer.settings import read_settings
from avcap.records import Caption, CaptionError

PANEL = "With --out FOLDER/"
Format = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help=f"{', '.join((*FORMS, *SUBTITLES))}; several times for several.",
        rich_help_panel=PANEL,
    ),
]
OneLine = Annotated[bool, typer.Option("--one-line", help="Each caption in one line.", rich_help_panel=PANEL)]
Trigger = Annotated[str | None, typer.Option(metavar="WORD", help="Put before each caption.", rich_help_panel=PANEL)]
StripOpenings = Annotated[
    bool, typer.Option("--strip-openings", help='Without "The video shows" and the like.', rich_help_panel=PANEL)
]
KeepExisting = Annotated[
    bool,
    typer.Option("--keep-existing", help="Clips that have a side-car already are left out.", rich_help_panel=PANEL),
]
RelativeTo = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Names and side-cars are seen from here.", rich_help_panel=PANEL)
]
WhereOption = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="CONDITION",
        help="Only captions of which it is true; see avcap filter.",
        rich_help_panel=PANEL,
    ),
]
Every = Annotated[
    float | None,
    typer.Option(metavar="S", help=f"Seconds of one subtitle; {EVERY_S:g} if not given.", rich_help_panel=PANEL),
]
Samples = Annotated[
    int | None, typer.Option("--sample", metavar="N", help="Only N clips, to look at first.", rich_help_panel=PANEL)
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Try those of quarantine.jsonl again.", rich_help_panel=PANEL)
]
ShardOption = Annotated[
    str | None, typer.Option("--shard", metavar="I/N", help="Only part I of N; see avcap merge.", rich_help_panel=PANEL)
]


@dataclass(frozen=True, kw_only=True)
class FolderFlags:
    """What the command line says about a folder of captions."""

    formats: Sequence[str] = ()
    one_line: bool = False
    trigger: str | None = None
    strip_openings: bool = False
    keep_existing: bool = False
    relative_to: Path | None = None
    where: str | None = None
    every: float | None = None
    sample: int | None = None
    retry_failed: bool = False
    shard: str | None = None

    def __post_init__(self) -> None:
        if self.sample is not None and self.sample < 1:
            raise UserError(f"got --sample {self.sample}, expected at least 1")
        if self.every is not None:
            check_every(self.every)
        _, subtitles = read_forms(list(self.formats))
        if self.where is not None and subtitles:
            raise UserError("got --where and subtitles, which hold every interval; leave one of them out")
        if self.every is not None and not subtitles:
            raise UserError(
                "got --every without subtitles, whose length it is; add --format srt or vtt, or leave it out"
            )

    def refuse_without_folder(self) -> None:
        """UserError for what only a folder has."""
        given = {
            "--format": self.formats,
            "--one-line": self.one_line,
            "--trigger": self.trigger,
            "--strip-openings": self.strip_openings,
            "--keep-existing": self.keep_existing,
            "--relative-to": self.relative_to,
            "--where": self.where,
            "--sample": self.sample,
            "--retry-failed": self.retry_failed,
        }
        if names := [name for name, value in given.items() if value]:
            raise UserError(f"got {names[0]} without a folder to write to; add --out FOLDER/")


def is_folder(out: str, *, flags: FolderFlags) -> bool:
    """Whether --out means a folder: it is one, ends in "/", has no suffix, or a format was named.

    Raises:
        UserError: it is a file, and a format was named; or it has a suffix of a form that needs a folder.
    """
    path = Path(out)
    separators = tuple(one for one in (os.sep, os.altsep) if one)
    if out.endswith(separators) or path.is_dir():
        if path.exists() and not path.is_dir():
            raise UserError(f"{out}: got a file, expected a folder; choose another --out")
        return True
    if path.exists():
        if flags.formats:
            raise UserError(
                f"{out}: got a file and --format {flags.formats[0]}, expected a folder; choose another --out"
            )
        return False
    forms = {".parquet": "parquet", ".srt": "srt", ".vtt": "vtt"}
    if (form := forms.get(path.suffix.lower())) is not None:
        raise UserError(f"got --out {out}, expected FILE.jsonl or a folder; take --out FOLDER/ --format {form}")
    return not path.suffix or bool(flags.formats)


def folder_job(
    out: str,
    root: Root,
    videos: Sequence[str | Item],
    request: Request,
    *,
    flags: FolderFlags,
    source: Source,
    rows_at_once: int,
    deadline_s: float,
) -> FolderJob:
    """The command line -> what is to be in the folder; forms that need another prompt bring it along."""
    forms, subtitles = read_forms(list(flags.formats))
    if subtitles:
        request = audio_request(request)
    if request.prompt is None and not is_of_one_world(source):
        if subtitles:
            request = _with_prompt(request, SUBTITLE_PROMPT)
        elif "h3" in forms:
            request = _with_prompt(request, H3_PROMPT)
    return FolderJob(
        out=Path(out),
        root=root,
        videos=tuple(videos),
        request=request,
        clip_prompts=None if is_of_one_world(source) else source.prompts,
        forms=tuple(forms),
        subtitles=tuple(subtitles),
        wording=Wording(one_line=flags.one_line, trigger=flags.trigger, strip_openings=flags.strip_openings),
        where=None if flags.where is None else read_where(flags.where, kinds=COLUMNS),
        every_s=EVERY_S if flags.every is None else flags.every,
        keep_existing=flags.keep_existing,
        retry_failed=flags.retry_failed,
        shard=shard_of(flags),
        num_samples=flags.sample,
        rows_at_once=rows_at_once,
        deadline_s=deadline_s,
    )


def shard_of(flags: FolderFlags) -> Shard | None:
    """--shard -> which part; None: all."""
    return None if flags.shard is None else read_shard(flags.shard)


def _with_prompt(request: Request, prompt: str) -> Request:
    return replace(request, prompt=prompt)


def is_of_one_world(source: Source) -> bool:
    """Whether a model knows its own prompts alone."""
    return source.folder is not None and bool(read_settings(source.folder).describes)


def run_folder(
    job: FolderJob, *, stream: Stream, check: Callable[[Caption], None], show: Callable[[Iterable[Caption]], None]
) -> int:
    """A job -> its folder, and lines on stderr that say all that is to be known -> exit code.

    `show`: prints captions, of --sample.
    """
    told = caption_folder(job, stream=stream, check=check, watch=watched)
    if job.num_samples is not None:
        show(told.samples)
    say(
        f"{told.record}: {told.num_new} captions written, {len(told.new_errors)} errors, {told.num_old} captions were "
        "there already"
    )
    for line in _lines(job, told):
        say(line)
    return 0 if told.is_whole else EXIT_SOME_FAILED


def _lines(job: FolderJob, told: Told) -> Iterator[str]:
    """What became of a job -> what is said about it, a line for each kind of thing."""
    out = job.out
    yield f"{out}: {told.num_written} files of captions written ({', '.join(job.forms or job.subtitles)})"
    if told.external:
        yield (
            f"{out}: {len(told.external)} files are there that avcap did not make, or that were edited since, and were "
            f"left as they are: {shown(told.external)}; move them away, and run it again"
        )
    if told.num_cut and not job.subtitles:
        yield f"{out}: {told.num_cut} files were cut into {told.num_clips} clips (--split)"
    if told.num_long and job.long is not None:
        doubled = f"; {told.num_doubled} sentences of overlaps are written once" if told.num_doubled else ""
        yield f"{out}: {told.num_long} captions are of {job.long.made_by}{doubled}"
    if told.num_with_gaps:
        yield f"{out}: {told.num_with_gaps} of them have gaps: a window gave no caption twice, see seen.notes"
    for reason, count in count_reasons(told.left_out).items():
        names = [one.name for one in told.left_out if one.reason == reason]
        yield f"{out}: {count} clips are in {told.record.name} alone ({reason}): {shown(names)}"
    if told.num_filtered:
        yield f"{out}: {told.num_filtered} captions are in {told.record.name} alone (not --where {job_where(job)})"
    if told.num_kept:
        yield f"{out}: {told.num_kept} clips have a side-car already and were not captioned (--keep-existing)"
    if told.num_old_errors:
        yield f"{out}: {told.num_old_errors} clips failed before and were not tried again; --retry-failed does"
    if told.num_without_audio:
        yield f"{out}: {told.num_without_audio} clips have no audio, and so no subtitles"
    if told.num_empty:
        yield f"{out}: {told.num_empty} captions are empty and were written nowhere else"
    if told.num_truncated:
        yield f"{out}: {told.num_truncated} captions were cut off; raise --max-new-tokens, or see avcap filter"
    if told.num_put_into_form:
        yield (
            f"{out}: {told.num_put_into_form} captions were not in the three fields of H3 and were put into them: one "
            "shot, and the sentences about audio"
        )
    if told.num_gone:
        yield f"{out}: {told.num_gone} captions of {told.record.name} are of files that are not below {job.root.folder}"
    if told.skipped_tables:
        yield (
            f"{out}: a shard writes no {', '.join(told.skipped_tables)}: avcap merge {out}/captions.jsonl "
            f"{out}/captions.*-of-{job.shard.count if job.shard else 'N'}.jsonl, then this command without --shard"
        )
    yield from _places(job)
    if job.num_samples is not None:
        yield "look at these; the same command without --sample captions the rest"


def job_where(job: FolderJob) -> str:
    """The condition of a job, as it was written."""
    return " and ".join(part.text for part in job.where.parts) if job.where else ""


def _places(job: FolderJob) -> Iterator[str]:
    """Where a reader looks beside the clips and --out is elsewhere: what to do."""
    readers = [form.reader for name in job.forms if (form := FORMS[name]).reader]
    if readers and os.path.realpath(job.out) != os.path.realpath(job.root.folder):
        yield f"{readers[0]} looks beside the clips: copy {job.out} over {job.root.folder}, or take that for --out"


def watched(rows: Iterator[Caption | CaptionError], num_todo: int | None) -> Iterator[Caption | CaptionError]:
    """Rows -> the same, with a progress bar on a terminal, and errors told as they come."""
    num_errors = 0
    figures = TextColumn("{task.fields[figures]}")
    columns = [TextColumn("captions"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), figures]
    with Progress(*columns, console=stderr, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("captions", total=num_todo, figures="")
        for row in rows:
            yield row
            if isinstance(row, CaptionError):
                say(row.error)
                num_errors += 1
            progress.update(task, advance=1, figures=f"{num_errors} errors" if num_errors else "")
