"""The chat that an LLM judge asks, and an engine that captions: any OpenAI-compatible server.

    open_chat("openai:gpt-4.1", api_key=...)               the hosted one
    open_chat("openai:NAME@http://localhost:8000/v1")      vLLM, llama.cpp, ...

One request -> cache -> budget -> calls with pauses between them -> cache -> Reply, or NoReply with the reason.

The calls run in an event loop in a thread of its own, because only there a whole call, name lookup and dripping headers
included, can be given one deadline. Retrying is done here and not by a client library: each try has to be weighed
against the budget, and each body has to be cut off at a size while it still comes in.
"""

import asyncio
import concurrent.futures
import contextlib
import json
import random
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx2

from avcap.errors import UserError
from avcap.llm.budget import PRICES, Budget, Estimate, Price, cost_of, estimate, find_price, most_it_can_cost
from avcap.llm.cache import ReplyCache, reply_key
from avcap.llm.dialect import REFUSALS, Dialect, barest, from_text, joined, plainer, request_body, to_text
from avcap.llm.proxy import proxy_of
from avcap.llm.types import ChatRequest, NoReply, Reply
from avcap.llm.wire import (
    Failure,
    error_code,
    error_message,
    fewest_tokens,
    is_always_so,
    named_fields,
    read_completion,
    retry_after_s,
    shown,
    without_secret,
)

OPENAI_URL = "https://api.openai.com/v1"
MOST_REPLY_BYTES = 1_000_000
MOST_STREAM_BYTES = 16_000_000
"""A stream says each token in some 300 bytes."""
FETCH_S = 10.0
KEY_VARIABLE = "OPENAI_API_KEY"
CONNECT_S = 15.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
LONGEST_WAIT_S = 120.0
"""A server that asks to be left alone for longer than this gets no further try."""
POLL_S = 0.02
"""How often a reply that another process is fetching, or room in the budget, is looked for."""
LOOKAHEAD = 4
"""Requests drawn ahead for each call in flight, so that one slow call at the head does not idle the others."""
FOR_THE_USER = {
    401: "the server does not accept the key; set {key} to one of this server",
    402: "the account at this server has to be paid; nothing can be asked before",
    403: "the key may not use this model; use another key or another model",
    404: "no such model, or no such address; check the name, and that the URL ends as the server wants (most: /v1)",
    405: "no chat is offered at this address; check that the URL ends as the server wants (most: /v1)",
}
"""Answers that every further call would get too: the run ends."""
AGAIN = {408, 409, 425, 429}
MOST_UNUSABLE = 3
"""Calls that are paid for and bring nothing usable, for the same reason: after so many, the next would be like them."""


@dataclass(frozen=True, kw_only=True)
class ChatSpec:
    model: str
    url: str


@dataclass(kw_only=True)
class ChatCounts:
    """What a chat has done so far. `calls` were sent over the network; `retries` of them repeated another."""

    calls: int = 0
    retries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    no_replies: int = 0
    slow: int = 0
    """Calls that took more than half of their time limit, or all of it."""
    spent_usd: float | None = None
    """At list prices; calls that may have been charged count in full. None: the model's price is not known."""


def read_chat_spec(spec: str, *, role: str = "judge", key_variable: str = KEY_VARIABLE) -> ChatSpec:
    """ "openai:MODEL" or "openai:MODEL@URL" -> model and URL; UserError that shows no secret.

    `role`: what the model is for, in messages.
    """
    expected = "expected openai:MODEL or openai:MODEL@URL with an http:// or https:// URL"
    match = re.fullmatch(r"openai:(?P<model>\S+?)(@(?P<url>https?://\S+))?", spec)
    if match is None or (match["url"] is None and "@" in match["model"]):
        raise UserError(f"{role}: got {shown(spec.partition('@')[0])!r} and what follows it, {expected}")
    model, url = match["model"], (match["url"] or OPENAI_URL).rstrip("/")
    try:
        parts = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise UserError(f"{role}: the URL of model {model!r} is none ({error}); {expected}") from None
    if parts.userinfo or parts.query or parts.fragment or not parts.host:
        raise UserError(
            f"{role}: the URL of model {model!r} must be scheme, host, port and path alone; a key belongs into "
            f"{key_variable}"
        )
    return ChatSpec(model=model, url=str(parts))


