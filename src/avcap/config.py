"""Dials: frozen dataclasses with a docstring under each field, set by YAML and `--set a.b=value`, never by surprise.

A run is a recipe (a function that returns a whole config, recipes.py); a variant changes fields of it. Overrides can
only touch fields that exist; every problem is reported, all at once, before anything is loaded.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from avcap import v0_1
from avcap.errors import UserError
from avcap.texts.yaml_text import parse_yaml, read_yaml

ConfigT = TypeVar("ConfigT")


def load_yaml(path: Path) -> dict[str, Any]:
    """YAML file -> nested dict. Raises UserError if it is not readable or not a mapping."""
    data = read_yaml(path, expected="a YAML file of fields and values")
    if not isinstance(data, dict):
        raise UserError(f"{path}: got {type(data).__name__}, expected a mapping of fields to values")
    return data


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """["optim.lr=5e-4"] -> {"optim.lr": 0.0005}; values are read as YAML, and of a name the last one counts."""
    result: dict[str, Any] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UserError(f"--set {text}: expected NAME=VALUE, for example --set optim.lr=5e-4")
        name = name.strip()
        result[name] = parse_yaml(value, where=f"--set {text}") if value.strip() else ""
    return result


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"optim": {"lr": 1}} -> {"optim.lr": 1}."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def field_names(config: Any, prefix: str = "") -> list[str]:
    """All dotted names that can be set in a (nested) config."""
    names = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            names += field_names(value, f"{prefix}{field.name}.")
        else:
            names.append(f"{prefix}{field.name}")
    return names


def override(config: ConfigT, values: Mapping[str, Any]) -> ConfigT:
    """Config with the dotted fields of `values` replaced. Raises one UserError that lists every problem."""
    known = field_names(config)
    problems = []
    for name, value in v0_1.config_values(values).items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"; nearest is {near[0]!r}" if near else f"; fields: {', '.join(known)}"
            problems.append(f"unknown field {name!r}{hint}")
            continue
        try:
            config = _replace(config, name.split("."), value)
        except ValueError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise UserError("config: " + "; ".join(problems))
    return config


def _replace(config: Any, path: list[str], value: Any) -> Any:
    name, *rest = path
    if rest:
        return dataclasses.replace(config, **{name: _replace(getattr(config, name), rest, value)})
    return dataclasses.replace(config, **{name: _coerce(value, typing.get_type_hints(type(config))[name])})


def _coerce(value: Any, expected: Any) -> Any:
    """YAML value -> the field's type; ValueError says what was got and wanted. "5e-4" is a string in YAML 1.1."""
    origin, args = typing.get_origin(expected), typing.get_args(expected)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _coerce(value, next(arg for arg in args if arg is not type(None)))
    if origin is typing.Literal:
        if value not in args:
            raise ValueError(f"got {value!r}, expected one of {', '.join(map(repr, args))}")
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_coerce(item, args[0]) for item in value)
    if expected is bool and isinstance(value, bool):
        return value
    if expected is Path and isinstance(value, str):
        return Path(value)
    if expected is str and isinstance(value, str | int | float):
        return str(value)
    if expected in (int, float) and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if expected is float and number == number:
            return number
        if expected is int and number == number and number.is_integer():
            return int(number)
    raise ValueError(f"got {value!r}, expected {getattr(expected, '__name__', expected)}")


def to_dict(config: Any) -> dict[str, Any]:
    """Config -> nested dict of plain values, as written beside a checkpoint."""
    return {
        field.name: to_dict(value) if dataclasses.is_dataclass(value := getattr(config, field.name)) else _plain(value)
        for field in dataclasses.fields(config)
    }


def _plain(value: Any) -> Any:
    """Value of a field -> what YAML can hold."""
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
