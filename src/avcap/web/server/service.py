"""A request's way from its body to the model and back, with a limit on each of its steps.

    body --read--> Call --open--> files --decode--> Clip --submit--> ChatJob --> Replied

Whoever waits goes away with the client: jobs that nobody waits for are dropped, or stopped at their next token.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from avcap.errors import RunError
from avcap.web.server.call import Call, read_call
from avcap.web.server.fetch import Fetcher
from avcap.web.server.intake import Intake
from avcap.web.server.metrics import Metrics
from avcap.web.server.model import ChatJob, Replied, ServedModel
from avcap.web.server.queue import Stopping
from avcap.web.server.refusals import Refused, too_large
from avcap.web.server.settings import ServerSettings

logger = logging.getLogger("avcap")

NUM_READERS = 4
"""Requests whose body is parsed at a time."""
Value = TypeVar("Value")


class Service:
    """All that requests share. `start` it, and `stop` it."""

    def __init__(
        self, model: ServedModel, *, settings: ServerSettings, metrics: Metrics, fetcher: Fetcher, num_decoders: int
    ) -> None:
        self.model, self.settings, self.metrics = model, settings, metrics
        self.limits = settings.limits
        self._intake = Intake(model, settings=settings, metrics=metrics, fetcher=fetcher, num_decoders=num_decoders)
        self._readers = ThreadPoolExecutor(NUM_READERS, thread_name_prefix="read")
        self.clip_room = asyncio.Semaphore(2 * settings.batch_size)
        """Of decoded clips, hundreds of megabytes each, no more wait for the model than make its next batches."""
        self.num_under_way = 0
        self.num_held_bytes = 0
        self.is_stopping = False

    def start(self) -> None:
        self.model.start()

    def stop(self) -> None:
        """Waits for the batch in work and the files being decoded, and leaves nothing behind."""
        self.is_stopping = True
        self._readers.shutdown(cancel_futures=True)
        self._intake.stop()
        self.model.stop()

    # --- coming in ----------------------------------------------------------------------------------------------------

    def admit(self) -> "Ticket":
        """-> a place for a request, to be given back. Refused where there is none."""
        if self.is_stopping:
            raise as_refusal(Stopping())
        if self.num_under_way >= self.limits.waiting:
            raise Refused(
                f"got more than {self.limits.waiting} requests at a time; try again in a moment",
                status=429,
                code="queue_full",
                retry_after_s=1,
            )
        return Ticket(self)

    async def read_call(self, request: Request, ticket: "Ticket") -> Call:
        """A request -> what it asks. Refused where it is no chat request, or does not arrive in time."""
        try:
            async with asyncio.timeout(self.limits.body_timeout_s):
                body = await self._read_body(request, ticket)
        except TimeoutError:
            raise Refused("the request did not arrive in time", status=408, code="request_timeout") from None
        read = functools.partial(
            read_call,
            body,
            model=self.settings.name,
            max_new_tokens=self.model.facts.max_new_tokens,
            limits=self.limits,
        )
        return await asyncio.get_running_loop().run_in_executor(self._readers, read)

    async def _read_body(self, request: Request, ticket: "Ticket") -> bytes:
        most = self.limits.body_bytes
        length = request.headers.get("content-length", "0")
        if length.isdecimal() and int(length) > most:
            raise too_large("this request", most_bytes=most)
        blocks, num_bytes = [], 0
        async for block in request.stream():
            num_bytes += len(block)
            if num_bytes > most:
                raise too_large("this request", most_bytes=most)
            ticket.hold(len(block))
            blocks.append(block)
        return b"".join(blocks)

    # --- to the model -------------------------------------------------------------------------------------------------

    async def prepare(self, call: Call, ticket: "Ticket") -> ChatJob:
        """What is asked -> a job for the model."""
        about = await self._intake.prepare(call, take_room=ticket.take_clip_room)
        loop = asyncio.get_running_loop()
        return ChatJob(
            call=call, key=about.key, clip=about.clip, features=about.features, loop=loop, done=loop.create_future()
        )

    async def answer(self, call: Call, ticket: "Ticket") -> Replied:
        """What is asked -> the response."""
        job = await self.prepare(call, ticket)
        with self.submitted(job):
            return await job.done

    @contextmanager
    def submitted(self, job: ChatJob) -> Iterator[None]:
        """A job is with the model as long as somebody waits."""
        job.done.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.model.submit(job)
        try:
            yield
        finally:
            job.is_given_up = True

    async def while_there(self, request: Request, work: Coroutine[Any, Any, Value], *, ticket: "Ticket") -> Value:
        """Some work for a client -> its result; it is stopped when the client goes, or the time is over.

        Raises:
            ClientDisconnect: Nobody is there any more.
            Refused: It takes too long.
        """
        doing = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(disconnected(request.receive))
        try:
            await asyncio.wait((doing, gone), timeout=ticket.left_s(), return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                return doing.result()
            if gone.done():
                raise ClientDisconnect
            raise Refused(
                f"no answer after {self.limits.request_timeout_s:g} s; ask about a shorter video, or later",
                status=504,
                code="timeout",
            )
        finally:
            for task in (doing, gone):
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task

    def gauges(self) -> dict[str, float]:
        """What is so at this moment."""
        return {
            "requests_under_way": self.num_under_way,
            "held_bytes": self.num_held_bytes,
            "jobs_waiting": self.model.num_waiting,
            "model_loaded": float(self.model.is_loaded),
            "kept_features_bytes": self.model.kept.num_bytes,
        }


class Ticket:
    """A request's place in the server, with the memory and the time that it takes; given back exactly once."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._num_bytes = 0
        self.started_s = time.monotonic()
        self._is_back = self._has_clip_room = False
        service.num_under_way += 1

    def hold(self, num_bytes: int) -> None:
        """Counts bytes of the request. Refused where all requests together have too many."""
        if self._service.num_held_bytes + num_bytes > self._service.limits.held_bytes:
            raise Refused(
                "got too many large requests at a time; try again in a moment",
                status=429,
                code="memory_full",
                retry_after_s=5,
            )
        self._num_bytes += num_bytes
        self._service.num_held_bytes += num_bytes

    async def take_clip_room(self) -> None:
        """Waits until there is room for another decoded clip."""
        await self._service.clip_room.acquire()
        self._has_clip_room = True

    def left_s(self) -> float:
        """Seconds until the request's time is over."""
        return max(0.0, self.started_s + self._service.limits.request_timeout_s - time.monotonic())

    def give_back(self) -> None:
        if not self._is_back:
            self._is_back = True
            self._service.num_under_way -= 1
            self._service.num_held_bytes -= self._num_bytes
            if self._has_clip_room:
                self._service.clip_room.release()


async def disconnected(receive: Callable[[], Awaitable[Any]]) -> None:
    """Returns when the client is gone. Its body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


def as_refusal(error: BaseException) -> Refused:
    """Whatever went wrong -> what is told about it; of what nobody foresaw, nothing but that."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, Stopping):
        return Refused("the server is stopping; ask another", status=503, code="stopping", retry_after_s=10)
    if isinstance(error, RunError):
        logger.error(str(error))
        return Refused("the model cannot be run; its owner finds the reason in the log", status=500, code="model_error")
    logger.error(f"unforeseen: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
    logger.debug("unforeseen", exc_info=error)
    return Refused("something went wrong here, not with the request", status=500, code="internal_error")
