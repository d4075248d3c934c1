"""Load time and peak memory of a random checkpoint of either family, beside plain `from_pretrained` of its backbone.

    python bench/loading.py [--gigabytes 2] [--rounds 3] [--dtype bfloat16] [--folder /tmp]

Both folders hold as many bytes of weights: the family's in its released layout, and a stock Qwen2 or Qwen2.5-VL made as
large by its vocabulary. Each load is a process of its own, in turns; figures are the smallest of the rounds. "ready" is
the time until every weight was touched once: a mapped file is not read before; "cpu" is processor time up to then,
which other programs on the machine disturb less. Bar: at most 1.1 times the backbone.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.released_layouts import (
    SIZES_TINY,
    language_shapes,
    plus_config,
    plus_shapes,
    random_tensors,
    vision_shapes,
    write_plus,
)

TOKENIZER = Path(__file__).parent.parent / "tests" / "assets" / "v1_av_31s"
SIZES = SIZES_TINY | {
    "hidden": 1536,
    "intermediate": 8960,
    "heads": 12,
    "kv_heads": 2,
    "vision": 640,
    "vision_mlp": 1720,
    "vision_depth": 8,
    "vision_heads": 8,
    "audio": 640,
    "audio_layers": 8,
    "audio_heads": 10,
    "audio_mlp": 2560,
    "qformer": 768,
    "qformer_heads": 12,
    "qformer_mlp": 3072,
}
LAYER_BYTES = 2 * (3 * 1536 * 8960 + 2 * 1536 * 1536 + 2 * 1536 * 256)

CHILD = """
import json, sys, time, torch, transformers
from pathlib import Path
from avcap.model.checkpoint.load import load
kind, folder, dtype = sys.argv[1], sys.argv[2], getattr(torch, sys.argv[3])
def rss(field):
    return next(int(line.split()[1]) * 1024 for line in open('/proc/self/status') if line.startswith(field))
