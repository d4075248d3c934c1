"""The door for users' text: what any editor or program writes is read, what would be lost or never end is refused."""

import csv
import io
import json
import os
import random
import threading

import pytest

from avcap.errors import UserError
from avcap.texts import json_text, read, tables, yaml_text

TEXT = "name: café\nsecond: line\n"


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        b"\xef\xbb\xbf" + TEXT.encode(),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("\n", "\r").encode(),
        b"\xff\xfe" + TEXT.encode("utf-16-le"),
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
        b"\xff\xfe\x00\x00" + TEXT.encode("utf-32-le"),
    ],
    ids=["plain", "mark", "windows", "old mac", "utf-16 le", "utf-16 be", "utf-32"],
)
def test_a_text_is_the_same_whoever_wrote_it(tmp_path, data):
    (tmp_path / "t").write_bytes(data)
    assert read.read_text(tmp_path / "t", expected="a text") == TEXT
    assert list(read.read_lines(tmp_path / "t", expected="a text")) == [(1, "name: café"), (2, "second: line")]


def test_joined_files_have_their_marks_dropped(tmp_path):
    (tmp_path / "t").write_bytes(b"\xef\xbb\xbf{}\n\xef\xbb\xbf[1]\n")
    assert list(json_text.read_json_lines(tmp_path / "t", expected="JSONL")) == [(1, {}), (2, [1])]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a\nb\ncaf\xe9\n", "line 3 has the byte 0xe9, which is no UTF-8; save it as UTF-8; expected a text"),
        (TEXT.encode("utf-16-le"), "UTF-16 without a byte-order mark"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "line 1 has the byte 0x89"),
        (b"abcdef\x00g", "got NUL characters; it is no text"),
        (b"\xff\xfe\x00", "it is no text"),
    ],
)
def test_what_is_no_text_is_refused_with_its_line(tmp_path, data, message):
    (tmp_path / "t").write_bytes(data)
    for reader in (read.read_text, lambda *args, **more: list(read.read_lines(*args, **more))):
        with pytest.raises(UserError) as caught:
            reader(tmp_path / "t", expected="a text")
        assert message in str(caught.value) and str(caught.value).startswith(f"{tmp_path / 't'}")


def test_devices_folders_and_missing_files_are_refused(tmp_path):
    for path, message in (
        ("/dev/zero", "a device"),
        ("/dev/null", "a device"),
        (tmp_path, "a folder"),
        (tmp_path / "none", "No such file"),
        (tmp_path / ("x" * 5000), "name too long"),
        ("a\0b", "NUL"),
    ):
        with pytest.raises(UserError, match=f"(?i){message}.*expected a text"):
            read.read_text(path, expected="a text")


def test_a_pipe_is_read_and_one_without_a_writer_given_up(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(read, "PIPE_WAIT_S", 0.05)
    with pytest.raises(UserError, match="a pipe that nobody writes to, expected a text"):
        read.read_text(tmp_path / "pipe", expected="a text")
    monkeypatch.setattr(read, "PIPE_WAIT_S", 10.0)
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_text('{"a": 1}\n{"a": 2}\n'))
    writer.start()
    is_lines, values = json_text.read_json_or_lines(tmp_path / "pipe", expected="JSON")
    assert is_lines and [value for _, value in values] == [{"a": 1}, {"a": 2}]
    writer.join()


def test_what_is_too_large_is_refused_before_it_is_read(tmp_path, monkeypatch):
    with open(tmp_path / "hole", "wb") as handle:
        handle.truncate(2**40)  # takes no room
    with pytest.raises(UserError, match=r"got 1,099,511,627,776 bytes, expected a YAML file of at most 4,194,304"):
        yaml_text.read_yaml(tmp_path / "hole", expected="a YAML file")
    monkeypatch.setattr(read, "LONGEST_LINE", 10)
    (tmp_path / "t").write_text("0123456789\n0123456789a\n")
    with pytest.raises(UserError, match="line 2: got more than 10 characters without a line's end"):
        list(read.read_lines(tmp_path / "t", expected="a text"))


# --- JSON -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": NaN}', "NaN is no number of JSON"),
        ("[-Infinity]", "-Infinity is no number"),
        ("[1e999]", "1e999 is larger than any number"),
        ('{"a": 1, "b": 2, "a": 3}', "the field 'a' stands twice"),
        ("[" * 200_000, "nested too deeply"),
        ("9" * 5000, "digit"),
        ("", "Expecting value"),
        ("{'a': 1}", "Expecting property name"),
    ],
)
def test_json_that_others_refuse_or_read_otherwise_is_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        json_text.parse_json(text)
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(UserError, match=rf"t\.json.*({message}|the file is empty)"):
        json_text.read_json(tmp_path / "t.json", expected="JSON")


def test_the_line_of_a_number_that_is_none_is_named_and_strings_are_not_taken_for_it(tmp_path):
    (tmp_path / "t.json").write_text('{"NaN": "NaN, \\"NaN",\n "b": [1,\n NaN]}')
    with pytest.raises(UserError, match=r"t\.json, line 3: "):
        json_text.read_json(tmp_path / "t.json", expected="JSON")