def open_chat(
    spec: str,
    *,
    api_key: str | None = None,
    cache: ReplyCache | None = None,
    budget: Budget | None = None,
    prices: Mapping[str, Price] = PRICES,
    concurrency: int = 8,
    timeout_s: float = 120.0,
    max_retries: int = 6,
    role: str = "judge",
    key_variable: str = KEY_VARIABLE,
    lookahead: int = LOOKAHEAD,
) -> "OpenAIChat":
    """Spec -> chat with that server; nothing is sent yet. `timeout_s` is for one call, whole reply included.

    `role` and `key_variable`: what the model is for, and where the key came from, in messages. `lookahead`: requests
    drawn ahead for each call in flight.
    """
    parsed = read_chat_spec(spec, role=role, key_variable=key_variable)
    price = find_price(parsed.model, prices=prices)
    if budget is not None and price is None:
        raise UserError(
            f"budget: the price of model {parsed.model!r} is not known, expected it to hold the budget; name a file "
            f"with --prices (for a server of your own: {{input: 0, output: 0}})"
        )
    if parsed.url == OPENAI_URL and not api_key:
        raise UserError(f"{role}: no key for {OPENAI_URL}; set {key_variable}, or name another server with @URL")
    limits = (("concurrency", concurrency, 1), ("timeout", timeout_s, 0.001), ("retries", max_retries, 0))
    for name, value, least in limits:
        if not least <= value < float("inf"):
            raise UserError(f"{role}: got {name} {value}, expected {least} or more")
    if api_key and not (api_key.isascii() and api_key.isprintable()):
        raise UserError(f"{role}: the key holds characters that no key has (a line break?); set {key_variable} again")
    return OpenAIChat(
        parsed,
        api_key=api_key,
        cache=cache,
        budget=budget,
        price=price,
        concurrency=concurrency,
        timeout_s=timeout_s,
        max_retries=max_retries,
        role=role,
        key_variable=key_variable,
        lookahead=lookahead,
    )


