"""Captions and truth of every form become cases, and what finds no partner is named."""

import json
from pathlib import Path

import pytest

from avcap.errors import UserError
from avcap.judge.inputs.ingest import Intake, WrittenCaption, match, read_captions, read_truth
from avcap.records import (
    Caption,
    CaptionError,
    Decoding,
    Event,
    Sample,
    Seen,
    WorldTruth,
    to_json,
    write_jsonl,
)

EVENTS = [
    {"text": "a dog barks", "modality": "audio", "start_s": 1},
    {"text": "a man runs", "modality": "visual", "start_s": 4},
]
TRUTH = [{"video": "data/a.mp4", "events": EVENTS}, {"video": "data/b.mp4", "events": ["a cat sleeps"]}]


def write(path: Path, data: object) -> Path:
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return write(tmp_path / "truth.json", TRUTH)


def take(tmp_path: Path, captions: object, truth: Path, *, name: str = "captions.json", **options) -> Intake:
    return match(read_captions([write(tmp_path / name, captions)], **options), read_truth(truth))


def texts(intake: Intake) -> dict[str, str]:
    return {case.sample.sample_id: case.text for case in intake.cases}


def problems(intake: Intake) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for problem in intake.problems:
        found.setdefault(problem.kind, []).append(problem.name)
    return found


BOTH = {"data/a.mp4": "A.", "data/b.mp4": "B."}


@pytest.mark.parametrize(
    ("name", "captions"),
    [
        ("ours.json", [{"video": "data/a.mp4", "caption": "A."}, {"video": "data/b.mp4", "caption": "B."}]),
        ("lines.jsonl", '{"video_id": "a", "text": "A."}\n\n{"video_id": "b", "text": "B."}\n'),
        (
            "v1.json",
            [{"id": [f"/x/{v}.mp4", f"/x/{v}.wav"], "prompt": "?", "pred": f"{v.upper()}.", "ref": "r"} for v in "ab"],
        ),
        (
            "plus.json",
            [
                {
                    "video": f"/y/{v}.mp4",
                    "image": None,
                    "prompt": "?",
                    "ref": "r",
                    "audio": None,
                    "use_audio": True,
                    "should_use": True,
                    "pred": f"{v.upper()}.",
                }
                for v in "ab"
            ],
        ),
        ("table.csv", 'path,response\ndata/a.mp4,A.\n"data/b.mp4","B."\n'),
        ("table.tsv", "id\toutput\na.mp4\tA.\nb.mp4\tB.\n"),
        ("named.json", {"a": "A.", "b.mp4": "B."}),
        ("wrapped.json", {"results": [{"id": "a", "prediction": "A."}, {"id": "b", "prediction": "B."}]}),
        ("windows.json", [{"path": "C:\\films\\a.mp4", "text": "A."}, {"path": "C:\\films\\b.mp4", "text": "B."}]),
    ],
)
def test_every_form_of_captions_gives_the_same_cases(tmp_path, truth, name, captions):
    intake = take(tmp_path, captions, truth, name=name)
    assert texts(intake) == BOTH
    assert not intake.problems and not intake.failures


def test_own_captions_and_errors(tmp_path, truth):
    caption = Caption(
        caption_id="c1",
        sample_id="/elsewhere/a.mp4",
        video="/elsewhere/a.mp4",
        prompt="?",
        text="A.",
        checkpoint="m",
        decoding=Decoding(max_new_tokens=9),
        finished=False,
        duration_s=7.5,
        seen=Seen(frames=7, audio_seconds=7.5, visual_tokens=7, audio_tokens=15),
    )
    error = CaptionError(sample_id="/elsewhere/b.mp4", video="/elsewhere/b.mp4", error="b.mp4: no picture")
    lines = f"{to_json(caption)}\n{to_json(error)}\n"
    intake = take(tmp_path, lines, truth, name="captions.jsonl")
    (case,) = intake.cases
    assert (case.caption_id, case.text, case.finished) == ("c1", "A.", False)
    assert intake.durations_s == {"data/a.mp4": 7.5}
    (failure,) = intake.failures
    assert failure.case.sample.sample_id == "data/b.mp4"
    assert failure.verdict.reason == "no caption: b.mp4: no picture"


