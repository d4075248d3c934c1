"""A captioner and settings -> a server that runs until it is told to end."""

import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvicorn

from avcap.errors import UserError
from avcap.web.server.app import make_app
from avcap.web.server.fetch import Fetcher
from avcap.web.server.metrics import Metrics
from avcap.web.server.model import ServedModel
from avcap.web.server.service import Service
from avcap.web.server.settings import ServerSettings

if TYPE_CHECKING:
    from avcap.infer.captioner import Captioner

MORE_CONNECTIONS = 64
"""Beside those of the requests that may be under way: for health, metrics, the page and refusals."""
KEEP_ALIVE_S = 15
BACKLOG = 128


def make_service(
    open_captioner: "Callable[[], Captioner]",
    settings: ServerSettings,
    *,
    fetcher: Fetcher | None = None,
    num_decoders: int = 4,
) -> Service:
    """What opens a captioner, and settings -> a service with the model loaded, not started yet.

    Args:
        open_captioner: Called now, and again after the model was unloaded.
        settings: What is allowed.
        fetcher: What fetches URLs; None: as `settings` allow, by the system's resolver.
        num_decoders: Files that are decoded at a time.

    Raises:
        UserError: The model cannot be loaded.
    """
    metrics = Metrics()
    model = ServedModel(open_captioner, settings=settings, metrics=metrics)
    fetcher = fetcher or Fetcher(access=settings.access)
    return Service(model, settings=settings, metrics=metrics, fetcher=fetcher, num_decoders=num_decoders)


def listening(host: str, port: int) -> socket.socket:
    """An address -> a socket that listens there. UserError where that cannot be."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(BACKLOG)  # from now on clients wait instead of being turned away
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(f"--host {host} --port {port}: cannot be used ({why}); choose another") from None
    return bound


def make_server(service: Service, *, grace_s: float = 30.0) -> uvicorn.Server:
    """A service -> its server, to be run with a bound socket. `grace_s`: how long requests may take to end it."""
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # clients that break off are no news
    config = uvicorn.Config(
        make_app(service),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        http="h11",
        lifespan="on",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=round(grace_s),
        limit_concurrency=service.limits.waiting + MORE_CONNECTIONS,
    )
    return uvicorn.Server(config)
