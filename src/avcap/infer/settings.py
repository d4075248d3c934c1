"""What a checkpoint folder says about its own use: avcap.json beside the weights. No torch.

Prompts, limits and frame rate belong to a checkpoint as much as weights do: with other ones it is another captioner.
"""

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from avcap.data.request import OFFICIAL_PROMPT, Prompts
from avcap.errors import UserError
from avcap.files.hashes import hash_ends
from avcap.files.hub_names import snapshot_name
from avcap.files.write import write_text
from avcap.records import from_data
from avcap.texts.json_text import read_json
from avcap.texts.read import LARGEST_SETTINGS

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


PLUS_TYPES = ("qwen2_5_vl", "avcap_salmonn2_plus")
PLUS_SETTINGS = CaptionerSettings(fps=10.0, max_frames=768)
"""What the released video-SALMONN 2+ was trained with."""


def read_settings(folder: Path) -> CaptionerSettings:
    """Checkpoint folder -> its settings, the defaults where it has no avcap.json. UserError for a wrong file."""
    path = folder / SETTINGS_FILE
    defaults = family_settings(folder)
    if not path.exists():
        return defaults
    data = read_json(path, expected="a JSON object of settings", most_bytes=LARGEST_SETTINGS)
    try:
        settings = from_data(data, CaptionerSettings)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    left_out = [name for name in ("fps", "max_frames") if name not in data]
    return replace(settings, **{name: getattr(defaults, name) for name in left_out})


def family_settings(folder: Path) -> CaptionerSettings:
    """Checkpoint folder -> the settings of its model family, by its config.json."""
    return PLUS_SETTINGS if is_plus(folder) else CaptionerSettings()


def is_plus(folder: Path) -> bool:
    """Whether a checkpoint folder is of the family of video-SALMONN 2+, by its config.json."""
    try:
        model_type = read_json(folder / "config.json", expected="JSON", most_bytes=LARGEST_SETTINGS).get("model_type")
    except (UserError, AttributeError):
        model_type = None  # loading the model says what is wrong
    return model_type in PLUS_TYPES


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
