"""The media of a request -> a decoded clip, or the features that are kept of it; nothing is left on the disk.

Parts are opened in threads, one for each request, so that a slow host keeps nobody waiting but who named it; files are
decoded in few, each with a worker process. Two who ask about the same media wait for one decoding.
"""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from avcap.media.clip import Clip
from avcap.web.server.call import Call
from avcap.web.server.fetch import Fetcher
from avcap.web.server.media import ClipReader, MediaOrder, check_media, media_key
from avcap.web.server.metrics import Metrics
from avcap.web.server.model import ServedModel
from avcap.web.server.parts import MediaFile, PartOpener
from avcap.web.server.settings import ServerSettings

if TYPE_CHECKING:
    from avcap.data.feature_cache import EncodedMedia


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What a question is about. `key` "": nothing but text; else there is a clip, or there are its features."""

    key: str = ""
    clip: Clip | None = None
    features: "EncodedMedia | None" = None


class Intake:
    """Opens and decodes the media of requests, in a folder of its own."""

    def __init__(
        self, model: ServedModel, *, settings: ServerSettings, metrics: Metrics, fetcher: Fetcher, num_decoders: int
    ) -> None:
        self._model, self._metrics, self._limits = model, metrics, settings.limits
        self._opener = PartOpener(access=settings.access, limits=settings.limits, fetcher=fetcher)
        self._reader = ClipReader(templates=model.facts.templates, limits=settings.limits)
        self._openers = ThreadPoolExecutor(settings.limits.waiting, thread_name_prefix="open")
        self._decoders = ThreadPoolExecutor(num_decoders, thread_name_prefix="decode")
        self._decoding: dict[str, asyncio.Task[Clip]] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="avcap-serve-"))  # nobody else may look into it

    def stop(self) -> None:
        """Waits for what is being opened and decoded, and removes the folder."""
        self._openers.shutdown(cancel_futures=True)
        self._decoders.shutdown(cancel_futures=True)
        _remove(self.folder)

    async def prepare(self, call: Call, *, take_room: Callable[[], Awaitable[None]]) -> Prepared:
        """What is asked -> its media, decoded unless their features are kept.

        Args:
            call: What is asked.
            take_room: Waits until there is room for another decoded clip.

        Raises:
            Refused: A part may not be opened, cannot be decoded, or is more than the limits.
        """
        if not call.media:
            return Prepared()
        check_media(call.media, max_frames=self._model.facts.templates[True, True].max_frames)
        order = MediaOrder(use_own_audio=call.use_own_audio, interval_s=call.interval_s)
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        is_handed_on = False
        opening = asyncio.get_running_loop().run_in_executor(self._openers, self._open, call, folder)
        try:
            files = await asyncio.shield(opening)
            key = media_key(files, order)
            if (features := self._model.kept.get(key)) is None:
                await take_room()
                features = self._model.kept.get(key)  # another may have asked about it meanwhile
            if features is not None:
                return Prepared(key=key, features=features)
            if (task := self._decoding.get(key)) is None:
                task = self._decode(key, files, order, folder=folder)
                is_handed_on = True
            return Prepared(key=key, clip=await asyncio.shield(task))
        finally:
            if not is_handed_on:
                # a client that went away does not stop the thread: it is removed behind it
                opening.add_done_callback(lambda done: self._discard(done, folder))

    def _open(self, call: Call, folder: Path) -> list[MediaFile]:
        """Parts -> their files, which together are no more and come no later than one request may."""
        end_s = time.monotonic() + self._limits.body_timeout_s
        left = self._limits.body_bytes
        files = []
        for index, part in enumerate(call.media):
            file = self._opener.open(part, folder=folder, name=str(index), most_bytes=left, end_s=end_s)
            left -= file.path.stat().st_size
            files.append(file)
        return files

    def _discard(self, opened: "asyncio.Future[list[MediaFile]]", folder: Path) -> None:
        if not opened.cancelled():
            opened.exception()  # has been told, or nobody is there to be told
        asyncio.get_running_loop().run_in_executor(None, _remove, folder)

    def _decode(self, key: str, files: list[MediaFile], order: MediaOrder, *, folder: Path) -> "asyncio.Task[Clip]":
        """Decodes for whoever asks about the same media meanwhile, and removes the files."""

        def read() -> Clip:
            started_s = time.monotonic()
            try:
                return self._reader.read(files, order)
            finally:
                _remove(folder)
                self._metrics.observe("decoding_seconds", time.monotonic() - started_s)

        async def decode() -> Clip:
            try:
                return await asyncio.get_running_loop().run_in_executor(self._decoders, read)
            finally:
                self._decoding.pop(key, None)

        task = asyncio.create_task(decode())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # those who asked may have left
        self._decoding[key] = task
        return task


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
