"""A stage's model becomes a checkpoint folder that says where it comes from."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from avcap.infer.captioner import Captioner
from avcap.infer.settings import read_settings
from avcap.model.captioning import CaptioningModel
from avcap.records import Lineage, to_json

LINEAGE_FILE = "lineage.json"


def save_child(
    captioner: Captioner, model: CaptioningModel, *, parent: Path, folder: Path, lineage: Lineage
) -> None:
    """A model that was trained from `parent` -> folder, whole or not there, with all else that the parent's has:
    settings, tokenizer, world check; its model card is left out, for it tells of other weights."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(parent, partial, ignore=shutil.ignore_patterns("*.md", "model*.safetensors*"))
    model.requires_grad_(True)
    model.eval().save_pretrained(partial)
    captioner.tokenizer.save_pretrained(partial)
    write_lineage(partial, lineage)
    os.replace(partial, folder)


def write_lineage(folder: Path, lineage: Lineage) -> None:
    """Writes lineage.json into a checkpoint folder."""
    (folder / LINEAGE_FILE).write_text(to_json(lineage) + "\n", encoding="utf-8")


def checkpoint_title(checkpoint: Path) -> str:
    """Checkpoint folder -> the name in its avcap.json, or the folder's own: a path says nothing on another machine."""
    return read_settings(checkpoint).name or checkpoint.resolve().name


def file_digest(path: Path) -> str:
    """What a stage learned from -> a short hash of it, for data_hash."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def code_commit() -> str:
    """The commit of the code that ran, "unknown" outside a checkout."""
    found = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    )
    return found.stdout.strip() or "unknown"
