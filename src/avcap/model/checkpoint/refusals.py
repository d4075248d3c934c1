"""What a checkpoint folder says that cannot be becomes one line that names the file.

Configs and tokenizers go through libraries that raise whatever the wrong value leads to, somewhere deep. What they
compute depends on the folder alone, so any error there is one of the folder.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from avcap.errors import ModelError, UserError

LARGEST_NUMBER = 2**31
"""No size, count or token id is larger."""
COUNTS = ("layers", "depth")
"""Ends of the names of fields that say how many modules are built: more than there are weights cannot be."""
LONGEST_REASON = 300


@contextlib.contextmanager
def told_of(path: str | Path, *, what: str) -> Iterator[None]:
    """Makes any error within one line about a file of a checkpoint; only a lack of memory is not its fault.

    Args:
        path: the file, or the folder, that was read.
        what: what could not be done: "no model can be made of it".
    """
    try:
        yield
    except (UserError, FloatingPointError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        todo = "compare it with the original, or download it again"
        raise ModelError(f"{path}: {what} ({_reason(error)}); {todo}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: PyTorch has a class of its own for a GPU's memory, and none for that of the machine."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    text = text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def check_numbers(path: Path, fields: Mapping[str, Any], *, num_tensors: int) -> None:
    """Fields of a config.json -> nothing; UserError for numbers that would take hours and all memory to build.

    Args:
        path: the file, for the error.
        fields: nested, as JSON gives them.
        num_tensors: how many weights the folder has.
    """
    for name, value in _numbers(fields, ""):
        if abs(value) > LARGEST_NUMBER:
            raise ModelError(f"{path}: got {name} {value}, expected at most {LARGEST_NUMBER}; download it again")
        is_count = name.endswith(COUNTS) and "decoder" not in name  # of Whisper, the encoder alone is built
        if is_count and value > num_tensors:
            raise ModelError(
                f"{path}: got {name} {value}, expected at most the {num_tensors} weights that the folder has; it is of "
                "another model than they are"
            )


def _numbers(value: Any, name: str) -> Iterator[tuple[str, int]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner, name)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, int(value)