def test_captions_are_judged_without_the_thoughts_stored_with_them(tmp_path, truth):
    captions = {"a": "<think>Maybe a dog?</think>\n\nA tree.", "b": "<think>The user"}
    intake = take(tmp_path, [{"video": name, "text": text} for name, text in captions.items()], truth)
    assert [(case.text, case.finished) for case in intake.cases] == [("A tree.", None), ("", False)]
    assert problems(intake)["caption with thoughts"] == ["a", "b"]


@pytest.mark.parametrize("order", [1, -1])
def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path, order):
    """Paths of another machine: what they have in common from the end decides; where that is as much twice, nobody."""
    samples = [{"id": name, "video": f"{name}/001.mp4", "events": ["x"]} for name in ("ytb", "nsr")]
    truth = write(tmp_path / "t.json", samples)
    captions = [{"video": f"/data/{name}/001.mp4", "text": name} for name in ("ytb", "nsr")]
    intake = take(tmp_path, captions[::order], truth)
    assert texts(intake) == {"ytb": "ytb", "nsr": "nsr"} and not intake.problems
    captions.append({"video": "E:\\other\\001.mp4", "text": "whose?"})
    assert problems(take(tmp_path, captions[::order], truth)) == {"unmatched caption": ["E:\\other\\001.mp4"]}


@pytest.mark.parametrize("order", [1, -1])
def test_a_caption_of_another_folder_takes_no_truth_that_a_better_one_fits(tmp_path, order):
    truth = write(tmp_path / "t.json", [{"id": "s", "video": "ytb/001.mp4", "events": ["x"]}])
    captions = [{"video": "/data/nsr/001.mp4", "text": "no"}, {"video": "/data/ytb/001.mp4", "text": "yes"}][::order]
    intake = take(tmp_path, captions, truth)
    assert texts(intake) == {"s": "yes"}
    assert problems(intake) == {"unmatched caption": ["/data/nsr/001.mp4"]}
    assert texts(take(tmp_path, [{"video": "/data/nsr/001.mp4", "text": "moved"}], truth)) == {"s": "moved"}


def test_an_error_that_was_mended_by_a_later_caption_is_none(tmp_path, truth):
    intake = take(tmp_path, [{"id": "a", "text": None}, {"id": "a", "text": "A."}, {"id": "b", "text": None}], truth)
    assert texts(intake) == {"data/a.mp4": "A."}
    assert [failure.case.sample.sample_id for failure in intake.failures] == ["data/b.mp4"]


def test_what_finds_no_partner_is_named(tmp_path, truth):
    captions = [
        {"id": "a", "text": " \n"},
        {"id": "a", "text": "again"},
        {"id": "zebra", "text": "Z."},
        {"id": "b", "text": "filled up", "should_use": False},
    ]
    assert problems(take(tmp_path, captions, truth)) == {
        "empty caption": ["data/a.mp4"],
        "duplicate caption": ["a"],
        "unmatched caption": ["zebra"],
        "padding row": ["b"],
        "sample without a caption": ["data/b.mp4"],
    }


def test_empty_and_repeated_events_are_named(tmp_path):
    truth = write(
        tmp_path / "t.json", [{"id": "a", "events": []}, {"id": "b", "events": ["A dog barks", "a dog barks", "x"]}]
    )
    intake = take(tmp_path, {"a": "A.", "b": "B."}, truth)
    assert problems(intake) == {"sample without events": ["a"], "duplicate event": ["b"]}
    assert [len(case.sample.events) for case in intake.cases] == [0, 3]  # counted as they stand


