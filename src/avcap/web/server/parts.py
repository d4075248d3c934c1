"""A part of a request -> a file in the request's own folder, whose content is known by its hash. No torch.

data: URLs and bare base64 are decoded, file: URLs opened where that is allowed (files.py), http(s): URLs fetched
(fetch.py). What is decoded later is always our copy: nobody changes it meanwhile, and FFmpeg never sees a name.
"""

import base64
import binascii
import re
import time
from dataclasses import dataclass
from pathlib import Path

from avcap.files.hashes import hash_file
from avcap.web.server.call import MediaPart
from avcap.web.server.fetch import BLOCK_BYTES, Fetcher
from avcap.web.server.files import file_of_url, opened_below
from avcap.web.server.refusals import Refused, too_large
from avcap.web.server.settings import Access, Limits

SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]{0,20}):")
DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class MediaFile:
    """A part whose file is here. `digest`: sha256 of its content."""

    part: MediaPart
    path: Path
    digest: str


@dataclass(frozen=True, kw_only=True)
class PartOpener:
    """Opens parts of requests by the rules of a server."""

    access: Access
    limits: Limits
    fetcher: Fetcher

    def open(self, part: MediaPart, *, folder: Path, name: str, most_bytes: int, end_s: float) -> MediaFile:
        """A part -> its file in `folder`.

        Args:
            part: As it was sent.
            folder: Where it is kept.
            name: Of the file in there.
            most_bytes: What is left of the request's bytes.
            end_s: Until when it has to be there, by the monotonic clock.

        Raises:
            Refused: It may not be opened, is not there, or is too large.
        """
        path = folder / name
        scheme = SCHEME.match(part.source)
        kind = scheme[1].lower() if scheme else ""
        most = min(most_bytes, self.limits.file_bytes)
        if kind in ("http", "https"):
            with path.open("wb") as to:
                left_s = max(0.0, end_s - time.monotonic())
                self.fetcher.fetch(part.source, to, param=part.param, most_bytes=most, timeout_s=left_s)
        elif kind == "file":
            self._copy_file(part, path, most_bytes=most)
        elif kind in ("data", ""):
            path.write_bytes(_decoded(part, is_url=bool(kind), most_bytes=most))
        else:
            raise Refused(f"got a URL of {kind[:20]}:, expected data:, http(s): or file:", param=part.param)
        return MediaFile(part=part, path=path, digest=hash_file(path))

    def _copy_file(self, part: MediaPart, path: Path, *, most_bytes: int) -> None:
        named = file_of_url(part.source, param=part.param)
        with opened_below(named, self.access.folders, param=part.param) as handle, path.open("wb") as to:
            num_bytes = 0
            while block := handle.read(BLOCK_BYTES):
                num_bytes += len(block)
                if num_bytes > most_bytes:
                    raise too_large("this file", most_bytes=most_bytes, param=part.param)
                to.write(block)


def _decoded(part: MediaPart, *, is_url: bool, most_bytes: int) -> bytes:
    """A data: URL or bare base64 -> its bytes."""
    start = 0
    if is_url:
        head = DATA_URL.match(part.source)
        if head is None:
            raise Refused("got a data: URL that is not data:TYPE;base64,...", param=part.param)
        start = head.end()
    if (len(part.source) - start) * 3 // 4 > most_bytes + 3:
        raise too_large("this part", most_bytes=most_bytes, param=part.param)
    try:
        data = base64.b64decode(part.source[start:], validate=True)
    except (binascii.Error, ValueError):
        expected = "base64" if is_url else "a URL (data:, http(s):, file:) or bare base64"
        raise Refused(f"got data that are no base64, expected {expected}", param=part.param) from None
    if not data:
        raise Refused("got no bytes, expected a media file", param=part.param)
    return data
