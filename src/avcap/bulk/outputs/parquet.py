"""captions.parquet: one row for each clip, with all that the record and the columns of quality say. Needs pyarrow."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from avcap.bulk.outputs.clips import CaptionedClip, Table, TableFiles
from avcap.bulk.places import Root
from avcap.bulk.quality import Quality, quality_of
from avcap.errors import UserError

ROWS_AT_ONCE = 10_000


def _check() -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise UserError(
            "got --format parquet, which needs pyarrow; pip install 'avcap[data]', or take captions.jsonl"
        ) from None


def make_parquet(clips: Sequence[CaptionedClip], out: Path, root: Root) -> TableFiles:
    """Clips -> captions.parquet, written row group by row group."""

    def write(path: Path) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        schema = pa.schema([(name, _arrow_type(pa, name)) for name in _COLUMNS])
        with parquet.ParquetWriter(path, schema) as writer:
            rows = iter(clips)
            while some := list(islice(rows, ROWS_AT_ONCE)):
                writer.write_table(pa.Table.from_pylist([row_of(clip) for clip in some], schema=schema))

    return TableFiles(files={"captions.parquet": write})


def row_of(clip: CaptionedClip) -> dict[str, Any]:
    """A clip -> its row: plain values by column."""
    caption, seen = clip.caption, clip.caption.seen
    row = {
        "file_name": clip.name,
        "video": clip.path,
        "caption": clip.text,
        "text": caption.text,
        "caption_id": caption.caption_id,
        "sample_id": caption.sample_id,
        "prompt": caption.prompt,
        "model": caption.checkpoint,
        "start_s": caption.interval_s[0] if caption.interval_s else None,
        "end_s": caption.interval_s[1] if caption.interval_s else None,
        "frames": seen.frames,
        "notes": list(seen.notes),
        **vars(quality_of(caption)),
    }
    return {name: _utf8(value) for name, value in row.items()}


def _utf8(value: Any) -> Any:
    """Odd file names have half characters in them, which no column of text takes: they are written as JSON does."""
    return value.encode("utf-8", errors="backslashreplace").decode() if isinstance(value, str) else value


_TEXTS = ("file_name", "video", "caption", "text", "caption_id", "sample_id", "prompt", "model")
_COLUMNS: dict[str, str] = {
    **dict.fromkeys(_TEXTS, "string"),
    **dict.fromkeys(("start_s", "end_s"), "float64"),
    "frames": "int64",
    "notes": "strings",
    **{name: Quality.kinds()[name] for name in Quality.kinds()},
}


def _arrow_type(pa: Any, name: str) -> Any:
    kinds = {
        "string": pa.string,
        "float64": pa.float64,
        "int64": pa.int64,
        "bool": pa.bool_,
        "strings": lambda: pa.list_(pa.string()),
    }
    return kinds[_COLUMNS[name]]()


PARQUET = Table(file="captions.parquet", make=make_parquet, check=_check)


def column_names() -> Iterator[str]:
    """The columns, in order."""
    yield from _COLUMNS