def test_two_videos_of_one_file_name_are_not_mixed_up(tmp_path):
    truth = write(tmp_path / "t.json", [{"video": "x/a.mp4", "events": ["1"]}, {"video": "y/a.mp4", "events": ["2"]}])
    intake = take(tmp_path, [{"video": "y/a.mp4", "text": "Y."}, {"video": "a.mp4", "text": "?"}], truth)
    assert texts(intake) == {"y/a.mp4": "Y."}
    assert problems(intake)["unmatched caption"] == ["a.mp4"]
    assert any("2 samples" in problem.detail for problem in intake.problems)


def test_interval_captions_meet_the_sample_of_their_interval(tmp_path):
    rows = [{"video": "a.mp4", "events": EVENTS}, {"video": "a.mp4", "timestamps": [0, 3], "events": EVENTS[:1]}]
    truth = write(tmp_path / "t.json", rows)
    captions = [{"video": "a.mp4", "text": "whole"}, {"video": "a.mp4", "timestamps": [0.0, 3.0], "text": "part"}]
    assert texts(take(tmp_path, captions, truth)) == {"a.mp4": "whole", "a.mp4#t=0,3": "part"}


def test_an_interval_of_its_own_takes_the_events_that_begin_in_it(tmp_path, truth):
    captions = [{"video": "a.mp4", "interval_s": [2, 6], "text": "part"}, {"id": "b", "interval": [0, 1], "text": "x"}]
    intake = take(tmp_path, captions, truth)
    (case,) = intake.cases
    assert [event.text for event in case.sample.events] == ["a man runs"]  # at 4 s; the dog barks at 1 s
    (unmatched,) = [p for p in intake.problems if p.kind == "unmatched caption"]
    assert "do not all tell their time" in unmatched.detail


def test_events_without_a_modality_are_counted(truth):
    known = read_truth(truth)
    assert known.num_without_modality == 1  # "a cat sleeps"
    assert [event.event_id for sample in known.samples for event in sample.events] == ["e1", "e2", "e1"]


@pytest.mark.parametrize(
    "row",
    [
        {"video": "a.mp4", "reference_caption": "R."},
        {"video": "a.mp4", "ref": "R."},
        {"video": "a.mp4", "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "R."}]},
        {
            "video": "a.mp4",
            "conversations": [  # preference data of the first release: gpt is the chosen answer
                {"from": "gpt", "value": "C."},
                {"from": "reject_gpt", "value": "J."},
                {"from": "gt", "value": "R."},
            ],
        },
        {
            "video": "a.mp4",
            "conversations": [  # of the second: gpt is the truth
                {"from": "gpt", "value": "R."},
                {"from": "chosen", "value": "C."},
                {"from": "reject", "value": "J."},
            ],
        },
    ],
)
def test_a_reference_caption_alone_needs_events(tmp_path, row):
    intake = take(tmp_path, {"a": "A."}, write(tmp_path / "t.json", [row]))
    assert [sample.reference_caption for sample in intake.needs_events] == ["R."]
    assert not intake.problems


def test_official_test_set(tmp_path):
    turns = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "R."}]
    row = {"video": "video/1.mp4", "conversations": turns, "events": ["a dog barks", "a man runs"]}
    intake = take(tmp_path, {"1": "A."}, write(tmp_path / "t.json", [row]))
    (case,) = intake.cases
    assert [event.text for event in case.sample.events] == ["a dog barks", "a man runs"]
    assert not intake.needs_events


def test_samples_and_worlds_are_read_as_they_are(tmp_path):
    event = Event(event_id="v2", text="t", modality="visual", start_s=2.0, end_s=3.0)
    part = Sample(sample_id="w-1s-4s", video="clips/w.mp4", prompt="?", interval_s=(1.0, 4.0), events=(event,))
    write_jsonl(tmp_path / "samples.jsonl", [part])
    assert read_truth(tmp_path / "samples.jsonl").samples == (part,)
    empty = Sample(sample_id="w-5s-8s", video="clips/w.mp4", prompt="?", interval_s=(5.0, 8.0), reference_caption="No.")
    world = WorldTruth(
        clip_id="w",
        video="clips/w.mp4",
        difficulty="easy",
        domain="default",
        seed=1,
        duration_s=9.0,
        reference_caption="R.",
        events=(event,),
        intervals=(part, empty),
        scene={},
    )
    write_jsonl(tmp_path / "truth.jsonl", [world])
    known = read_truth(tmp_path / "truth.jsonl")
    assert [sample.sample_id for sample in known.samples] == ["w", "w-1s-4s", "w-5s-8s"]
    assert known.durations_s == {"clips/w.mp4": 9.0}
    intake = match([WrittenCaption(where="", names=("w-5s-8s",), text="No.")], known)
    assert not intake.needs_events  # in a rendered clip, no events means that nothing happens
    assert problems(intake)["sample without events"] == ["w-5s-8s"]


