"""Tar shards as webdataset writes them -> items: members are grouped by key, one of each group is a video. No torch.

    abc.mp4, abc.json, abc.txt  ->  the key abc, with the video abc.mp4

Headers alone are read here; the bytes of a video are read when its turn comes.
"""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from avcap.bulk.inputs.items import Item, TarMember
from avcap.files.walk import AUDIO_SUFFIXES, VIDEO_SUFFIXES, suffix_of

SUFFIX = ".tar"


@dataclass(frozen=True, kw_only=True)
class _Member:
    key: str
    suffix: str
    """The last of its suffixes: abc.low.mp4 has the key abc and the suffix .mp4."""
    offset: int
    size: int
    is_readable: bool


def read_shard(path: str) -> Iterator[Item]:
    """A tar -> an item for each of its keys; a group without a video, and a damaged shard, are items with errors."""
    stopped: list[str] = []
    for key, members in groupby(_members(path, stopped), key=lambda member: member.key):
        yield _item(path, key, list(members))
    if stopped:
        yield Item(video=path, sample_id=f"{path}#damaged", error=stopped[0])


def _members(path: str, stopped: list[str]) -> Iterator[_Member]:
    """A tar -> its files; where it cannot be read any further, that is told in `stopped`."""
    count = 0
    try:
        with open(path, "rb") as raw, tarfile.open(fileobj=raw, mode="r:") as shard:
            for member in shard:
                folder, _, file = member.name.rpartition("/")
                if not member.isfile() or file.startswith("."):
                    continue
                count += 1
                stem = file.split(".")[0]
                yield _Member(
                    key=f"{folder}/{stem}" if folder else stem,
                    suffix=suffix_of(file),
                    offset=member.offset_data,
                    size=member.size,
                    is_readable=not member.issparse(),
                )
                shard.members = []  # type: ignore[attr-defined]  # tarfile would keep all of them
    except (tarfile.TarError, OSError, EOFError) as error:
        why = "expected a tar that is not compressed" if not count else "what comes after is lost"
        stopped.append(f"{path}: cannot be read as tar after {count} files ({error}); {why}")


def _item(path: str, key: str, members: list[_Member]) -> Item:
    key = safe_name(key)
    sample_id = f"{path}/{key}"
    videos = [one for one in members if one.suffix in VIDEO_SUFFIXES] or [
        one for one in members if one.suffix in AUDIO_SUFFIXES
    ]
    if not videos:
        kinds = ", ".join(sorted({one.suffix or "a file without a suffix" for one in members}))
        return Item(video=sample_id, sample_id=sample_id, error=f"{sample_id}: got {kinds} and no video or audio file")
    if not videos[0].is_readable:
        return Item(video=sample_id, sample_id=sample_id, error=f"{sample_id}: got a sparse member; write the tar anew")
    video = videos[0]
    shard = os.path.splitext(os.path.basename(path))[0]
    return Item(
        video=f"{sample_id}{video.suffix}",
        sample_id=sample_id,
        packed=TarMember(container=path, offset=video.offset, size=video.size),
        name_in_container=f"{shard}/{key}{video.suffix}",
    )


def safe_name(name: str) -> str:
    """A name in somebody's archive -> the same without what would lead out of a folder.

    >>> safe_name("../../a/./b"), safe_name("/")
    ('a/b', '_')
    """
    parts = [part for part in name.replace("\\", "/").replace("\0", "").split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or "_"