class OpenAIChat:
    """An OpenAI-compatible server, asked `concurrency` requests at a time. Close it, or use it with `with`."""

    def __init__(
        self,
        spec: ChatSpec,
        *,
        api_key: str | None,
        cache: ReplyCache | None,
        budget: Budget | None,
        price: Price | None,
        concurrency: int,
        timeout_s: float,
        max_retries: int,
        role: str,
        key_variable: str,
        lookahead: int,
    ) -> None:
        self.model, self.url = spec.model, spec.url
        self.name = f"openai:{spec.model}"
        self._role, self._key_variable, self._lookahead = role, key_variable, lookahead
        self.counts = ChatCounts(spent_usd=None if price is None else 0.0)
        self.refusals: dict[str, str] = {}
        """Optional part of a request -> what the server said when it refused it; it is asked without that since."""
        self._key, self._cache, self._budget, self._price = api_key, cache, budget, price
        self._concurrency, self._timeout_s, self._max_retries = concurrency, timeout_s, max_retries
        remembered = None if cache is None else cache.dialect(server=self.url, model=self.model)
        self._dialect = Dialect() if remembered is None else from_text(remembered)
        self._fruitless: set[str] = set()
        """What the server said when leaving out all optional parts did not help: that is not what it refuses."""
        self._fatal: UserError | None = None
        self._connected = False
        self._stops: set[asyncio.Event] = set()
        self._jitter = random.Random()
        self._slots = asyncio.Semaphore(concurrency)
        proxy = proxy_of(self.url)
        self._client = httpx2.AsyncClient(
            proxy=proxy,
            trust_env=False,
            verify=httpx2.create_ssl_context(),  # which heeds SSL_CERT_FILE
            timeout=httpx2.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s), pool=None),
            limits=httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
            # A compressed body could grow a thousandfold in memory, after its size was checked.
            headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
        )
        if api_key:
            self._client.headers["Authorization"] = f"Bearer {api_key}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chat", daemon=True)
        self._thread.start()

    def __enter__(self) -> "OpenAIChat":
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        """Waits for the calls in flight, closes the connections and ends the thread; a second time does nothing."""
        if not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._finish(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    @property
    def dropped(self) -> tuple[str, ...]:
        """Optional parts of requests that the server refuses, and that it is asked without."""
        return self._dialect.dropped

    @property
    def schema_refusal(self) -> str | None:
        """What the server said when it refused to hold replies to a JSON schema."""
        return next((said for part, said in self.refusals.items() if part.startswith("response_format")), None)

    @property
    def advice(self) -> str:
        """What to do about replies that come slower than they are asked for; "" where they do not."""
        if not self.counts.slow:
            return ""
        one_by_one = (
            f" with {self._concurrency} at the same time; a server of one's own may answer one after the other: try "
            "--concurrency 1, and"
        )
        return (
            f"{self._role} {self.name}: {self.counts.slow} of {self.counts.calls} calls took more than half of the "
            f"limit of {self._timeout_s:g} s{one_by_one if self._concurrency > 1 else '; try'} a larger --timeout"
        )

    def key(self, request: ChatRequest) -> str:
        """Request -> its key in the cache, as it would be asked now."""
        return self._key_in(self._dialect, request)

    def _key_in(self, dialect: Dialect, request: ChatRequest) -> str:
        return reply_key(request, server=self.url, model=self.model, dropped=dialect.dropped_from(request))

    def estimate(self, requests: Iterable[ChatRequest]) -> Estimate:
        """Requests -> what asking them would cost now; nothing is sent."""
        cache = self._cache
        return estimate(
            requests,
            model=self.model,
            price=self._price,
            key=self.key,
            is_cached=lambda key: cache is not None and cache.get(key) is not None,
        )

    def ask(self, requests: Iterable[ChatRequest]) -> Iterator[Reply | NoReply]:
        """One answer for each request, in order; UserError for what every further call would meet too (a wrong key).

        Left early or interrupted, it waits for the calls in flight: their replies are paid for and go to the cache.
        """
        assert not self._loop.is_closed(), "this chat is closed"
        stop = asyncio.Event()
        self._stops.add(stop)
        pending: deque[concurrent.futures.Future[Reply | NoReply]] = deque()
        try:
            for request in requests:
                pending.append(asyncio.run_coroutine_threadsafe(self._answer(request, stop=stop), self._loop))
                while pending and (pending[0].done() or len(pending) >= self._lookahead * self._concurrency):
                    yield _take(pending)
            while pending:
                yield _take(pending)
        finally:
            self._stops.discard(stop)
            if pending and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(stop.set)
                concurrent.futures.wait(pending)

    async def _answer(self, request: ChatRequest, *, stop: asyncio.Event) -> Reply | NoReply:
        """One request, in ever plainer dialects until the server takes it; what it took is remembered."""
        async with self._slots:
            trial, guessed, told = self._dialect, "", dict[str, str]()
            while True:
                trial = joined(self._dialect, trial)
                outcome = await self._answer_in(trial, request, stop=stop)
                if isinstance(outcome, Refused):
                    told |= {part: outcome.said for part in outcome.plainer.dropped if part not in trial.dropped}
                    guessed = outcome.said if outcome.is_guess else guessed
                    trial = outcome.plainer
                    continue
                if isinstance(outcome, Reply):
                    self._settle_on(trial, told=told)
                elif guessed:
                    self._fruitless.add(guessed)
                return outcome

    def _settle_on(self, dialect: Dialect, *, told: dict[str, str]) -> None:
        found = joined(self._dialect, dialect)
        if found == self._dialect:
            return
        self._dialect = found
        self.refusals |= {part: said for part, said in told.items() if part in found.dropped}
        if self._cache is not None:
            self._cache.remember_dialect(to_text(found), server=self.url, model=self.model)

    async def _answer_in(
        self, dialect: Dialect, request: ChatRequest, *, stop: asyncio.Event
    ) -> "Reply | NoReply | Refused":
        """The cache around the calls; a request that another process is asking is waited for."""
        if self._cache is None:
            return await self._call_until_answered(request, dialect=dialect, stop=stop)
        key = self._key_in(dialect, request)
        while (kept := self._cache.claim(key)) is False and not stop.is_set():
            await _pause(POLL_S, stop=stop)
        if isinstance(kept, Reply):
            return kept
        if kept is False:
            return NoReply(reason="stopped before it was asked")
        try:
            answer = await self._call_until_answered(request, dialect=dialect, stop=stop)
            if isinstance(answer, Reply):
                self._cache.put(key, answer, model=self.model)
        finally:
            self._cache.release(key)
        return answer

    async def _call_until_answered(
        self, request: ChatRequest, *, dialect: Dialect, stop: asyncio.Event
    ) -> "Reply | NoReply | Refused":
        """Calls with pauses between them, until there is a reply, or another call is of no use or not affordable."""
        most_usd = most_it_can_cost(request, price=self._price) if self._price else 0.0
        tries, unusable = 0, Counter[str]()
        while not stop.is_set():
            if self._fatal:
                raise self._fatal
            if not await self._reserve(most_usd, stop=stop):
                return self._no_reply(f"budget: the call can cost ${most_usd:.4f}, {self._budget}")
            # A prompt that was sent before may lie in the server's cache, and then some count only what is new.
            is_new = tries == 0 and request.attempt == 0
            outcome = await self._call_and_settle(request, dialect=dialect, most_usd=most_usd, is_new=is_new)
            if not isinstance(outcome, Failure):
                return outcome
            tries += 1
            unusable[outcome.reason] += outcome.is_reply
            pause_s = self._pause_before_next(tries, asked_for_s=outcome.wait_s)
            is_last = tries > self._max_retries or unusable[outcome.reason] >= MOST_UNUSABLE
            if not outcome.again or is_last or pause_s > LONGEST_WAIT_S:
                return self._give_up(outcome, tries=tries)
            self.counts.retries += 1
            await _pause(pause_s, stop=stop)
        return NoReply(reason="stopped before it was answered")

    async def _reserve(self, most_usd: float, *, stop: asyncio.Event) -> bool:
        """-> False if the budget cannot pay the call; waits while that depends on what calls in flight will cost."""
        while self._budget and not self._budget.reserve(most_usd):
            if not self._budget.affords(most_usd) or stop.is_set():
                return False
            await _pause(POLL_S, stop=stop)
        return True

    async def _call_and_settle(
        self, request: ChatRequest, *, dialect: Dialect, most_usd: float, is_new: bool
    ) -> "Reply | Failure | Refused":
        """One call -> its outcome, with what it cost written down."""
        spent_usd = 0.0
        try:
            outcome = await self._call(request, dialect=dialect, is_new=is_new)
            if isinstance(outcome, Reply):
                self.counts.input_tokens += outcome.input_tokens
                self.counts.output_tokens += outcome.output_tokens
                counted = outcome.input_tokens + outcome.output_tokens > 0
                spent_usd = cost_of(outcome, price=self._price) if self._price and counted else most_usd
            elif isinstance(outcome, Failure) and outcome.billed:
                spent_usd = most_usd
            return outcome
        finally:
            if self._budget:
                self._budget.settle(most_usd, spent_usd=spent_usd)
            if self.counts.spent_usd is not None:
                self.counts.spent_usd += spent_usd

    async def _call(self, request: ChatRequest, *, dialect: Dialect, is_new: bool) -> "Reply | Failure | Refused":
        """One call over the network, within the deadline. `is_new`: the server cannot have seen the prompt before."""
        sent = request_body(request, model=self.model, dialect=dialect)
        self.counts.calls += 1
        begun_s = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._post(json.dumps(sent).encode(), is_stream=bool(sent.get("stream")))
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            reason = f"cannot connect: {self._clean(error)}"
            return Failure(reason=reason, again=True, billed=False, reached=False)
        except (TimeoutError, httpx2.TimeoutException):
            return Failure(reason=f"no whole reply within {self._timeout_s:g} s", again=True, billed=True)
        except httpx2.HTTPError as error:
            return Failure(reason=f"the connection broke: {self._clean(error)}", again=True, billed=True)
        finally:
            self.counts.slow += time.monotonic() - begun_s > self._timeout_s / 2
        self._connected = True
        if response.status == 200:
            if not response.whole:
                reason = f"a reply of more than {_most_bytes(bool(sent.get('stream'))):,} bytes, or a compressed one"
                return Failure(reason=reason, again=True, billed=True)
            outcome = read_completion(response.body, sent_tokens=fewest_tokens(request) if is_new else 0)
            if isinstance(outcome, Failure):
                return replace(outcome, reason=self._clean(outcome.reason))
            return self._without_key(outcome)
        return self._refused(response, sent=sent, dialect=dialect)

    def _without_key(self, reply: Reply) -> Reply:
        """A reply -> the same without the key, which a server may say in an answer, too: replies go to disk."""
        if not self._key:
            return reply
        others = tuple(replace(one, text=without_secret(one.text, secret=self._key)) for one in reply.others)
        return replace(reply, text=without_secret(reply.text, secret=self._key), others=others)

    def fetch(self, address: str) -> Any:
        """A path beside the server's URL ("models"), or from its root ("/props") -> the JSON there, or None.

        For what a server tells of itself: whatever goes wrong means that it does not tell.
        """
        assert not self._loop.is_closed(), "this chat is closed"
        return asyncio.run_coroutine_threadsafe(self._fetch(address), self._loop).result()

    async def _fetch(self, address: str) -> Any:
        url = f"{self.url.removesuffix('/v1')}{address}" if address.startswith("/") else f"{self.url}/{address}"
        try:
            async with asyncio.timeout(min(FETCH_S, self._timeout_s)):
                response = await self._read("GET", url, most_bytes=MOST_REPLY_BYTES)
            return json.loads(response.body) if response.status == 200 and response.whole else None
        except (httpx2.HTTPError, TimeoutError, ValueError, RecursionError):
            return None

    async def _post(self, payload: bytes, *, is_stream: bool) -> "Response":
        """Sends a request -> the response."""
        url = f"{self.url}/chat/completions"
        return await self._read("POST", url, content=payload, most_bytes=_most_bytes(is_stream))

    async def _read(self, method: str, url: str, *, most_bytes: int, content: bytes | None = None) -> "Response":
        """One exchange -> the response, cut off at so many bytes while it comes in."""
        async with self._client.stream(method, url, content=content) as response:
            body = bytearray()
            whole = response.headers.get("Content-Encoding", "identity") == "identity"  # nothing else was asked for
            async for chunk in response.aiter_raw():
                body += chunk[: most_bytes - len(body)]
                if len(body) == most_bytes:
                    whole = False
                    break
            retry_after, location = response.headers.get("Retry-After"), response.headers.get("Location", "")
        return Response(
            status=response.status_code, retry_after=retry_after, location=location, body=bytes(body), whole=whole
        )

    def _refused(self, response: "Response", *, sent: dict[str, Any], dialect: Dialect) -> "Failure | Refused":
        """Response that is no success -> why, or what to ask instead; UserError if it ends the run."""
        message = error_message(response.body)
        said = self._clean(message) if message.strip() else "without a message"
        reason = f"status {response.status}: {said}"
        if response.status in REFUSALS:
            fields, keep_limit = named_fields(response.body), self._budget is not None
            if found := plainer(dialect, sent=sent, message=message, fields=fields, keep_limit=keep_limit):
                return Refused(plainer=found, said=said)
            is_guess = response.status in (400, 422) and said not in self._fruitless
            if is_guess and (found := barest(dialect, sent=sent, message=message)):
                return Refused(plainer=found, said=said, is_guess=True)
        todo = FOR_THE_USER.get(response.status, "").format(key=self._key_variable)
        if 300 <= response.status < 400:
            to = f" to {self._clean(response.location)}" if response.location else ""
            reason, todo = f"status {response.status}, a redirection{to}", "name the address that answers as the URL"
        if response.status == 429 and error_code(response.body) == "insufficient_quota":
            todo = "the account's quota is used up; nothing can be asked before it is raised"
        if todo:
            self._fatal = UserError(f"{self._role} {self.name} at {self.url}: got {reason}, expected a reply; {todo}")
            raise self._fatal
        again = response.status in AGAIN or (response.status >= 500 and not is_always_so(message))
        return Failure(reason=reason, again=again, billed=False, wait_s=retry_after_s(response.retry_after))

    def _pause_before_next(self, tries: int, *, asked_for_s: float | None) -> float:
        """How long to wait after so many tries: ever longer, spread out, and never less than the server asks for."""
        spread = self._jitter.uniform(0.5, 1.0)
        if asked_for_s is not None:
            return asked_for_s + spread * FIRST_PAUSE_S
        return spread * min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (tries - 1))

    def _give_up(self, failure: Failure, *, tries: int) -> NoReply:
        """The last failure -> NoReply; UserError if no call has ever reached the server."""
        if not failure.reached and not self._connected:
            self._fatal = UserError(
                f"{self._role} {self.name}: {failure.reason} in {tries} calls to {self.url}, expected a running server "
                f"there; start it, or correct the URL"
            )
            raise self._fatal
        return self._no_reply(failure.reason + (f" (the last of {tries} calls)" if tries > 1 else ""))

    def _no_reply(self, reason: str) -> NoReply:
        self.counts.no_replies += 1
        return NoReply(reason=reason)

    def _clean(self, said: object) -> str:
        """What a server or library said -> one short line without the key, which some servers repeat."""
        return shown(without_secret(str(said), secret=self._key)) or type(said).__name__

    async def _finish(self) -> None:
        for stop in self._stops:
            stop.set()
        if in_flight := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(in_flight)
        await self._client.aclose()


@dataclass(frozen=True, kw_only=True)
class Response:
    """What came back from a call. `whole`: nothing was cut off, and it can be read as it is."""

    status: int
    retry_after: str | None
    location: str
    body: bytes
    whole: bool


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A refusal, and the plainer dialect to ask in. `is_guess`: the server did not say what it refuses."""

    plainer: Dialect
    said: str
    is_guess: bool = False


def _most_bytes(is_stream: bool) -> int:
    return MOST_STREAM_BYTES if is_stream else MOST_REPLY_BYTES


def _take(pending: "deque[concurrent.futures.Future[Reply | NoReply]]") -> Reply | NoReply:
    """Waits for the first answer, and takes it off only then: interrupted, it is among those to be stopped."""
    answer = pending[0].result()
    pending.popleft()
    return answer


async def _pause(seconds: float, *, stop: asyncio.Event) -> None:
    """Waits, but not longer than until `stop` is set."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), timeout=seconds)
