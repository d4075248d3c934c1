"""YAML that somebody wrote -> data, by the safe loader, without what it would lose or blow up."""

import math
from pathlib import Path
from typing import Any

import yaml

from avcap.errors import UserError
from avcap.texts.read import LARGEST_SETTINGS, read_text

MOST_VALUES = 100_000
"""Of one text, aliases counted wherever they stand: a few lines of them can stand for billions."""


class _Loader(yaml.SafeLoader):
    """The safe loader, which here refuses a field that stands twice; PyYAML keeps the last one without a word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        if isinstance(node, yaml.MappingNode):
            names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise yaml.constructor.ConstructorError(
                    None, None, f"the field {twice!r} stands twice", node.start_mark
                )
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: Any) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MOST_VALUES:  # merges of merges
            raise yaml.constructor.ConstructorError(None, None, "too many merged fields", node.start_mark)


def parse_yaml(text: str, *, where: str) -> Any:
    """Text of YAML -> data. UserError for what is no YAML, a field twice, NaN, an infinite number, a tag."""
    try:
        data = yaml.load(text.removeprefix("\ufeff"), Loader=_Loader)
        _check(data)
    except RecursionError:
        raise UserError(f"{where}: cannot be read as YAML: nested too deeply") from None
    except (yaml.YAMLError, ValueError, OverflowError, TypeError, AttributeError, KeyError) as error:
        # dates and numbers that are none raise whatever Python says of them
        raise UserError(f"{where}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    return data


def read_yaml(path: str | Path, *, expected: str) -> Any:
    """YAML file -> data; errors as `read_text` and `parse_yaml`."""
    return parse_yaml(read_text(path, expected=expected, most_bytes=LARGEST_SETTINGS), where=str(path))


def _check(data: Any) -> None:
    """ValueError for numbers that are none, for a value within itself, and for more values than a person writes."""
    left, todo = MOST_VALUES, [data]
    while todo:
        value = todo.pop()
        left -= 1
        if left < 0:
            raise ValueError(f"it stands for more than {MOST_VALUES:,} values")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{value} is no number")
        if isinstance(value, dict):
            todo += [*value, *value.values()]
        elif isinstance(value, list | tuple | set):
            todo += value
