"""What pyproject.toml declares, constraints.txt fixes and tools/ prints belong together."""

import runpy
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PROJECT = tomllib.loads(PYPROJECT)["project"]
LINES = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
DECLARED = [Requirement(line) for line in LINES if not line.startswith("avcap[")]
PYTHONS = ("3.11", "3.12", "3.13")


def constraints() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def applies(constraint: Requirement, python: str) -> bool:
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    return constraint.marker is None or constraint.marker.evaluate(environment)


@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_is_fixed_once_to_a_version_in_its_range(python):
    for declared in DECLARED:
        name = canonicalize_name(declared.name)
        fixed = [one for one in constraints() if canonicalize_name(one.name) == name and applies(one, python)]
        assert len(fixed) == 1, f"{name}: {fixed}; `make lock` writes constraints.txt anew"
        (version,) = [specifier.version for specifier in fixed[0].specifier]
        assert declared.specifier.contains(version), f"{fixed[0]} is not in {declared}"


def test_constraints_suit_any_index_and_any_build_of_torch():
    for constraint in constraints():
        assert constraint.url is None
        (specifier,) = constraint.specifier
        assert specifier.operator == "==" and "+" not in specifier.version
        assert not constraint.name.startswith(("nvidia", "cuda", "triton"))
        assert (
            constraint.marker is None
            or any(applies(constraint, python) for python in PYTHONS)
            or ("emscripten" in str(constraint.marker) or "win32" in str(constraint.marker))
        )


def test_a_lock_leaves_out_cuda_and_local_versions():
    without_cuda = runpy.run_path(str(ROOT / "tools" / "lock.py"))["without_cuda"]
    resolved = "numpy==2.4.6 ; python_full_version < '3.12'\nnvidia-cublas==13.1\ntorch==2.13.0+cpu\n\ntriton==3.6.0\n"
    assert without_cuda(resolved) == "numpy==2.4.6 ; python_full_version < '3.12'\ntorch==2.13.0\n"


def test_lower_bounds_are_those_declared():
    lower_bounds = runpy.run_path(str(ROOT / "tools" / "lower_bounds.py"))["lower_bounds"]
    bounds = lower_bounds(PYPROJECT)
    assert set(bounds) == {declared.name for declared in DECLARED}
    for declared in DECLARED:
        assert declared.specifier.contains(bounds[declared.name])
    text = """
        [project]
        name = "avcap"
        dependencies = ["{}"]
        [project.optional-dependencies]
        dev = ["{}", "avcap[dev]"]
    """
    assert lower_bounds(text.format("a>=1.2,<3", "b[c]==0.4")) == {"a": "1.2", "b": "0.4"}
    with pytest.raises(SystemExit, match=r"got 'b<3' without a lower bound, expected one such as b>=1\.0"):
        lower_bounds(text.format("a>=1.2,<3", "b<3"))
    with pytest.raises(SystemExit, match=r"got two lower bounds of a: 1\.2 and 1\.3"):
        lower_bounds(text.format("a>=1.2,<3", "a>=1.3"))
