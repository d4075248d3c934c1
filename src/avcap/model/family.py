"""A family of models: all in which it differs from the others, as one object. The rest of avcap asks it, and no more.

    family_of(config)    the family of a model, by its configuration
    register_family(...) a new one; `avcap.model` registers those that avcap has

T frames, or temporal grids (of _TNV)  N patches or tokens of one  C channels  H, W pixels
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from avcap.media.clip import Clip, ClipRequest
from avcap.media.deadline import Check
from avcap.model.captioning import CaptioningModel
from avcap.model.features import MediaFeatures, VisionFeatures
from avcap.model.layout import Layout

UNITS_AT_ONCE = 32  # frames or temporal grids that go through a tower together, and between two looks at the clock


@dataclass(frozen=True, kw_only=True)
class Released:
    """The folders in which others have published models of a family."""

    model_type: str
    """In their config.json."""
    layouts: tuple[Layout, ...]
    """What such a folder may be."""
    layout_of: Callable[[Mapping[str, Any], Iterable[str]], Layout]
    """Fields of config.json and names of tensors -> which of the layouts it is."""
    read_config: Callable[[Path, dict[str, Any]], Any]
    """Folder and its config.json -> our config."""
    our_name: Callable[[str], str | None]
    """Name of a tensor there -> its name here; None for one without meaning."""


class OfficialRules(ABC):
    """What the published code of a family does otherwise than we do. docs/official.md measures it."""

    title: ClassVar[str]
    config_fields: ClassVar[Mapping[str, str]]
    """Fields of the config with the values that run a model as published."""
    reading: ClassVar[str]
    """The rules of `media.official` by which it reads a file."""
    cuts_intervals: ClassVar[bool]
    """Whether it can be asked about a part of a video."""
    resize: ClassVar[str]
    """How it brings frames to size, in words."""

    @abstractmethod
    def unpublished(self, config: Any) -> list[str]:
        """Config -> what of it no published model has."""

    def features(self, media: MediaFeatures, clip: Clip) -> MediaFeatures:
        """Features of a clip that was read by these rules -> as its code would see them."""
        del clip
        return media

    def check_audio(self, media: MediaFeatures, *, num_audio: int, path: str) -> None:
        """Raises UserError where the published code would fail on so many audio tokens."""
        del media, num_audio, path

    def prompt(self, ids: Sequence[int], *, end_id: int, pad_id: int | None) -> list[int]:
        """Ids of a prompt, those of `<|im_end|>` and of padding -> the ids that reach the published model."""
        del end_id, pad_id
        return list(ids)


@dataclass(frozen=True, kw_only=True)
class TowerLoad:
    """What a video would be for a family's vision tower."""

    vision: VisionFeatures
    """Of the right shape, without values."""
    num_patches: int
    patches_at_once: float
    """Of those that go through the tower together."""
    pixel_bytes: float
    """All pixels that are alive at once, as numbers of the tower's input."""
    hidden_size: int
    intermediate_size: int
    """Widths of a patch between the layers, and within them."""


class Family(ABC):
    """One family. Its `config_class.model_type` names it in config.json."""

    model_class: ClassVar[type[CaptioningModel]]
    released: ClassVar[Released | None] = None
    official: ClassVar[OfficialRules | None] = None
    """None: nothing of this family was ever published."""
    fps: ClassVar[float] = 1.0
    """How many frames a second its models look at, where their folder says nothing."""
    max_frames: ClassVar[int] = 110
    resize: ClassVar[str] = "Pillow bicubic"
    """How frames are brought to the size that the tower sees, in words."""

    @property
    def config_class(self) -> Any:
        found = self.model_class.config_class
        assert found is not None
        return found

    @property
    def model_type(self) -> str:
        return str(self.config_class.model_type)

    def read_released(self, folder: Path, fields: dict[str, Any]) -> Any:
        """A released folder and its config.json -> our config."""
        assert self.released is not None, f"{folder}: {self.model_type} has no releases"
        return self.released.read_config(folder, fields)

    def our_name(self, released_name: str) -> str | None:
        """Name of a tensor in releases of this family -> its name here; None for one without meaning."""
        return self.released.our_name(released_name) if self.released else released_name

    @abstractmethod
    def clip_request(self, config: Any, path: str, **options: Any) -> ClipRequest:
        """Config and what is expected of a file (fields of ClipRequest) -> the same, in frames of the model's size."""

    @abstractmethod
    def encode_frames(self, model: Any, clip: Clip, *, check: Check) -> VisionFeatures:
        """A clip with frames -> what the tower makes of them; `check` is called between pieces of the work."""

    @abstractmethod
    def vision_shape(self, config: Any, frames_TCHW: torch.Tensor) -> tuple[int, int]:
        """Frames as `encode_frames` gives them to the tower -> (T, N) of their features."""

    @abstractmethod
    def tower_load(self, config: Any, *, frame_times_s: Sequence[float], frame_size: tuple[int, int]) -> TowerLoad:
        """Times and (height, width) of the frames of a file -> what the tower would have to do."""

    def needs_lead_in(self, config: Any) -> bool:
        """Whether the frame before the first one is looked at, too."""
        del config
        return False

    def writes_frame_times(self, config: Any) -> bool:
        """Whether each frame of a clip without audio is followed by its time as text."""
        del config
        return False

    def encoder_fields(self, config: Any) -> dict[str, Any]:
        """Config -> what of it changes features without a change of the encoders' weights."""
        return {"chunk_s": config.chunk_s, "time_text": self.writes_frame_times(config)}


_FAMILIES: dict[str, Family] = {}


def register_family(family: Family) -> None:
    """Makes a family known to avcap and to the Auto classes of transformers."""
    _FAMILIES[family.model_type] = family
    AutoConfig.register(family.model_type, family.config_class, exist_ok=True)
    AutoModelForCausalLM.register(family.config_class, family.model_class, exist_ok=True)


def families() -> dict[str, Family]:
    """-> all families, by the model_type of their own folders."""
    return dict(_FAMILIES)


def family_of(config: Any) -> Family:
    """Config of a model -> its family."""
    return _FAMILIES[config.model_type]


def family_of_type(model_type: object) -> Family | None:
    """model_type of any config.json, our own or released -> the family, or None."""
    by_release = {family.released.model_type: family for family in _FAMILIES.values() if family.released}
    return (_FAMILIES | by_release).get(str(model_type))
