"""What does the server give to 1, 8 and 32 clients, and is it the same after 1,000 requests of which 5 % are hostile?

    PYTHONPATH=src OMP_NUM_THREADS=1 python bench/serve.py [--clips 32] [--requests 1000] [--max-tokens 48]

`avcap serve` runs as a process of its own, with the clips of examples/ behind different padding, so that the server
takes each for another video. First each number of clients asks about `--clips` of them, then again about the same; then
16 clients send `--requests`, 1 in 5 about a video that is new, 1 in 20 hostile. Prints throughput, latencies, wrong
answers (against a Captioner in this process), and memory, threads, open files and files left behind as it goes.
"""

import argparse
import base64
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

ROOT = Path(__file__).parent.parent
CLIPS = sorted((ROOT / "examples").glob("*.mp4"))
CLIENTS = (1, 8, 32)
HOSTILE_SHARE, NEW_SHARE, LOAD_CLIENTS = 0.05, 0.2, 16
KEY = "sk-of-the-bench"


@dataclass
class Server:
    """A running server. `local`: its clients, one for each thread."""

    process: subprocess.Popen[str]
    url: str
    folder: Path
    local: threading.local = field(default_factory=threading.local)

    @property
    def client(self) -> httpx2.Client:
        if not hasattr(self.local, "client"):
            headers = {"Authorization": f"Bearer {KEY}"}
            self.local.client = httpx2.Client(base_url=self.url, headers=headers, timeout=600, trust_env=False)
        return self.local.client

    def state(self) -> str:
        """Memory of the process, of its decoding processes, and what is open, at this moment."""
        own = self.process.pid
        tasks = Path(f"/proc/{own}/task").iterdir()
        children = [pid for task in tasks for pid in (task / "children").read_text().split()]
        memory = [resident_mb(str(pid)) for pid in (own, *children)]
        status = Path(f"/proc/{own}/status").read_text()
        threads = re.search(r"Threads:\s+(\d+)", status)
        num_open = len(os.listdir(f"/proc/{own}/fd"))
        left = sum(1 for place in self.folder.glob("avcap-serve-*") for _ in place.iterdir())
        return (
            f"{memory[0]:.0f} MB, {len(children)} decoding processes of {max(memory[1:], default=0):.0f} MB at most, "
            f"{threads[1] if threads else '?'} threads, {num_open} open files, {left} folders of requests"
        )


def resident_mb(pid: str) -> float:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1000 if found else 0.0


@contextmanager
def served(*options: str) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"AVCAP_SERVER_KEY": KEY, "TMPDIR": folder}
        words = [sys.executable, "-m", "avcap", "serve", "--port", "0", *options]
        process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        found = re.search(r"http://[^/]+", line := process.stderr.readline())
        assert found, line
        try:
            yield Server(process=process, url=found[0], folder=Path(folder))
        finally:
            process.terminate()
            process.wait()


def padded(clip: Path, number: int) -> bytes:
    """A clip -> the same with a box that players pass over: another file with the same content."""
    return clip.read_bytes() + (8 + 8).to_bytes(4, "big") + b"free" + number.to_bytes(8, "big")


def body_of(number: int, *, max_tokens: int) -> bytes:
    """Number of a clip -> a request about it."""
    data = base64.b64encode(padded(CLIPS[number % len(CLIPS)], number)).decode()
    content = [{"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{data}"}}]
    return json.dumps({"messages": [{"role": "user", "content": content}], "max_tokens": max_tokens}).encode()


def post(server: Server, body: bytes) -> httpx2.Response:
    return server.client.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})


# --- throughput -------------------------------------------------------------------------------------------------------


def throughput(args: argparse.Namespace, expected: dict[str, str]) -> None:
    bodies = [body_of(number, max_tokens=args.max_tokens) for number in range(args.clips)]
    for num_clients in CLIENTS:
        with served() as server, ThreadPoolExecutor(num_clients) as clients:
            # all decoding processes are started
            list(clients.map(lambda number: post(server, body_of(10**6 + number, max_tokens=2)), range(8)))
            for what in ("new videos", "the same again"):
                started_s = time.monotonic()
                rows = list(clients.map(lambda one: timed(server, one[0], one[1], expected), enumerate(bodies)))
                took_s = time.monotonic() - started_s
                latencies = sorted(latency for latency, _ in rows)
                print(
                    f"{num_clients:2} clients, {what}: {len(rows) / took_s:.2f} captions/s; latency p50 "
                    f"{quantile(latencies, 0.5):.2f} s, p95 {quantile(latencies, 0.95):.2f} s, p99 "
                    f"{quantile(latencies, 0.99):.2f} s; {sum(not is_right for _, is_right in rows)} wrong",
                    flush=True,
                )
            metrics = server.client.get("/metrics").text
            print(f"   batches of {average(metrics, 'batch_size'):.1f} answers on average")


