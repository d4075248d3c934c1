"""What stands before every request: is it for us, by a page that may ask, with the key?

And what goes with every answer.

Pages of other sites are kept out in three ways: a name that is not ours, an origin that is not ours, and a body that is
no JSON by its type, which browsers send elsewhere only when the server has said yes before (CORS: it does not).
"""

import hashlib
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

from avcap.web.server.answer import refusal
from avcap.web.server.refusals import Refused
from avcap.web.server.settings import Access

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = ("/", "/health")
"""What needs no key: the page, which holds nothing, and whether the server is well."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
CLOSED_POLICY = "default-src 'none'; frame-ancestors 'none'"


class Guard:
    """ASGI middleware that lets through what may come in."""

    def __init__(self, app: App, *, access: Access, refused: Callable[[Refused], None]) -> None:
        """`refused` is told of every request that is turned away."""
        self._app, self._access, self._refused = app, access, refused
        self._key = None if access.key is None else _hash(access.key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Content-Security-Policy", CLOSED_POLICY)
            await send(message)

        try:
            self._check(scope)
        except Refused as error:
            self._refused(error)
            headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
            await JSONResponse(refusal(error), status_code=error.status, headers=headers)(
                scope,
                receive,
                send_with_headers,  # type: ignore[arg-type]
            )
            return
        await self._app(scope, receive, send_with_headers)

    def _check(self, scope: Scope) -> None:
        """Raises Refused for what may not come in."""
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if self._access.hosts and _name_of(host) not in self._access.hosts:
            raise Refused(
                "this name is not served; ask for the address that the server was started with",
                status=421,
                code="wrong_host",
            )
        if scope["method"] not in ("GET", "HEAD"):
            self._check_page(headers, host)
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise Refused(
                    f"got a body of type {kind[:40]!r}, expected application/json", status=415, code="no_json"
                )
        if self._key is not None and scope["path"] not in OPEN_PATHS:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            # of hashes, so that not even the length of the key shows in the time
            is_right = hmac.compare_digest(_hash(given.strip()), self._key)
            if scheme.lower() != "bearer" or not is_right:
                raise Refused(
                    "got no key, or a wrong one; expected Authorization: Bearer KEY",
                    status=401,
                    code="invalid_api_key",
                )

    def _check_page(self, headers: Headers, host: str) -> None:
        """Raises Refused for what a page of another site sends."""
        origin = headers.get("origin")
        if origin in self._access.origins:
            return
        is_other = origin is not None and urlsplit(origin).netloc.lower() != host
        if is_other or headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Refused(
                "a page of another site may not ask; start the server with --allow-origin",
                status=403,
                code="wrong_origin",
            )


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


def _name_of(host: str) -> str:
    """A Host header -> the name in it, without its port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
