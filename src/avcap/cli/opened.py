"""A model that is opened when it is first asked, and closed with the command: without any work, none is loaded."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType

from avcap.captioners import Captioner
from avcap.data.request import Request, Video
from avcap.records import Caption, CaptionError


class OpenedOnce:
    """Context manager: `stream` of a captioner that `open_it` opens, as often as it is needed."""

    def __init__(self, open_it: Callable[[], AbstractContextManager[Captioner]]) -> None:
        self._open = open_it
        self._captioner: Captioner | None = None
        self._stack = ExitStack()

    def __enter__(self) -> "OpenedOnce":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def stream(self, videos: Iterable[Video], request: Request) -> Iterator[Caption | CaptionError]:
        """Videos -> their rows, in order."""
        if self._captioner is None:
            self._captioner = self._stack.enter_context(self._open())
        yield from self._captioner.stream(videos, request)