stock = {'qwen2': transformers.Qwen2ForCausalLM, 'qwen2_5_vl': transformers.Qwen2_5_VLForConditionalGeneration}
before, start, cpu = rss('VmRSS'), time.perf_counter(), time.process_time()
model = stock[kind].from_pretrained(folder, dtype=dtype) if kind in stock else load(folder, dtype=dtype)[0]
loaded = time.perf_counter() - start
total = sum(float(weight.detach().view(-1)[::512].float().sum()) for weight in model.parameters())
ready, cpu = time.perf_counter() - start, time.process_time() - cpu
weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
print(json.dumps({'loaded': loaded, 'ready': ready, 'cpu': cpu, 'peak': rss('VmHWM') - before, 'weights': weights}))
"""


def save_shards(tensors: dict[str, torch.Tensor], folder: Path) -> None:
    """Tensors -> shards of half a gigabyte and their index."""
    shards: list[dict[str, torch.Tensor]] = [{}]
    for name, tensor in tensors.items():
        if sum(part.nbytes for part in shards[-1].values()) > 5e8:
            shards.append({})
        shards[-1][name] = tensor
    weight_map, total = {}, sum(tensor.nbytes for tensor in tensors.values())
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def make_plus(folder: Path, sizes: dict) -> tuple[Path, Path]:
    """-> a 2+ release, and a Qwen2.5-VL that has as many bytes by a larger vocabulary."""
    ours = write_plus(folder / "plus", sizes, tokenizer_from=TOKENIZER)
    (ours / "model.safetensors").unlink()
    tensors = random_tensors(plus_shapes(sizes))
    save_shards(tensors, ours)
    audio_bytes = sum(tensor.nbytes for name, tensor in tensors.items() if name.startswith("audio."))
    sizes = sizes | {"vocab": sizes["vocab"] + round(audio_bytes / (2 * 2 * sizes["hidden"]))}
    stock = folder / "qwen2_5_vl"
    stock.mkdir()
    config = {name: value for name, value in plus_config(sizes).items() if not name.startswith("audio")}
    (stock / "config.json").write_text(json.dumps(config))
    save_shards(random_tensors(language_shapes(sizes) | vision_shapes(sizes)), stock)
    return ours, stock


def make_v1(folder: Path, sizes: dict) -> tuple[Path, Path]:
    """-> a folder in the layout of the first release, whose encoders are small, and a Qwen2 of its size."""
    ours, stock, hidden = folder / "v1", folder / "qwen2", sizes["hidden"]
    shutil.copytree(TOKENIZER, ours, ignore=shutil.ignore_patterns("*.safetensors", "case.json"))
    language = {
        "hidden_size": hidden,
        "intermediate_size": sizes["intermediate"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["heads"],
        "num_key_value_heads": sizes["kv_heads"],
        "vocab_size": sizes["vocab"],
        "tie_word_embeddings": False,
    }
    (ours / "config.json").write_text(json.dumps(json.loads((ours / "config.json").read_text()) | language))
    small = load_file(TOKENIZER / "model.safetensors")
    shapes = {name: tuple(tensor.shape) for name, tensor in small.items() if tensor.is_floating_point()}
    shapes = {name: shape for name, shape in shapes.items() if not name.startswith(("model.layers.", "lm_head."))}
    into = ("model.mm_projector.0", "speech_llama_proj")
    within = ("model.mm_projector.2", "final_linear.0", "final_linear.2")
    for name in (*into, *within):
        columns = shapes[f"{name}.weight"][1] if name in into else hidden
        shapes |= {f"{name}.weight": (hidden, columns), f"{name}.bias": (hidden,)}
    shapes |= {"model.image_newline": (hidden,)} | language_shapes(sizes)
    save_shards(random_tensors(shapes), ours)
    stock.mkdir()
    (stock / "config.json").write_text(json.dumps({"model_type": "qwen2"} | language))
    save_shards(random_tensors(language_shapes(sizes)), stock)
    return ours, stock


def measure(kind: str, folder: Path, dtype: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", CHILD, kind, str(folder), dtype], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--family", choices=["v1", "plus"], help="one of them alone")
    parser.add_argument("--dtype", default="bfloat16", help="what is loaded; the files are bfloat16")
    parser.add_argument("--folder", type=Path, help="where the checkpoints are made; removed in the end")
    arguments = parser.parse_args()
    columns = " ".join(f"{name:>9}" for name in ("weights", "loaded", "ready", "cpu", "peak"))
    print(f"{'':26} {columns}   (best of {arguments.rounds}, {arguments.dtype})", flush=True)
    for make, size_of_rest in ((make_v1, 0), (make_plus, 1)):
        if arguments.family not in (None, make.__name__.removeprefix("make_")):
            continue
        sizes = SIZES | {"layers": 1, "vocab": 20_000}
        shapes = plus_shapes(sizes) if size_of_rest else language_shapes(sizes)
        rest = sum(2 * torch.Size(shape).numel() for shape in shapes.values()) - LAYER_BYTES
        sizes["layers"] = max(1, round((arguments.gigabytes * 1e9 - rest) / LAYER_BYTES))
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            compare(*make(Path(folder), sizes), rounds=arguments.rounds, dtype=arguments.dtype)


def compare(ours: Path, stock: Path, *, rounds: int, dtype: str) -> None:
    """Loads both in turns, and prints them side by side."""
    runs: dict[Path, list[dict[str, float]]] = {ours: [], stock: []}
    for round_number in range(rounds + 1):
        for folder, found in runs.items():
            figures = measure(folder.name, folder, dtype)
            if round_number:  # the first fills the system's cache of files
                found.append(figures)
    best = {folder: {key: min(run[key] for run in found) for key in found[0]} for folder, found in runs.items()}
    for folder, row in best.items():
        print(
            f"{folder.name:26} {row['weights'] / 1e9:6.2f} GB {row['loaded']:7.2f} s {row['ready']:7.2f} s "
            f"{row['cpu']:7.2f} s {row['peak'] / 1e9:6.2f} GB"
        )
    ratios = {key: best[ours][key] / best[stock][key] for key in ("weights", "loaded", "ready", "cpu", "peak")}
    print(f"{f'{ours.name} / {stock.name}':26} " + " ".join(f"{ratio:8.2f}x" for ratio in ratios.values()), flush=True)


if __name__ == "__main__":
    main()
