"""A model captions all samples of a truth, once to be evaluated, or several times to choose from. No torch by itself.

Stopped and run again it goes on with the samples that have no caption yet.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from avcap.data.request import Request
from avcap.errors import UserError
from avcap.files.journal import Journal
from avcap.infer.caption_file import ROWS, CaptionFile, Row
from avcap.judge.inputs.ingest import Truth
from avcap.records import Caption, CaptionError, Sample


def caption_samples(
    truth: Truth,
    *,
    out: Path,
    request: Request,
    checkpoint: str,
    stream: Callable[[Sequence[Sample]], Iterator[Row]],
    rows_at_once: int = 8,
    watch: Callable[[Iterator[Row], int], Iterable[Row]] = lambda rows, _: rows,
) -> int:
    """Truth -> a JSONL file of captions and errors, one for each sample -> how many were there already.

    `checkpoint`: the name of the model in captions. `stream`: captions samples; not called if all is done.
    """
    samples = [dataclasses.replace(sample, video=truth.video_path(sample)) for sample in truth.samples]

    def check(row: Caption) -> None:
        if (row.checkpoint, row.decoding) != (checkpoint, request.decoding):
            raise UserError(
                f"got captions of {row.checkpoint} with {row.decoding}, expected {checkpoint} with {request.decoding}; "
                "choose another --out"
            )

    out.parent.mkdir(parents=True, exist_ok=True)
    with CaptionFile(out, retry={sample.sample_id for sample in samples}, check=check) as file:
        todo = [sample for sample in samples if sample.sample_id not in file.done]
        rows = iter(watch(stream(todo), len(todo)) if todo else ())
        while batch := list(islice(rows, rows_at_once)):
            file.append(batch)
    return len(samples) - len(todo)


def sample_captions(
    samples: Sequence[Sample],
    *,
    out: Path,
    check: Callable[[Caption], None],
    sample: Callable[[Sequence[Sample]], Iterator[Row]],
    num_answers: int,
    watch: Callable[[Iterator[list[Row]], int], Iterable[list[Row]]] = lambda rows, _: rows,
) -> tuple[int, list[CaptionError]]:
    """Samples -> a JSONL file with `num_answers` captions of each; a sample has all of them in it, or none.

    Args:
        samples: What is captioned; those that have all their captions in the file already are left out.
        out: The file; a stopped run goes on with it.
        check: UserError for a caption that was made otherwise.
        sample: Captions samples, the captions of each next to each other; not called if all is done.
        num_answers: Captions of each sample.
        watch: Groups of rows, and how many will come -> the same, for a progress bar.

    Returns:
        How many samples were there already, and the errors of those that could not be captioned.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with Journal(out, ROWS) as lines:
        done = _whole_samples(lines, check=check, num_answers=num_answers, retry={one.sample_id for one in samples})
        todo = [one for one in samples if one.sample_id not in done]
        errors: list[CaptionError] = []
        groups = groups_by_sample(sample(todo), num_answers=num_answers) if todo else iter(())
        for group in watch(groups, len(todo)):
            lines.append(group)
            errors += [row for row in group if isinstance(row, CaptionError)]
    return len(samples) - len(todo), errors


def _whole_samples(
    lines: Journal[Row], *, check: Callable[[Caption], None], num_answers: int, retry: Collection[str]
) -> set[str]:
    """What a stopped run left -> the samples that have all their captions; what else is of `retry` goes."""
    rows = list(lines.read())
    for row in rows:
        if isinstance(row, Caption):
            check(row)
    counts = Counter(row.sample_id for row in rows if isinstance(row, Caption))
    if too_many := [sample_id for sample_id, count in counts.items() if count > num_answers]:
        raise UserError(
            f"got {counts[too_many[0]]} captions of {too_many[0]!r} in the file, expected at most {num_answers}; "
            "choose another --out"
        )
    whole = {sample_id for sample_id, count in counts.items() if count == num_answers}
    kept = [row for row in rows if row.sample_id in whole or row.sample_id not in retry]
    if len(kept) < len(rows):
        lines.rewrite(kept)
    return whole


def groups_by_sample(rows: Iterator[Row], *, num_answers: int) -> Iterator[list[Row]]:
    """Rows of a captioner's `sample` -> those of one sample each: its `num_answers` captions, or its error."""
    for row in rows:
        if isinstance(row, CaptionError):
            yield [row]
        else:
            yield [row, *islice(rows, num_answers - 1)]
