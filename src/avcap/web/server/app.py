"""The routes: /v1/chat/completions, /v1/models, /health, /metrics, and the page on /."""

import asyncio
import base64
import hashlib
import re
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse

from avcap.web.server.answer import DONE, KEEP_ALIVE, Completion, event, refusal, usage
from avcap.web.server.guard import Guard, Receive, Scope, Send
from avcap.web.server.model import ChatJob, Replied
from avcap.web.server.refusals import Refused
from avcap.web.server.service import Service, Ticket, as_refusal, disconnected

PAGE = Path(__file__).with_name("page.html")
CLIENT_GONE = 499
"""What is counted for a client that went away; nobody reads it."""
KEEP_ALIVE_S = 10.0
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def make_app(service: Service) -> FastAPI:
    """A service -> the application that a server runs; the service starts and stops with it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await asyncio.to_thread(service.stop)

    # no page of documentation: it would load scripts from elsewhere
    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    page, policy = _page(service)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await _chat(service, request)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(service)]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        if name != service.settings.name:
            raise Refused(f"expected {service.settings.name!r}, which is served here", status=404, code="not_found")
        return _model(service)

    @app.get("/health")
    async def health() -> Response:
        is_well = not service.is_stopping
        return JSONResponse({"status": "ok" if is_well else "stopping"}, status_code=200 if is_well else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return PlainTextResponse(service.metrics.text(service.gauges()), media_type=METRICS_TYPE)

    @app.get("/")
    async def root() -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return _refused(service, error)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        return _refused(service, Refused(str(error.detail), status=error.status_code, code="not_found"))

    _add_guards(app, service)
    return app


def _add_guards(app: FastAPI, service: Service) -> None:
    """What stands before all routes."""
    app.add_middleware(
        Guard,  # type: ignore[arg-type]
        access=service.settings.access,
        refused=lambda error: _count(service, error.status, error),
    )
    if service.settings.access.origins:
        app.add_middleware(
            CORSMiddleware,  # type: ignore[arg-type]
            allow_origins=list(service.settings.access.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )


def _model(service: Service) -> dict[str, Any]:
    facts = service.model.facts
    return {
        "id": service.settings.name,
        "object": "model",
        "created": 0,
        "owned_by": "avcap",
        "checkpoint": facts.checkpoint,
        "max_tokens": facts.max_new_tokens,
    }


async def _chat(service: Service, request: Request) -> Response:
    """A request -> its answer, whole or as a stream; whatever goes wrong is a refusal."""
    ticket: Ticket | None = None
    is_streaming = False
    try:
        ticket = service.admit()
        call = await service.read_call(request, ticket)
        completion = Completion(
            completion_id=f"chatcmpl-{secrets.token_hex(12)}",
            created_s=int(time.time()),
            model=service.settings.name,
            checkpoint=service.model.facts.checkpoint,
            call=call,
        )
        if call.is_stream:
            # what is wrong with media is told by the status, before the stream begins
            job = await service.while_there(request, service.prepare(call, ticket), ticket=ticket)
            is_streaming = True
            return EventStream(service, completion, job, ticket=ticket)
        replied = await service.while_there(request, service.answer(call, ticket), ticket=ticket)
        _count_answer(service, completion, replied, ticket)
        return JSONResponse(completion.whole(replied))
    except ClientDisconnect:
        _count(service, CLIENT_GONE)
        return Response(status_code=CLIENT_GONE)
    except Exception as error:
        return _refused(service, as_refusal(error))
    finally:
        if ticket is not None and not is_streaming:
            ticket.give_back()


class EventStream(Response):
    """The answer to a job as it is written. Its ticket goes back when the stream ends, however it does."""

    media_type = "text/event-stream"

    def __init__(self, service: Service, completion: Completion, job: ChatJob, *, ticket: Ticket) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"}, media_type=self.media_type)
        del self.headers["content-length"]
        self._service, self._completion, self._job, self._ticket = service, completion, job, ticket
        self._sent: dict[int, str] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(disconnected(receive))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            with self._service.submitted(self._job):
                async for data in self._events(gone):
                    await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (ClientDisconnect, OSError):
            _count(self._service, CLIENT_GONE)
        finally:
            gone.cancel()
            self._ticket.give_back()

    async def _events(self, gone: "asyncio.Future[None]") -> AsyncIterator[bytes]:
        """-> the events. ClientDisconnect when nobody is there any more."""
        for one in self._completion.opening():
            yield event(one)
        try:
            async for data in self._texts(gone):
                yield data
            replied = self._job.done.result()
        except ClientDisconnect:
            raise
        except Exception as error:
            told = as_refusal(error)
            _count(self._service, told.status, told)
            yield event(refusal(told))
            return
        for index, answer in enumerate(replied.response.answers):
            if rest := self._new(index, answer.text):
                yield event(self._completion.delta(index, rest))
        for one in self._completion.closing(replied):
            yield event(one)
        yield DONE
        _count_answer(self._service, self._completion, replied, self._ticket)

    async def _texts(self, gone: "asyncio.Future[None]") -> AsyncIterator[bytes]:
        """-> texts as they grow, until the job is done; a comment where nothing comes for long."""
        job = self._job
        while not job.done.done():
            more = asyncio.ensure_future(job.told.get())
            waiting: set[asyncio.Future[Any]] = {more, gone, job.done}
            timeout_s = min(KEEP_ALIVE_S, self._ticket.left_s())
            try:
                await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                told = more.result() if more.done() else None
                more.cancel()
            if gone.done():
                raise ClientDisconnect
            if told is not None:
                if new := self._new(*told):
                    yield event(self._completion.delta(told[0], new))
            elif not job.done.done():
                if not self._ticket.left_s():
                    raise Refused("no whole answer in time", status=504, code="timeout")
                yield KEEP_ALIVE

    def _new(self, index: int, text: str) -> str:
        """All of an answer's text up to now -> what of it was not sent yet; half a character waits for its other."""
        sent = self._sent.get(index, "")
        if text.endswith("\ufffd") or not text.startswith(sent):
            return ""
        self._sent[index] = text
        return text[len(sent) :]


def _refused(service: Service, error: Refused) -> Response:
    _count(service, error.status, error)
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return JSONResponse(refusal(error), status_code=error.status, headers=headers)


def _count(service: Service, status: int, error: Refused | None = None) -> None:
    service.metrics.count("requests", status=str(status))
    if error is not None:
        service.metrics.count("refused", code=error.code)


def _count_answer(service: Service, completion: Completion, replied: Replied, ticket: Ticket) -> None:
    told = usage(completion.call, replied)
    _count(service, 200)
    service.metrics.count("prompt_tokens", told["prompt_tokens"])
    service.metrics.count("completion_tokens", told["completion_tokens"])
    service.metrics.observe("request_seconds", time.monotonic() - ticket.started_s)


def _page(service: Service) -> tuple[str, str]:
    """-> the page, and the policy that allows its own script and style alone."""
    page = PAGE.read_text(encoding="utf-8").replace("{{MODEL}}", re.sub(r"[^\w./@:-]", "", service.settings.name))
    hashes = {}
    for tag in ("script", "style"):
        inside = page.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        hashes[tag] = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{hashes['script']}'; style-src 'sha256-{hashes['style']}'; "
        "connect-src 'self'; media-src blob:; img-src blob:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return page, policy