def timed(server: Server, number: int, body: bytes, expected: dict[str, str]) -> tuple[float, bool]:
    """-> (seconds until the whole answer, whether it is the right one)."""
    started_s = time.monotonic()
    reply = post(server, body)
    latency_s = time.monotonic() - started_s
    return latency_s, is_right(reply, number, expected)


def is_right(reply: httpx2.Response, number: int, expected: dict[str, str]) -> bool:
    if reply.status_code != 200:
        return False
    return reply.json()["choices"][0]["message"]["content"] == expected[CLIPS[number % len(CLIPS)].name]


def quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def average(metrics: str, name: str) -> float:
    total, number = (
        float(re.search(rf"^avcap_{name}_{part} (\S+)$", metrics, re.MULTILINE)[1])  # type: ignore[index]
        for part in ("sum", "count")
    )
    return total / number


# --- load -------------------------------------------------------------------------------------------------------------


def hostile(server: Server, number: int) -> str:
    """Sends what should be refused -> the kind and what came of it."""
    video = {"type": "video_url", "video_url": {}}

    def about(url: str) -> bytes:
        content = [{**video, "video_url": {"url": url}}]
        return json.dumps({"messages": [{"role": "user", "content": content}]}).encode()

    kinds = {
        "no film": about("data:video/mp4;base64," + base64.b64encode(random.randbytes(3000)).decode()),
        "cut film": about("data:video/mp4;base64," + base64.b64encode(CLIPS[0].read_bytes()[:20_000]).decode()),
        "file": about("file:///etc/passwd"),
        "loopback": about("http://2130706433/"),
        "no JSON": b'{"messages": NaN',
        "nesting": b"[" * 200_000,
        "no key": about("data:,"),
        "broken off": body_of(number, max_tokens=400),
    }
    kind = list(kinds)[number % len(kinds)]
    if kind == "broken off":  # the client leaves while its answer is written
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(kinds[kind])}\r\n\r\n"
            connection.sendall(head.encode() + kinds[kind])
            time.sleep(0.2)
        return f"{kind}: left"
    key = {"Authorization": "Bearer wrong"} if kind == "no key" else {}
    headers = {"Content-Type": "application/json"} | key
    reply = server.client.post("/v1/chat/completions", content=kinds[kind], headers=headers)
    return f"{kind}: {reply.status_code}"


def load(args: argparse.Namespace, expected: dict[str, str]) -> None:
    outcomes: Counter[str] = Counter()
    lock = threading.Lock()
    done = 0

    def one(number: int) -> None:
        nonlocal done
        draws = random.Random(number)
        if draws.random() < HOSTILE_SHARE:
            outcome = hostile(server, number)
        else:
            asked = 10**6 + number if draws.random() < NEW_SHARE else draws.randrange(len(CLIPS))
            reply = post(server, body_of(asked, max_tokens=args.max_tokens))
            outcome = "right" if is_right(reply, asked, expected) else f"WRONG: {reply.status_code}"
        with lock:
            outcomes[outcome] += 1
            done += 1
            if done % max(1, args.requests // 10) == 0:
                print(f"{done:5} requests: {server.state()}", flush=True)

    # a small cache, full early: what grows then would be a leak
    with served("--keep-mb", "4") as server, ThreadPoolExecutor(LOAD_CLIENTS) as clients:
        started_s = time.monotonic()
        list(clients.map(one, range(args.requests)))
        took_s = time.monotonic() - started_s
        print(f"{args.requests} requests of {LOAD_CLIENTS} clients in {took_s:.0f} s")
        for outcome, count in sorted(outcomes.items()):
            print(f"  {count:5}  {outcome}")
        gauges = [line for line in server.client.get("/metrics").text.splitlines() if "# " not in line]
        print("  " + "; ".join(line for line in gauges if re.match(r"avcap_(requests_under|held|jobs|clips)", line)))
        print(f"  at the end: {server.state()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=32, help="videos of each number of clients")
    parser.add_argument("--requests", type=int, default=1000, help="of the load test; 0: none")
    parser.add_argument("--max-tokens", type=int, default=48, help="length of a caption")
    args = parser.parse_args()
    from avcap.infer.captioner import Captioner

    captioner = Captioner("tiny")
    rows = captioner.caption([str(clip) for clip in CLIPS], max_new_tokens=args.max_tokens)
    expected = {Path(row.video).name: row.text for row in rows}  # type: ignore[union-attr]
    if args.clips:
        throughput(args, expected)
    if args.requests:
        load(args, expected)


if __name__ == "__main__":
    main()
