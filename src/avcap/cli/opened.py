"""A model that is opened when it is first asked, and closed with the command: without any work, none is loaded."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType

from avcap.bulk.workers import Ask, Streamer, ask_once
from avcap.data.request import Request
from avcap.records import Caption, CaptionError, Sample


class OpenedOnce:
    """Context manager: `stream` of a captioner that `open_it` opens, as often as it is needed; asked as `ask` does."""

    def __init__(self, open_it: Callable[[], AbstractContextManager[Streamer]], *, ask: Ask = ask_once) -> None:
        self._open, self._ask = open_it, ask
        self._captioner: Streamer | None = None
        self._stack = ExitStack()

    def __enter__(self) -> "OpenedOnce":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def stream(self, samples: Iterable[Sample], request: Request) -> Iterator[Caption | CaptionError]:
        """Samples -> their rows; in order, but for those of actors."""
        if self._captioner is None:
            self._captioner = self._stack.enter_context(self._open())
        yield from self._ask(self._captioner, samples, request)
