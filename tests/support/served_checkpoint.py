"""A real `avcap serve` on loopback, in this process: uvicorn in a thread, with a model of the test's.

with Served(random_checkpoint, access=Access(folders=(tmp_path,))) as server:
    server.ask(content=[...]).json()
"""

import base64
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2

from avcap.infer.captioner import Captioner
from avcap.web.server.fetch import Fetcher
from avcap.web.server.run import listening, make_server, make_service
from avcap.web.server.settings import Access, Limits, ServerSettings

NAME = "tiny"


class Served:
    """`open_captioner` None: a Captioner of `checkpoint`."""

    def __init__(
        self,
        checkpoint: Path,
        *,
        open_captioner: Callable[[], Captioner] | None = None,
        fetcher: Fetcher | None = None,
        access: Access | None = None,
        limits: Limits | None = None,
        **settings: Any,
    ) -> None:
        self.settings = ServerSettings(name=NAME, access=access or Access(), limits=limits or Limits(), **settings)
        opened = open_captioner or (lambda: Captioner(checkpoint))
        self.service = make_service(opened, self.settings, fetcher=fetcher, num_decoders=2)
        self.socket = listening("127.0.0.1", 0)
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = make_server(self.service, grace_s=5)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self.socket]}, daemon=True)
        self.client = httpx2.Client(base_url=self.url, timeout=60, trust_env=False)

    @property
    def engine(self) -> str:
        """What --model calls it."""
        return f"openai:{NAME}@{self.url}/v1"

    def __enter__(self) -> "Served":
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.client.close()
        self._server.should_exit = True
        self._thread.join()

    def ask(self, content: Any, **fields: Any) -> httpx2.Response:
        """Content of a user's message, and further fields -> what the server says."""
        return self.post({"messages": [{"role": "user", "content": content}], **fields})

    def post(self, body: dict[str, Any], **headers: str) -> httpx2.Response:
        return self.client.post("/v1/chat/completions", json=body, headers=headers)

    def counted(self, name: str, **labels: str) -> float:
        return self.service.metrics.value(name, **labels)


def data_url(path: Path, kind: str = "video/mp4") -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def media(kind: str, url: str) -> dict[str, Any]:
    """A part of a request: media("video_url", "data:...")."""
    name = "data" if kind.startswith("input_") else "url"
    return {"type": kind, kind: {name: url}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def with_limits(**changed: Any) -> Limits:
    return replace(Limits(), **changed)
