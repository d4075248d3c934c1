"""What stands on a command line becomes media files: files, folders, globs and text files of paths. No torch."""

import fnmatch
import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from avcap.errors import UserError
from avcap.files.walk import (
    MEDIA_SUFFIXES,
    Found,
    NotTaken,
    RealPaths,
    existing_spelling,
    files_below,
    is_media,
    suffix_of,
)
from avcap.texts.read import LARGEST_TEXT, open_text

LIST_SUFFIX = ".txt"
LIST = "a list of paths, one a line"


@dataclass(kw_only=True)
class MediaFiles:
    """The files found, each once and in the order given, and all that folders and lists had besides."""

    paths: list[str] = field(default_factory=list)
    not_taken: NotTaken = field(default_factory=NotTaken)


def find_media(inputs: Iterable[str]) -> MediaFiles:
    """Files, folders, globs and lists -> the media files they mean.

    A file that does not exist is kept: it becomes an error row of its own. A folder without media, a pattern without
    matches and an unreadable folder or list are a UserError, because a typing error in them would be silent. A file
    with several names (links, `x` and `./x`) is taken by the first.
    """
    found = MediaFiles()
    real_paths = RealPaths()
    seen: set[str] = set()
    for text in inputs:
        for file in _expand(text, found.not_taken, real_paths):
            if file.real in seen:
                found.not_taken.num_again += 1
                continue
            seen.add(file.real)
            found.paths.append(file.path)
    if not found.paths:
        raise UserError("got no files; expected video or sound files, folders, globs or a .txt file that lists them")
    return found


def _expand(text: str, not_taken: NotTaken, real_paths: RealPaths) -> Iterator[Found]:
    """One word of the command line -> files."""
    spelled = existing_spelling(text)
    if spelled is None and glob.has_magic(text):
        yield from _matches(text, not_taken, real_paths)
    elif spelled is not None and suffix_of(spelled) == LIST_SUFFIX and not os.path.isdir(spelled):
        for line in _read_list(spelled, not_taken):
            yield from _file_or_folder(line, not_taken, real_paths)
    else:
        yield from _file_or_folder(spelled or text, not_taken, real_paths)


def _file_or_folder(text: str, not_taken: NotTaken, real_paths: RealPaths) -> Iterator[Found]:
    """A line of a list or a match of a pattern: it may be a folder, but is never a list or a pattern again."""
    if not os.path.isdir(text):
        yield Found(path=text, real=real_paths(text))
        return
    here, is_empty = NotTaken(), True
    for file in files_below(text, is_expected=is_media, not_taken=here):
        is_empty = False
        yield file
    if is_empty:
        why = f" ({here.describe()})" if here else ""
        raise UserError(
            f"{text}: got a folder without media files{why}; expected some of {', '.join(sorted(MEDIA_SUFFIXES))}"
        )
    not_taken.add(here)


def _matches(pattern: str, not_taken: NotTaken, real_paths: RealPaths) -> Iterator[Found]:
    """A pattern -> what it matches, sorted. `**` is any number of folders, none of them entered twice."""
    before, stars, after = pattern.partition("**")
    if stars and not glob.has_magic(before) and (not after or after[0] in _SEPARATORS):
        expected = [part for part in after.replace(os.altsep or "/", os.sep).split(os.sep) if part]
        folder = before or os.curdir
        matches = list(_matches_below(folder, expected, is_named=bool(before))) if os.path.isdir(folder) else []
    else:
        matches = sorted(glob.glob(pattern))
    if not matches:
        raise UserError(f"{pattern}: got a pattern that no file matches; check it, from {os.getcwd()}")
    for match in matches:
        yield from _file_or_folder(match, not_taken, real_paths)


_SEPARATORS = (os.sep, os.altsep or os.sep)


def _matches_below(folder: str, expected: Sequence[str], *, is_named: bool) -> Iterator[str]:
    """The files below a folder whose last parts match; without any parts, all media files."""
    rest = list(expected) or ["*"]
    for file in files_below(folder, is_expected=lambda name: bool(expected) or is_media(name), not_taken=NotTaken()):
        parts = os.path.relpath(file.path, folder).split(os.sep)
        if _fits(parts, ["**", *rest]):
            yield file.path if is_named else os.path.normpath(file.path)


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern or not parts:
        return not pattern and not parts
    if pattern[0] == "**":
        return _fits(parts, pattern[1:]) or _fits(parts[1:], pattern)
    return fnmatch.fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


# --- lists ------------------------------------------------------------------------------------------------------------


def _read_list(path: str, not_taken: NotTaken) -> list[str]:
    """Text file -> the paths in it, one a line (or as `find -print0` writes them), seen from the current folder.

    A line that names a file is that file, whatever it looks like. Of the others those that begin with # are comments,
    and spaces and quotes around a path are none of it.
    """
    paths = [named for line in _lines_of(path) if (named := _path_in(line, where=path, not_taken=not_taken))]
    if not paths:
        raise UserError(f"{path}: got a list without a path; expected one path a line")
    return paths


def _lines_of(path: str) -> list[str]:
    try:
        # names of files need not be UTF-8
        with open_text(path, expected=LIST, most_bytes=LARGEST_TEXT, errors="surrogateescape", newline="") as handle:
            text = handle.read()
    except UserError as error:
        raise UserError(f"{path}: got a list that cannot be read ({str(error).removeprefix(f'{path}: ')})") from None
    if "\0" in text:
        names = text.removesuffix("\0").split("\0")
        if not text.endswith("\0") or not all(names):
            raise UserError(f"{path}: got a list that cannot be read (it is no text); expected one path a line")
        return names
    return (text if "\n" in text else text.replace("\r", "\n")).split("\n")


def _path_in(line: str, *, where: str, not_taken: NotTaken) -> str | None:
    """A line -> the path in it; None for an empty line and a comment."""
    line = line.removesuffix("\r").removeprefix("\ufeff")
    plain = line.strip()
    if not plain:
        return None
    quoted = plain[1:-1] if len(plain) > 2 and plain[0] == plain[-1] and plain[0] in "\"'" else plain
    for spelling in dict.fromkeys((line, plain, quoted)):
        if spelled := existing_spelling(spelling):
            return spelled
    if plain.startswith("#"):
        not_taken.num_comments += is_media(plain)
        return None
    if any("\udc80" <= char <= "\udcff" for char in plain):
        raise UserError(
            f"{where}: got a list that cannot be read (the line {plain[:80]!r} is no UTF-8, and names no file); "
            "expected one path a line, as UTF-8"
        )
    return plain
