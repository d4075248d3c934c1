"""Whose folder, and whose file, is this: nothing is written over another run's work or over a person's file."""

import fnmatch
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from avcap.errors import UserError
from avcap.files.lock import FOLDER_LOCK
from avcap.files.write import PARTIAL, write_errors, write_text

MAX_SHOWN = 60
"""Characters of a value in an error."""


def claim(folder: str | Path, marker: str, identity: Mapping[str, Any], *, ours: Collection[str] = ()) -> None:
    """Makes a folder that of one run, or finds that it is.

    Args:
        folder: made if need be.
        marker: file in the folder that says which run it is: NAME.json or NAME.yaml.
        identity: all that the run's results depend on; nested, as JSON can hold it.
        ours: patterns of names that may stand there before the claim.

    Raises:
        UserError: it is another run's (the first difference is named), or holds what no run put there.
    """
    path = Path(folder) / marker
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
    if is_new:
        _refuse_strangers(path.parent, ours=[*ours, FOLDER_LOCK, "*.lock"])
        write_text(path, _dump(path, identity))
        return
    found, expected = _load(path), json.loads(json.dumps(identity))
    if found != expected:
        raise UserError(
            f"{path.parent}: was begun with another configuration; {_difference(found, expected)} ({marker}); choose "
            "another --out, or delete the folder"
        )


def refuse_external(path: str | Path, *, is_ours: Callable[[Path], bool], expected: str) -> None:
    """UserError if a file is there that this command did not write: best asked before hours of work, not after.

    `is_ours` may raise UserError instead of returning False. `expected`: what the command writes.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: got a folder, expected the name of {expected}; choose another")
    if not path.is_file() or not path.stat().st_size:
        return
    try:
        known = is_ours(path)
    except (UserError, OSError, ValueError):
        known = False
    if not known:
        raise UserError(
            f"{path}: is there already and is not {expected}, expected no file or one of this command; choose another, "
            "or move it away"
        )


def _refuse_strangers(folder: Path, *, ours: Collection[str]) -> None:
    names = sorted(path.name for path in folder.iterdir() if not PARTIAL.search(path.name))
    strangers = [name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in ours)]
    if strangers:
        raise UserError(
            f"{folder}: holds {strangers[0]!r} and was not begun by this command; choose a new or an empty folder"
        )


def _dump(path: Path, identity: Mapping[str, Any]) -> str:
    if path.suffix == ".yaml":
        return yaml.safe_dump(dict(identity), sort_keys=False)
    return json.dumps(identity, indent=1, ensure_ascii=False) + "\n"


def _load(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(json.dumps(yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read ({why}), expected what a run is; choose another --out") from None


def _difference(found: Any, expected: Any) -> str:
    """Two runs -> the first field in which they differ, with both values."""
    there, here = _flat(found), _flat(expected)
    name = next(name for name in [*here, *there] if there.get(name, _NONE) != here.get(name, _NONE))
    return f"{name or 'it'}: got {_shown(there.get(name, _NONE))} there, {_shown(here.get(name, _NONE))} here"


_NONE = object()


def _shown(value: Any) -> str:
    text = "nothing" if value is _NONE else repr(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings -> dotted name -> value."""
    if not isinstance(value, Mapping) or not value:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat |= _flat(inner, f"{prefix}.{name}" if prefix else str(name))
    return flat
