"""Lists as parquet, and datasets of the hub whose parquet files hold the videos themselves. Needs pyarrow. No torch.

A column of a video is a text that names a file, bytes, or the struct {bytes, path} that `datasets` writes. Bytes are
read when their turn comes: never more than a page of a column is in memory.
"""

import os
from collections.abc import Iterator
from typing import IO, Any

from avcap.bulk.inputs.columns import VIDEO, item_of
from avcap.bulk.inputs.items import Item, ParquetCell
from avcap.bulk.inputs.tar import safe_name
from avcap.errors import UserError
from avcap.files.walk import is_media, suffix_of

SUFFIX = ".parquet"
PACKED = (*VIDEO, "mp4", "webm", "mkv")
ROWS_AT_ONCE = 1024


def open_parquet(path: str) -> Any:
    """A parquet file, open; UserError says what to install, or that it is none."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise UserError(
            f"{path}: reading parquet needs pyarrow; pip install 'avcap[data]', or save the list as JSONL"
        ) from None
    try:
        # neither mapped nor read ahead: a file of videos is far larger than memory
        return parquet.ParquetFile(path, memory_map=False, pre_buffer=False, buffer_size=2**16)
    except (OSError, ArrowException) as error:
        raise UserError(f"{path}: cannot be read as parquet ({error}); expected a list of videos") from None


def packed_column(file: Any) -> str | None:
    """An open file -> its column of bytes, as "video.bytes"; None: it names files."""
    from pyarrow import types

    for name in PACKED:
        index = file.schema_arrow.get_field_index(name)
        if index < 0:
            continue
        kind = file.schema_arrow.field(index).type
        if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            return f"{name}.bytes"
        if types.is_binary(kind) or types.is_large_binary(kind):
            return name
    return None


def holds_videos(path: str) -> bool:
    """Whether a parquet file of a folder has the videos themselves in it."""
    with open_parquet(path) as file:
        return packed_column(file) is not None


def read_parquet(path: str) -> Iterator[Item]:
    """A parquet file -> an item for each row, in order; bad rows are items with errors."""
    with open_parquet(path) as file:
        column = packed_column(file)
        names = [name for name in file.schema_arrow.names if column is None or name != column.partition(".")[0]]
        places = [] if column is None or "." not in column else [column.replace(".bytes", ".path")]
        number = 0
        for group in range(file.metadata.num_row_groups):
            has_bytes = column is not None and not _all_null(file, group, column)
            index = 0
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, row_groups=[group], columns=[*names, *places]):
                for row in _rows(batch, count=batch.num_rows):
                    number += 1
                    if not has_bytes or column is None:
                        yield item_of(row, path=path, number=number)
                    else:
                        cell = ParquetCell(container=path, row_group=group, index=index, column=column)
                        yield _packed(row, path=path, number=number, cell=cell)
                    index += 1


def _rows(batch: Any, *, count: int) -> Iterator[dict[str, Any]]:
    """A batch -> its rows as plain values; with no column but the bytes, empty ones."""
    yield from batch.to_pylist() if batch.num_columns else ({} for _ in range(count))


def _all_null(file: Any, group: int, column: str) -> bool:
    """Whether a group has paths instead of bytes, as its statistics tell; without them it is taken to have bytes."""
    about = file.metadata.row_group(group)
    for index in range(about.num_columns):
        chunk = about.column(index)
        if chunk.path_in_schema == column:
            counts = chunk.statistics
            return bool(counts is not None and counts.has_null_count and counts.null_count == about.num_rows)
    return False


def _packed(row: dict[str, Any], *, path: str, number: int, cell: ParquetCell) -> Item:
    """A row whose video is in the file itself: called by its number, because paths in datasets stand for nothing."""
    place = f"{path}/{number - 1}"
    told = (row.get(cell.column.partition(".")[0]) or {}).get("path") if "." in cell.column else None
    suffix = suffix_of(told) if isinstance(told, str) and is_media(told) else ".mp4"
    found = item_of({**row, "video": f"{number - 1}{suffix}"}, path=path, number=number)
    if found.error:
        return found
    shard = os.path.splitext(os.path.basename(path))[0]
    stem = safe_name(os.path.splitext(os.path.basename(told))[0]) if isinstance(told, str) and told else ""
    return Item(
        video=f"{place}{suffix}",
        sample_id=found.sample_id or place,
        prompt=found.prompt,
        interval_s=found.interval_s,
        packed=cell,
        name_in_container=f"{shard}/{number - 1:06}{'_' + stem if stem else ''}{suffix}",
    )


class CellReader:
    """Reads cells of parquet files, one at a time; in order, each page is read once."""

    def __init__(self) -> None:
        self._at: tuple[str, int, str] | None = None
        self._index = 0
        self._file: Any = None
        self._values: Iterator[Any] = iter(())

    def copy(self, cell: ParquetCell, handle: IO[bytes]) -> None:
        """A cell -> its bytes in an open file. UserError if it has none, or cannot be read."""
        at = (cell.container, cell.row_group, cell.column)
        if self._at != at or cell.index < self._index:
            self.close()
            self._file, self._at, self._index = open_parquet(cell.container), at, 0
            batches = self._file.iter_batches(batch_size=1, row_groups=[cell.row_group], columns=[cell.column])
            self._values = (value for batch in batches for value in batch.column(0))
        value = None
        while self._index <= cell.index:
            value = self._next(cell)
            self._index += 1
        data = value["bytes"].as_buffer() if value is not None and "." in cell.column and value.is_valid else None
        if value is not None and "." not in cell.column and value.is_valid:
            data = value.as_buffer()
        if data is None:
            raise UserError("got an empty cell, expected the bytes of a video")
        handle.write(data)

    def _next(self, cell: ParquetCell) -> Any:
        from pyarrow import ArrowException

        try:
            return next(self._values)
        except (OSError, ArrowException, StopIteration) as error:
            raise UserError(f"{cell.container}: cannot be read ({error or 'it has become shorter'})") from None

    def close(self) -> None:
        """Lets go of the file."""
        if self._file is not None:
            self._file.close()
        self._at, self._file, self._values = None, None, iter(())
