"""What `avcap plan` says beside what a run takes: tokens, weights, keys and values exactly, activations by counting.

    python bench/plan.py [FOLDER ...]      without folders: the recorded tiny checkpoints of both families

A random clip goes through the model on this CPU. Peak activations are the most bytes of tensors alive at once, beside
weights, in encoding and in reading the prompt, counted at every operation (not the process, whose allocator rounds up).
"""

import argparse
import weakref
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from avcap.data.prompt import ChatStyle, encode_chat
from avcap.infer.plan import cache_bytes, encoding_bytes, media_load, plan, reading_bytes
from avcap.infer.settings import read_settings
from avcap.media.frame_times import frame_instants
from avcap.model.checkpoint.load import load
from avcap.model.features import MediaFeatures
from avcap.model.transformers_renames import cache_of

DATA = Path(__file__).parent.parent / "tests" / "assets"


class LiveBytes(TorchDispatchMode):
    """Within it, `peak` is the most bytes of storages made within it that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.live, self.peak, self.known = 0, 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        given = {id(storage) for storage in _storages((args, kwargs or {}))}
        for storage in _storages(made):
            key = storage.data_ptr()
            if id(storage) not in given and key and key not in self.known:
                self.known.add(key)
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._gone, key, storage.nbytes())
        return made

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.live -= size


def _storages(found) -> list:
    if isinstance(found, torch.Tensor):
        return [found.untyped_storage()]
    if isinstance(found, dict):
        found = list(found.values())
    return [storage for part in found for storage in _storages(part)] if isinstance(found, list | tuple) else []


@torch.no_grad()
def measure(folder: Path, *, seconds: float, frame_size: tuple[int, int]) -> dict[str, tuple[float, float]]:
    """-> figure -> (planned, measured)."""
    planned = plan(folder, seconds=seconds, frame_size=frame_size)
    model, tokenizer = load(folder)
    config, settings = model.config, read_settings(folder)
    frames = len(frame_instants(start_s=0.0, end_s=seconds, fps=settings.fps, max_frames=settings.max_frames))
    shapes, load_of_tower = media_load(config, seconds=seconds, frames=frames, frame_size=frame_size)
    media = MediaFeatures(
        vision_TNV=torch.randn(shapes.vision_TNV.shape),
        frame_times_T=shapes.frame_times_T,
        grid=shapes.grid,
        audio_KPA=torch.randn(shapes.audio_KPA.shape),
        audio_seconds=seconds,
    )
    ids = encode_chat(
        tokenizer, [(settings.prompts.global_caption, None)], model.placeholders(media), ChatStyle(**config.chat)
    ).ids
    side = getattr(config.vision_config, "image_size", None)
    if side is None:
        side = config.patch_sizes.factor
        height, width = media.grid.height * side, media.grid.width * side
    else:
        height = width = side
    images = torch.randint(0, 256, (frames, 3, height, width), dtype=torch.uint8)
    with LiveBytes() as encoding:
        model.encode_video(images)
    tokens = model.align_batch([media])[0]
    embeds = model.embed(torch.tensor([ids]), [tokens])
    positions = model.batch_positions(torch.tensor([ids]), [tokens])
    with LiveBytes() as reading:
        output = model.language_model(inputs_embeds=embeds, position_ids=positions, use_cache=True, logits_to_keep=1)
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache_of(output).layers)
    return {
        "prompt tokens": (planned.prompt_tokens, len(ids)),
        "weights": (planned.weight_bytes, sum(weight.nbytes for weight in model.parameters())),
        "keys, values": (cache_bytes(config.text_config, len(ids), dtype=torch.float32), kept),
        "encoding": (encoding_bytes(load_of_tower, dtype=torch.float32), encoding.peak),
        "reading": (reading_bytes(config, len(ids), dtype=torch.float32), reading.peak - kept),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*", default=[DATA / "v1_av_31s", DATA / "plus_av_10s"])
    parser.add_argument("--seconds", type=float, default=30.0)
    for folder in (arguments := parser.parse_args()).folders:
        print(f"{folder.name}, {arguments.seconds:g} s")
        for name, (planned, measured) in measure(folder, seconds=arguments.seconds, frame_size=(360, 640)).items():
            print(f"  {name:14} planned {planned:>14,}  measured {measured:>14,}  {planned / measured:6.3f}x")


if __name__ == "__main__":
    main()