def test_a_writer_that_gives_one_id_to_all_captions_is_not_believed(tmp_path, truth):
    seen = {"frames": 1, "audio_seconds": 0, "visual_tokens": 1, "audio_tokens": 0}
    rows = [
        {
            "caption_id": "same",
            "sample_id": v,
            "video": v,
            "prompt": "",
            "text": v,
            "checkpoint": "m",
            "seen": seen,
            "decoding": {"max_new_tokens": 1},
            "finished": True,
            "duration_s": 1,
        }
        for v in "ab"
    ]
    ids = [case.caption_id for case in take(tmp_path, rows, truth).cases]
    assert ids[0] == "same" and len(set(ids)) == 2


@pytest.mark.parametrize(
    ("captions", "expected"),
    [
        ("[{]", "cannot be read as JSON"),
        ("7", "expected a list of objects"),
        ('["a"]', "row 1: got a str"),
        ('{"id": "a", "text": "A."}\n{"id": ', "line 2: not a line of JSON"),
        ([{"text": "A."}], "expected one that names the video"),
        ([{"id": "a"}], "expected one with the caption"),
        ([{"id": "a", "text": 3}], "expected text"),
        ([{"id": "a", "pred": "x", "caption": "y"}], "pred and caption; choose one with --caption-field"),
        ([{"id": "a", "text": "A.", "timestamps": [5, 2]}], "expected a start of 0 or more and an end after it"),
        ([{"id": "a", "text": "A.", "timestamps": "soon"}], "expected [start, end]"),
        ([{"id": "zebra", "text": "A."}], "got no caption of a sample of the truth"),
    ],
)
def test_bad_captions_are_one_line_that_says_where(tmp_path, truth, captions, expected):
    with pytest.raises(UserError) as error:
        take(tmp_path, captions, truth)
    assert expected in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], "without a row"),
        ([{"id": "a"}], "expected events or a reference caption"),
        ([{"id": "a", "events": [{"words": "x"}]}], "expected a string or an object with a text"),
        ([{"id": "a", "events": [""]}], "expected a string or an object with a text"),
        ([{"id": "a", "events": "dog, cat"}], "expected one"),
        ([{"id": "a", "events": [{"text": "x", "modality": "smell"}]}], "got the modality 'smell'"),
        ([{"id": "a", "events": [{"text": "x", "start": "2 s"}]}], "expected seconds"),
        ([{"id": "a", "events": [{"text": "x", "id": 1}, {"text": "y", "id": 1}]}], "event id '1' twice"),
    ],
)
def test_bad_truth_is_one_line_that_says_where(tmp_path, rows, expected):
    with pytest.raises(UserError) as error:
        read_truth(write(tmp_path / "truth.json", rows))
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_the_caption_field_can_be_chosen(tmp_path, truth):
    captions = [{"id": "a", "pred": "P.", "caption": "C."}]
    assert texts(take(tmp_path, captions, truth, text_field="caption")) == {"data/a.mp4": "C."}


def test_a_file_that_is_no_text_or_not_there(tmp_path, truth):
    (tmp_path / "captions.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="no text"):
        match(read_captions([tmp_path / "captions.json"]), read_truth(truth))
    with pytest.raises(UserError, match="cannot be read"):
        read_truth(tmp_path / "nothing.json")
