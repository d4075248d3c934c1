"""A model captions all samples of a truth, whole videos and intervals, so that it can be evaluated. No torch by itself.

Stopped and run again it goes on with the samples that have no caption yet.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from avcap.errors import UserError
from avcap.infer.caption_file import CaptionFile, Row
from avcap.infer.request import Request
from avcap.judge.ingest import Truth
from avcap.records import Caption, Sample


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
