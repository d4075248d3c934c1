"""The models inside the package, and how a name or a path becomes a checkpoint folder. No torch."""

from dataclasses import dataclass
from pathlib import Path

from avcap.errors import UserError
from avcap.files.walk import refuse_odd_files
from avcap.texts.read import LARGEST_SETTINGS, read_text

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


def find_checkpoint(model: str | Path) -> Path:
    """Name of a shipped model, or path of a checkpoint folder -> the folder; UserError that lists the names."""
    if str(model).startswith(ENGINE_PREFIX):
        raise UserError(
            f"got {str(model).partition('@')[0]}, a model behind an engine, where weights are needed; expected the "
            "path of a checkpoint folder or a shipped model"
        )
    names = {tiny.name: tiny.folder for tiny in tiny_models()}
    if str(model) in names:
        return names[str(model)]
    path = Path(model)
    if path.is_dir():
        refuse_odd_files(path, suffixes=CHECKPOINT_SUFFIXES)
    if (path / "config.json").is_file():
        return path
    if path.exists():
        # this room loads torch: it is asked only where there is something wrong to be told
        from avcap.model.layouts import identify, refuse_unless_runnable

        refuse_unless_runnable(identify(path))
        return path
    known = ", ".join(names) or "none in this installation"
    raise UserError(
        f"model {str(model)!r}: no model of that name and no such folder; expected the path of a checkpoint folder or "
        f"a shipped model ({known})"
    )


def _headline(folder: Path) -> str:
    """Model folder -> the first line of text of its card: front matter and the sign of a heading left out."""
    card = folder / "README.md"
    if not card.is_file():
        return ""
    text = read_text(card, expected="a model card", most_bytes=LARGEST_SETTINGS)
    if text.startswith("---\n"):
        text = text.partition("\n---\n")[2]
    return next((line.lstrip("# ").strip() for line in text.splitlines() if line.strip()), "")
