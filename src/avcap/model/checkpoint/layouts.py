"""What kind of checkpoint a path is, from its small files and headers alone. Standard library only.

Nothing is downloaded, nothing executed: a config that names code is refused, and pickles are not opened here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avcap.errors import UserError
from avcap.files.walk import refuse_odd_files
from avcap.model.checkpoint.weight_files import (
    PICKLE_SUFFIXES,
    SHARD_INDEX,
    TensorInfo,
    read_json,
    read_tensors,
    read_weight_map,
)
from avcap.model.family import families, family_of_type
from avcap.model.layout import Layout

CONFIG, ADAPTER_CONFIG, ADAPTER_FILE = "config.json", "adapter_config.json", "adapter_model.safetensors"
OWN_PREFIX = "avcap_"
HELP = "see docs/checkpoints.md"


OWN = Layout(title="avcap model folder")
ADAPTER = Layout(
    title="PEFT adapter, without the model it belongs to",
    what_to_do="merge it into its base: avcap convert {path} DST --base FOLDER",
)
TRAINING = Layout(
    title="training checkpoint, without config and tokenizer",
    what_to_do="put it into its base: avcap convert {path} DST --base FOLDER",
)
WHISPER = Layout(title="plain Whisper", what_to_do="it is the sound encoder of: avcap init-audio QWEN2.5-VL {path} DST")
_PARTS = {"whisper": WHISPER}
"""model_type of config.json -> what is part of a model, of whatever family."""


def all_layouts() -> tuple[Layout, ...]:
    """-> all that is known: our own, those in which families were released, and what models are made of."""
    released = [layout for family in families().values() if family.released for layout in family.released.layouts]
    return (OWN, *released, ADAPTER, TRAINING, WHISPER)


def runnable() -> tuple[Layout, ...]:
    """-> those that --model takes as they are."""
    return tuple(layout for layout in all_layouts() if layout.runs)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint on disk: its layout, the fields of its config, and its tensors by the names in its files."""

    path: Path
    """The folder, or the file of a training checkpoint."""
    layout: Layout
    fields: dict[str, Any]
    """config.json, or adapter_config.json."""
    tensors: dict[str, TensorInfo]
    """Empty for a training checkpoint: it is a pickle."""

    @property
    def is_sharded(self) -> bool:
        return len({tensor.file for tensor in self.tensors.values()}) > 1

    @property
    def is_tied(self) -> bool:
        """Whether the output head shares the weights of the embedding, as the config says."""
        return bool(self.fields.get("tie_word_embeddings") or text_fields(self.fields).get("tie_word_embeddings"))


def identify(path: str | Path) -> Checkpoint:
    """Path of a folder, of the weight file in it, or of a training checkpoint -> what it is, headers read.

    UserError, in one line that names the file and what to do, for anything that is no checkpoint or not all of one.
    """
    path = Path(path)
    if path.is_file() and path.suffix in PICKLE_SUFFIXES:
        return Checkpoint(path=path, layout=TRAINING, fields={}, tensors={})
    folder = path.parent if path.is_file() else path
    if folder.is_dir():
        refuse_odd_files(folder, suffixes=(".json", ".safetensors", ".txt"))
    else:
        raise UserError(f"{path}: no such file or folder; expected a checkpoint folder ({HELP})")
    if not (folder / CONFIG).exists() and (folder / ADAPTER_CONFIG).exists():
        fields = read_json(folder / ADAPTER_CONFIG)
        tensors = read_tensors(folder, single=ADAPTER_FILE)
        return Checkpoint(path=folder, layout=ADAPTER, fields=fields, tensors=tensors)
    if not (folder / CONFIG).exists():
        raise UserError(_without_config(folder))
    fields = _read_config(folder)
    tensors = read_tensors(folder)
    return Checkpoint(path=folder, layout=_layout(fields, tensors), fields=fields, tensors=tensors)


