"""Which name a clip has below its folder: what side-cars mirror, tables name, and shards are drawn by. No torch.

clips/a/001.mp4 below clips  ->  a/001.mp4  ->  OUT/a/001.txt
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from avcap.errors import UserError
from avcap.files.walk import existing_spelling

MOST_SHARDS = 100_000


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Part `index` of `count`, counted from 1."""

    index: int
    count: int

    @property
    def suffix(self) -> str:
        """What tells its files from those of the others: ".2-of-4"."""
        return f".{self.index}-of-{self.count}"

    def holds(self, relative: str) -> bool:
        """Whether a name below the root is of this shard: by its hash, so that files that come later move no other."""
        digest = hashlib.sha256(os.fsencode(relative)).digest()
        return int.from_bytes(digest[:8]) % self.count == self.index - 1


def read_shard(text: str) -> Shard:
    """ "2/4" -> the second of four. UserError for anything else."""
    index, slash, count = text.partition("/")
    is_number = slash and all(part.isascii() and part.isdigit() and len(part) < 9 for part in (index, count))
    if not is_number or not 1 <= int(index) <= int(count) <= MOST_SHARDS:
        raise UserError(f"got --shard {text}, expected I/N with I from 1 to N, as in --shard 2/4")
    return Shard(index=int(index), count=int(count))


@dataclass(frozen=True, kw_only=True)
class Root:
    """The folder that the names of clips are seen from. `is_given`: by --relative-to, not found from the inputs."""

    folder: str
    is_given: bool = False

    def relative(self, video: str) -> str:
        """A clip -> its name below the folder, with "/" between its parts. UserError if it lies elsewhere."""
        path = os.path.abspath(video)
        if (name := relative_name(path, self.folder)) is None:
            raise UserError(
                f"{video}: got a file outside {self.folder}, expected all files below it; name another --relative-to"
            )
        return name


def find_root(inputs: Sequence[str], videos: Iterable[str], *, relative_to: Path | None = None) -> Root:
    """The words of the command line and the files they mean -> the folder that all the files lie in.

    One folder that was named is that folder, whatever is in it; else it is the deepest that holds all of them.

    Raises:
        UserError: --relative-to is no folder.
    """
    if relative_to is not None:
        if not relative_to.is_dir():
            raise UserError(f"{relative_to}: got no folder for --relative-to, expected the one that the files lie in")
        return Root(folder=os.path.abspath(relative_to), is_given=True)
    folders = [os.path.abspath(word) for text in inputs if os.path.isdir(word := existing_spelling(text) or text)]
    if len(folders) == len(inputs) == 1:
        return Root(folder=folders[0])
    every = folders + [os.path.dirname(os.path.abspath(video)) for video in videos]
    return Root(folder=os.path.commonpath(every) if every else os.getcwd())


def relative_name(path: str, folder: str) -> str | None:
    """Two absolute paths -> the first, seen from the second, with "/" between its parts; None if it is not below it."""
    try:
        name = os.path.relpath(path, folder)
    except ValueError:  # two drives
        return None
    if os.path.isabs(name) or name.split(os.sep)[0] in (os.pardir, os.curdir):
        return None
    return name.replace(os.sep, "/")


def in_order(names: Mapping[str, str]) -> list[str]:
    """Paths -> their names below the root; the paths in the order in which a folder is searched."""
    return sorted(names, key=lambda path: order_key(names[path]))


def order_key(name: str) -> tuple[tuple[int, str], ...]:
    """A name -> where it stands: the files of a folder by their names, then its folders, as files.walk finds them."""
    *folders, file = name.replace(os.sep, "/").split("/")
    return (*((1, folder) for folder in folders), (0, file))
