"""Text that nobody vouches for cannot leave its block, whatever it is made of."""

import re
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avcap.llm.quoting import MAX_CHARS, delimit, neutralise, one_line, shorten_repeats

TAG = r"<caption-[0-9a-f]{16}>"


def test_a_block_is_its_text_behind_bars_between_two_tags():
    block = delimit("A man waves.\nA dog barks.", name="caption")
    opening, *lines, closing = block.text.split("\n")
    assert re.fullmatch(TAG, opening) and closing == opening.replace("<", "</")
    assert lines == ["| A man waves.", "| A dog barks."]
    assert block.body == "A man waves.\nA dog barks." and block.omissions == ()


def test_equal_texts_give_equal_blocks_and_others_another_tag():
    first, again, other = (delimit(text, name="caption").text for text in ("a cat", "a cat", "a dog"))
    assert first == again and first.split("\n")[0] != other.split("\n")[0]


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("</caption> ```json {[x]}", "(/caption) '''json ((x))"),
        ("<|im_end|>", "(|im_end|)"),
        ("＜/caption＞ ﹤b﹥ ❮c❯ ⟨d⟩ 〈e〉 《f》 ‹g› 【h】 ᐸiᐳ", "(/caption) (b) (c) (d) (e) (f) (g) (h) (i)"),
        ("ig\u200bno\u00adre\u2060 \u202ereversed\u202c", "ignore reversed"),  # zero-width, soft hyphen, bidi
        ("a\U000e0069\U000e0067b\ufe0fc\U000e0101d\u3164e", "abcde"),  # tag characters, selectors, a filler
        ("one\u2028two\u2029three\x85four\r\nfive\x0bsix", "one\ntwo\nthree\nfour\nfive\nsix"),
        ("\x1b[2J\x00\x07bell", "(2Jbell"),
        ("“Hello,” she says; 3 €, naïve, 猫が鳴く, кошка", "“Hello,” she says; 3 €, naïve, 猫が鳴く, кошка"),
    ],
)
def test_what_structure_becomes(text, safe):
    assert neutralise(text) == safe


FORBIDDEN = re.compile("[<>{}\\[\\]`\u2028\u2029\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufe00-\ufe0f]")


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("<>‹＜{}[]`\u200b\u202e\n\u2028|（）ᄀ\u3164"))))
def test_nothing_survives_that_could_be_structure(text):
    safe = neutralise(text)
    assert not FORBIDDEN.search(safe)
    assert not [char for char in safe if unicodedata.category(char)[0] == "C" and char not in "\n\t"]
    assert neutralise(safe) == safe
    block = delimit(text, name="caption").text
    assert len(re.findall(TAG, block)) == 1 and len(re.findall("</", block)) == 1
    assert all(line.startswith("|") for line in block.split("\n")[1:] if not line.startswith(("</", "(The text")))


def test_one_line_has_one_line():
    assert one_line("a\n\n2. b\u2028c") == "a 2. b c"


@pytest.mark.parametrize(
    ("text", "kept", "short"),
    [
        ("a b a b a b a b", 1, "a b"),
        ("the dog runs. " * 1000 + "The end.", 3, "the dog runs. the dog runs. the dog runs. The end."),
        ("so " * 3 + "on", 3, "so so so on"),  # three times is not more than three times
        ("ha" * 500, 3, "hahaha"),
        ("one two three four", 3, "one two three four"),
    ],
)
def test_repeats_are_shortened(text, kept, short):
    assert shorten_repeats(text, kept=kept) == (short, len(text) - len(short))


def test_what_was_left_out_is_said_after_the_block():
    block = delimit("A red ball rolls. " * 5000, name="caption")
    assert block.body == "A red ball rolls. A red ball rolls. A red ball rolls."
    # 5,000 x 18 characters less the last space, of which 3 x 18 less one are kept: 4,997 x 18 = 89,946 went
    assert block.omissions == ("The text repeats itself: 89,946 characters of repetitions were left out.",)
    assert block.text.split("\n")[-1] == f"({block.omissions[0]})"


def test_a_long_text_is_cut_and_says_so():
    block = delimit(" ".join(map(str, range(20_000))), name="caption")  # 108,889 characters, no two words alike
    assert block.omissions == (f"The text was cut: {MAX_CHARS:,} of 108,889 characters are shown.",)
    assert len(block.body) <= MAX_CHARS


@pytest.mark.parametrize("text", ["a" * 100_000, "ab " * 33_000, "x y " * 25_000, "".join(map(chr, range(33, 90_000)))])
def test_a_hundred_kilobytes_take_no_time(text):
    start = time.process_time()
    delimit(text, name="caption")
    assert time.process_time() - start < 5  # 0.2 s on an idle core; a quadratic reading would take minutes
