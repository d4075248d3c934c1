"""Checkpoints in the released layouts, of any size: names and shapes written down from the published files' listing.

Full-sized ones are files with holes: as long as the real ones, and next to nothing on the disk.
"""

import json
import shutil
import struct
from pathlib import Path

import torch
from safetensors.torch import save_file

SIZES_72B = {
    "hidden": 8192,
    "intermediate": 29568,
    "layers": 80,
    "heads": 64,
    "kv_heads": 8,
    "vocab": 152064,
    "tied": False,
    "vision": 1280,
    "vision_mlp": 3456,
    "vision_depth": 32,
    "vision_heads": 16,
    "audio": 1280,
    "audio_layers": 32,
    "audio_heads": 20,
    "audio_mlp": 5120,
    "qformer": 3072,
    "qformer_heads": 12,
    "qformer_mlp": 12288,
}
SIZES_TINY = {
    "hidden": 64,
    "intermediate": 128,
    "layers": 2,
    "heads": 4,
    "kv_heads": 2,
    "vocab": 320,
    "tied": False,
    "vision": 32,
    "vision_mlp": 60,
    "vision_depth": 2,
    "vision_heads": 2,
    "audio": 32,
    "audio_layers": 2,
    "audio_heads": 2,
    "audio_mlp": 64,
    "qformer": 48,
    "qformer_heads": 4,
    "qformer_mlp": 96,
}


def plus_config(sizes: dict) -> dict:
    """config.json of a video-SALMONN 2+ release."""
    head = sizes["hidden"] // sizes["heads"]
    return {
        "architectures": ["video_SALMONN2_plus"],
        "model_type": "qwen2_5_vl",
        "hidden_size": sizes["hidden"],
        "intermediate_size": sizes["intermediate"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["heads"],
        "num_key_value_heads": sizes["kv_heads"],
        "vocab_size": sizes["vocab"],
        "hidden_act": "silu",
        "max_position_embeddings": 128000,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "rope_scaling": {"type": "mrope", "mrope_section": [head // 8, head // 16 * 3, head // 16 * 3]},
        "tie_word_embeddings": sizes["tied"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 1,
        "image_token_id": 289,
        "video_token_id": 290,
        "audio_token_id": 291,
        "vision_start_token_id": 286,
        "vision_end_token_id": 287,
        "vision_config": {
            "depth": sizes["vision_depth"],
            "hidden_size": sizes["vision"],
            "intermediate_size": sizes["vision_mlp"],
            "num_heads": sizes["vision_heads"],
            "out_hidden_size": sizes["hidden"],
            "in_chans": 3,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "tokens_per_second": 2,
            "fullatt_block_indexes": [sizes["vision_depth"] - 1],
            "model_type": "qwen2_5_vl",
        },
        "audio_config": {
            "d_model": sizes["audio"],
            "encoder_layers": sizes["audio_layers"],
            "num_mel_bins": 128,
            "encoder_attention_heads": sizes["audio_heads"],
            "encoder_ffn_dim": sizes["audio_mlp"],
            "max_source_positions": 1500,
            "second_per_window": 0.5,
            "second_stride": 0.5,
            "qformer_config": {
                "hidden_size": sizes["qformer"],
                "num_hidden_layers": 2,
                "num_attention_heads": sizes["qformer_heads"],
                "intermediate_size": sizes["qformer_mlp"],
                "encoder_width": sizes["audio"],
                "query_length": 1,
                "cross_attention_freq": 1,
                "add_cross_attention": True,
            },
        },
    }


def _linear(name: str, rows: int, columns: int, *, bias: bool = True) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns)} | ({f"{name}.bias": (rows,)} if bias else {})


def _norm(name: str, width: int, *, bias: bool = True) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,)} | ({f"{name}.bias": (width,)} if bias else {})


def plus_shapes(sizes: dict) -> dict[str, tuple[int, ...]]:
    """Old key names of a 2+ release -> shapes."""
    return language_shapes(sizes) | vision_shapes(sizes) | audio_shapes(sizes)


def language_shapes(sizes: dict) -> dict[str, tuple[int, ...]]:
    """The language model, which both families' releases call the same."""
    hidden, kv = sizes["hidden"], sizes["hidden"] // sizes["heads"] * sizes["kv_heads"]
    shapes = {"model.embed_tokens.weight": (sizes["vocab"], hidden), "model.norm.weight": (hidden,)}
    if not sizes["tied"]:
        shapes["lm_head.weight"] = (sizes["vocab"], hidden)
    for layer in (f"model.layers.{index}" for index in range(sizes["layers"])):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes |= _norm(f"{layer}.{norm}", hidden, bias=False)
        for name, rows in (("q", hidden), ("k", kv), ("v", kv)):
            shapes |= _linear(f"{layer}.self_attn.{name}_proj", rows, hidden)
        shapes |= _linear(f"{layer}.self_attn.o_proj", hidden, hidden, bias=False)
        for name in ("gate", "up"):
            shapes |= _linear(f"{layer}.mlp.{name}_proj", sizes["intermediate"], hidden, bias=False)
        shapes |= _linear(f"{layer}.mlp.down_proj", hidden, sizes["intermediate"], bias=False)
    return shapes


