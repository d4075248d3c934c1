"""The words of avcap caption -> items: files, folders, patterns and lists of paths, and whatever holds many videos.

    clips/  a.mp4  'clips/**/*.mp4'  list.txt        as every command takes them (infer/inputs)
    list.jsonl  list.csv  list.parquet               a row for each
    shard.tar  'shard-{000..099}.tar'                webdataset
    dataset/                                         metadata.csv, .jsonl or .parquet; parquet or tar files below it

No torch.
"""

import glob
import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from avcap.bulk.inputs.items import Item, once_each
from avcap.bulk.inputs.lists import SUFFIXES, read_list
from avcap.bulk.inputs.parquet import SUFFIX as PARQUET
from avcap.bulk.inputs.parquet import holds_videos, read_parquet
from avcap.bulk.inputs.tar import SUFFIX as TAR
from avcap.bulk.inputs.tar import read_shard
from avcap.bulk.written import WrittenFiles
from avcap.errors import UserError
from avcap.files.walk import NotTaken, RealPaths, existing_spelling, files_below, suffix_of
from avcap.infer.inputs import find_media

logger = logging.getLogger("avcap")

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
MOST_SHARDS = 1_000_000


@dataclass(kw_only=True)
class FoundItems:
    """All that the command line means, in its order, and what its folders and lists had besides."""

    items: list[Item] = field(default_factory=list)
    lists: list[str] = field(default_factory=list)
    """Files whose rows name videos: their folders are where names are seen from."""
    not_taken: NotTaken = field(default_factory=NotTaken)


def find_items(inputs: Iterable[str]) -> FoundItems:
    """The words of a command line -> what they mean, each thing once; errors as `find_media`."""
    found = FoundItems()
    real_paths = RealPaths()
    seen: set[int] = set()
    for item in once_each(item for word in _words(inputs) for item in _expand(word, found)):
        # of 100,000 rows the hashes alone are kept
        key = hash((real_paths(item.video), item.sample_id, item.interval_s, item.prompt, item.error))
        if key in seen:
            found.not_taken.num_again += 1
            continue
        seen.add(key)
        found.items.append(item)
    if not found.items:
        raise UserError(
            "got no files; expected video or sound files, folders, globs, lists (.txt, .jsonl) or .tar shards"
        )
    return found


def _words(inputs: Iterable[str]) -> Iterator[str]:
    """Words -> words: patterns of lists and shards become what they match; all others are left to `find_media`."""
    for text in inputs:
        for word in _spread(text) if existing_spelling(text) is None else [text]:
            matches = []
            if existing_spelling(word) is None and glob.has_magic(word):
                matches = sorted(glob.glob(word, recursive=True))
            if any(suffix_of(match) in (*SUFFIXES, PARQUET, TAR) for match in matches):
                yield from matches
            else:
                yield word


def _spread(text: str) -> list[str]:
    """ "s-{08..10}.tar" -> s-08.tar, s-09.tar, s-10.tar, as webdataset writes them."""
    braces = _BRACES.search(text)
    if braces is None:
        return [text]
    first, last = int(braces[1]), int(braces[2])
    if not first <= last < first + MOST_SHARDS:
        raise UserError(f"got {text} with the range {braces[0]}, expected one from a number to a larger one")
    width = len(braces[1])
    words = [text[: braces.start()] + f"{number:0{width}}" + text[braces.end() :] for number in range(first, last + 1)]
    return [one for word in words for one in _spread(word)]


def _expand(word: str, found: FoundItems) -> Iterator[Item]:
    """One word -> items."""
    spelled = existing_spelling(word)
    if spelled is not None and os.path.isdir(spelled):
        yield from _folder(spelled, found)
        return
    name = word if spelled is None else spelled
    suffix = suffix_of(name)
    if name.lower().endswith(COMPRESSED):
        raise UserError(f"{name}: got a compressed archive, expected a .tar, whose members can be read in any order")
    if suffix in (*SUFFIXES, PARQUET, TAR):
        if spelled is None:
            raise UserError(f"{name}: got no such file, expected a list of videos or a shard; check the name")
        found.lists.append(name)
        yield from _rows(name)
        return
    media = find_media([word])
    found.not_taken.add(media.not_taken)
    yield from (Item(video=path) for path in media.paths)


def _rows(path: str) -> Iterator[Item]:
    suffix = suffix_of(path)
    if suffix == TAR:
        is_empty = True
        for item in read_shard(path):
            is_empty = False
            yield item
        if is_empty:
            yield Item(video=path, sample_id=f"{path}#empty", error=f"{path}: got a shard without files")
    elif suffix == PARQUET:
        yield from read_parquet(path)
    else:
        yield from read_list(path, suffix=suffix)


# --- folders ----------------------------------------------------------------------------------------------------------


def _folder(folder: str, found: FoundItems) -> Iterator[Item]:
    """A folder -> its media files, with what metadata says of them; one without media may hold shards, or a dataset."""
    try:
        media = find_media([folder])
    except UserError:
        packed = list(_packed_below(folder, found))
        if not packed:
            raise
        for path in packed:
            yield from _rows(path)
        return
    rows, files = _metadata(folder)
    for file in files:
        media.not_taken.by_suffix[suffix_of(file)] -= 1
    media.not_taken.by_suffix += type(media.not_taken.by_suffix)()  # without what has become 0
    found.not_taken.add(media.not_taken)
    real_paths = RealPaths()
    for path in media.paths:
        named = rows.pop(real_paths(path), None)
        yield from named if named is not None else [Item(video=path)]
    for named in rows.values():  # files that are not there: a row with an error each
        yield from named


def _metadata(folder: str) -> tuple[dict[str, list[Item]], list[str]]:
    """A folder -> what the metadata of `datasets` in it and in the folders below it names: real path -> its rows."""
    rows: dict[str, list[Item]] = {}
    files = []
    real_paths = RealPaths()
    with os.scandir(folder) as entries:
        below = sorted(one.path for one in entries if one.is_dir() and not one.name.startswith("."))
    for place in (folder, *below):
        for name in METADATA:
            path = os.path.join(place, name)
            if not os.path.isfile(path) or WrittenFiles(Path(place)).is_ours(name):
                continue  # what avcap wrote itself tells nothing new
            try:
                items = list(_rows(path))
            except UserError as error:
                logger.warning(f"{path}: was not taken for the metadata of its folder: {error}")
                continue
            files.append(path)
            for item in items:
                rows.setdefault(real_paths(item.video) if not item.error else item.sample_id, []).append(item)
    return rows, files


def _packed_below(folder: str, found: FoundItems) -> Iterator[str]:
    """A folder without media -> its shards, or its parquet files with videos in them; the rest is counted."""
    here = NotTaken()
    paths = [
        file.path
        for file in files_below(folder, is_expected=lambda name: suffix_of(name) in (TAR, PARQUET), not_taken=here)
    ]
    taken = [path for path in paths if suffix_of(path) == TAR or holds_videos(path)]
    here.by_suffix.update(suffix_of(path) for path in paths if path not in set(taken))
    if taken:
        found.not_taken.add(here)
    yield from taken
