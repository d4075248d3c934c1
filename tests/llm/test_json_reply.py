"""A reply is read as what it says, or not at all."""

import time

import pytest

from avcap.llm.json_reply import (
    BadReply,
    is_quoted,
    parse_object,
    take,
    take_choice,
    take_count,
    take_list,
    take_seconds,
    take_text,
)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, "x"]}',
        ' \n{"a": [1, "x"]}\n',
        '```json\n{"a": [1, "x"]}\n```',
        'Sure! Here it is:\n{"a": [1, "x"]}\nI hope this helps.',
        '<think>Maybe {"a": 2}? No.</think>{"a": [1, "x"]}',
        '\n <think>Maybe {"a": 2}? No.</think>{"a": [1, "x"]}',
        '{{"a": [1, "x"]}}',  # braces doubled, as in a template
        '{"a": [1, "x",],}',
        'The caption says "so.\n{"a": [1, "x",]}',
        '{"a": [1, "x"]}\n{"a": [1, "x"]}',  # said twice is still one thing
    ],
)
def test_what_is_tolerated(text):
    assert parse_object(text) == {"a": [1, "x"]}


def test_a_string_keeps_its_commas():
    assert parse_object('{"a": "x,}", "b": "\\",]",}') == {"a": "x,}", "b": '",]'}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("I cannot help with that.", "no JSON object"),
        ("[1, 2]", "no JSON object"),
        ('{"a": 1', "no JSON object"),
        ("{'a': 1}", "no JSON object"),
        ('{"a": 1} or {"a": 2}', "2 different"),
        ('{"a": 1, "a": 2}', "key twice"),
        ('{"a": NaN}', "NaN"),
        ('{"a": Infinity}', "Infinity"),
        ('{"a": ' + "9" * 5000 + "}", "no JSON object"),
        ('{"a":' * 150, "no JSON object"),
        ("{" * 1000, "opening braces"),
        ('__import__("os").system("false")', "no JSON object"),
    ],
)
def test_what_is_not(text, reason):
    with pytest.raises(BadReply, match=reason):
        parse_object(text)


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1} {"a": 2}',  # a draft, and what it became
        '{"a": 2} {"b": {}}',
        'First {"a": "x"}, so {"a": 2}.',
        '<think>{"a": 1}</think>{"a": 2}',
        '{"a": 1}</think>\n{"a": 2}',
    ],
)
def test_the_last_object_that_fits_the_schema_counts(text):
    assert parse_object(text, schema=SCHEMA) == {"a": 2}


def test_objects_of_which_none_fits_are_no_answer():
    with pytest.raises(BadReply, match="2 different"):
        parse_object('{"a": "x"} {"a": true}', schema=SCHEMA)


def test_a_hostile_megabyte_takes_no_time():
    start = time.process_time()
    for text in ('{"a":' * 200_000, "{" * 1_000_000, '{"a": "' + '\\"' * 500_000):
        with pytest.raises(BadReply):
            parse_object(text)
    assert time.process_time() - start < 10


def test_a_broken_outer_object_does_not_pass_for_its_inside():
    # The list is cut off in its second item; what is left inside is one object, and not of the form that is wanted.
    found = parse_object('{"events": [{"id": 1, "label": "correct"}, {"id": 2')
    with pytest.raises(BadReply, match="no 'events'"):
        take_list(found, "events", where="the reply")


ITEM = {"n": 3, "zero": 0, "t": " x ", "b": True, "f": 3.0, "neg": -1, "s": "3", "null": None, "l": [1], "e": " "}


def test_fields_are_taken_as_they_are():
    assert take_count(ITEM, "n", where="it", most=3) == 3
    assert take_text(ITEM, "t", where="it") == "x"
    assert take_list(ITEM, "l", where="it") == [1]
    assert take_count(ITEM, "zero", where="it") == 0 and take_seconds(ITEM, "zero", where="it") == 0.0
    assert take_seconds(ITEM, "n", where="it") == 3.0 and take_seconds(ITEM, "null", where="it") is None
    assert take_choice(ITEM, "null", where="it", choices=("a", None)) is None


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: take(["a"], "a", where="it"),
        lambda: take(ITEM, "absent", where="it"),
        lambda: take_list(ITEM, "t", where="it"),
        lambda: take_text(ITEM, "e", where="it"),
        lambda: take_text(ITEM, "n", where="it"),
        *(lambda key=key: take_count(ITEM, key, where="it") for key in ("b", "f", "neg", "s", "null")),
        lambda: take_count(ITEM, "n", where="it", most=2),
        *(lambda key=key: take_seconds(ITEM, key, where="it") for key in ("b", "neg", "s")),
        lambda: take_choice(ITEM, "l", where="it", choices=("a",)),
        lambda: take_choice(ITEM, "n", where="it", choices=("a",)),
    ],
)
def test_fields_are_not_bent(wrong):
    with pytest.raises(BadReply, match="it"):
        wrong()


CAPTION = "A man in a red coat says, “Hello,\nworld!” Then a dog barks. 猫が鳴く。"


@pytest.mark.parametrize(
    "quote",
    ["a man in a RED coat", 'says "hello, world"', "A man ... a dog barks", "red coat… barks", "猫が", "Dog barks."],
)
def test_quotations_that_are_there(quote):
    assert is_quoted(quote, source=CAPTION)


@pytest.mark.parametrize(
    "quote",
    [
        "",
        "...",
        "a",
        "!",
        "a man in a blue coat",
        "a dog barks ... a man",
        "says goodbye",
        "犬が",
        "red coat ... coat says",  # there is one coat, and both parts need one
    ],
)
def test_quotations_that_are_not(quote):
    assert not is_quoted(quote, source=CAPTION)


@pytest.mark.parametrize(
    ("quote", "source"),
    [
        ("a man opens a door", "A man in a red coat opens a door."),
        ("the circle grows", "At 3s the red circle grows while a bell rings."),
    ],
)
def test_words_within_a_clause_may_be_left_out(quote, source):
    assert is_quoted(quote, source=source)


@pytest.mark.parametrize(
    ("quote", "source"),
    [
        ("the red circle shrinks", "The red circle grows, and the blue square shrinks."),
        ("the red circle shrinks", "The red circle grows while the blue square shrinks."),
        ("a man barks", "A man watches the dog that barks."),
        ("the dog barks", "The dog does not bark or barks."),
        ("the dog barks", "The dog never barks."),
        ("door a opens", "A man opens a door."),
    ],
)
def test_what_no_clause_tells_is_no_quotation(quote, source):
    assert not is_quoted(quote, source=source)
