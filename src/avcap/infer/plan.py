"""What a model would take for a video, from its config alone: tokens, memory, time, judge calls. No weight is read.

Tokens are counted by the model's own layout on features without values. Weights and the cache of keys and values follow
from them exactly; activations are an estimate of the largest thing alive at once, beside both.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from avcap.data.prompt import ChatStyle, encode_chat
from avcap.infer.settings import read_settings
from avcap.media.frame_times import frame_instants
from avcap.model.checkpoint.load import load_tokenizer, open_source, skeleton
from avcap.model.checkpoint.placement import DevicePlacement, needed_bytes
from avcap.model.family import TowerLoad, family_of
from avcap.model.features import MediaFeatures
from avcap.model.interleave import AUDIO_ID, VISUAL_ID

LORA_RANK, LORA_SHARE = 128, 3  # of the released training: q, k and v
# Of a token, alive at once in the widest place of a layer, its gated MLP: input, residual, normed; gate, up, product.
LIVE_WIDTHS = 3
SAVED_WIDTHS = 8
# Share of a large matrix product's speed that a whole model reaches.
REACHED = 0.5


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Figures for one video; bytes, and seconds for a caption of `new_tokens`."""

    frames: int
    visual_tokens: int
    audio_tokens: int
    text_tokens: int
    new_tokens: int
    num_weights: int
    weight_bytes: int
    cache_bytes: int
    activation_bytes: int
    training_bytes: int
    """Gradients, optimizer state and saved activations of a LoRA step; 0 unless asked for."""
    seconds: float
    judge_calls: tuple[int, int]
    """Where the events are known, and where they are extracted from a reference caption first."""

    @property
    def prompt_tokens(self) -> int:
        return self.visual_tokens + self.audio_tokens + self.text_tokens

    @property
    def total_bytes(self) -> int:
        return self.weight_bytes + self.cache_bytes + self.activation_bytes + self.training_bytes


def plan(
    model: Path,
    *,
    seconds: float,
    frame_size: tuple[int, int] = (720, 1280),
    dtype: torch.dtype = torch.float32,
    placement: DevicePlacement | None = None,
    train: bool = False,
) -> Plan:
    """Checkpoint folder and a video's length and frame (height, width) -> what captioning it takes."""
    placement = placement or DevicePlacement()
    source = open_source(model)
    settings, config = read_settings(model), source.config
    bones = skeleton(source)
    tokenizer = load_tokenizer(source.checkpoint.path, config)
    frames = len(frame_instants(start_s=0.0, end_s=seconds, fps=settings.fps, max_frames=settings.max_frames))
    media, load = media_load(config, seconds=seconds, frames=frames, frame_size=frame_size)
    placeholders = bones.placeholders(media)
    ids = encode_chat(tokenizer, [(settings.prompts.global_caption, None)], placeholders, ChatStyle(**config.chat)).ids
    new_tokens = settings.max_new_tokens
    num_weights = sum(weight.numel() for weight in bones.parameters())
    weights = needed_bytes(num_weights, dtype=dtype, placement=placement)
    cache = cache_bytes(config.text_config, len(ids) + new_tokens, dtype=dtype)
    flops = 2 * sum(weight.numel() for weight in bones.language_model.parameters()) * len(ids)
    flops += 2 * sum(weight.numel() for weight in bones.vision_tower.parameters()) * load.num_patches
    speed, bandwidth = _machine(placement.device, dtype)
    return Plan(
        frames=frames,
        visual_tokens=ids.count(VISUAL_ID),
        audio_tokens=ids.count(AUDIO_ID),
        text_tokens=len(ids) - ids.count(VISUAL_ID) - ids.count(AUDIO_ID),
        new_tokens=new_tokens,
        num_weights=num_weights,
        weight_bytes=weights,
        cache_bytes=cache,
        activation_bytes=max(encoding_bytes(load, dtype=dtype), reading_bytes(config, len(ids), dtype=dtype)),
        training_bytes=training_bytes(config, len(ids) + new_tokens, dtype=dtype) if train else 0,
        seconds=(3 if train else 1) * flops / (REACHED * speed) + (0 if train else new_tokens * weights / bandwidth),
        judge_calls=(1, 2),
    )


def media_load(
    config: Any, *, seconds: float, frames: int, frame_size: tuple[int, int]
) -> tuple[MediaFeatures, TowerLoad]:
    """Config and a video -> features of the right shape without values, and what the vision tower has to do."""
    times = [frame * seconds / frames for frame in range(frames)]
    load = family_of(config).tower_load(config, frame_times_s=times, frame_size=frame_size)
    positions, width = config.audio_config.max_source_positions, config.audio_config.d_model
    media = MediaFeatures(
        vision_TNV=load.vision.vision_TNV,
        frame_times_T=load.vision.frame_times_T,
        grid=load.vision.grid,
        audio_KPA=torch.empty(math.ceil(seconds / config.chunk_s), positions, width, device="meta"),
        audio_seconds=seconds,
    )
    return media, load


def cache_bytes(text: Any, num_tokens: int, *, dtype: torch.dtype) -> int:
    """Config of a language model and a number of tokens -> bytes of their keys and values."""
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * text.num_hidden_layers * text.num_key_value_heads * head * num_tokens * dtype.itemsize


def encoding_bytes(load: TowerLoad, *, dtype: torch.dtype) -> int:
    """-> about the most that is alive at once while frames are encoded: their pixels, and a layer of the tower."""
    numbers = LIVE_WIDTHS * load.hidden_size + 3 * load.intermediate_size
    layer = load.patches_at_once * numbers * dtype.itemsize
    return round(max(load.pixel_bytes, load.pixel_bytes / 2 + layer))


def reading_bytes(config: Any, num_tokens: int, *, dtype: torch.dtype) -> int:
    """-> about the most that is alive at once while the prompt is read: a layer of the language model."""
    text = config.text_config
    return num_tokens * (LIVE_WIDTHS * text.hidden_size + 3 * text.intermediate_size) * dtype.itemsize


def training_bytes(config: Any, num_tokens: int, *, dtype: torch.dtype) -> int:
    """-> gradients and AdamW's two moments of a LoRA as released, a kept input per layer, one layer computed again."""
    text = config.text_config
    lora = text.num_hidden_layers * LORA_SHARE * 2 * LORA_RANK * text.hidden_size
    kept = text.num_hidden_layers * num_tokens * text.hidden_size
    again = num_tokens * (SAVED_WIDTHS * text.hidden_size + 4 * text.intermediate_size)
    return lora * (4 + 4 + 4 + 4) + (kept + again) * dtype.itemsize


def _machine(device: str, dtype: torch.dtype) -> tuple[float, float]:
    """-> operations a second of a large matrix product, and bytes a second of reading memory, both tried out here."""
    side = 1024
    a = torch.ones(side, side, dtype=dtype, device=device)
    vector = torch.ones(2**24, dtype=dtype, device=device)
    spent = []
    for work in (lambda: a @ a, vector.sum):
        work()
        start = time.perf_counter()
        work()
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - start)
    return 2 * side**3 / spent[0], vector.numel() * dtype.itemsize / spent[1]
