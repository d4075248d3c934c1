"""The folder of a run: every arrow of the method is a file there, whole or gone on with, and the last one a checkpoint.

    pairs = records(folder / "pairs.jsonl", PreferencePair, compute)    # there: read; else computed and written

It does not matter where a run was stopped: the next file is computed from those before it and from seeds alone.
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase

from avcap.files.hashes import hash_file
from avcap.files.hub_names import folder_title, snapshot_name
from avcap.files.write import replacing, write_json
from avcap.infer.settings import read_settings
from avcap.model.captioning import CaptioningModel
from avcap.records import Lineage, read_jsonl, read_record, to_json, write_jsonl

CAPTIONS, VERDICTS, ANSWERS = "captions.jsonl", "verdicts.jsonl", "answers.jsonl"
PAIRS, SELECTION, TRAIN, CHECKPOINT, AVERAGE = "pairs.jsonl", "selection.txt", "train", "checkpoint", "average"
PEFT_FOLDER = "adapter"
DONE, DECISION, SET_ASIDE = "done.json", "decision.json", "set-aside"


LINEAGE_FILE = "lineage.json"
NOT_INHERITED = ("*.md", "model*.safetensors*", "*.bin", "*.bin.index.json")
"""Of a parent: its weights, and the card that tells of them."""

RecordT = TypeVar("RecordT")


def records(path: Path, record_type: type[RecordT], compute: Callable[[], Iterable[RecordT]]) -> list[RecordT]:
    """An arrow to a JSONL file -> its records: read if it is there, else computed and written."""
    if not path.exists():
        write_jsonl(path, compute())
    return list(read_jsonl(path, record_type))


def record(path: Path, record_type: type[RecordT], compute: Callable[[], RecordT]) -> RecordT:
    """An arrow to a JSON file -> its one record: read if it is there, else computed and written."""
    if not path.exists():
        value: Any = compute()
        write_json(path, asdict(value))
    return read_record(path, record_type)


def save_checkpoint(
    folder: Path,
    model: CaptioningModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    lineage: Lineage,
    parent: Path | None = None,
    more: Callable[[Path], None] = lambda folder: None,
) -> Path:
    """A trained model -> a checkpoint folder that says where it comes from, whole or as it was.

    `parent`: all else that its folder has (settings, world check) is inherited. `more` writes what is to be there
    besides, or instead, into the folder that it is given.
    """
    with replacing(folder) as aside:
        if parent is None:
            aside.mkdir()
        else:
            shutil.copytree(parent, aside, ignore=shutil.ignore_patterns(*NOT_INHERITED))
        model.requires_grad_(True)
        model.eval().save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        more(aside)
        (aside / LINEAGE_FILE).write_text(to_json(lineage) + "\n", encoding="utf-8")
    return folder


def lineage_of(
    stage: str, *, parent: str | None, data_hash: str, seed: int, recipe: str = "", round: int | None = None
) -> Lineage:
    """What a stage learned from -> where its checkpoint comes from, by the code that runs.

    Args:
        stage: Its name, which is that of the recipe, too, unless `recipe` is given.
        parent: The checkpoint that it went on from, as records name it; None: nothing.
        data_hash: Of its data (`data_hash`) or of the configuration that draws them (`config_hash`).
        seed: Of the run.
        recipe: Its name.
        round: From 1, of a preference round.
    """
    return Lineage(
        stage=stage,
        round=round,
        parent=parent,
        recipe=recipe or stage,
        data_hash=data_hash,
        seed=seed,
        commit=code_commit(),
    )


def checkpoint_title(checkpoint: Path) -> str:
    """Checkpoint folder -> its name on the hub, in avcap.json, or its own: a path says nothing on another machine."""
    title = folder_title(checkpoint)
    return title if snapshot_name(checkpoint) else read_settings(checkpoint).name or title


def data_hash(path: Path) -> str:
    """What a stage learned from -> a short hash of it, for its lineage."""
    return hash_file(path)[:12]


def config_hash(config: Any) -> str:
    """The configuration of a stage that learns from drawn data -> a short hash of it, for its lineage."""
    return hashlib.sha256(repr(asdict(config)).encode()).hexdigest()[:12]


def code_commit() -> str:
    """The commit of the code that ran, "unknown" outside a checkout."""
    found = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    )
    return found.stdout.strip() or "unknown"


def measured_model(folder: Path) -> Path:
    """Folder of a round -> the model that stands for it."""
    return folder / AVERAGE if (folder / AVERAGE).is_dir() else folder / CHECKPOINT


def set_aside(out_dir: Path, *, first: int) -> Path | None:
    """Moves the rounds from `first` on out of the way, so that the next run makes them anew; nothing is deleted."""
    folders = [folder for folder in out_dir.glob("round-*") if int(folder.name.removeprefix("round-")) >= first]
    if not folders:
        return None
    place = out_dir / SET_ASIDE / str(len(list((out_dir / SET_ASIDE).glob("*"))) + 1)
    place.mkdir(parents=True)
    # the last one first: stopped in between, what is left still is a row of rounds
    for folder in sorted(folders, key=lambda path: -int(path.name.removeprefix("round-"))):
        os.replace(folder, place / folder.name)
    for name in (DECISION, "config.yaml"):
        if (out_dir / name).exists():
            os.replace(out_dir / name, place / name)
    return place
