"""The mean of the weights of checkpoints: rounds that swing cancel, and less is forgotten (WiSE-FT, 2109.01903)."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from avcap import v0_1
from avcap.errors import UserError
from avcap.files.hub_names import folder_title
from avcap.files.write import replacing
from avcap.texts.json_text import read_json

LINEAGE_FILE = "lineage.json"


def average_checkpoints(folders: Sequence[Path], *, out: Path, weights: Sequence[float] | None = None) -> Path:
    """Checkpoint folders of one architecture -> `out`: the last one's files, its weights the weighted mean of all.

    `weights` None: all alike; else one for each folder, of any sum. Computed in float32, written in each tensor's own
    dtype, file by file. UserError where the folders do not hold the same tensors.
    """
    shares = [1.0] * len(folders) if weights is None else list(weights)
    if not folders or len(shares) != len(folders) or not sum(shares) > 0 or min(shares) < 0:
        raise UserError(
            f"got {len(folders)} checkpoints with weights {shares}, expected a weight of 0 or more for each"
        )
    if out.exists():
        raise UserError(f"{out} is there already; expected the name of a new folder")
    names = [sorted(path.name for path in folder.glob("*.safetensors") if _holds_model(path)) for folder in folders]
    if not names[0] or any(found != names[0] for found in names):
        raise UserError(f"got checkpoints with the weight files {names}, expected the same ones in all, as safetensors")
    with replacing(out) as aside:
        shutil.copytree(folders[-1], aside, ignore=shutil.ignore_patterns("*.md", *names[0]))
        for name in names[0]:
            _average_file([folder / name for folder in folders], aside / name, shares)
        _tell_lineage(aside, folders, shares)
    return out


def _holds_model(path: Path) -> bool:
    return path.name.startswith("model")


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """A model's safetensors file -> its weights under their names of today; all of it is read."""
    return {v0_1.weight_name(name): tensor for name, tensor in load_file(file).items()}


def _average_file(files: Sequence[Path], out: Path, shares: Sequence[float]) -> None:
    tensors = [read_weights(file) for file in files]
    first = tensors[-1]
    for file, found in zip(files, tensors, strict=True):
        misfits = [
            name
            for name in first | found
            if name not in first or name not in found or first[name].shape != found[name].shape
        ]
        if misfits:
            raise UserError(f"{file}: {len(misfits)} tensors differ from {files[-1]}, the first is {min(misfits)}")
    mean = {
        name: (
            torch.stack([share * found[name].float() for share, found in zip(shares, tensors, strict=True)]).sum(0)
            / sum(shares)
        )
        .to(tensor.dtype)
        .contiguous()
        for name, tensor in first.items()
    }
    save_file(mean, out, metadata={"format": "pt"})


def _tell_lineage(folder: Path, parents: Sequence[Path], shares: Sequence[float]) -> None:
    """Says in lineage.json that these weights are a mean, and of what."""
    path = folder / LINEAGE_FILE
    lineage = read_json(path, expected="a lineage") if path.exists() else {}
    titles = [folder_title(parent) for parent in parents]
    names = [
        parent.resolve().parent.name if title == "checkpoint" else title
        for title, parent in zip(titles, parents, strict=True)
    ]
    lineage["stage"] = "average"
    lineage["parent"] = ", ".join(f"{name} x {share:g}" for name, share in zip(names, shares, strict=True))
    path.write_text(json.dumps(lineage, ensure_ascii=False) + "\n", encoding="utf-8")
