"""`--official`: what of the published code's behaviour is chosen before a weight is read. No torch.

"default" is what is right; "official" runs a released checkpoint exactly as published. docs/official.md compares them.
"""

from dataclasses import replace
from pathlib import Path
from typing import Protocol

from avcap.data.request import Interval
from avcap.errors import UserError
from avcap.records import Decoding
from avcap.texts.json_text import read_json
from avcap.texts.read import LARGEST_SETTINGS

GENERATION_CONFIG = "generation_config.json"


def name_with_official(checkpoint: str, *, official: bool) -> str:
    """Name of a checkpoint -> as captions carry it: what is run otherwise is another captioner.

    >>> name_with_official("salmonn@0badcafe", official=True)
    'salmonn@0badcafe+official'
    """
    return f"{checkpoint}+official" if official else checkpoint


def official_decoding(decoding: Decoding, folder: Path) -> Decoding:
    """Decoding and checkpoint folder -> with the repetition penalty that the published code finds in the folder.

    It calls `generate` of transformers, which reads generation_config.json: Qwen2.5-VL brings 1.05 with it.
    """
    try:
        if not (folder / GENERATION_CONFIG).exists():
            return decoding
        fields = read_json(folder / GENERATION_CONFIG, expected="JSON", most_bytes=LARGEST_SETTINGS)
        penalty = float(fields.get("repetition_penalty") or 1.0)
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / GENERATION_CONFIG}: {error}; download it again") from None
    return decoding if decoding.repetition_penalty != 1 else replace(decoding, repetition_penalty=penalty)


class KnowsIntervals(Protocol):
    """What `refuse_interval` asks the official rules of a family."""

    @property
    def title(self) -> str: ...
    @property
    def cuts_intervals(self) -> bool: ...


def refuse_interval(rules: KnowsIntervals, interval_s: Interval | None) -> None:
    """Raises UserError where a part of a video is asked of a family whose published code cuts no parts."""
    if interval_s is not None and not rules.cuts_intervals:
        raise UserError(
            f"got an interval and --official for {rules.title}, expected a whole video: its published code knows "
            "no parts of videos; cut the file, or leave out --official"
        )


def refuse_interval_of(folder: Path, interval_s: Interval | None) -> None:
    """The same, of a checkpoint folder, before its weights are read; what is no model is said when it is loaded."""
    if interval_s is None:
        return
    from avcap.infer.settings import family_of_folder  # here: it loads torch, and few ask for a part

    family = family_of_folder(folder)
    if family is not None and family.official is not None:
        refuse_interval(family.official, interval_s)
