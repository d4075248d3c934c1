"""What avcap 0.1 called otherwise: the one place that knows its names. It goes with version 0.3.

Options, fields of configurations and records, config.json, avcap.json, weights and the folders of runs are translated
where they are read; nothing is written under an old name. tests/data/v0_1 holds an example of each.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avcap.files.write import replacing, write_text

# --- the command line -------------------------------------------------------------------------------------------------

OPTIONS = {"--no-sound": "--no-audio", "--no-picture": "--no-video"}
COMMANDS = {"audit-compat": "audit-official"}
COMPAT = {"official": ["--official"], "default": []}


def command_line(words: Sequence[str]) -> list[str]:
    """The words after `avcap` -> the same with the options and commands of today."""
    found = [OPTIONS.get(word, word) if index else COMMANDS.get(word, word) for index, word in enumerate(words)]
    for value, today in COMPAT.items():
        if f"--compat={value}" in found:
            at = found.index(f"--compat={value}")
            found[at : at + 1] = today
        at = found.index("--compat") if "--compat" in found else len(found)
        if found[at + 1 : at + 2] == [value]:
            found[at : at + 2] = today
    return found


# --- configurations of runs -------------------------------------------------------------------------------------------

CONFIG_FIELDS = {
    "teach": "finetune",
    "practise": "second_phase",
    "eyes": "vision",
    "ears": "audio",
    "prefer": "dpo",
    "anchor": "weight_regularizer",
    "tracks": "feature_tracks",
    "slot_steps": "second_steps",
    "questions_per_lesson": "questions_per_example",
    "max_more_collapse": "max_more_truncated",
    "use_picture": "use_video",
    "use_sound": "use_audio",
    "proxy": "reset_lora",
    "mix.slots": "mix.seconds",
    "mix.seen": "mix.visual",
    "mix.heard": "mix.audio",
}
"""A field, or a field in its group; a name that is dotted here holds in that group alone."""
CONFIG_VALUES = {"proxy": {"fresh": True, "kept": False}}


def config_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted fields -> values of --set or of a config.yaml -> under the names of today."""
    return {config_field(name): _config_value(name, value) for name, value in values.items()}


def config_field(name: str) -> str:
    """A dotted field -> its name today.

    >>> config_field("teach.mix.slots"), config_field("prefer.loss.beta"), config_field("finetune.question_mix.heard")
    ('finetune.mix.seconds', 'dpo.loss.beta', 'finetune.question_mix.heard')
    """
    parts = name.split(".")
    inside = [f"{group}.{part}" for group, part in zip(["", *parts], parts, strict=False)]
    return ".".join(
        CONFIG_FIELDS[both].rpartition(".")[2] if both in CONFIG_FIELDS else CONFIG_FIELDS.get(part, part)
        for both, part in zip(inside, parts, strict=True)
    )


def _config_value(name: str, value: Any) -> Any:
    known = CONFIG_VALUES.get(name.rpartition(".")[2], {})
    return known.get(value, value) if isinstance(value, str) else value


# --- records ----------------------------------------------------------------------------------------------------------

RECORD_FIELDS = {
    "RoundMetrics": {"number": "round_number", "collapse": "truncated"},
    "Prompts": {"picture_only": "video_only", "sound_only": "audio_only"},
}
"""Type of a record (or of a part of one) -> field -> its name today."""
MODEL_FIELDS = {"speech_layer_norm": "audio_layer_norm", "padded_sound": "padded_audio"}
"""Of a model's config.json."""


def record(fields: Mapping[str, Any], record_type: str) -> dict[str, Any]:
    """Fields of a record as they stand in a file -> under the names of today."""
    return _renamed(fields, RECORD_FIELDS.get(record_type, {}))


