"""What a reply says in the end, in all the forms in which models leave their thoughts in it."""

import pytest

from avcap.llm.answer import answer_of

REPLIES = [  # text, answer, has thoughts, ends within them
    ("B", "B", False, False),
    ("A < B, and I think so.", "A < B, and I think so.", False, False),
    ("A dog <b>runs</b>.", "A dog <b>runs</b>.", False, False),
    ("<think>Maybe A?</think>\n\nB", "B", True, False),
    ("<think>\n</think>\n\nB", "B", True, False),
    ("Maybe A?</think>B", "B", True, False),  # the opening tag stood in the prompt
    ("<think>The user wants", "", True, True),
    ("<think>a</think>x<think>b", "x", True, True),
    ("<think>a <think> b</think> c</think>B", "B", True, False),
    ("<think>ab</thinking>B", "B", True, False),
    ("<THINKING>x</THINKING> y", "y", True, False),
    ("<thinking>x</thinking>y", "y", True, False),
    ("<reasoning>x</reasoning>y", "y", True, False),
    ("<thought>x</thought>y", "y", True, False),
    ("<seed:think>x</seed:think>y", "y", True, False),
    ("[THINK]x[/THINK]y", "y", True, False),
    ("◁think▷x◁/think▷y", "y", True, False),
    ("<|begin_of_thought|>x<|end_of_thought|><|begin_of_solution|>y<|end_of_solution|>", "y", True, False),
    ("<|START_THINKING|>x<|END_THINKING|><|START_RESPONSE|>y<|END_RESPONSE|>", "y", True, False),
    ("<|channel>thought\nx<channel|>y", "y", True, False),
    (
        "<|channel|>analysis<|message|>x<|end|><|start|>assistant<|channel|>final<|message|>y<|return|>",
        "y",
        True,
        False,
    ),
    ("<|channel|>analysis<|message|>x", "", True, True),
    ("analysisThe user wants B.assistantfinalB", "B", True, False),
    ("Here is my thought process: x\nHere is my response: y", "y", True, False),
    ("<think>x</think><answer>B</answer>", "B", True, False),
    ("<answer>B", "B", False, False),
    ("B<|im_end|>", "B", False, False),
    ('{"quote": "a sign says <think>x</think>"}', '{"quote": "a sign says <think>x</think>"}', False, False),
]


@pytest.mark.parametrize(("text", "answer", "has_thoughts", "is_cut"), REPLIES)
def test_the_answer_is_what_is_said_in_the_end(text, answer, has_thoughts, is_cut):
    found = answer_of(text)
    assert (found.text, found.has_thoughts, found.is_cut) == (answer, has_thoughts, is_cut)
    assert answer_of(found.text).text == found.text
