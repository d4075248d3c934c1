"""Prints the lower bound of every dependency that pyproject.toml names, as constraints for pip.

    python tools/lower_bounds.py > constraints-lowest.txt

What a dependency needs itself is not printed: pip takes the newest of it that the lower bounds allow. A dependency
without a lower bound ends this with an error, since nobody could say from which version on it works.
"""

import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def lower_bounds(pyproject: str) -> dict[str, str]:
    """Text of pyproject.toml -> name of each dependency, of all extras too, and its lowest declared version."""
    project = tomllib.loads(pyproject)["project"]
    extras = project["optional-dependencies"].values()
    declared = [*project["dependencies"], *(line for lines in extras for line in lines)]
    bounds: dict[str, str] = {}
    for line in declared:
        name, rest = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[.*?\])?(.*)", line).groups()  # type: ignore[union-attr]
        if name == project["name"]:  # an extra that is made of others
            continue
        bound = re.search(r"[>=]=\s*([0-9][0-9a-z.]*)", rest)
        if bound is None:
            raise SystemExit(f"pyproject.toml: got {line!r} without a lower bound, expected one such as {name}>=1.0")
        if bounds.setdefault(name, bound[1]) != bound[1]:
            raise SystemExit(f"pyproject.toml: got two lower bounds of {name}: {bounds[name]} and {bound[1]}")
    return bounds


if __name__ == "__main__":
    sys.stdout.writelines(
        f"{name}=={version}\n" for name, version in lower_bounds(PYPROJECT.read_text(encoding="utf-8")).items()
    )
