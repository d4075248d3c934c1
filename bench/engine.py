"""What our side adds to captioning by an engine: per caption against the bare client, and whether decoding and requests
overlap. Run by hand: python bench/engine.py [--files 24] [--delay 0.5] [--concurrency 8]

The engine is a scripted one on this machine that waits --delay seconds before each answer, so everything else is ours:
decoding, encoding, base64, the transport. The bare client sends the same bodies, made before, by one httpx2 client.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import httpx2

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.scripted_engine import VLLM, ScriptedEngine  # noqa: E402

from avcap.captioners import open_engine_captioner  # noqa: E402
from avcap.data.request import Request  # noqa: E402
from avcap.engines.captioner import NUM_DECODERS  # noqa: E402
from avcap.engines.engine import EngineOptions  # noqa: E402
from avcap.engines.spec import read_engine_spec  # noqa: E402
from avcap.media.clip import Clip, ClipRequest  # noqa: E402
from avcap.media.frame_size import PixelBudget  # noqa: E402
from avcap.media.pool import DecodePool  # noqa: E402
from avcap.records import Caption, Decoding  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=24)
    parser.add_argument("--delay", type=float, default=0.5)
    parser.add_argument("--concurrency", type=int, default=8)
    options = parser.parse_args()
    videos = sorted((ROOT / "examples").glob("*.mp4"))
    paths = [str(videos[k % len(videos)]) for k in range(options.files)]
    with tempfile.TemporaryDirectory() as folder, ScriptedEngine(VLLM, delay_s=0.0) as server:
        for _ in range(2):  # the first run starts workers and proves that audio arrives
            server.delay_s, server.bodies, server.busy_s = options.delay, [], 0.0
            ours = _ours(server, paths, folder=Path(folder), concurrency=options.concurrency)
        bodies = server.bodies
        bare_s = asyncio.run(_bare(server.url, bodies, concurrency=options.concurrency))
    waiting_s = options.files * options.delay / options.concurrency
    payload = sum(len(json.dumps(body)) for body in bodies) / len(bodies)
    print(
        f"{options.files} files of 10 s, {payload / 1e6:.2f} MB a request, engine waits {options.delay:g} s, "
        f"{options.concurrency} at a time, {os.cpu_count()} cores"
    )
    print(f"decoding     {_decoding_s(paths):6.2f} s of all files alone")
    print(f"at best      {waiting_s:6.2f} s, if only the engine took time")
    print(f"bare client  {bare_s:6.2f} s, {1000 * (bare_s - waiting_s) / options.files:6.1f} ms a caption beside it")
    print(f"avcap        {ours[0]:6.2f} s, {1000 * (ours[0] - bare_s) / options.files:6.1f} ms a caption more")
    print(f"processor    {1000 * ours[1] / options.files:6.1f} ms a caption in this process, without the workers")
    print(f"in flight    {ours[2] / ours[0]:6.2f} of {options.concurrency} on average")


def _ours(server: ScriptedEngine, paths: list[str], *, folder: Path, concurrency: int) -> tuple[float, float, float]:
    """-> seconds, seconds of this process's processor (with the scripted engine's), seconds of requests."""
    engine = EngineOptions(concurrency=concurrency, findings=folder)
    with open_engine_captioner(read_engine_spec(server.model), engine) as captioner:
        start_s, cpu_s = time.perf_counter(), time.process_time()
        rows = list(captioner.stream(paths, Request(decoding=Decoding(max_new_tokens=256))))
        assert all(isinstance(row, Caption) for row in rows)
        return time.perf_counter() - start_s, time.process_time() - cpu_s, server.busy_s


def _decoding_s(paths: list[str]) -> float:
    """-> seconds that decoding the files takes, as for the engine, when nothing else is done."""
    size = PixelBudget(max_frame_pixels=480 * 854, min_frame_pixels=784, max_frames=1, factor=2)
    start_s = time.perf_counter()
    with DecodePool(num_workers=NUM_DECODERS, deadline_s=60) as pool:
        for clip in pool.map(ClipRequest(path=path, fps=2.0, max_frames=128, pixel_budget=size) for path in paths):
            assert isinstance(clip, Clip)
    return time.perf_counter() - start_s


async def _bare(url: str, bodies: list[dict], *, concurrency: int) -> float:
    """The same bodies, sent as they are -> seconds."""
    seconds = asyncio.Semaphore(concurrency)
    async with httpx2.AsyncClient(timeout=60, trust_env=False) as client:

        async def send(body: dict) -> None:
            async with seconds:
                answer = await client.post(f"{url}/chat/completions", json=body)
                assert answer.status_code == 200

        start_s = time.perf_counter()
        await asyncio.gather(*map(send, bodies))
        return time.perf_counter() - start_s


if __name__ == "__main__":
    main()
