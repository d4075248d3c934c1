"""Rows of lists: the field's names of columns, places seen from the list, and bad rows that are rows of errors."""

import json
import math

import pyarrow as pa
import pytest
from pyarrow import parquet

from avcap.bulk.inputs.columns import item_of
from avcap.bulk.inputs.find import find_items
from avcap.bulk.inputs.items import Item, OwnPrompts
from avcap.bulk.places import Root
from avcap.data.request import Request
from avcap.errors import UserError
from avcap.records import Decoding

REQUEST = Request(decoding=Decoding(max_new_tokens=9))


def write(path, *rows) -> str:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"video": "a.mp4"}, Item(video="in/a.mp4")),
        ({"File_Name": " a.mp4 ", "caption": "old"}, Item(video="in/a.mp4")),
        ({"media_path": "/x/a.mp4", "id": 7}, Item(video="/x/a.mp4", sample_id="7")),
        ({"path": "file:///x/a.mp4"}, Item(video="/x/a.mp4")),
        ({"videos": ["a.mp4"], "prompt": "Who?"}, Item(video="in/a.mp4", prompt="Who?")),
        ({"video": {"path": "a.mp4", "bytes": None}}, Item(video="in/a.mp4")),
        ({"video": "a.mp4", "start": 3, "end": "00:07"}, Item(video="in/a.mp4", interval_s=(3.0, 7.0))),
        ({"video": "a.mp4", "start_time": "1:00:01.5"}, Item(video="in/a.mp4", interval_s=(3601.5, math.inf))),
        ({"video": "a.mp4", "interval_s": [2, 4.5]}, Item(video="in/a.mp4", interval_s=(2.0, 4.5))),
        # one number is when a file was made, and no part of it
        ({"video": "a.mp4", "timestamp": 1700000000, "end": ""}, Item(video="in/a.mp4")),
    ],
)
def test_a_row_says_what_is_to_be_captioned(row, expected):
    assert item_of(row, path="in/list.jsonl", number=1) == expected


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"caption": "x"}, "got no file; expected one of the columns video"),
        ({"video": ["a.mp4", "b.mp4"]}, "got 2 videos in a row, expected one"),
        ({"video": "https://x/a.mp4"}, "got https://x/a.mp4, expected a file on this machine"),
        ({"video": 3}, "got '3' for its file, expected a path"),
        ({"video": "a.mp4", "start": 7, "end": 3}, "got the interval 7 to 3 s"),
        ({"video": "a.mp4", "start": "soon"}, "got the time 'soon', expected seconds"),
        ({"video": "a.mp4", "span": [[1, 2], [3, 4]]}, "expected .start, end. in seconds; one a row"),
        ("a.mp4", "got str, expected an object"),
    ],
)
def test_a_bad_row_is_an_item_that_says_why(row, reason):
    item = item_of(row, path="in/list.jsonl", number=4)
    assert item.sample_id == "in/list.jsonl#row=4"
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(item.error)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_a_list_of_any_form_is_read_row_by_row(suffix, tmp_path):
    path, rows = tmp_path / f"list.{suffix}", [{"video": "a.mp4", "prompt": "Who?"}, {"video": "b/c.mp4", "prompt": ""}]
    if suffix == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif suffix == "csv":
        path.write_text("video;prompt\na.mp4;Who?\nb/c.mp4;\n")
    else:
        write(path, *([rows] if suffix == "json" else rows))
    found = find_items([str(path)])
    assert [(item.video, item.prompt) for item in found.items] == [
        (f"{tmp_path}/a.mp4", "Who?"),
        (f"{tmp_path}/b/c.mp4", ""),
    ]
    assert found.lists == [str(path)]


def test_rows_are_taken_once_and_an_id_of_two_is_an_error(tmp_path):
    first = write(
        tmp_path / "1.jsonl",
        {"video": "a.mp4", "id": "x"},
        "{no json\n",
        {"video": "a.mp4", "id": "x"},
        {"video": "b.mp4", "id": "x"},
        {"video": "a.mp4", "start": 1, "end": 2},
        {"video": "a.mp4", "start": 2, "end": 3},
    )
    second = write(tmp_path / "2.jsonl", {"video": "./b.mp4"}, {"video": "b.mp4"})
    found = find_items([first, second])
    assert [item.sample(REQUEST).sample_id.removeprefix(f"{tmp_path}/") for item in found.items] == [
        "x",
        "1.jsonl#row=2",
        "x#again",
        "a.mp4#t=1,2",
        "a.mp4#t=2,3",
        "./b.mp4",
    ]
    assert [bool(item.error) for item in found.items] == [False, True, True, False, False, False]
    assert found.not_taken.num_again == 2  # the third row, and b.mp4 under its other name


def test_a_file_of_something_else_is_refused_and_not_taken_for_a_list_of_errors(tmp_path):
    with pytest.raises(UserError, match=r"got 2 rows and no video in any of them .*row 1: got no file"):
        find_items([write(tmp_path / "log.jsonl", {"loss": 1}, {"loss": 2})])
    with pytest.raises(UserError, match="got no rows, expected a list of videos"):
        find_items([write(tmp_path / "empty.jsonl", "")])
    with pytest.raises(UserError, match="got no such file, expected a list of videos or a shard"):
        find_items([str(tmp_path / "none.jsonl")])
    with pytest.raises(UserError, match="cannot be read as parquet"):
        find_items([write(tmp_path / "x.parquet", "no")])


def test_ids_prompts_and_intervals_of_rows_come_before_those_of_the_command_line():
    asked = Request(decoding=Decoding(max_new_tokens=9), prompt="All?", interval_s=(0.0, 5.0))
    item = Item(video="a.mp4", sample_id="x", prompt="Who?")
    sample = item.sample(asked)
    assert (sample.sample_id, sample.prompt, sample.interval_s) == ("x#t=0,5", "Who?", (0.0, 5.0))
    sample = Item(video="a.mp4", interval_s=(2.0, 3.0)).sample(asked)
    assert (sample.sample_id, sample.prompt, sample.interval_s) == ("a.mp4#t=2,3", "All?", (2.0, 3.0))
    own = OwnPrompts([item], asked)
    assert own.request_of("x#t=0,5").prompt == "Who?" and own.request_of("a.mp4").prompt == "All?"


def test_names_below_the_root_tell_the_rows_of_a_file_apart():
    root = Root(folder="/in")
    assert Item(video="/in/a/b.mp4", interval_s=(3.0, 7.25)).name(root) == "a/b_3-7.25.mp4"
    assert Item(video="/in/a/b.mp4", interval_s=(3.0, math.inf)).name(root) == "a/b_3-.mp4"
