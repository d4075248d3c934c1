"""Records of shards -> one, in the order of one process; captions of two models are never mixed. No torch.

Only the places of rows are held in memory: their texts are copied from file to file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from avcap.bulk.places import order_key
from avcap.errors import UserError
from avcap.files.claim import refuse_external
from avcap.files.write import replacing
from avcap.infer.caption_file import Row, read_row, read_rows
from avcap.records import Caption, to_json


@dataclass(frozen=True, kw_only=True)
class Merged:
    """How many rows went in, and what was left of them."""

    num_captions: int
    num_errors: int
    num_same: int
    """Rows that stood in two files, or errors of clips that another file has a caption of."""


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a row stands."""

    file: int
    offset: int
    is_caption: bool


def merge_captions(out: Path, files: Sequence[Path]) -> Merged:
    """Files of captions -> one, sorted as a folder is searched, each clip once.

    Raises:
        UserError: they are of two models, or captioned in two ways; two captions of one clip differ; a file is none of
            captions, or `out` is somebody else's.
    """
    refuse_external(out, is_ours=lambda file: all(True for _ in read_rows(file)), expected="a file of captions")
    rows = _Rows(files)
    with replacing(out) as aside, open(aside, "w", encoding="utf-8", errors="backslashreplace") as handle:
        handle.writelines(to_json(row) + "\n" for row in rows.sorted())
    captions = sum(place.is_caption for place in rows.places.values())
    return Merged(num_captions=captions, num_errors=len(rows.places) - captions, num_same=rows.num_same)


class _Rows:
    """All rows of the files, by clip."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        self.places: dict[tuple[str, str], _Place] = {}
        self.num_same = 0
        self._starts: dict[tuple[str, str], float] = {}
        self._ways: dict[str, tuple[Path, object]] = {}
        for index, path in enumerate(files):
            for offset, row in _rows_with_offsets(path):
                self._check_way(row, path)
                self._add(row, _Place(file=index, offset=offset, is_caption=isinstance(row, Caption)))

    def sorted(self) -> Iterator[Row]:
        """The rows in order: by the clip's path, then by the part of it."""
        keys = sorted(self.places, key=lambda key: (order_key(key[0]), self._starts.get(key, -1.0), key[1]))
        handles = [open(path, "rb") for path in self.files]  # noqa: SIM115
        try:
            for key in keys:
                place = self.places[key]
                yield _row_at(handles[place.file], place.offset, self.files[place.file])
        finally:
            for handle in handles:
                handle.close()

    def _add(self, row: Row, place: _Place) -> None:
        key = (row.video, row.sample_id)
        if isinstance(row, Caption) and row.interval_s is not None:
            self._starts[key] = row.interval_s[0]
        before = self.places.get(key)
        if before is None:
            self.places[key] = place
            return
        self.num_same += 1
        if place.is_caption and before.is_caption:
            self._refuse_another(row, before, place)
        elif place.is_caption:
            self.places[key] = place

    def _refuse_another(self, row: Row, before: _Place, place: _Place) -> None:
        path = self.files[before.file]
        with open(path, "rb") as handle:
            if _row_at(handle, before.offset, path) != row:
                raise UserError(
                    f"{self.files[place.file]}: got another caption of {row.sample_id} than {path}, expected one of "
                    "each clip; leave one of the files out"
                )

    def _check_way(self, row: Row, path: Path) -> None:
        """UserError where a caption was made otherwise than those before it."""
        if not isinstance(row, Caption):
            return
        ways: dict[str, object] = {"model": row.checkpoint, "decoding": row.decoding}
        if row.interval_s is None and row.seen.audio != "dropped":
            audio = bool(row.seen.audio_tokens or row.seen.audio_seconds)
            ways[f"prompt (frames: {row.seen.frames > 0}, audio: {audio})"] = row.prompt
        for name, value in ways.items():
            first, expected = self._ways.setdefault(name, (path, value))
            if value != expected:
                raise UserError(
                    f"{path}: got captions of another {name.partition(' ')[0]} ({str(value)[:120]}) than {first} has "
                    f"({str(expected)[:120]}), expected shards of one run; merge each model's files on their own"
                )


def _rows_with_offsets(path: Path) -> Iterator[tuple[int, Row]]:
    """A file of captions -> each row and where it begins; errors and torn ends as `read_rows`."""
    rows = read_rows(path)
    with open(path, "rb") as handle:
        offset = 0
        for line in handle:
            if line.strip():
                row = next(rows, None)
                if row is None:
                    return  # a torn last line
                yield offset, row
            offset += len(line)


def _row_at(handle: IO[bytes], offset: int, path: Path) -> Row:
    handle.seek(offset)
    return read_row(handle.readline().decode("utf-8"), where=str(path))
