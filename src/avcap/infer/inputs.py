"""What stands on a command line becomes media files: files, folders, globs and text files of paths. No torch."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from avcap.errors import UserError

MEDIA_SUFFIXES = frozenset(
    [
        ".mp4",
        ".m4v",
        ".mov",
        ".mkv",
        ".webm",
        ".avi",
        ".flv",
        ".f4v",
        ".wmv",
        ".asf",
        ".ts",
        ".m2ts",
        ".mts",
        ".mpg",
        ".mpeg",
        ".vob",
        ".ogv",
        ".3gp",
        ".3g2",
        ".mxf",
        ".gif",
        ".wav",
        ".mp3",
        ".m4a",
        ".aac",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".wma",
        ".aiff",
        ".aif",
    ]
)
"""What is looked at in a folder. A file that is named itself may have any suffix."""
LIST_SUFFIX = ".txt"


@dataclass(kw_only=True)
class MediaFiles:
    """The files found, each once and in the order given, and how many others the folders held, by suffix."""

    paths: list[str] = field(default_factory=list)
    num_skipped: Counter[str] = field(default_factory=Counter)

    def describe_skipped(self) -> str:
        """
        >>> MediaFiles(num_skipped=Counter({".json": 2, "": 1})).describe_skipped()
        '3 files are no media by name (.json 2, without suffix 1)'
        """
        kinds = ", ".join(f"{suffix or 'without suffix'} {count}" for suffix, count in self.num_skipped.most_common())
        total = self.num_skipped.total()
        return f"{total} file{'s are' if total > 1 else ' is'} no media by name ({kinds})"


def find_media(inputs: Iterable[str]) -> MediaFiles:
    """Files, folders, globs and lists -> the media files they mean.

    A file that does not exist is kept: it becomes an error row of its own. A folder without media, a pattern without
    matches and an unreadable folder or list are a UserError, because a typing error in them would be silent.
    """
    found = MediaFiles()
    seen: set[str] = set()
    for text in inputs:
        for path in _expand(text, found.num_skipped):
            if path not in seen:
                seen.add(path)
                found.paths.append(path)
    if not found.paths:
        raise UserError("got no files; expected video or sound files, folders, globs or a .txt file that lists them")
    return found


def _expand(text: str, num_skipped: Counter[str]) -> list[str]:
    """One word of the command line -> files."""
    path = Path(text)
    if path.is_dir():
        return _walk(text, num_skipped)
    if path.suffix.lower() == LIST_SUFFIX and path.exists():
        return [file for line in _read_list(path) for file in _expand_line(line, num_skipped)]
    if not path.exists() and glob.has_magic(text):
        matches = sorted(glob.glob(text, recursive=True))
        if not matches:
            raise UserError(f"{text}: got a pattern that no file matches; check it, from {os.getcwd()}")
        return [file for match in matches for file in _expand_line(match, num_skipped)]
    return [text]


def _expand_line(text: str, num_skipped: Counter[str]) -> list[str]:
    """A line of a list or a match of a pattern: it may be a folder, but is never a list or a pattern again."""
    return _walk(text, num_skipped) if os.path.isdir(text) else [text]


def _walk(folder: str, num_skipped: Counter[str]) -> list[str]:
    """Folder -> the media files below it, sorted; names that begin with a dot are passed over."""
    paths = []
    for path in _files_below(folder):
        suffix = Path(path).suffix.lower()
        if suffix in MEDIA_SUFFIXES:
            paths.append(path)
        else:
            num_skipped[suffix] += 1
    if not paths:
        expected = ", ".join(sorted(MEDIA_SUFFIXES))
        raise UserError(f"{folder}: got a folder without media files; expected some of {expected}")
    return paths


def _files_below(folder: str) -> Iterator[str]:
    def fail(error: OSError) -> None:
        raise UserError(f"{error.filename}: got a folder that cannot be read ({error.strerror}); check its permissions")

    for parent, folders, files in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(parent, name) for name in sorted(files) if not name.startswith("."))


def _read_list(path: Path) -> list[str]:
    """Text file -> the paths in it, one a line, seen from the current folder; lines that begin with # are comments."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UserError(f"{path}: got a list that cannot be read ({reason}); expected one path a line") from None
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise UserError(f"{path}: got a list without a path; expected one path a line")
    return lines
