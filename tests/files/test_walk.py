"""Folders, links and names: what is found, what is not taken and told, and which of two names are one file."""

import os
from collections import Counter
from pathlib import Path

import pytest

from avcap.errors import UserError
from avcap.files import walk
from avcap.files.lock import lock_file
from avcap.files.names import common_tail, disagree, longest_tail, short_names
from avcap.files.walk import NotTaken, RealPaths, files_below, is_media


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(folder: Path) -> tuple[list[str], NotTaken]:
    not_taken = NotTaken()
    files = files_below(str(folder), is_expected=is_media, not_taken=not_taken)
    return [os.path.relpath(file.path, folder) for file in files], not_taken


def test_everything_in_a_folder_is_taken_or_counted(tmp_path):
    taken = ["a.MP4", "b c.mkv", "deep/er/x.Wav", "zz.webm"]
    make(
        tmp_path,
        *taken,
        *(f"{n}.txt" for n in range(9)),
        *(f"deep/{n}.JPG" for n in range(3)),
        "README",
        ".x.mp4",
        ".git/y.mp4",
        ".git/z.mp4",
    )
    files, not_taken = found(tmp_path)
    assert sorted(files) == sorted(taken)
    assert not_taken == NotTaken(by_suffix=Counter({".txt": 9, ".jpg": 3, "": 1}), num_hidden=1, num_hidden_folders=1)
    assert not_taken.describe() == (
        "14 files were not taken: 9 .txt, 3 .jpg, 1 without a suffix, 1 hidden; 1 hidden folder was not searched"
    )


def test_links_are_followed_once_and_real_names_come_first(tmp_path):
    make(tmp_path, "in/b.mp4", "in/sub/c.mp4", "out/d.mp4")
    os.symlink("../out", tmp_path / "in" / "a_link")
    os.symlink("../../out", tmp_path / "in" / "sub" / "again")
    os.symlink("..", tmp_path / "in" / "loop")
    os.symlink("sub", tmp_path / "in" / "same")
    os.symlink("b.mp4", tmp_path / "in" / "a.mp4")
    os.symlink("nothing.mp4", tmp_path / "in" / "broken.mp4")
    os.symlink("self.mp4", tmp_path / "in" / "self.mp4")
    files, _ = found(tmp_path / "in")
    assert files[:2] == ["b.mp4", "sub/c.mp4"]
    assert sorted(files[2:]) == ["a.mp4", "a_link/d.mp4", "broken.mp4", "self.mp4"]  # the last two: rows with errors
    reals = [file.real for file in files_below(str(tmp_path / "in"), is_expected=is_media, not_taken=NotTaken())]
    assert len(set(reals)) == len(reals) - 1  # a.mp4 is b.mp4


def test_two_loops_end(tmp_path):
    """Entered as often as names allow, they would be 2 ** 40 folders."""
    make(tmp_path, "a.mp4")
    os.symlink(".", tmp_path / "one")
    os.symlink(".", tmp_path / "two")
    assert found(tmp_path)[0] == ["a.mp4"]


def test_no_file_is_looked_at(tmp_path, monkeypatch):
    """1,000 files in 10 folders: one stat and one listing for each of the 11 folders."""
    make(tmp_path, *(f"{n % 10}/{n}.mp4" for n in range(1000)))
    calls: Counter[str] = Counter()
    for module, name in ((os, "stat"), (os, "lstat"), (os, "scandir"), (os.path, "realpath")):
        real = getattr(module, name)

        def counted(*args, real=real, name=name, **more):
            calls[name] += 1
            return real(*args, **more)

        monkeypatch.setattr(module, name, counted)
    assert len(found(tmp_path)[0]) == 1000
    depth = len(tmp_path.parts) + 1  # realpath asks for each part of a folder's path
    assert calls["scandir"] == calls["stat"] == calls["realpath"] == 11
    assert calls["lstat"] <= 11 * depth


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    make(tmp_path, "a.mp4", "secret/b.mp4")
    real = os.scandir

    def refuse(place):
        if str(place).endswith("secret"):
            raise PermissionError(13, "Permission denied", place)
        return real(place)

    monkeypatch.setattr(walk.os, "scandir", refuse)
    with pytest.raises(UserError, match=r"secret: got a folder that cannot be read \(Permission denied\)"):
        found(tmp_path)


def test_many_kinds_are_summed_up():
    told = NotTaken(by_suffix=Counter({f".{n:02}": 20 - n for n in range(10)}), num_comments=2, num_again=1).describe()
    assert told.startswith("155 files were not taken: 20 .00, 19 .01") and "13 .07, 23 of 2 other kinds;" in told
    assert "1 name was not taken: the same files were named before;" in told
    assert told.endswith("; 2 lines of lists were passed over as comments: no file is called so")


def test_all_spellings_of_a_file_are_one(tmp_path, monkeypatch):
    make(tmp_path, "in/a.mp4", "in/b.mp4")
    os.symlink("in", tmp_path / "link")
    os.symlink("in/a.mp4", tmp_path / "x.mp4")
    monkeypatch.chdir(tmp_path)
    real = RealPaths()
    spellings = ["in/a.mp4", "./in/a.mp4", "in/../in//a.mp4", "link/a.mp4", "x.mp4", str(tmp_path / "link" / "a.mp4")]
    assert {real(name) for name in spellings} == {str(tmp_path.resolve() / "in" / "a.mp4")}
    assert real("in/b.mp4") != real("in/a.mp4") and real("none.mp4") == str(tmp_path.resolve() / "none.mp4")


def test_a_link_to_a_file_has_its_lock(tmp_path):
    make(tmp_path, "out.jsonl", "far/x")
    os.symlink("../out.jsonl", tmp_path / "far" / "other.jsonl")
    with lock_file(tmp_path / "out.jsonl"):
        assert (tmp_path / "out.jsonl.lock").exists()
        held = pytest.raises(UserError, match=r"other.jsonl: process \d+ on .* is writing it")
        with held, lock_file(tmp_path / "far" / "other.jsonl"):
            pass


@pytest.mark.parametrize(
    ("one", "other", "parts", "differ"),
    [
        ("/data/vids/ytb/001.mp4", "ytb/001.mp4", 2, False),
        ("/data/vids/nsr/001.mp4", "ytb/001.mp4", 1, True),
        ("C:\\vids\\ytb\\001.mp4", "/x/ytb/001.mkv", 2, True),
        ("./001.mp4", "001", 1, False),
        ("cafe\u0301/a.mp4", "caf\u00e9/a.mp4", 2, False),
        ("a/b.mp4", "a/c.mp4", 0, True),
        ("", "a", 0, False),
    ],
)
def test_paths_of_two_machines_are_compared_from_their_ends(one, other, parts, differ):
    assert common_tail(one, other) == common_tail(other, one) == parts
    assert disagree(one, other) == disagree(other, one) == differ


def test_the_longest_tail_decides():
    names = ["ytb/001.mp4", "nsr/001.mp4", "001.mp4"]
    assert longest_tail("/d/nsr/001.mp4", names) == ["nsr/001.mp4"]
    assert longest_tail("/d/zzz/001.mp4", names) == names


def test_files_of_one_name_are_shown_with_their_folders():
    assert short_names(["a/x/1.mp4", "b/x/1.mp4", "a/x/2.mp4", "1.mp4"]) == {
        "a/x/1.mp4": "a/x/1.mp4",
        "b/x/1.mp4": "b/x/1.mp4",
        "a/x/2.mp4": "2.mp4",
        "1.mp4": "1.mp4",
    }
