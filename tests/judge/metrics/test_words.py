"""Words, and words said again."""

import pytest

from avcap.judge.metrics.words import WordCounts, count_words


def test_what_a_word_is():
    assert count_words("At 3s it's in the top-left corner.") == WordCounts(num_words=7, num_repeated=0)
    assert count_words("") == count_words("... !") == WordCounts(num_words=0, num_repeated=0)
    assert count_words("Über Größe: cœur").num_words == 3
    assert count_words("红色的圆 red").num_words == 5  # each character a word, and "red"


def test_the_repetition_rate():
    assert count_words("").repetition_rate == 0
    assert count_words("one two three four five six").repetition_rate == 0
    # 10 words; the second "a b c d e" is one repeated 5-gram of 5 words: 5 / 10
    assert count_words("A b c d e, a b c d e.").repetition_rate == 0.5
    # 7 words "a": the 5-grams begin at words 1, 2, 3; those at 2 and 3 are repeats and cover words 2 to 7: 6 / 7
    assert count_words("a a a a a a a").repetition_rate == pytest.approx(6 / 7)
    # Said in different cases, and in Chinese without spaces: 5 of 10
    assert count_words("一二三四五一二三四五").repetition_rate == 0.5
