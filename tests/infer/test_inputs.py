"""Words of a command line become files: lists as people and programs write them, links, odd names."""

import os
import unicodedata

import pytest

from avcap.errors import UserError
from avcap.infer.inputs import find_media

NAMES = [
    "#shorts funny.mp4",
    "clip [1080p].mp4",
    "café.mp4",
    " lead.mp4",
    "trail.mp4 ",
    "-x.mp4",
    "\u2028.mp4",
    "a\x85b.mp4",
    "\udcff.mp4",
    "#",
    '"q".mp4',
    "a\tb.mp4",
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        (tmp_path / name).touch()
    return tmp_path


def write(path, text: str, *, encoding: str = "utf-8") -> str:
    path.write_bytes(text.encode(encoding, errors="surrogateescape"))
    return str(path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\0"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_name_in_a_list_is_that_file(here, end, mark):
    if mark and end == "\0":
        pytest.skip("find writes no marks")
    found = find_media([write(here / "list.txt", mark + "".join(name + end for name in NAMES))])
    assert found.paths == NAMES and not found.not_taken


def test_lists_of_powershell_are_read(here):
    names = [name for name in NAMES if "\udcff" not in name]
    found = find_media([write(here / "list.txt", "\ufeff" + "\r\n".join(names), encoding="utf-16-le")])
    assert found.paths == names


def test_comments_blanks_quotes_and_spaces(here):
    lines = ["# two files", "", "  \t", '"clip [1080p].mp4"', "  café.mp4  ", "#café.mp4", "'none.mp4'", "no such.mp4 "]
    found = find_media([write(here / "list.txt", "\n".join(lines))])
    assert found.paths == ["clip [1080p].mp4", "café.mp4", "'none.mp4'", "no such.mp4"]  # two rows with errors
    assert found.not_taken.describe() == "1 line of a list was passed over as comments: no file is called so"


def test_names_with_line_ends_come_in_by_find_print0(here):
    (here / "a\nb.mp4").touch()
    assert find_media([write(here / "list.txt", "a\nb.mp4\0-x.mp4\0")]).paths == ["a\nb.mp4", "-x.mp4"]


def test_accents_are_found_however_they_are_written(here):
    other = unicodedata.normalize("NFD", "café.mp4")
    assert other != "café.mp4"
    assert find_media([write(here / "list.txt", other), other]).paths == ["café.mp4"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x89PNG\r\n\0\0\0", "it is no text"),
        (b"caf\xe9.mp4\n", r"the line 'caf\\udce9.mp4' is no UTF-8, and names no file"),
        (b"# nothing\n\n", "got a list without a path"),
        (b"", "got a list without a path"),
    ],
)
def test_lists_that_are_none_are_refused(here, data, message):
    (here / "list.txt").write_bytes(data)
    with pytest.raises(UserError, match=rf"list\.txt: .*{message}"):
        find_media(["list.txt"])


def test_a_list_that_never_ends_is_refused(here):
    os.symlink("/dev/zero", here / "list.TXT")
    with pytest.raises(UserError, match=r"a list that cannot be read \(got a device"):
        find_media(["list.TXT"])


def test_a_file_is_taken_once_whatever_it_is_called(here):
    (here / "in").mkdir()
    (here / "in" / "a.mp4").touch()
    os.symlink("in", here / "link")
    found = find_media(["in", "./in", str(here / "in"), "link", "in/a.mp4", "link/../in/a.mp4"])
    assert found.paths == ["in/a.mp4"]
    assert found.not_taken.num_again == 5


def test_patterns_of_any_depth_end_in_folders_that_lead_to_themselves(here):
    (here / "in" / "deep").mkdir(parents=True)
    for name in ("in/a.mp4", "in/deep/b.mp4", "in/deep/c.txt", "in/d.mkv"):
        (here / name).touch()
    for name in ("one", "two"):
        os.symlink(".", here / "in" / name)
    assert sorted(find_media(["in/**/*.mp4"]).paths) == ["in/a.mp4", "in/deep/b.mp4"]
    assert sorted(find_media(["in/**/deep/*"]).paths) == ["in/deep/b.mp4", "in/deep/c.txt"]
    assert sorted(find_media(["in/**"]).paths) == ["in/a.mp4", "in/d.mkv", "in/deep/b.mp4"]
    assert find_media(["**/b.*"]).paths == ["in/deep/b.mp4"]
    with pytest.raises(UserError, match="a pattern that no file matches"):
        find_media(["in/**/*.webm"])


def test_a_folder_without_media_says_what_it_has(here):
    (here / "in").mkdir()
    (here / "in" / "a.json").touch()
    with pytest.raises(UserError, match=r"in: got a folder without media files \(1 file was not taken: 1 .json\)"):
        find_media(["in"])
