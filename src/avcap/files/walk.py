"""What lies below a folder, links followed once, and which file a name means. Standard library only."""

import contextlib
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from avcap.errors import UserError

VIDEO_SUFFIXES = frozenset(
    [
        ".mp4",
        ".m4v",
        ".mov",
        ".qt",
        ".mkv",
        ".webm",
        ".avi",
        ".divx",
        ".flv",
        ".f4v",
        ".wmv",
        ".asf",
        ".ts",
        ".m2ts",
        ".mts",
        ".m2t",
        ".mpg",
        ".mpeg",
        ".mpe",
        ".m2v",
        ".vob",
        ".ogv",
        ".ogm",
        ".3gp",
        ".3g2",
        ".mxf",
        ".rm",
        ".rmvb",
        ".dv",
        ".gif",
    ]
)
AUDIO_SUFFIXES = frozenset(
    [
        ".wav",
        ".mp3",
        ".m4a",
        ".m4b",
        ".aac",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".wma",
        ".aiff",
        ".aif",
        ".aifc",
        ".mka",
        ".weba",
        ".caf",
        ".ac3",
        ".amr",
        ".au",
    ]
)
MEDIA_SUFFIXES = VIDEO_SUFFIXES | AUDIO_SUFFIXES
"""What is looked at in a folder. A file that is named itself may have any suffix."""
KINDS_SHOWN = 8


@dataclass(kw_only=True)
class NotTaken:
    """What folders held besides: counted, so that nothing is left out without a word."""

    by_suffix: Counter[str] = field(default_factory=Counter)
    """"" is: without a suffix."""
    num_hidden: int = 0
    """Files whose names begin with a dot."""
    num_hidden_folders: int = 0
    num_again: int = 0
    """Names of files that have another name already: links, other spellings."""
    num_comments: int = 0
    """Lines of lists that begin with # and end like a media file, but name none."""

    def __bool__(self) -> bool:
        return bool(self.describe())

    def add(self, other: "NotTaken") -> None:
        """Counts what another place held, too."""
        self.by_suffix += other.by_suffix
        self.num_hidden += other.num_hidden
        self.num_hidden_folders += other.num_hidden_folders
        self.num_again += other.num_again
        self.num_comments += other.num_comments

    def describe(self) -> str:
        """
        >>> NotTaken(by_suffix=Counter({".txt": 9, ".jpg": 3}), num_hidden_folders=1).describe()
        '12 files were not taken: 9 .txt, 3 .jpg; 1 hidden folder was not searched'
        """
        parts = []
        if kinds := self._kinds():
            total = sum(count for count, _ in kinds)
            shown = [f"{count} {kind}" for count, kind in kinds[:KINDS_SHOWN]]
            if len(kinds) > KINDS_SHOWN:
                others = kinds[KINDS_SHOWN:]
                shown.append(f"{sum(count for count, _ in others)} of {len(others)} other kinds")
            parts.append(f"{_were(total, 'file')} not taken: {', '.join(shown)}")
        if self.num_hidden_folders:
            parts.append(f"{_were(self.num_hidden_folders, 'hidden folder')} not searched")
        if self.num_again:
            parts.append(f"{_were(self.num_again, 'name')} not taken: the same files were named before")
        if self.num_comments:
            lines = "1 line of a list was" if self.num_comments == 1 else f"{self.num_comments} lines of lists were"
            parts.append(f"{lines} passed over as comments: no file is called so")
        return "; ".join(parts)

    def _kinds(self) -> list[tuple[int, str]]:
        kinds = [(count, suffix or "without a suffix") for suffix, count in self.by_suffix.most_common()]
        return kinds + ([(self.num_hidden, "hidden")] if self.num_hidden else [])


@dataclass(frozen=True, kw_only=True)
class Found:
    """A file: how it is called, and its real path, which is the same for all its names."""

    path: str
    real: str


def files_below(folder: str, *, is_expected: Callable[[str], bool], not_taken: NotTaken) -> Iterator[Found]:
    """Folder -> the files below it whose names are wanted, sorted folder by folder; what is not goes into `not_taken`.

    Links come after all else, and each folder is entered once: of two names of a file the one without links is the
    first, and a link that leads back ends there. No file is looked at, so that 100,000 take a second.

    Raises:
        UserError: a folder cannot be read.
    """
    entered: set[tuple[int, int]] = set()
    links, linked_files = [folder], []
    for top in links:  # grows
        todo = [top]
        while todo:
            place = todo.pop()
            with _told_errors(place):
                about = os.stat(place)
                if (about.st_dev, about.st_ino) in entered:
                    continue
                entered.add((about.st_dev, about.st_ino))
                with os.scandir(place) as entries:
                    listed = sorted(entries, key=lambda entry: entry.name)
            real_place = os.path.realpath(place)
            inner: list[str] = []
            for entry in listed:
                if _is_folder(entry):
                    if entry.name.startswith("."):
                        not_taken.num_hidden_folders += 1
                    else:
                        (links if entry.is_symlink() else inner).append(entry.path)
                elif entry.name.startswith("."):
                    not_taken.num_hidden += 1
                elif is_expected(entry.name):
                    if entry.is_symlink():
                        linked_files.append(entry.path)
                    else:
                        yield Found(path=entry.path, real=os.path.join(real_place, entry.name))
                else:
                    not_taken.by_suffix[suffix_of(entry.name)] += 1
            todo += reversed(inner)
    for path in linked_files:
        yield Found(path=path, real=os.path.realpath(path))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: as a file it becomes a row with an error
        return False


@contextlib.contextmanager
def _told_errors(folder: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder}: got a folder that cannot be read ({error.strerror}); check its permissions"
        ) from None


def is_media(name: str) -> bool:
    """Whether a file's name ends as those of videos and sound files do, in any case."""
    return suffix_of(name) in MEDIA_SUFFIXES


def suffix_of(name: str) -> str:
    """ "a.b.MP4" -> ".mp4"; "" where there is none."""
    return os.path.splitext(name)[1].lower()


def refuse_odd_files(folder: str | os.PathLike[str], *, suffixes: Collection[str]) -> None:
    """Raises UserError for a name of such a file that is a folder, a pipe, a device or a link to nothing.

    What is read only if it is there would else be passed over, and what is opened might never end.
    """
    with _told_errors(os.fspath(folder)), os.scandir(folder) as entries:
        odd = sorted(entry.path for entry in entries if suffix_of(entry.name) in suffixes and not os.path.isfile(entry))
    if odd:
        kind = "a folder" if os.path.isdir(odd[0]) else "a device or a pipe"
        kind = kind if os.path.exists(odd[0]) else "a link to nothing"
        raise UserError(f"{odd[0]}: got {kind}, expected a file; download it again, or remove it")


def existing_spelling(path: str) -> str | None:
    """A name -> the same as the file system has it; composed and decomposed accents are one. None: no such file."""
    spellings = (path, unicodedata.normalize("NFC", path), unicodedata.normalize("NFD", path))
    return next((spelling for spelling in spellings if os.path.exists(spelling)), None)


class RealPaths:
    """Names of files -> what tells whether two are one file. The folders' are looked up once."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def __call__(self, path: str) -> str:
        folder, name = os.path.split(path)
        if name in ("", ".", "..") or os.path.islink(path):
            return os.path.realpath(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return os.path.join(self._folders[folder], name)


def _were(count: int, what: str) -> str:
    return f"{count} {what} was" if count == 1 else f"{count} {what}s were"
