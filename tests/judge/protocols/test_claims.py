"""Captions are taken apart into statements by rule."""

import pytest

from avcap.judge.calibration.cases import make_calibration_cases
from avcap.judge.protocols.claims import LONGEST_CLAIM, Claim, split_claims
from avcap.world import grammar


def texts(caption: str) -> list[str]:
    return [claim.text for claim in split_claims(caption)]


def test_a_sentence_of_the_world():
    found = split_claims('At 3s the red circle grows while a bell rings twice and a voice says "lemon tiger".')
    assert found == (
        Claim(text="At 3s the red circle grows", start_s=3.0),
        Claim(text="At 3s a bell rings twice", start_s=3.0),
        Claim(text='At 3s a voice says "lemon tiger"', start_s=3.0),
    )


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A man in a red coat opens a door, and the dog barks; it runs away.",
         ["A man in a red coat opens a door", "the dog barks", "it runs away"]),
        ("Salt and pepper stand on a table of wood and glass.", ["Salt and pepper stand on a table of wood and glass"]),
        ("From 1:05 to 1:09, she sings. She sings!", ["From 1:05 to 1:09, she sings", "She sings"]),
        ("[0:03] Rain falls.\n[0:07] Rain falls.", ["[0:03] Rain falls", "[0:07] Rain falls"]),
        ("A cat. A cat. a CAT.", ["A cat"]),
        ("一只狗在叫。 门开了。", ["一只狗在叫", "门开了"]),
        ("... !!! \n", []),
    ],
)  # fmt: skip
def test_other_captions(caption, expected):
    assert texts(caption) == expected


def test_times_in_minutes_are_seconds():
    assert [claim.start_s for claim in split_claims("At 1:05 a cat. At 2.5s a dog. A cow.")] == [65.0, 2.5, None]


def test_a_sentence_without_an_end_is_cut():
    found = texts("word " * 1000)
    assert len(found) > 1 and max(map(len, found)) <= LONGEST_CLAIM + 5


def test_the_statements_of_the_world_are_its_clauses():
    """Every clause of captions with planted errors is one statement, and nothing else is."""
    for one in make_calibration_cases(num_videos=20, seed=3):
        read = grammar.read_caption(one.case.text)
        clauses = {(s.claim.second, s.text) for s in read.statements if s.timed}
        found = [grammar.read_caption(claim.text).statements for claim in split_claims(one.case.text)]
        assert all(len(statements) == 1 for statements in found)
        assert clauses <= {(s.claim.second, s.text) for statements in found for s in statements}