def test_all_other_json_is_read_as_python_reads_it():
    rng = random.Random(0)

    def value(depth: int):
        kind = rng.randrange(7 if depth else 5)
        if kind == 5:
            return [value(depth - 1) for _ in range(rng.randrange(4))]
        if kind == 6:
            return {rng.choice('abcdé\ud800 "\\') * rng.randrange(1, 4): value(depth - 1) for _ in range(3)}
        return [None, True, rng.randrange(-(10**20), 10**20), rng.uniform(-1e300, 1e300), "\ud83dx\u2028\0"][kind]

    for _ in range(300):
        data = value(4)
        assert json_text.parse_json(json.dumps(data)) == data
        assert json_text.parse_json("\ufeff" + json.dumps(data, ensure_ascii=False)) == data


@pytest.mark.parametrize(
    ("text", "is_lines", "values"),
    [
        ('\n{"a": 1}\n\n{"a": 2}\n', True, [(2, {"a": 1}), (4, {"a": 2})]),
        ('{"a": 1}', False, [(1, {"a": 1})]),
        ('[{"a": 1},\n {"a": 2}]', False, [(1, [{"a": 1}, {"a": 2}])]),
        ('{\n "a":\n 1}', False, [(1, {"a": 1})]),
        ('{"a":\n\n 1}', False, [(1, {"a": 1})]),
    ],
)
def test_json_and_jsonl_are_told_apart_in_one_reading(tmp_path, text, is_lines, values):
    (tmp_path / "t").write_text(text)
    found, read_values = json_text.read_json_or_lines(tmp_path / "t", expected="JSON")
    assert (found, list(read_values)) == (is_lines, values)


# --- tables -----------------------------------------------------------------------------------------------------------

CELLS = ("A tree, in a park.", "A bus; then\na bell.", 'He says "hi"', "a|b", "tab\there", "", "1,5", "sep=;", "x" * 99)


@pytest.mark.parametrize("delimiter", tables.DELIMITERS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_table_is_the_same_in_every_dialect(tmp_path, delimiter, end, suffix, mark):
    rows = [{"video": f"v{index}.mp4", "caption": cell} for index, cell in enumerate(CELLS)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["video", "caption"], delimiter=delimiter, lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    path = tmp_path / f"t{suffix}"
    for encoding in ("utf-8", "utf-16"):
        path.write_bytes((mark * (encoding == "utf-8") + text.getvalue()).encode(encoding))
        found = list(tables.read_table(path, names=("video", "caption"), expected="CSV"))
        assert found == list(enumerate(rows, start=1))
    path.write_bytes(f"sep={delimiter}{end}{text.getvalue()}".encode())
    assert [row for _, row in tables.read_table(path, names=(), expected="CSV")] == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("\n \n", "the file is empty"),
        ('video,caption\na,"never\nends\n', "got no CSV"),
        ("video,caption\na,b,c\n", "row 1: got another number of cells"),
        ("video,caption\na\n", "row 1: got another number of cells"),
        ("video,caption,caption\na,b,c\n", "two columns called 'caption'"),
        ("video,caption\na,b\0c\n", "NUL characters"),
    ],
)
def test_tables_that_would_lose_something_are_refused(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        list(tables.read_table(tmp_path / "t.csv", names=("video",), expected="CSV"))


def test_rows_of_empty_cells_are_none_and_headers_have_no_spaces(tmp_path):
    (tmp_path / "t.csv").write_text(" video ; caption\n;\na;b\n;;\n".replace(";;\n", ";\n"))
    found = list(tables.read_table(tmp_path / "t.csv", names=("video",), expected="CSV"))
    assert found == [(1, {"video": "a", "caption": "b"})]


# --- YAML -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "'a' stands twice"),
        ("a: {x: 1, x: 2}", "'x' stands twice"),
        ("a: .nan", "nan is no number"),
        ("a: [1, -.inf]", "-inf is no number"),
        ("a: 2020-13-45", "month"),
        ("a: [", "while parsing"),
        ("a: !!python/object/apply:os.system [id]", "could not determine a constructor"),
        ("[" * 100_000, "nested too deeply"),
        ("a: &a [*a]", "more than 100,000 values"),
        (
            "a0: &a0 [1,2,3,4,5,6,7,8,9,0]\n"
            + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)),
            "more than 100,000 values",
        ),
        ("? [1, 2]\n: 3", "unhashable|hash"),
        ("a: \x07", "special characters"),
    ],
)
def test_yaml_that_loses_or_blows_up_is_refused(text, message):
    with pytest.raises(UserError, match=f"(?s)here: cannot be read as YAML.*{message}"):
        yaml_text.parse_yaml(text, where="here")


def test_plain_yaml_is_read():
    text = "\ufeffbase: &base {lr: 1}\nrun:\n  <<: *base\n  lr: 5e-4\n"
    assert yaml_text.parse_yaml(text, where="here") == {"base": {"lr": 1}, "run": {"lr": "5e-4"}}
