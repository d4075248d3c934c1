"""What a checkpoint folder says about its own use: avcap.json beside the weights. No torch.

Prompts, limits and frame rate belong to a checkpoint as much as weights do: with other ones it is another captioner.
"""

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avcap.data.request import OFFICIAL_PROMPT, Prompts
from avcap.errors import UserError
from avcap.files.hashes import hash_ends
from avcap.files.hub_names import snapshot_name
from avcap.files.write import write_text
from avcap.records import from_data
from avcap.texts.json_text import read_json
from avcap.texts.read import LARGEST_SETTINGS

if TYPE_CHECKING:
    from avcap.model.family import Family

__all__ = ["OFFICIAL_PROMPT", "CaptionerSettings", "Prompts"]

SETTINGS_FILE = "avcap.json"


@dataclass(frozen=True, kw_only=True)
class CaptionerSettings:
    """The fields of avcap.json; one that is left out has its value from here."""

    name: str = ""
    """How the checkpoint is called in captions; the folder's path if empty."""
    describes: str = ""
    """What the model was made for, where that is less than any video: said to users whose video is something else."""
    prompts: Prompts = field(default_factory=Prompts)
    max_new_tokens: int = 1024
    fps: float = 1.0
    max_frames: int = 110

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.max_frames < 1 or not 0 < self.fps < math.inf:
            raise UserError(
                f"got max_new_tokens={self.max_new_tokens}, max_frames={self.max_frames}, fps={self.fps}; "
                "expected all above 0"
            )


def read_settings(folder: Path) -> CaptionerSettings:
    """Checkpoint folder -> its settings, the defaults where it has no avcap.json. UserError for a wrong file."""
    path = folder / SETTINGS_FILE
    data: Any = {}
    if path.exists():
        data = read_json(path, expected="a JSON object of settings", most_bytes=LARGEST_SETTINGS)
    try:
        settings = from_data(data, CaptionerSettings)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    left_out = [name for name in ("fps", "max_frames") if name not in data]
    return replace(settings, **{name: _of_family(folder, name) for name in left_out})


def family_of_folder(folder: Path) -> "Family | None":
    """Checkpoint folder -> the family of its model, by its config.json; None: loading the model says what is wrong."""
    from avcap.model.family import family_of_type  # here: it loads torch, and a folder with avcap.json needs none

    try:
        fields = read_json(folder / "config.json", expected="JSON", most_bytes=LARGEST_SETTINGS)
        return family_of_type(fields.get("model_type"))
    except (UserError, AttributeError):
        return None


def _of_family(folder: Path, name: str) -> Any:
    """Checkpoint folder -> what its family has for a setting that the folder leaves out."""
    family = family_of_folder(folder)
    return getattr(CaptionerSettings if family is None else family, name)


def write_settings(folder: Path, settings: CaptionerSettings) -> None:
    """Settings -> avcap.json in the checkpoint folder."""
    write_text(folder / SETTINGS_FILE, json.dumps(asdict(settings), indent=2) + "\n")


def checkpoint_name(folder: Path, settings: CaptionerSettings) -> str:
    """Checkpoint folder -> "name@fingerprint", so that captions of two trainings under one name are told apart.

    Of a model on the hub it is "org/name@commit", which --model takes as it stands.
    """
    if (on_hub := snapshot_name(folder)) is not None:
        return str(on_hub)
    weights = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    digest = hash_ends(sorted(path for path in weights if path.is_file()))  # loading says what the others are
    return f"{settings.name or folder}@{digest[:8]}"
