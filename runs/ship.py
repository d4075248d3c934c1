"""A trained model of the world becomes a shipped one: float16 weights, its name, and no run's leftovers.

python runs/ship.py out/tiny-rebirth/checkpoint tiny
"""

import argparse
import json
import shutil
from pathlib import Path

import torch

from avcap.infer.find_checkpoint import MODELS_FOLDER
from avcap.model.checkpoint.load import load, silence_progress_bars

KEPT = ("avcap.json", "lineage.json", "world_check.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("name")
    args = parser.parse_args()
    silence_progress_bars()
    folder = MODELS_FOLDER / args.name
    folder.mkdir(exist_ok=True)
    model, tokenizer = load(args.checkpoint, dtype=torch.float32)
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name in KEPT:
        shutil.copyfile(args.checkpoint / name, folder / name)
    settings = json.loads((folder / "avcap.json").read_text(encoding="utf-8"))
    settings["name"] = args.name
    (folder / "avcap.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size / 1e6:.1f} MB; write its card, README.md")


if __name__ == "__main__":
    main()
