"""Examples of several kinds in one step."""

import pytest

from avcap.train.examples import Example
from avcap.train.mixture import Mixture


def test_kinds_are_drawn_by_their_shares():
    def example(name: str) -> Example:
        return Example(media=lambda: None, turns=(("q", "a"),), name=name)  # drawn, and never read

    source = Mixture(
        model=None,
        tokenizer=None,
        shares={"captions": 0.75, "questions": 0.25, "modalities": 0.5},
        batch_size=4000,
        seed=0,
        examples={"captions": [example("c")], "questions": [example("q")], "modalities": []},
    )
    drawn = [one.name for one in source.draw(0)]
    # no example of one modality: the other shares are 3 to 1; three standard errors of 4000 draws are 0.02
    assert drawn.count("c") / 4000 == pytest.approx(0.75, abs=0.021) and drawn.count("q") == 4000 - drawn.count("c")
    assert source.draw(0) == source.draw(0) != source.draw(1)
