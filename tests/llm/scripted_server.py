"""A real HTTP server on 127.0.0.1 that answers like an OpenAI-compatible one, or misbehaves as its script says.

    with ScriptedServer(answer=lambda body: "yes") as server:
        open_chat(f"openai:tester@{server.url}")

`answer` is a function of the request's JSON to the text of the reply. `script` sees (request, how many times this very
request came before) and returns what to play: `reply` (the default), `status(500)`, `rate_limited(after="1")`, `hang`,
`cut`, `garbage`, `wrong_schema`, `no_choices`, `refusal`, `huge`, `compressed`, `drip`, `drip_headers`, `no_schema`.
"""

import contextlib
import functools
import gzip
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
Answer = Callable[[Body], str]

HUGE_BYTES = 50_000_000


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request as it came in. `paid`: a whole reply was written, which a hosted server would have charged for."""

    body: Body
    headers: dict[str, str]
    at_s: float
    paid: bool


@dataclass
class Stage:
    """What a play gets: the connection, the request, and what the server would answer."""

    handler: BaseHTTPRequestHandler
    body: Body
    answer: Answer
    closing: threading.Event
    paid: bool = field(default=False)

    def send(self, payload: bytes, *, status: int = 200, length: int | None = None, **headers: str) -> None:
        """Writes a whole response; `length` may lie about how much is coming."""
        self.handler.send_response(status)
        self.handler.send_header("Content-Type", "application/json")
        self.handler.send_header("Content-Length", str(len(payload) if length is None else length))
        for name, value in headers.items():
            self.handler.send_header(name.replace("_", "-"), value)
        self.handler.end_headers()
        self.handler.wfile.write(payload)

    def send_error(self, status: int, message: str, *, code: str = "scripted", **headers: str) -> None:
        error = {"error": {"message": message, "type": "scripted", "code": code}}
        self.send(json.dumps(error).encode(), status=status, **headers)


Play = Callable[[Stage], None]
Script = Callable[[Body, int], Play]


def completion(text: str | None, *, finish: str = "stop", tokens: tuple[Any, Any] = (100, 10), **message: Any) -> bytes:
    """Text -> the JSON of a chat completion."""
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
    usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()


def reply(stage: Stage) -> None:
    num_chars = sum(len(str(message["content"])) for message in stage.body.get("messages", ()))
    payload = completion(stage.answer(stage.body), tokens=(max(100, num_chars // 4), 10))
    stage.paid = True
    stage.send(payload)


def status(code: int, message: str = "scripted trouble", *, kind: str = "scripted") -> Play:
    return lambda stage: stage.send_error(code, message, code=kind)


def rate_limited(*, after: str | None) -> Play:
    headers = {"Retry_After": after} if after is not None else {}
    return lambda stage: stage.send_error(429, "slow down", **headers)


def hang(stage: Stage) -> None:
    """Takes the request and never answers."""
    stage.closing.wait()
    stage.handler.close_connection = True


def cut(stage: Stage) -> None:
    """Closes the connection in the middle of the body."""
    payload = completion(stage.answer(stage.body))
    stage.send(payload[: len(payload) // 2], length=len(payload))
    stage.handler.close_connection = True


def garbage(stage: Stage) -> None:
    stage.send(b'<html>{"choices": [\xff\xfe not json')


def wrong_schema(stage: Stage) -> None:
    stage.send(b'{"choices": {"text": "yes"}, "usage": "plenty"}')


def no_choices(stage: Stage) -> None:
    stage.send(b'{"choices": []}')


def refusal(stage: Stage) -> None:
    stage.send(completion(None, refusal="I cannot judge this."))


def huge(stage: Stage) -> None:
    """Sends 50 MB, or as much of it as the other side takes."""
    stage.handler.send_response(200)
    stage.handler.send_header("Connection", "close")
    stage.handler.end_headers()
    stage.handler.close_connection = True
    block = b" " * 65_536
    with contextlib.suppress(OSError):
        for _ in range(HUGE_BYTES // len(block)):
            stage.handler.wfile.write(block)


def drip(stage: Stage) -> None:
    """Sends a right reply, one byte every 0.5 s: each read succeeds, the whole never ends."""
    payload = completion(stage.answer(stage.body))
    stage.handler.send_response(200)
    stage.handler.send_header("Content-Length", str(len(payload)))
    stage.handler.end_headers()
    _drip(stage, payload)


def drip_headers(stage: Stage) -> None:
    """The same, from the first byte of the status line on."""
    _drip(stage, b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: x\r\n" % n for n in range(1000)))


def _drip(stage: Stage, payload: bytes) -> None:
    stage.handler.close_connection = True
    with contextlib.suppress(OSError):
        for byte in payload:
            stage.handler.wfile.write(bytes([byte]))
            stage.handler.wfile.flush()
            if stage.closing.wait(0.5):
                break


def compressed(stage: Stage) -> None:
    """50 MB in a body of 50 kB, although nobody said they take compressed ones."""
    stage.send(_compressed_blanks(), Content_Encoding="gzip")


@functools.cache
def _compressed_blanks() -> bytes:
    return gzip.compress(b" " * HUGE_BYTES)


def no_schema(stage: Stage) -> None:
    """A server without structured output: 400 naming response_format, right answers without it."""
    if "response_format" in stage.body:
        stage.send_error(400, "'response_format' of type 'json_schema' is not supported with this model")
    else:
        reply(stage)


def always(play: Play) -> Script:
    return lambda body, times: play


def first(*plays: Play) -> Script:
    """These plays for the first times that a request comes, right replies after them."""
    return lambda body, times: plays[times] if times < len(plays) else reply


def obeying(answer: Answer, *, block: re.Pattern[str], order: re.Pattern[str], forged: str) -> Answer:
    """A server that obeys any order it can see outside the delimited block.

    `block` matches one delimited block (from its opening to the FIRST closing, as a reader would take it), `order`
    matches an order to the judge. With an order in sight the reply is `forged`, else what `answer` gives.
    """

    def answer_or_obey(body: Body) -> str:
        visible = "\n".join(block.sub("", message["content"]) for message in body["messages"])
        return forged if order.search(visible) else answer(body)

    return answer_or_obey


class ScriptedServer:
    """The server, in threads of this process. `calls` lists what came; `paid` counts whole replies by request."""

    def __init__(self, *, answer: Answer = lambda body: "yes", script: Script = lambda body, times: reply) -> None:
        self.answer, self.script = answer, script
        self.calls: list[Call] = []
        self.paid: Counter[str] = Counter()
        self.most_at_once = 0
        self._seen: Counter[str] = Counter()
        self._now = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._http = _Server(("127.0.0.1", 0), _handler_of(self))
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> "ScriptedServer":
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()

    @contextlib.contextmanager
    def _busy(self) -> Iterator[None]:
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            yield
        finally:
            with self._lock:
                self._now -= 1

    def play(self, handler: BaseHTTPRequestHandler, body: Body) -> None:
        """Plays what the script says for this request, and writes down that it came."""
        key = json.dumps(body["messages"])
        with self._lock:
            times = self._seen[key]
            self._seen[key] += 1
        stage = Stage(handler=handler, body=body, answer=self.answer, closing=self._closing)
        at_s = time.monotonic()
        try:
            with self._busy():
                self.script(body, times)(stage)
        finally:
            with self._lock:
                self.paid[key] += stage.paid
                self.calls.append(Call(body=body, headers=dict(handler.headers), at_s=at_s, paid=stage.paid))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is part of the game."""


def _handler_of(server: ScriptedServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = 65_536  # header and body in one packet
        timeout = 60

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path != "/v1/chat/completions":
                Stage(handler=self, body={}, answer=server.answer, closing=server._closing).send_error(404, "no route")
            else:
                server.play(self, json.loads(raw))

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    return Handler
