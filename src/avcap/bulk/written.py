"""Files that avcap made, and may write anew; all others are left as they are. No torch.

What was written stands in OUT/.avcap/written.jsonl: each file with the hash of its content, noted before the file gets
it. So a file is ours as long as its content is one that we gave it: what a person has edited is that person's.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from avcap.bulk.places import Shard
from avcap.errors import UserError
from avcap.files.hashes import hash_file
from avcap.files.journal import read_lines
from avcap.files.write import replacing, write_errors
from avcap.records import WrittenFile, journal, line_format

NOTES = ".avcap"
NAMES_SHOWN = 3


@dataclass(kw_only=True)
class Tally:
    """What became of the files that were to be written."""

    num_written: int = 0
    num_same: int = 0
    """They were there, with the same content."""
    external: list[str] = field(default_factory=list)
    """They are there, and avcap did not make them, or somebody edited them since: left as they are."""


class WrittenFiles:
    """Context manager: writes files below a folder, never over one that is somebody else's. Asking needs no `with`."""

    def __init__(self, out: Path, *, shard: Shard | None = None) -> None:
        self.out = out
        self.tally = Tally()
        self._notes = out / NOTES
        self._journal = journal(self._notes / f"written{shard.suffix if shard else ''}.jsonl", WrittenFile)
        self._hashes: defaultdict[str, set[str]] = defaultdict(set)
        for path in sorted(self._notes.glob("written*.jsonl")):  # of all shards
            for row in read_lines(path, line_format(WrittenFile)):
                self._hashes[row.path].add(row.sha256)
        self._size = self._size_now()

    def __enter__(self) -> "WrittenFiles":
        with write_errors(self.out):
            self._notes.mkdir(parents=True, exist_ok=True)
        self._journal.__enter__()
        try:
            if self._size_now() != self._size:  # another run has ended meanwhile
                for row in self._journal.read():
                    self._hashes[row.path].add(row.sha256)
        except BaseException as error:
            self._journal.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._journal.__exit__(kind, error, trace)

    def _size_now(self) -> int:
        path = self._journal.path
        return path.stat().st_size if path.is_file() else 0

    def is_ours(self, name: str) -> bool:
        """Whether a file is there with a content that avcap gave it."""
        path = self.out / name
        return path.is_file() and name in self._hashes and hash_file(path) in self._hashes[name]

    def is_external(self, name: str) -> bool:
        """Whether something is there that avcap did not make."""
        return os.path.lexists(self.out / name) and not self.is_ours(name)

    def refuse_external(self, name: str) -> None:
        """UserError if something is there that avcap did not make: asked before hours of work."""
        if self.is_external(name):
            raise UserError(
                f"{self.out / name}: is there already and is not of avcap, or was edited since; move it away, or "
                "choose another --out"
            )

    def remove(self, name: str) -> None:
        """Takes a file away if avcap made it."""
        if self.is_ours(name):
            with write_errors(self.out / name):
                (self.out / name).unlink()

    def write(self, name: str, data: bytes) -> None:
        """A file's name below the folder and its content -> the file, unless one of somebody else's is there."""
        digest = hashlib.sha256(data).hexdigest()
        self._put(name, digest=digest, place=lambda aside: _move_bytes(data, aside))

    def write_by(self, name: str, make: Callable[[Path], None]) -> None:
        """The same for a content that `make` writes at the path it is given."""
        self._notes.mkdir(parents=True, exist_ok=True)
        made = self._notes / f"{os.getpid()}.making"
        try:
            make(made)
            self._put(name, digest=hash_file(made), place=lambda aside: os.replace(made, aside))
        finally:
            made.unlink(missing_ok=True)

    def _put(self, name: str, *, digest: str, place: Callable[[Path], None]) -> None:
        path = self.out / name
        if path.is_file() and hash_file(path) == digest:
            self.tally.num_same += 1
            return
        if self.is_external(name):
            self.tally.external.append(name)
            return
        if digest not in self._hashes[name]:
            self._journal.append([WrittenFile(path=name, sha256=digest)])
            self._hashes[name].add(digest)
        with replacing(path, durable=False) as aside:  # the record is durable, and gives the file again
            place(aside)
        self.tally.num_written += 1


def _move_bytes(data: bytes, aside: Path) -> None:
    aside.write_bytes(data)


def shown(names: list[str]) -> str:
    """Names -> the first of them, for a message."""
    rest = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
