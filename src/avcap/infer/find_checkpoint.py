"""The models inside the package, and how a name or a path becomes a checkpoint folder. No torch."""

import contextlib
import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from avcap.errors import UserError
from avcap.files.hub_names import GRAMMAR, HUB_PREFIX, HubName, read_hub_name, snapshot_name
from avcap.files.walk import refuse_odd_files
from avcap.texts.read import LARGEST_SETTINGS, read_text

if TYPE_CHECKING:
    from avcap.model.layout import Layout

logger = logging.getLogger("avcap")

CHECKPOINT_SUFFIXES = (".json", ".safetensors", ".txt")
ENGINE_PREFIX = "openai:"
MODELS_FOLDER = Path(__file__).parent.parent / "models"


@dataclass(frozen=True, kw_only=True)
class TinyModel:
    """A model of the package; `headline` is the first line of its card."""

    name: str
    folder: Path
    headline: str


def tiny_models() -> list[TinyModel]:
    """-> the models of this installation, by name."""
    folders = sorted(path.parent for path in MODELS_FOLDER.glob("*/config.json"))
    return [TinyModel(name=folder.name, folder=folder, headline=_headline(folder)) for folder in folders]


def find_checkpoint(model: str | Path, *, weights: bool = True) -> Path:
    """What --model names -> a checkpoint folder: a folder that there is, else a shipped model, else one on the hub.

    Args:
        model: a path, the name of a shipped model, or org/name[@revision]; hf:org/name means the hub in any case. A
            `Path` is never taken for a name on the hub.
        weights: False where nothing is loaded yet: of a model on the hub, the folder then has small files at least.
            Given to this function again, it gets the rest: after what is claimed or refused for less.

    Raises:
        UserError: there is no such model, or it is none that runs; in one line.
    """
    text, path = str(model), Path(model)
    if text.startswith(ENGINE_PREFIX):
        raise UserError(
            f"got {text.partition('@')[0]}, a model behind an engine, where weights are needed; expected the path of a "
            "checkpoint folder, a tiny model, or a name on the hub"
        )
    names = {tiny.name: tiny.folder for tiny in tiny_models()}
    if not text.startswith(HUB_PREFIX):
        if path.is_dir() and text not in names:
            refuse_odd_files(path, suffixes=CHECKPOINT_SUFFIXES)
        if (path / "config.json").is_file():
            if text in names:
                logger.info(f"{text}: the folder here is taken, not the shipped model; elsewhere, it is that")
            return _completed(path) if weights and snapshot_name(path) is not None else path
        if text in names:
            return names[text]
        if path.exists():
            # this room loads torch: it is asked only where there is something wrong to be told
            from avcap.model.checkpoint.layouts import identify, refuse_unless_runnable

            refuse_unless_runnable(identify(path))
            return path
    name = read_hub_name(text) if isinstance(model, str) else None  # a Path is one
    if name is None:
        known = ", ".join(names) or "none in this installation"
        raise UserError(
            f"model {text!r}: no model of that name and no such folder; expected the path of a checkpoint folder, a "
            f"shipped model ({known}), or {GRAMMAR} on the hub"
        )
    from avcap.model.checkpoint.hub import fetch

    return fetch(name, weights=weights)


def _completed(folder: Path) -> Path:
    """Folder of the hub's cache -> the same with its weights, which need not have been fetched."""
    from avcap.model.checkpoint.hub import fetch

    name = snapshot_name(folder)
    assert name is not None
    return fetch(name, cache=folder.resolve().parents[2])


def find_layouts(model: str | Path, *, layouts: "Collection[Layout]") -> Path:
    """What `convert` and `init-audio` read -> its path: what there is, else a model on the hub of these layouts.

    A `Path` and `./org/name` are never taken for a name on the hub.
    """
    if (name := _hub_name(model)) is None:
        return Path(model)
    from avcap.model.checkpoint.hub import fetch

    return fetch(name, layouts=layouts)


def find_chat_model(place: str) -> Path:
    """What --judge local: names -> the folder of a language model: one that there is, else one on the hub."""
    if (name := _hub_name(place)) is None:
        return Path(place)
    from avcap.model.checkpoint.hub import fetch_chat_model

    return fetch_chat_model(name)


@contextlib.contextmanager
def without_weights(model: str | Path, *, must_run: bool = True) -> Iterator[Path]:
    """What --model names -> a folder for what reads no weights: of a model on the hub, headers are fetched alone.

    Args:
        model: as `find_checkpoint` takes it.
        must_run: refuse what is not to be run as it is. False: any path that there is, and any known layout on the hub.
    """
    name = _hub_name(model)
    if name is None:
        yield Path(model) if not must_run and Path(model).exists() else find_checkpoint(model, weights=False)
        return
    from avcap.model.checkpoint.hub import headers
    from avcap.model.checkpoint.layouts import all_layouts, runnable

    with headers(name, layouts=runnable() if must_run else all_layouts()) as folder:
        yield folder


def _hub_name(model: str | Path) -> HubName | None:
    """What a user calls a model -> its name on the hub, unless it is a path or there is something of that name here."""
    return None if isinstance(model, Path) or Path(model).exists() else read_hub_name(model)


def _headline(folder: Path) -> str:
    """Model folder -> the first line of text of its card: front matter and the sign of a heading left out."""
    card = folder / "README.md"
    if not card.is_file():
        return ""
    text = read_text(card, expected="a model card", most_bytes=LARGEST_SETTINGS)
    if text.startswith("---\n"):
        text = text.partition("\n---\n")[2]
    return next((line.lstrip("# ").strip() for line in text.splitlines() if line.strip()), "")
