"""SRT and WebVTT: what their readers demand, the convention for those who do not hear, and times that are ours."""

import html
import re

import pytest

from avcap.bulk.outputs.subtitles import LINE_CHARACTERS, Cue, joined_cues, lines_of, srt, vtt

LINES = [
    ('At 2s a telephone rings. At 5s a voice says "island pencil".', ["[telephone rings]", "VOICE: Island pencil."]),
    ('at 6s a bell rings twice. at 7s a man says "go".', ["[bell rings twice]", "MAN: Go."]),
    ("[00:03] dog barks", ["[dog barks]"]),
    ("00:01.500 --> 00:04.000\nMAN: Where is it?", ["MAN: Where is it?"]),
    ("From 0:00 to 0:05, rain falls.", ["[rain falls]"]),
    ("(0:03 - 0:05) A door slams; a woman shouts: “Stop!”", ["[door slams]", "WOMAN: Stop!"]),
    ("- [slow piano music]\n- MAN: At 10:30, be there.", ["[slow piano music]", "MAN: At 10:30, be there."]),
    ('A man says "come at 5 seconds past".', ["MAN: Come at 5 seconds past."]),
    ("[At 3s, glass breaks] [dog barks] WOMAN: no", ["[glass breaks]", "[dog barks]", "WOMAN: No."]),
    ("(laughter)", ["[laughter]"]),
    ("♪ la la ♪", ["♪ la la ♪"]),
    ("1. Mr. Smith coughs.\n2. Wind blows while a car passes.", ["[Mr. Smith coughs]", "[wind blows]", "[car passes]"]),
    ("3.0s - 5.0s: engine hums", ["[engine hums]"]),
    ("[silence]", []),
    ("N/A", []),
    ("There is no sound.", []),
    ("", []),
    ("At 3s, nothing is heard.", []),
    ("Bell rings.\nBell rings.", ["[bell rings]"]),
]


@pytest.mark.parametrize(("text", "lines"), LINES, ids=[text[:30] for text, _ in LINES])
def test_captions_become_lines_for_those_who_do_not_hear(text, lines):
    assert list(lines_of(text)) == lines


CUES = [
    Cue(start_s=0.0, end_s=5.0, lines=("[rain falls]",)),
    Cue(start_s=5.0, end_s=10.0, lines=("[rain falls]",)),
    Cue(start_s=10.0, end_s=15.0, lines=()),
    Cue(start_s=3661.5, end_s=3666.04, lines=("[a <b> & c --> d]", "MAN: " + "word " * 20)),
]


def read_srt(text: str) -> list[tuple[str, str, list[str]]]:
    """As players do: blocks between empty lines, of a number that counts from 1, times, and text."""
    found = []
    for number, block in enumerate(text.strip().split("\n\n"), start=1):
        first, times, *lines = block.split("\n")
        assert first == str(number) and lines
        start, end = re.fullmatch(r"(\d\d:\d\d:\d\d,\d{3}) --> (\d\d:\d\d:\d\d,\d{3})", times).groups()
        found.append((start, end, lines))
    return found


def read_vtt(text: str) -> list[tuple[str, str, list[str]]]:
    """By the standard: the signature, an empty line, then cues; "-->" only in times, & and < escaped."""
    header, *blocks = text.strip().split("\n\n")
    assert header == "WEBVTT"
    found = []
    for block in blocks:
        times, *lines = block.split("\n")
        start, end = re.fullmatch(r"(\d\d:\d\d:\d\d\.\d{3}) --> (\d\d:\d\d:\d\d\.\d{3})", times).groups()
        assert not any("-->" in line or "<" in line for line in lines)
        found.append((start, end, [html.unescape(line) for line in lines]))
    return found


def test_the_same_lines_after_each_other_are_one_cue_and_empty_ones_none():
    cues = joined_cues(CUES)
    assert [(cue.start_s, cue.end_s) for cue in cues] == [(0.0, 10.0), (3661.5, 3666.04)]


def test_srt_is_read_by_the_rules_of_its_players():
    first, second = read_srt(srt(joined_cues(CUES)))
    assert first == ("00:00:00,000", "00:00:10,000", ["[rain falls]"])
    # 3661.5 s = 1 h 1 min 1.5 s
    assert second[:2] == ("01:01:01,500", "01:01:06,040")
    assert second[2][0] == "[a <b> & c -> d]" and " ".join(second[2][1:]) == "MAN: " + " ".join(["word"] * 20)
    assert max(map(len, second[2])) <= LINE_CHARACTERS
    assert srt([]) == ""


def test_vtt_is_read_by_the_rules_of_the_standard():
    first, second = read_vtt(vtt(joined_cues(CUES)))
    assert first == ("00:00:00.000", "00:00:10.000", ["[rain falls]"])
    assert second[2][0] == "[a <b> & c --> d]"
    assert vtt([]) == "WEBVTT\n"