def model_config(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What a model's config.json holds -> the same under the names of today."""
    return _renamed(fields, MODEL_FIELDS)


def _renamed(fields: Mapping[str, Any], table: Mapping[str, str]) -> dict[str, Any]:
    return {table.get(name, name): value for name, value in fields.items()}


# --- tensors ----------------------------------------------------------------------------------------------------------

WEIGHTS = {"sound_encoder.": "audio_encoder.", "sound_aligner.": "audio_aligner."}
WEIGHT_PATTERNS = {f"^{re.escape(old)}": today for old, today in WEIGHTS.items()}
"""For `key_mapping` of transformers."""
WORLD_CHECK = {"picture.": "video.", "sound.": "audio."}


def weight_name(name: str) -> str:
    """A weight in a file -> its name today.

    >>> weight_name("sound_aligner.proj.bias")
    'audio_aligner.proj.bias'
    """
    return _begins_anew(name, WEIGHTS)


def world_check_name(name: str) -> str:
    """A tensor of world_check.safetensors -> its name today."""
    return _begins_anew(name, WORLD_CHECK)


def _begins_anew(name: str, table: Mapping[str, str]) -> str:
    return next((today + name.removeprefix(old) for old, today in table.items() if name.startswith(old)), name)


# --- folders of runs --------------------------------------------------------------------------------------------------

CONFIG = "config.yaml"
ROUND_METRICS, OLD_ROUND_METRICS = "round_metrics.json", "standing.json"
PARTS = {"eyes": "vision", "ears": "audio", "teach": "finetune", "practise": "second_phase"}
"""Folders of a run from nothing."""
FILES = {OLD_ROUND_METRICS: ROUND_METRICS, "seen.jsonl": "visual.jsonl", "heard.jsonl": "audio.jsonl"}
STAGES = {"prefer": "dpo", "teach": "finetune", "practise": "second_phase"}
"""What state.json says of the stage."""


def round_metrics_file(folder: Path) -> Path:
    """Folder of a round -> the file that says what was measured; of 0.1 where there is no other."""
    old = folder / OLD_ROUND_METRICS
    return old if old.exists() and not (folder / ROUND_METRICS).exists() else folder / ROUND_METRICS


def take_over(out_dir: Path, config: Mapping[str, Any]) -> None:
    """Makes a run's folder that 0.1 began one of today, so that the run goes on; leaves any other as it is.

    `config`: what the run's config.yaml is to hold. A field that 0.1 did not have cannot have been another one then, so
    it is taken from here; all others stay as they were, and whoever asks for other values is told so, as ever.
    """
    import yaml

    path = out_dir / CONFIG
    if not path.exists():
        return
    old = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(old, dict) or not any(config_field(name) != name for name in _flat(old)):
        return
    _take_over_files(out_dir)
    known = {config_field(name): _config_value(name, value) for name, value in _flat(old).items()}
    text = yaml.safe_dump(_filled(config, known), sort_keys=False)
    write_text(path, text)  # last of all: stopped before it, the next call does the rest


def _take_over_files(out_dir: Path) -> None:
    for old, today in PARTS.items():
        if (out_dir / old).is_dir():
            os.replace(out_dir / old, out_dir / today)
    for old, today in FILES.items():
        for path in out_dir.rglob(old):
            os.replace(path, path.with_name(today))
    for path in out_dir.rglob("reference.jsonl"):
        path.unlink()  # kept under a hash of the weights with their names: computed again, to the same values
    for path in out_dir.rglob("checkpoints/step-*/state.json"):
        state = json.loads(path.read_text(encoding="utf-8"))
        write_text(path, json.dumps(state | {"stage": STAGES.get(state.get("stage"), state.get("stage"))}, indent=1))
        for file in path.parent.glob("*.safetensors"):
            _rename_tensors(file)


def _rename_tensors(path: Path) -> None:
    """A safetensors file under old names -> the same bytes under those of today: its header alone is written anew."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        if not any(weight_name(name) != name for name in header):
            return
        text = json.dumps({weight_name(name): info for name, info in header.items()}).encode()
        text += b" " * (-len(text) % 8)
        with replacing(path) as aside, open(aside, "wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            shutil.copyfileobj(file, out)


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _filled(config: Mapping[str, Any], known: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`config` with the values of `known` (dotted), in the order of `config`."""
    return {
        name: _filled(value, known, f"{prefix}{name}.")
        if isinstance(value, Mapping)
        else known.get(prefix + name, value)
        for name, value in config.items()
    }
