"""Captions in other words: the oracle judges them as the plain ones, and a string search does not."""

import random

import pytest

from avcap.errors import UserError
from avcap.judge.calibration.cases import make_calibration_cases
from avcap.world.oracle import judge_caption
from avcap.world.paraphrase import STYLES, WAYS, paraphrase

CASES = make_calibration_cases(num_videos=40, seed=4)
TEXT = "At 3s the red circle grows while a bell rings once. At 5s the red circle vanishes. Overall, a bell rings once."


@pytest.mark.parametrize("style", STYLES)
def test_what_is_told_and_what_is_wrong_stays_the_same(style):
    for index, one in enumerate(CASES):
        text = paraphrase(one.case.text, style=style, rng=random.Random(index))
        found = judge_caption(text, truth=one.scene, interval_s=one.case.sample.interval_s)
        assert found.events == one.truth.events, (one.case.text, text)
        numbers = [(len(verdict.invented), len(verdict.repeated)) for verdict in (found, one.truth)]
        assert numbers[0] == numbers[1], (one.case.text, text)


def test_each_style_as_its_table_shows_it():
    told = {style: paraphrase(TEXT, style=style, rng=random.Random(0)) for style in WAYS}
    assert told["order"].startswith(
        "A bell rings once while the red circle grows at 3s. The red circle vanishes at 5s."
    )
    assert "rings once, and at 5s the red circle vanishes." in told["merged"]
    assert "At 3s the red circle grows. At the same time a bell rings once." in told["split"]
    assert "Two seconds later the red circle vanishes." in told["relative"]
    assert "At 5s it vanishes." in told["omitted"]
    assert "vanishes" not in told["vocabulary"] and "grows" not in told["vocabulary"]


@pytest.mark.parametrize("style", WAYS)
def test_most_captions_are_told_otherwise(style):
    changed = [paraphrase(one.case.text, style=style, rng=random.Random(0)) != one.case.text for one in CASES]
    assert sum(changed) > 0.4 * len(CASES)


def test_the_same_seed_gives_the_same_words_and_another_style_is_refused():
    first, again = (paraphrase(CASES[0].case.text, style="mixed", rng=random.Random(1)) for _ in range(2))
    assert first == again
    with pytest.raises(UserError, match="expected one of plain"):
        paraphrase(TEXT, style="poetic", rng=random.Random(0))
