from dataclasses import dataclass, field
from typing import Literal

import pytest

from avcap.config import flatten, override, parse_assignments, to_dict
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


def test_overrides_replace_nested_fields_and_read_5e_minus_4_as_a_number():
    config = override(Outer(), parse_assignments(["optim.lr=5e-4", "steps=3", "optim.clip=null", "betas=[0.8, 0.9]"]))
    assert config == Outer(steps=3, optim=Inner(lr=5e-4, clip=None), betas=(0.8, 0.9))


def test_all_problems_are_told_at_once_and_the_nearest_name_is_given():
    with pytest.raises(UserError) as caught:
        override(Outer(), {"optim.lrr": 1, "steps": "many", "mode": "c"})
    message = str(caught.value)
    assert "unknown field 'optim.lrr'; nearest is 'optim.lr'" in message
    assert "steps: got 'many', wanted int" in message
    assert "mode: got 'c', wanted one of 'a', 'b'" in message


def test_yaml_shape_round_trip():
    config = override(Outer(), {"steps": 4})
    assert override(Outer(), flatten(to_dict(config))) == config


def test_assignment_without_equals_sign():
    with pytest.raises(UserError, match="wanted NAME=VALUE"):
        parse_assignments(["optim.lr"])
