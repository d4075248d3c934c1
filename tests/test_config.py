from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from avcap.config import flatten, load_yaml, override, parse_assignments, to_dict
from avcap.errors import UserError


@dataclass(frozen=True)
class Inner:
    lr: float = 0.1
    clip: float | None = 1.0


@dataclass(frozen=True)
class Outer:
    steps: int = 10
    mode: Literal["a", "b"] = "a"
    optim: Inner = field(default_factory=Inner)
    betas: tuple[float, float] = (0.9, 0.95)
    folder: Path = Path("out")


def test_overrides_replace_nested_fields_and_read_5e_minus_4_as_a_number():
    config = override(Outer(), parse_assignments(["optim.lr=5e-4", "steps=3", "optim.clip=null", "betas=[0.8, 0.9]"]))
    assert config == Outer(steps=3, optim=Inner(lr=5e-4, clip=None), betas=(0.8, 0.9))


def test_all_problems_are_told_at_once_and_the_nearest_name_is_given():
    with pytest.raises(UserError) as caught:
        override(Outer(), {"optim.lrr": 1, "steps": "many", "mode": "c"})
    message = str(caught.value)
    assert "unknown field 'optim.lrr'; nearest is 'optim.lr'" in message
    assert "steps: got 'many', expected int" in message
    assert "mode: got 'c', expected one of 'a', 'b'" in message


def test_yaml_shape_round_trip():
    config = override(Outer(), {"steps": 4})
    assert override(Outer(), flatten(to_dict(config))) == config


def test_assignment_without_equals_sign():
    with pytest.raises(UserError, match="expected NAME=VALUE"):
        parse_assignments(["optim.lr"])


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("optim.lr", "fast", "float"),  # a word is no number, and must not become nan
        ("optim.lr", float("nan"), "float"),
        ("optim.lr", True, "float"),
        ("steps", 3.7, "int"),  # nor may 3.7 steps become 3
        ("steps", "3.7", "int"),
        ("steps", True, "int"),  # YAML's "yes" is True, and Python's True is 1
        ("steps", [3], "int"),
        ("betas", ["0.9", "fast"], "float"),
        ("folder", 3, "Path"),
    ],
)
def test_a_value_of_another_type_is_an_error(name, value, expected):
    with pytest.raises(UserError, match=f"{name}: got .*, expected {expected}"):
        override(Outer(), {name: value})


def test_items_of_a_tuple_are_read_like_single_values():
    # "5e-4" is a string in YAML 1.1, 1 an int
    config = override(Outer(), parse_assignments(["betas=[5e-4, 1]"]))
    assert config.betas == (0.0005, 1.0) and all(isinstance(beta, float) for beta in config.betas)


def test_whole_numbers_and_paths_get_the_type_of_their_field():
    config = override(Outer(), parse_assignments(["steps=3.0", "folder=runs/a"]))
    assert config == Outer(steps=3, folder=Path("runs/a")) and isinstance(config.steps, int)


def test_assignments_may_be_empty_and_have_spaces_around_the_name():
    assert parse_assignments(["a=", " b = 2", "c=d=e"]) == {"a": "", "b": 2, "c": "d=e"}


def test_an_assignment_that_is_no_yaml_is_an_error():
    with pytest.raises(UserError, match=r"--set betas=\[0.8: cannot be read as YAML"):
        parse_assignments(["betas=[0.8"])


@pytest.mark.parametrize("text", ["- steps", "steps", ""])
def test_a_yaml_file_holds_a_mapping(tmp_path, text):
    path = tmp_path / "my.yaml"
    path.write_text("steps: 4\noptim: {lr: 0.2}\n")
    assert load_yaml(path) == {"steps": 4, "optim": {"lr": 0.2}}
    path.write_text(text)
    with pytest.raises(UserError, match=r"my\.yaml: got .*, expected a mapping"):
        load_yaml(path)
