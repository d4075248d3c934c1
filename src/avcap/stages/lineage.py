"""Where a checkpoint comes from, written beside its weights."""

import hashlib
import subprocess
from pathlib import Path

from avcap.infer.settings import read_settings
from avcap.records import Lineage, to_json

LINEAGE_FILE = "lineage.json"


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
