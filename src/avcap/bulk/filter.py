"""Captions -> those that a condition on their columns keeps, and the others with their reasons. No torch."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import IO

from avcap.bulk.agreement import agreement_with
from avcap.bulk.quality import Quality, quality_of
from avcap.bulk.where import NOT_TRUE, Where, read_where
from avcap.errors import UserError
from avcap.files.claim import refuse_external
from avcap.files.write import replacing
from avcap.infer.caption_file import Row, read_rows
from avcap.records import Caption, CaptionError, DroppedCaption, read_jsonl, to_json

NO_CAPTION = "no caption"
COLUMNS = {**Quality.kinds(), "frames": "int64", "model": "string", "video": "string", "text": "string"}
"""What --where may name."""
AGREEMENT = "agreement"
AGREEMENT_COLUMNS = {**COLUMNS, AGREEMENT: "float64"}
"""The same where there are samples to compare with."""
AgreementOf = Callable[[Caption], float | None]


def _unknown(_: Caption) -> None:
    return None


@dataclass(kw_only=True)
class Filtered:
    """How many were kept, and for what the others were dropped."""

    num_kept: int = 0
    num_dropped: int = 0
    where: str = ""
    """The condition, as it was given or found."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Part of the condition, or "no caption" -> captions that it dropped."""


def filter_captions(
    captions: Path, *, kept: Path, dropped: Path, where: str | None = None, samples: Path | None = None
) -> Filtered:
    """A file of captions -> kept.jsonl with records as they were, dropped.jsonl with reasons.

    Args:
        captions: The file.
        kept: Where those go that are kept.
        dropped: Where the others go.
        where: The condition; None: the half that agrees best with `samples`.
        samples: Several captions of each clip, for the column `agreement`.

    Raises:
        UserError: --where is no condition, the file is none of captions, or an output is somebody else's file.
    """
    agreement_of: AgreementOf = _unknown
    if samples is not None:
        agreement_of = agreement_with(row for row in read_rows(samples) if isinstance(row, Caption))
    where = where or _better_half(captions, agreement_of)
    condition = read_where(where, kinds=COLUMNS if samples is None else AGREEMENT_COLUMNS)
    if len({path.resolve() for path in (captions, kept, dropped)}) < 3:
        raise UserError(f"got {kept} and {dropped} to write and {captions} to read, expected three files")
    refuse_external(kept, is_ours=lambda file: all(True for _ in read_rows(file)), expected="a file of captions")
    refuse_external(
        dropped,
        is_ours=lambda file: all(True for _ in read_jsonl(file, DroppedCaption)),
        expected="a list of dropped ones",
    )
    told = Filtered(where=where)
    with _replacing(kept) as kept_file, _replacing(dropped) as dropped_file:
        for row, reasons in judged(read_rows(captions), condition, agreement_of=agreement_of):
            told.num_kept += not reasons
            told.num_dropped += bool(reasons)
            if not reasons:
                kept_file.write(to_json(row) + "\n")
                continue
            told.reasons.update(_kind(reason) for reason in reasons)
            caption_id = row.caption_id if isinstance(row, Caption) else None
            one = DroppedCaption(sample_id=row.sample_id, video=row.video, caption_id=caption_id, reasons=reasons)
            dropped_file.write(to_json(one) + "\n")
    return told


def _better_half(captions: Path, agreement_of: AgreementOf) -> str:
    """A file -> the condition that half of its captions fulfil, on the column that was found to rank them."""
    values = [agreement_of(row) for row in read_rows(captions) if isinstance(row, Caption)]
    known = [value for value in values if value is not None]
    if not known:
        raise UserError(
            "got no --where, and no --samples with other captions of these clips, expected one of them: no column that "
            "all models have was found to rank captions without samples (avcap sample)"
        )
    return f"{AGREEMENT}>={median(known):g}"


def judged(
    rows: Iterable[Row], condition: Where, *, agreement_of: AgreementOf = _unknown
) -> Iterator[tuple[Row, tuple[str, ...]]]:
    """Rows -> each with the reasons to drop it; a video without a caption has one, too."""
    for row in rows:
        if isinstance(row, CaptionError):
            yield row, (f"{NO_CAPTION}: {row.error}",)
        else:
            yield row, condition.reasons({**columns_of(row), AGREEMENT: agreement_of(row)})


def columns_of(caption: Caption) -> dict[str, float | int | bool | str | None]:
    """A caption -> all columns that a condition may name."""
    return {
        **vars(quality_of(caption)),
        "frames": caption.seen.frames,
        "model": caption.checkpoint,
        "video": caption.video,
        "text": caption.text,
    }


def _kind(reason: str) -> str:
    """A reason -> the same without the values of one caption."""
    return NO_CAPTION if reason.startswith(NO_CAPTION) else reason.rpartition(NOT_TRUE)[0]


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[str]]:
    with replacing(path) as aside, open(aside, "w", encoding="utf-8", errors="backslashreplace") as handle:
        yield handle
