"""What breaks in the middle of work through nobody's fault is one line, and whatever else is shown as the bug it is."""

import errno

import pytest
from safetensors import SafetensorError

from avcap.cli.app import _describe_failure


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.jsonl"), "a.jsonl: no room left"),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), "no room left"),
        (FloatingPointError("step 3: loss is nan"), "step 3: loss is nan"),
        (OSError(errno.EACCES, "Permission denied"), ""),
        (KeyError("x"), ""),
    ],
)
def test_failures(error, expected):
    assert expected in _describe_failure(error) and bool(expected) == bool(_describe_failure(error))