def vision_shapes(sizes: dict) -> dict[str, tuple[int, ...]]:
    width, merged = sizes["vision"], sizes["vision"] * 4
    shapes = {"visual.patch_embed.proj.weight": (width, 3, 2, 14, 14)}
    for block in (f"visual.blocks.{index}" for index in range(sizes["vision_depth"])):
        shapes |= _norm(f"{block}.norm1", width, bias=False) | _norm(f"{block}.norm2", width, bias=False)
        shapes |= _linear(f"{block}.attn.qkv", 3 * width, width) | _linear(f"{block}.attn.proj", width, width)
        for name in ("gate", "up"):
            shapes |= _linear(f"{block}.mlp.{name}_proj", sizes["vision_mlp"], width)
        shapes |= _linear(f"{block}.mlp.down_proj", width, sizes["vision_mlp"])
    shapes |= _norm("visual.merger.ln_q", width, bias=False) | _linear("visual.merger.mlp.0", merged, merged)
    return shapes | _linear("visual.merger.mlp.2", sizes["hidden"], merged)


def whisper_shapes(sizes: dict) -> dict[str, tuple[int, ...]]:
    """The encoder of a Whisper, without a prefix."""
    width = sizes["audio"]
    shapes = {
        "conv1.weight": (width, 128, 3),
        "conv1.bias": (width,),
        "conv2.weight": (width, width, 3),
        "conv2.bias": (width,),
        "embed_positions.weight": (1500, width),
    } | _norm("layer_norm", width)
    for layer in (f"layers.{index}" for index in range(sizes["audio_layers"])):
        shapes |= _norm(f"{layer}.self_attn_layer_norm", width) | _norm(f"{layer}.final_layer_norm", width)
        for name in ("q", "k", "v", "out"):
            shapes |= _linear(f"{layer}.self_attn.{name}_proj", width, width, bias=name != "k")
        shapes |= _linear(f"{layer}.fc1", sizes["audio_mlp"], width)
        shapes |= _linear(f"{layer}.fc2", width, sizes["audio_mlp"])
    return shapes


def audio_shapes(sizes: dict) -> dict[str, tuple[int, ...]]:
    width, mlp = sizes["qformer"], sizes["qformer_mlp"]
    shapes = {"audio.q_tokens": (1, 1, width)} | _norm("audio.qformer.bert.embeddings.LayerNorm", width)
    shapes |= _linear("audio.audio_proj", sizes["hidden"], width)
    for index in range(2):
        layer = f"audio.qformer.bert.encoder.layer.{index}"
        for attention, source in (("attention", width), ("crossattention", sizes["audio"])):
            for name in ("query", "key", "value"):
                columns = width if name == "query" else source
                shapes |= _linear(f"{layer}.{attention}.self.{name}", width, columns)
            shapes |= _linear(f"{layer}.{attention}.output.dense", width, width)
            shapes |= _norm(f"{layer}.{attention}.output.LayerNorm", width)
        shapes |= _linear(f"{layer}.intermediate_query.dense", mlp, width)
        shapes |= _linear(f"{layer}.output_query.dense", width, mlp)
        shapes |= _norm(f"{layer}.output_query.LayerNorm", width)
    return shapes | {f"audio.{name}": shape for name, shape in whisper_shapes(sizes).items()}


def random_tensors(shapes: dict[str, tuple[int, ...]], *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Shapes -> random bf16 tensors."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator).to(torch.bfloat16) for name, shape in shapes.items()}


def write_hollow(folder: Path, shapes: dict[str, tuple[int, ...]], *, shard_bytes: int) -> int:
    """Shapes -> bf16 shards and index, as long as real ones but all hole -> their bytes together."""
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    filled = 0
    for name, shape in shapes.items():
        size = 2 * torch.Size(shape).numel()
        if shards[-1] and filled + size > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = shape
        filled += size
    weight_map, total = {}, 0
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        header, end = {}, 0
        for name, shape in shard.items():
            begin, end = end, end + 2 * torch.Size(shape).numel()
            header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
            weight_map[name] = file
        text = json.dumps(header).encode()
        with open(folder / file, "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            out.truncate(8 + len(text) + end)
        total += end
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return total


TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def write_plus(folder: Path, sizes: dict, *, tokenizer_from: Path) -> Path:
    """A random checkpoint in the layout of a 2+ release, in one file."""
    folder.mkdir()
    for name in TOKENIZER_FILES:
        shutil.copy(tokenizer_from / name, folder / name)
    (folder / "config.json").write_text(json.dumps(plus_config(sizes)))
    save_file(random_tensors(plus_shapes(sizes)), folder / "model.safetensors")
    return folder


def write_qwen(folder: Path, sizes: dict, *, tokenizer_from: Path) -> Path:
    """The same without its sound branch: a plain Qwen2.5-VL."""
    write_plus(folder, sizes, tokenizer_from=tokenizer_from)
    config = {name: value for name, value in plus_config(sizes).items() if not name.startswith("audio")}
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["Qwen2_5_VLForConditionalGeneration"]}))
    shapes = {name: shape for name, shape in plus_shapes(sizes).items() if not name.startswith("audio.")}
    save_file(random_tensors(shapes), folder / "model.safetensors")
    return folder


def write_whisper(folder: Path, sizes: dict) -> Path:
    """A Whisper in float32, with something of a decoder."""
    folder.mkdir()
    config = {
        "model_type": "whisper",
        "d_model": sizes["audio"],
        "encoder_layers": sizes["audio_layers"],
        "num_mel_bins": 128,
        "encoder_attention_heads": sizes["audio_heads"],
        "encoder_ffn_dim": sizes["audio_mlp"],
        "max_source_positions": 1500,
        "decoder_layers": 1,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {f"model.encoder.{name}": shape for name, shape in whisper_shapes(sizes).items()}
    tensors["model.decoder.layer_norm.weight"] = (sizes["audio"],)
    save_file({name: tensor.float() for name, tensor in random_tensors(tensors).items()}, folder / "model.safetensors")
    return folder
