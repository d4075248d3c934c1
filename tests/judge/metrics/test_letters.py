"""A table of replies to one question with four options, and which option each of them means."""

import time

import pytest

from avcap.judge.metrics.letters import read_letter

OPTIONS = ("a red ball", "a blue ball", "a ball", "none of them")

REPLIES = [
    ("**B**", 1),
    ("The correct answer is **B**.", 1),
    ("<answer>B</answer>", 1),
    ("\\boxed{B}", 1),
    ("(b)", 1),
    ("Answer: $B$", 1),
    ("The answer is not A but B.", 1),
    ("The answer is B, not A.", 1),
    ("Not A.", None),
    ("It is not (C).", None),
    ("<think>A looks right. The answer is A.</think>\nB", 1),
    ("Maybe A.</think>B", 1),
    ("<think>The answer is A", None),
    ("The answer is A. No, the answer is B.", 1),
    ("A. Wait, it's C.", 2),
    ("b", None),
    ("(C)", 2),
    (" D.", 3),
    ("B. a red ball", 1),
    ("Option C", 2),
    ("A: because it is red", 0),
    ("The answer is D.", 3),
    ("I think the correct answer is (B), not the others.", 1),
    ("It must be (C) here.", 2),
    ("(A) or (B)", None),
    ("It is (A) or (B)", None),
    ("The answer is A or B.", None),
    ("Both A and B", None),
    ("A, B", None),
    ("E", None),
    ("The answer is E.", None),
    ("A red ball is seen", 0),
    ("A man walks by.", None),
    ("I see a blue ball", 1),
    ("a red ball and a blue ball", None),
    ("A Ball", 2),
    ("", None),
    ("I don't know", None),
    ("I cannot answer this question.", None),
    ("I'm sorry, I can't help with that.", None),
    ("As an AI model I cannot see videos.", None),
    ("N/A", None),
    ("答案是B", 1),
    ("答案：C", 2),
    ("选D。", 3),
    ("正解はBです。", 1),
    ("정답은 C입니다", 2),
    ("La respuesta es B.", 1),
    ("Die Antwort ist B.", 1),
    ("La réponse est la C", None),
    ("La réponse est : C", 2),
    ("Ответ: D", 3),
    ("Ｂ", 1),
    ("（B）", 1),
    ("【B】", 1),
    ("Ⓑ", 1),
    ("The final answer is $\\boxed{\\text{C}}$.", 2),
    ("\\(\\boxed{D}\\)", 3),
    ("__B__", 1),
    ("`B`", 1),
    ("<b>B</b>", 1),
    ("### Answer\nB", 1),
    ("Answer:\n\nB", 1),
    ("answer: b", 1),
    ("The answer is (b).", 1),
    ("b) a blue ball", 1),
    ("b. a blue ball", 1),
    ("Let us look. A is wrong, C is wrong.\nB is correct.", 1),
    ("A is incorrect. B is incorrect. C is incorrect. So D.", 3),
    ("B is the correct answer.", 1),
    ("We can rule out A and C. The answer must be D.", 3),
    ("I would choose C.", 2),
    ("I'd go with option B because it is blue", 1),
    ("Probably B", 1),
    ("A) a red ball\nB) a blue ball\nC) a ball\nD) none of them", None),
    ("A) a red ball\nB) a blue ball\nC) a ball\nD) none of them\nAnswer: C", 2),
    ("The answer is a blue ball.", 1),
    ("The answer is A blue ball.", 1),
    ("The answer is A because it is red.", 0),
    ("Not a red ball but a blue ball.", 1),
    ("none of them", 3),
    ("Neither A nor B; C.", 2),
    ("The correct option is: B) a blue ball", 1),
    ("Final Answer: B", 1),
    ("So the answer to the question is B.", 1),
    ('{"answer": "B"}', 1),
    ('{"answer": "B", "reason": "A is red"}', 1),
    ("The vitamin is C-rich in building B.", None),
    ('My answer: "B"', 1),
    ("B\n\nExplanation: option A shows a red ball, which is not seen.", 1),
    ("B<|im_end|>", 1),
    ("D. None of A, B and C.", 3),
    ("Option A is tempting, but option D is right.", 3),
    ("C'est un chien", None),
    ("I", None),
]


@pytest.mark.parametrize(("reply", "index"), REPLIES)
def test_a_letter_is_read_where_it_is_meant(reply, index):
    assert read_letter(reply, OPTIONS) == index


NUMBERS = [("3", 2), ("three", 2), ("The answer is 13.", 3), ("1.5", None), ("2 dogs", 1)]


@pytest.mark.parametrize(("reply", "index"), NUMBERS)
def test_numbers_are_read_as_whole_numbers(reply, index):
    assert read_letter(reply, ("1", "2", "3", "13")) == index


def test_of_options_within_one_another_the_longest_counts():
    assert read_letter("red ball", ("ball", "red ball")) == 1
    assert read_letter("It shows the cat.", ("the cat", "The cat!")) is None  # the same words twice


@pytest.mark.parametrize(
    "reply",
    [
        "answer " + "the " * 20_000,
        "::::" * 5000 + "answer " + ":" * 20_000,
        "A or " * 20_000,
        " " * 50_000 + "B",
        "(" * 80_000,
        "<think>" * 30_000,
        "</s> " * 20_000 + "x",
        "\\boxed" * 10_000,
        "__ " * 20_000,
    ],
)
def test_a_long_reply_takes_no_time(reply):
    start = time.process_time()
    read_letter(reply, OPTIONS)
    assert time.process_time() - start < 5
