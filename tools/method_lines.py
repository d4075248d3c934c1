"""Counts the lines of the method: every stage, the parts that stages call, and the preference loss.

    python tools/method_lines.py

Lines that say what is done count; imports, docstrings, comments and blank lines do not. What stages share with
evaluation, training and the command line is in those rooms, and is no part of the method.
"""

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "avcap"
LOSS = SOURCE / "train" / "losses.py"
MOST_LINES = 700
_NO_CODE = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
)


def code_lines(source: str) -> int:
    """Source of a module -> how many of its lines are code that does something.

    >>> code_lines('import os\\n\\ndef one():\\n    "Docstring."\\n    return (\\n        1  # one\\n    )\\n')
    4
    """
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom) or _is_docstring(node):
            left_out |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {line for token in tokens if token.type not in _NO_CODE for line in range(token.start[0], token.end[0] + 1)}
    return len(lines - left_out)


def _is_docstring(node: ast.AST) -> bool:
    """Whether a statement is a text and nothing else: of a module, class or function, or behind a field."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def method_files(source: Path = SOURCE) -> dict[str, Path]:
    """-> the files of the method by their names in the package."""
    files = [*sorted((source / "stages").rglob("*.py")), source / LOSS.relative_to(SOURCE)]
    return {path.relative_to(source).as_posix(): path for path in files if path.name != "__init__.py"}


def parts_of(path: Path) -> Iterator[str]:
    """A file of the method -> the parts that it imports, by their names in the package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("avcap.stages.parts."):
            yield f"stages/parts/{str(node.module).rpartition('.')[2]}.py"


def main() -> int:
    """Prints the count of each file and of all; 1 where there are more than MOST_LINES."""
    counts = {name: code_lines(path.read_text(encoding="utf-8")) for name, path in method_files().items()}
    for name, count in counts.items():
        print(f"{count:5} {name}")
    total = sum(counts.values())
    print(f"{total:5} of at most {MOST_LINES}")
    return int(total > MOST_LINES)


if __name__ == "__main__":
    sys.exit(main())
