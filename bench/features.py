"""Features from the cache against decoding and encoding the file again.

    PYTHONPATH=src OMP_NUM_THREADS=1 python bench/features.py [--model tiny] [--clips 8] [--rounds 3] [--videos FOLDER]

CPU seconds per clip at one thread, interleaved, minimum of the rounds: decoding, encoding, and the cache (hash of the
file, reading, hash of what was read), as float32 and as bfloat16; bytes kept per clip. Then the same encoding with a
tower of everyday size (ViT-S/16, 30 frames), where nothing is decoded. Printed besides: whether captions from the cache
are those of fresh encodings.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from transformers import SiglipVisionConfig

from avcap import Captioner
from avcap.data.encode import encode_clip
from avcap.data.feature_cache import EncodedMedia, FeatureCache
from avcap.data.request import Request
from avcap.infer.inputs import find_media
from avcap.media.clip import Clip
from avcap.media.reader import read_request
from avcap.model import Salmonn2ForCaptioning
from avcap.model.salmonn2.tiny import tiny_config
from avcap.records import Caption, Decoding
from avcap.world.make import make_world

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
VIT_S = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 12, "num_attention_heads": 6}


class Clock:
    """Least CPU seconds of each step, summed over clips."""

    def __init__(self) -> None:
        self.rounds: list[dict[str, float]] = []

    @contextmanager
    def measure(self, step: str) -> Iterator[None]:
        began = time.process_time()
        yield
        self.rounds[-1][step] += time.process_time() - began

    def best(self, step: str) -> float:
        return min(seconds[step] for seconds in self.rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--videos", help="folder of videos; without it, world clips are made")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if not arguments.videos:
            make_world(folder, num_clips=arguments.clips, seed=8)
        paths = find_media([arguments.videos or folder + "/clips"]).paths[: arguments.clips]
        measure_files(arguments.model, paths, folder=Path(folder), rounds=arguments.rounds)
        measure_tower(Path(folder), rounds=arguments.rounds)
        compare_captions(arguments.model, paths, folder=Path(folder))


def measure_files(model: str, paths: list[str], *, folder: Path, rounds: int) -> None:
    captioner = Captioner(model)
    request = Request(decoding=Decoding(max_new_tokens=1))
    requests = [captioner.encoder.clip_request(request.sample(path), request) for path in paths]
    caches = {name: FeatureCache(folder / name, dtype=dtype) for name, dtype in DTYPES.items()}
    clock = Clock()
    for _ in range(rounds):
        clock.rounds.append(defaultdict(float))
        for clip_request in requests:
            with clock.measure("decode"):
                clip = read_request(clip_request)
            with clock.measure("encode"):
                media = encode_clip(captioner.model, clip, tokenizer=captioner.tokenizer)
            for name, cache in caches.items():
                cache.put(
                    cache.key(clip_request, encoders=model), EncodedMedia(media=media, duration_s=clip.duration_s)
                )
                fresh = FeatureCache(folder / name, dtype=cache.dtype)  # remembers the hash of no file
                with clock.measure(name):
                    assert fresh.get(fresh.key(clip_request, encoders=model)) is not None
    again = clock.best("decode") + clock.best("encode")
    print(f"{model}, {len(paths)} files, per clip: decode {clock.best('decode') / len(paths) * 1e3:.1f} ms, ", end="")
    print(f"encode {clock.best('encode') / len(paths) * 1e3:.1f} ms")
    for name in caches:
        report(name, again=again, kept=clock.best(name), num_clips=len(paths), folder=folder / name)


def measure_tower(folder: Path, *, rounds: int) -> None:
    """30 frames of noise through a tower of random weights, kept unpooled."""
    tokenizer = Captioner("tiny").tokenizer
    config = tiny_config(vocab_size=len(tokenizer), time_token_ids=range(20))
    config.vision_config = SiglipVisionConfig(image_size=224, patch_size=16, **VIT_S)
    config.pool_position = "after"
    model = Salmonn2ForCaptioning(config).eval()
    noise = np.random.default_rng(0).integers(0, 256, (30, 224, 224, 3), dtype=np.uint8)
    clip = Clip(
        path="noise",
        frames_THWC=noise,
        frame_times_T=np.arange(30.0),
        lead_in_frame_HWC=None,
        waveform_S=np.zeros(0, np.float32),
        sample_rate_hz=16_000,
        start_s=0.0,
        end_s=30.0,
        duration_s=30.0,
        has_video=True,
        has_audio=False,
        num_bad_packets=0,
    )
    clock = Clock()
    caches = {name: FeatureCache(folder / f"vit-{name}", dtype=dtype) for name, dtype in DTYPES.items()}
    for _ in range(rounds):
        clock.rounds.append(defaultdict(float))
        with clock.measure("encode"):
            media = encode_clip(model, clip, tokenizer=tokenizer)
        for name, cache in caches.items():
            cache.put("noise", EncodedMedia(media=media, duration_s=30.0))
            with clock.measure(name):
                assert cache.get("noise") is not None
    print(f"ViT-S/16, 30 frames of {tuple(media.vision_TNV.shape[1:])}: encode {clock.best('encode') * 1e3:.0f} ms")
    for name in caches:
        report(name, again=clock.best("encode"), kept=clock.best(name), num_clips=1, folder=folder / f"vit-{name}")


def report(name: str, *, again: float, kept: float, num_clips: int, folder: Path) -> None:
    size = sum(path.stat().st_size for path in folder.iterdir()) / num_clips
    print(
        f"  cache, {name}: {kept / num_clips * 1e3:.2f} ms and {size / 1e6:.2f} MB per clip, "
        f"{again / kept:.0f} x as fast as again"
    )


def compare_captions(model: str, paths: list[str], *, folder: Path) -> None:
    texts = {}
    for name, dtype in ({"no cache": None} | DTYPES).items():
        cache = None if dtype is None else FeatureCache(folder / f"captions-{name}", dtype=dtype)
        captioner = Captioner(model, feature_cache=cache)
        for _ in range(1 if cache is None else 2):  # the second time all come from the cache
            rows = captioner.caption(paths)
        texts[name] = [row.text if isinstance(row, Caption) else row.error for row in rows]
        same = sum(one == other for one, other in zip(texts[name], texts["no cache"], strict=True))
        found = "" if cache is None else f", {cache.hits} read from it"
        print(f"captions that are those without a cache, {name}: {same} of {len(paths)}{found}")


if __name__ == "__main__":
    main()
