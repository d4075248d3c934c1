"""What does a judge's call cost besides the server, how many go through a second, and what do 1,000 faults do to it?

    python bench/judge_calls.py [--calls 2000] [--faults 1000] [--in-flight 16]

The server is the scripted one of the tests, in a process of its own. Prints: calls a second and CPU milliseconds a call
of the bare HTTP client, of the chat, of the chat with a cache, and of a warm cache; then a run in which the first tries
of the requests meet faults drawn at random, with what was lost, doubled or made up, and this process's peak memory.
"Paid twice" are whole replies of the server that came after the deadline: 0 unless the machine is starved.
"""

import argparse
import asyncio
import json
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import httpx2

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support import scripted_server as play

from avcap.llm import chat as chat_module
from avcap.llm.cache import ReplyCache
from avcap.llm.chat import OpenAIChat, open_chat
from avcap.llm.types import ChatRequest, Message, Reply

PROMPT = "Judge each event of the list against the caption. " * 80  # 4,000 characters, as a caption with its events
FAULTS: dict[str, play.Play] = {
    "500": play.status(500),
    "429": play.rate_limited(after="0.01"),
    "hang": play.hang,
    "cut": play.cut,
    "garbage": play.garbage,
    "wrong schema": play.wrong_schema,
    "50 MB": play.huge,
    "drip": play.drip,
}
WEIGHTS = [5, 5, 1, 5, 5, 5, 1, 1]
"""Hangs, drips and 50 MB are rarer: each takes the whole deadline, or moves a megabyte."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """What the server saw: calls by what was played, and whole replies by request."""

    played: Counter[str]
    paid: Counter[str]


def serve(pipe: Connection, num_faults: int) -> None:
    """Process of the server. The first `num_faults` requests meet one to three faults before their reply."""
    played: Counter[str] = Counter()

    def script(body: play.Body, times: int) -> play.Play:
        number = number_of(body)
        draws = random.Random(number)
        faults = draws.choices(list(FAULTS), WEIGHTS, k=draws.randint(1, 3)) if number < num_faults else []
        name = faults[times] if times < len(faults) else "reply"
        played[name] += 1
        return FAULTS.get(name, play.reply)

    with play.ScriptedServer(answer=lambda body: f"verdict {number_of(body)}", script=script) as server:
        pipe.send(server.url)
        pipe.recv()
        pipe.send(Served(played=played, paid=server.paid))


def number_of(body: play.Body) -> int:
    return int(body["messages"][0]["content"].split()[0])


def requests(count: int) -> list[ChatRequest]:
    return [
        ChatRequest(messages=(Message(role="user", content=f"{n} {PROMPT}"),), max_tokens=500) for n in range(count)
    ]


def measure(what: str, count: int, work: Callable[[], None]) -> None:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    work()
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    print(f"{what:<28} {count / wall_s:7.0f} calls/s   {1000 * cpu_s / count:.2f} ms of CPU a call", flush=True)


async def call_bare(url: str, count: int, in_flight: int) -> None:
    """The same requests with the client alone: no order, cache, budget, deadline or checks."""
    slots = asyncio.Semaphore(in_flight)

    async def call(client: httpx2.AsyncClient, request: ChatRequest) -> None:
        messages = [{"role": m.role, "content": m.content} for m in request.messages]
        async with slots:
            response = await client.post(f"{url}/chat/completions", json={"model": "tester", "messages": messages})
            assert response.json()["choices"][0]["message"]["content"].startswith("verdict")

    async with httpx2.AsyncClient() as client:
        await asyncio.gather(*(call(client, request) for request in requests(count)))


def ask_all(chat: OpenAIChat, count: int) -> None:
    for index, answer in enumerate(chat.ask(requests(count))):
        assert isinstance(answer, Reply) and answer.text == f"verdict {index}", answer


def measure_speed(calls: int, in_flight: int, folder: Path) -> None:
    with served(num_faults=0) as (url, _):
        measure("bare client", calls, lambda: asyncio.run(call_bare(url, calls, in_flight)))
        with open_chat(f"openai:tester@{url}", concurrency=in_flight) as chat:
            measure("chat", calls, lambda: ask_all(chat, calls))
        cache = ReplyCache(folder / "speed.db")
        with open_chat(f"openai:tester@{url}", concurrency=in_flight, cache=cache) as chat:
            measure("chat, empty cache", calls, lambda: ask_all(chat, calls))
            measure("chat, warm cache", calls, lambda: ask_all(chat, calls))


def measure_faults(num_faults: int, in_flight: int, folder: Path) -> None:
    chat_module.FIRST_PAUSE_S = 0.01
    cache = ReplyCache(folder / "faults.db")
    before_mb = peak_mb()
    with served(num_faults=num_faults) as (url, ask_server):
        settings = {"concurrency": in_flight, "timeout_s": 8.0, "max_retries": 20}
        with open_chat(f"openai:tester@{url}", cache=cache, **settings) as chat:
            answers = list(chat.ask(requests(num_faults) * 2))  # each twice: the second time out of the cache
        seen = ask_server()
    texts = [answer.text if isinstance(answer, Reply) else None for answer in answers]
    right = [f"verdict {index}" for index in range(num_faults)] * 2
    made_up = sum(text is not None and text != expected for text, expected in zip(texts, right, strict=True))
    faults = {name: count for name, count in sorted(seen.played.items()) if name != "reply"}
    print(f"{num_faults} requests, each twice, met {sum(faults.values())} faults: {json.dumps(faults)}")
    print(
        f"lost {texts.count(None)}, made up {made_up}, paid twice {sum(paid > 1 for paid in seen.paid.values())}, "
        f"answers {len(answers)}; {chat.counts.calls} calls, {chat.counts.retries} retries, cache {len(cache)}"
    )
    print(f"peak memory {before_mb:.0f} MB before, {peak_mb():.0f} MB after")


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class served:
    """A server process: with served(...) as (url, function that ends it and tells what it saw)."""

    def __init__(self, *, num_faults: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, num_faults))

    def __enter__(self) -> tuple[str, Callable[[], Served]]:
        self._process.start()
        return self._pipe.recv(), self._end

    def _end(self) -> Served:
        self._pipe.send("end")
        return self._pipe.recv()

    def __exit__(self, *failure: object) -> None:
        self._process.terminate()
        self._process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--faults", type=int, default=1000, help="requests that meet faults")
    parser.add_argument("--in-flight", type=int, default=16)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure_speed(arguments.calls, arguments.in_flight, Path(folder))
        measure_faults(arguments.faults, arguments.in_flight, Path(folder))


if __name__ == "__main__":
    main()
