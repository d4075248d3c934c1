"""file: URLs: below the open folders, and nowhere else, whatever leads there."""

import os

import pytest

from avcap.web.server.call import MediaPart
from avcap.web.server.fetch import Fetcher
from avcap.web.server.files import NOT_OPENED, file_of_url, opened_below
from avcap.web.server.parts import PartOpener
from avcap.web.server.refusals import Refused
from avcap.web.server.settings import Access, Limits


@pytest.fixture
def place(tmp_path):
    """An open folder with a file and ways out of it, beside one that is closed."""
    (tmp_path / "open" / "deep").mkdir(parents=True)
    (tmp_path / "open" / "a b.mp4").write_bytes(b"film")
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "secret").write_bytes(b"secret")
    (tmp_path / "open-too").mkdir()
    (tmp_path / "open-too" / "secret").write_bytes(b"secret")
    (tmp_path / "open" / "link").symlink_to(tmp_path / "closed" / "secret")
    (tmp_path / "open" / "folder").symlink_to(tmp_path / "closed")
    (tmp_path / "open" / "inside").symlink_to(tmp_path / "open" / "a b.mp4")
    os.mkfifo(tmp_path / "open" / "pipe")
    return tmp_path


def opener(*folders, most=1000) -> PartOpener:
    access = Access(folders=folders)
    return PartOpener(access=access, limits=Limits(file_bytes=most), fetcher=Fetcher(access=access))


def opened(url, place, *folders, most=1000) -> bytes:
    part = MediaPart(kind="video", param="p.video_url", source=url)
    target = place / "target"
    target.mkdir(exist_ok=True)
    return (
        opener(*folders, most=most).open(part, folder=target, name="0", most_bytes=10**6, end_s=0.0).path.read_bytes()
    )


def test_a_file_below_an_open_folder_is_copied(place):
    folder = place / "open"
    assert opened(f"file://{folder}/a%20b.mp4", place, folder) == b"film"
    assert opened(f"FILE://localhost{folder}/a%20b.mp4", place, folder) == b"film"
    assert opened(f"file://{folder}/inside", place, folder) == b"film"  # a link that stays within
    assert opened(f"file://{folder}/deep/../a%20b.mp4", place, folder) == b"film"


@pytest.mark.parametrize(
    "path",
    [
        "{0}/closed/secret",
        "{0}/open/../closed/secret",
        "{0}/open/%2e%2e/closed/secret",
        "{0}/open/..%2fclosed%2fsecret",
        "{0}/open/%252e%252e/closed/secret",
        "{0}/open/link",
        "{0}/open/folder/secret",
        "{0}/open-too/secret",
        "{0}/open",
        "{0}/open/",
        "{0}/open/pipe",
        "{0}/open/gone",
        "{0}/open/gone/../../closed/secret",
        "/etc/passwd",
        "/proc/self/environ",
        "/dev/zero",
        "/dev/stdin",
    ],
)
def test_nothing_else_is_and_all_of_it_is_told_in_one_sentence(path, place):
    with pytest.raises(Refused) as caught:
        opened("file://" + path.format(place), place, place / "open")
    assert (caught.value.status, caught.value.message) == (403, NOT_OPENED)


@pytest.mark.parametrize(
    "url",
    [
        "file://{0}/open/a%20b.mp4%00.png",
        "file://other.example/open/a.mp4",
        "file:a.mp4",
        "file://..{0}/open/a%20b.mp4",
        "file://{0}/open/a%20b.mp4?x",
        "file://{0}/open/a%20b.mp4#t=1",
        "file://[::1",
    ],
)
def test_urls_that_name_no_file_here_are_refused(url, place):
    with pytest.raises(Refused, match="got a file: URL"):
        opened(url.format(place), place, place / "open")


def test_without_an_open_folder_no_file_is_opened(place):
    with pytest.raises(Refused, match="start the server with --allow-dir"):
        opened(f"file://{place}/open/a%20b.mp4", place)


def test_a_file_that_is_too_large_is_refused(place):
    with pytest.raises(Refused) as caught:
        opened(f"file://{place}/open/a%20b.mp4", place, place / "open", most=3)
    assert caught.value.status == 413


def test_a_folder_that_becomes_a_link_between_check_and_opening_lets_nobody_out(place, monkeypatch):
    """os.open is made to find the folder replaced, as a process that races us would at the worst moment."""
    folder = place / "open"
    (folder / "deep" / "secret").write_bytes(b"film")
    real_open = os.open

    def open_after_swap(path, flags, *rest):
        if os.fsencode(path).endswith(b"deep/secret"):
            (folder / "deep" / "secret").unlink()
            (folder / "deep").rmdir()
            (folder / "deep").symlink_to(place / "closed")
        return real_open(path, flags, *rest)

    monkeypatch.setattr("avcap.web.server.files.os.open", open_after_swap)
    path = file_of_url(f"file://{folder}/deep/secret", param="p")
    with pytest.raises(Refused, match="not opened here"), opened_below(path, [folder], param="p"):
        pass
    assert (folder / "deep").is_symlink()  # the race was run


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("data:video/mp4;base64,!!!!", "no base64"),
        ("data:video/mp4,plain", "not data:TYPE;base64"),
        ("data:video/mp4;base64,", "got no bytes"),
        ("data:video/mp4;base64,AAAA AAAA", "no base64"),
        ("/etc/passwd", "no bytes|no base64"),
        ("../../etc/passwd", "no base64"),
        ("javascript:alert(1)", "expected data:"),
        ("gopher://127.0.0.1/", "expected data:"),
        ("data:" + "x" * 500 + ";base64,AAAA", "not data:TYPE;base64"),
        ("A" * 1400, "more than 1,000 bytes"),
    ],
)
def test_sources_that_are_no_media_are_refused(source, message, place):
    with pytest.raises(Refused, match=message):
        opened(source, place)
