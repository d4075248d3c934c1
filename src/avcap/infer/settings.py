"""What a checkpoint folder says about its own use: avcap.json beside the weights. No torch.

Prompts, limits and frame rate belong to a checkpoint as much as weights do: with other ones it is another captioner.
"""

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from avcap.errors import UserError
from avcap.files.hashes import hash_ends
from avcap.files.write import write_text
from avcap.records import from_data
from avcap.texts.json_text import read_json
from avcap.texts.read import LARGEST_SETTINGS

SETTINGS_FILE = "avcap.json"

OFFICIAL_PROMPT = (
    "Provide a comprehensive description of all the content in the video, leaving out no details. "
    "Be sure to include as much of the audio information as possible, "
    "and ensure that your descriptions of the audio and video are closely aligned."
)


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """What is asked when the user gives no prompt. The defaults suit the released checkpoints."""

    global_caption: str = OFFICIAL_PROMPT
    interval_caption: str = "Describe what happens from {start}s to {end}s."
    """For a part of a video; {start} and {end} are seconds of the whole video."""
    video_only: str = "Provide a comprehensive description of all that is seen in the video, leaving out no details."
    audio_only: str = "Provide a comprehensive description of all that is heard, leaving out no details."

    def choose(self, *, interval_s: tuple[float, float] | None, has_video: bool, has_audio: bool) -> str:
        """What the model is shown -> the prompt that asks for it."""
        if interval_s is not None:
            start, end = (format_seconds(time_s) for time_s in interval_s)
            return self.interval_caption.replace("{start}", start).replace("{end}", end)
        if not has_audio:
            return self.video_only
        return self.global_caption if has_video else self.audio_only


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
    """Checkpoint folder -> "name@fingerprint", so that captions of two trainings under one name are told apart."""
    weights = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    digest = hash_ends(sorted(path for path in weights if path.is_file()))  # loading says what the others are
    return f"{settings.name or folder}@{digest[:8]}"


def format_seconds(time_s: float) -> str:
    """Seconds -> as they are written in prompts and ids: milliseconds at most, no trailing zeros.

    >>> format_seconds(7.0), format_seconds(2.5)
    ('7', '2.5')
    """
    return f"{time_s:.3f}".rstrip("0").rstrip(".")
