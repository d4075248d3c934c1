"""Captions in clauses: by the grammar of the world, by sentences otherwise; what counts as one difference."""

from avcap.preference.clauses import compare_clauses, read_clauses
from avcap.preference.world_clauses import read_world_clauses

FULL = "At 2s a red circle appears in the top-left corner. At 3s the red circle grows while a bell rings twice."


def changed(first: str, second: str) -> int:
    return compare_clauses(read_world_clauses(first), read_world_clauses(second)).num_changed


def test_a_world_caption_has_a_clause_for_each_claim_and_each_joining():
    clauses = read_world_clauses(FULL).by_grammar
    assert clauses is not None
    assert [clause.text for clause in clauses] == [
        "2s a red circle appears in the top-left corner",
        "3s the red circle grows",
        "3s a bell rings twice",
        "3s the red circle grows while a bell rings twice",
    ]


def test_how_it_is_worded_is_no_difference():
    assert changed(FULL, FULL.replace("grows", "gets bigger").replace("At 2s", "At second 2")) == 0


def test_a_changed_clause_is_one_difference_and_a_lost_one_is_one():
    assert changed(FULL, FULL.replace("red circle appears", "red square appears")) == 1
    assert changed(FULL, FULL.removeprefix("At 2s a red circle appears in the top-left corner. ")) == 1
    # another number of rings: the claim, and that it rings so while the circle grows
    assert changed(FULL, FULL.replace("twice", "once")) == 2
    # not heard at all: the same two
    assert changed(FULL, FULL.replace(" while a bell rings twice", "")) == 2
    # told apart: only the joining is lost
    assert changed(FULL, FULL.replace(" while a bell", ". At 3s a bell")) == 1


def test_a_clause_that_only_moved_in_time_is_one_difference():
    early = "At 1s a flute plays. At 3s the red circle grows. At 5s rain falls."
    late = "At 3s the red circle grows. At 4s a flute plays. At 5s rain falls."
    assert changed(early, late) == 1


def test_a_recap_repeats():
    assert read_world_clauses(FULL).num_repeated == 0
    # at 2s, again; the clause is equal to the first
    assert read_world_clauses(FULL + " At 2s a red circle appears in the top-left corner.").num_repeated == 1
    assert read_world_clauses(FULL + " At 3s a bell rings twice.").num_repeated == 1


def test_free_text_is_cut_at_sentences_and_joined_main_clauses():
    text = "A man in a red, worn coat walks 3.5 km through snow, while a dog barks, then it stops. He waves!"
    clauses = read_world_clauses(text)
    assert clauses.by_grammar is None
    assert [clause.text for clause in clauses.by_sentence] == [
        "A man in a red, worn coat walks 3.5 km through snow",
        "a dog barks",
        "it stops",
        "He waves",
    ]
    assert clauses == read_clauses(text)  # the grammar of the world has no part in it
    assert changed(text, text.replace("A man", "a MAN").replace("waves!", "waves.")) == 0
    assert changed(text, text.replace("a dog barks", "a cat purrs")) == 1
    assert changed(text, text + " Snow falls on the roof and on the road.") == 1


def test_a_world_caption_and_free_text_are_compared_by_sentences():
    text = "Somebody in the street explains the news, and the crowd around listens quietly to every word."
    difference = compare_clauses(read_world_clauses(FULL), read_world_clauses(text))
    # FULL is 3 pieces: its two sentences, the second cut at "while"; the other text 2
    assert (len(difference.only_first), len(difference.only_second), difference.num_changed) == (3, 2, 3)
