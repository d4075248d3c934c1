"""The method alone is short: a stage is read from top to bottom, and no part of it is longer than what calls it."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "tools" / "method_lines.py"
spec = importlib.util.spec_from_file_location("method_lines", SCRIPT)
method_lines = importlib.util.module_from_spec(spec)
spec.loader.exec_module(method_lines)


def counts() -> dict[str, int]:
    return {name: method_lines.code_lines(path.read_text()) for name, path in method_lines.method_files().items()}


def test_the_method_fits_into_700_lines():
    found = counts()
    assert {"stages/rounds.py", "stages/dpo.py", "stages/rebirth.py", "train/losses.py"} <= set(found)
    assert sum(found.values()) <= method_lines.MOST_LINES == 700, found


def test_no_part_is_longer_than_the_longest_stage_that_calls_it():
    found, callers = counts(), {}
    for name, path in method_lines.method_files().items():
        for part in method_lines.parts_of(path):
            callers.setdefault(part, []).append(name)
    parts = {name for name in found if name.startswith("stages/parts/")}
    assert parts == set(callers)  # every part is called, or it is none
    too_long = {part: found[part] for part in parts if found[part] > max(found[name] for name in callers[part])}
    assert not too_long


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("", 0),
        ('"""Docstring."""\n\n# comment\nimport os\nfrom a import (\n    b,\n)\n', 0),
        ("x = 1  # comment\n\n\ny = 2\n", 2),
        ('class A:\n    b: int = 0\n    """What it is."""\n', 2),  # the class and its field
        ("call(\n    a,\n    b,\n)\n", 4),
        ('text = """one\ntwo"""\n', 2),  # a text that is used is code
    ],
)
def test_lines_that_count(source, lines):
    assert method_lines.code_lines(source) == lines
