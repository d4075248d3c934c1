"""Files of benchmarks as they are published: what is read of them, and what is refused in one line."""

import json

import pytest
from support.benchmark_files import FILES, write_data

from avcap.errors import UserError
from avcap.judge.benchmarks import forms
from avcap.judge.benchmarks.registry import BENCHMARKS
from avcap.judge.protocols.caption_qa import ChoiceQuestion
from avcap.judge.protocols.omni_cloze import Blank


def test_events_of_avscapbench_carry_their_class_and_modality(tmp_path):
    first, _ = forms.read_avscapbench(write_data("avscapbench", tmp_path))
    assert [(event.event_id, event.modality) for event in first.sample.events] == [
        ("visual-1", "visual"),
        ("visual-2", "visual"),
        ("speech-1", "audio"),
        ("effects-1", "audio"),
        ("synergy-1", "both"),
    ]
    assert (first.sample.sample_id, first.sample.video) == ("0.mp4", "0.mp4")


def test_audio_events_without_classes_go_where_their_script_puts_them(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps([{"video_id": "1.mp4", "event": {"audio_events": ["a hum"]}}]))
    (item,) = forms.read_avscapbench(tmp_path / "x.json")
    assert [event.event_id for event in item.sample.events] == ["speech-1"]


def test_options_of_a_blank_in_each_of_their_forms(tmp_path):
    (_, blanks), _ = (item.about for item in forms.read_omni_cloze(write_data("omni-cloze", tmp_path)))
    assert blanks == (
        Blank(options=("dog", "cat", "cow", "pig"), answer="A", modality="visual"),
        Blank(options=("phone", "bell", "cup", "gong"), answer="B", modality="audio"),
        # the right one stands at its letter, C
        Blank(options=("snow", "hail", "rain", "ash"), answer="C", modality="visual"),
    )


def test_a_fifth_option_is_not_given_and_may_be_right(tmp_path):
    blank = {"options": ["a", "b", "c", "d", "not given"], "answer_key": "E"}
    row = {"video_path": "1.mp4", "cloze": json.dumps({"passage": "p", "blanks": [blank]})}
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    (item,) = forms.read_omni_cloze(tmp_path / "x.jsonl")
    assert item.about[1] == (Blank(options=("a", "b", "c", "d"), answer="E"),)


def test_questions_of_daily_omni_come_with_their_videos_or_one_a_row(tmp_path):
    nested = forms.read_daily_omni(write_data("daily-omni-caption-qa", tmp_path))
    assert nested[0].about[0] == ChoiceQuestion(
        text="What runs?", options=("cat", "dog", "cow", "pig"), answer="B", kind="Inference"
    )
    assert (nested[0].sample.sample_id, nested[0].sample.video) == ("0", "0_video.mp4")
    flat = [{"video_id": "0", **question} for question in FILES["daily-omni-caption-qa"][1][0]["questions"]]
    (tmp_path / "qa.json").write_text(json.dumps(flat))
    assert forms.read_daily_omni(tmp_path / "qa.json") == nested[:1]


def test_a_dream_without_events_has_them_extracted_later(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps([{"video": "1.mp4", "description": "A dog runs."}]))
    (item,) = forms.read_dream(tmp_path / "x.json")
    assert item.about == ("all", None) and item.sample.reference_caption == "A dog runs."


@pytest.mark.parametrize("name", BENCHMARKS)
def test_another_file_is_refused_with_its_row(tmp_path, name):
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"video_id": "1.mp4", "score": 3}]))
    with pytest.raises(UserError, match=r"x\.json.*expected"):
        BENCHMARKS[name].read(path)


@pytest.mark.parametrize(
    ("blank", "expected"),
    [
        ({"options": ["a", "b"], "answer_key": "D"}, "got the answer 'D' to a blank of 2 options"),
        ({"options": ["a", 5], "answer_key": "A"}, "got 5, expected a text"),
        ({"options": ["a", "b"]}, "got no 'answer_key'"),
    ],
)
def test_blanks_that_nobody_can_fill_in_are_refused(tmp_path, blank, expected):
    row = {"video_path": "1.mp4", "cloze": {"passage": "p", "blanks": [blank]}}
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=expected):
        forms.read_omni_cloze(tmp_path / "x.jsonl")