def layout_of_small_files(folder: Path) -> Layout:
    """What a folder is whose weights need not be there yet, from its configs and the index of its shards.

    Raises:
        UserError: as `identify` would, for a type that is not known, for code, and where there is no config.
    """
    if not (folder / CONFIG).exists() and (folder / ADAPTER_CONFIG).exists():
        return ADAPTER
    if not (folder / CONFIG).exists():
        raise UserError(_without_config(folder))
    fields = _read_config(folder)
    return _layout(fields, read_weight_map(folder / SHARD_INDEX) if (folder / SHARD_INDEX).exists() else ())


def _read_config(folder: Path) -> dict[str, Any]:
    """Folder -> its config.json, which names a known type and no code."""
    fields = read_json(folder / CONFIG)
    _check_model_type(folder, fields)
    refuse_code(folder)
    return fields


def _without_config(folder: Path) -> str:
    """A folder without config.json -> what is wrong with it."""
    files = sorted(entry.name for entry in folder.iterdir())
    if not files:
        return f"{folder}: an empty folder, expected a checkpoint folder ({HELP})"
    if pickles := [name for name in files if name.endswith(PICKLE_SUFFIXES)]:
        return (
            f"{folder}: got {pickles[0]} without {CONFIG}, expected a checkpoint folder; name the file itself: "
            f"avcap convert {folder / pickles[-1]} DST --base FOLDER"
        )
    if any(name.endswith(".safetensors") or name == SHARD_INDEX for name in files):
        return f"{folder / CONFIG}: is missing beside the weights, expected a checkpoint folder; download it too"
    more = ", ..." if len(files) > 3 else ""
    return f"{folder}: no {CONFIG} but {', '.join(files[:3])}{more}; expected a checkpoint folder ({HELP})"


def _check_model_type(folder: Path, fields: dict[str, Any]) -> None:
    model_type = fields.get("model_type")
    released = [family.released.model_type for family in families().values() if family.released]
    if model_type in (*released, *_PARTS) or str(model_type).startswith(OWN_PREFIX):
        return
    known = (f"{OWN_PREFIX}*", *released, *_PARTS)
    raise UserError(
        f"{folder / CONFIG}: got model_type {model_type!r}, expected one of {', '.join(known)}; "
        "avcap runs no other backbone"
    )


def _layout(fields: dict[str, Any], tensors: Iterable[str]) -> Layout:
    """Fields of a config.json of a known type, and names of its tensors -> what the folder is."""
    model_type = fields["model_type"]
    family = family_of_type(model_type)
    if family is None or family.released is None or str(model_type).startswith(OWN_PREFIX):
        return _PARTS.get(model_type, OWN)
    return family.released.layout_of(fields, tensors)


def refuse_code(folder: Path) -> None:
    """Raises UserError where a config asks transformers to run code of the checkpoint."""
    for name in (CONFIG, "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"):
        if (folder / name).exists() and (code := read_json(folder / name).get("auto_map")):
            raise UserError(
                f"{folder / name}: auto_map names code to run ({str(code)[:80]}); avcap runs no code of a checkpoint: "
                "remove that entry if the weights are of a layout that avcap knows"
            )


def check_tokenizer_files(folder: Path) -> None:
    """Raises UserError that names the file which the tokenizer of a folder lacks."""
    if (folder / "tokenizer.json").exists():
        read_json(folder / "tokenizer.json")  # what is none leads its library far before it fails
        return
    missing = [name for name in ("vocab.json", "merges.txt") if not (folder / name).exists()]
    if len(missing) == 2:
        raise UserError(f"{folder / 'tokenizer.json'}: is missing, and so are {' and '.join(missing)}; download either")
    if missing:
        raise UserError(f"{folder / missing[0]}: is missing, and there is no tokenizer.json; download it too")


def text_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of a config -> those of its language model, which newer configs keep apart."""
    return fields.get("text_config") or fields


def refuse_unless_runnable(checkpoint: Checkpoint) -> None:
    """Raises UserError that says how to make a model of what is none yet."""
    layout = checkpoint.layout
    if not layout.runs:
        raise UserError(f"{checkpoint.path}: {layout.one}; {layout.what_to_do.format(path=checkpoint.path)}")
