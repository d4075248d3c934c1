"""Files that are whole or not there: real kills, a real full disk, two real processes; and files of other people."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from avcap.errors import UserError, WriteError
from avcap.files import write
from avcap.files.claim import claim, refuse_external
from avcap.files.hashes import hash_ends, hash_file, hash_tensors
from avcap.files.lock import lock_file, lock_folder
from avcap.files.write import folder_aside, replacing, write_json, write_text
from avcap.records import CaptionError, journal, line_format, read_jsonl, write_jsonl

needs_flock = pytest.mark.skipif(sys.platform == "win32", reason="this system has no flock: work goes on unlocked")


def row(number: int, *, text: str = "gone") -> CaptionError:
    return CaptionError(sample_id=f"s{number}", video=f"{number}.mp4", error=text)


def start(code: str, *words: object) -> subprocess.Popen:
    """Python code in a process of its own, which prints a line once it has begun."""
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, words)], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "begun\n"
    return process


def kill(process: subprocess.Popen) -> None:
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()


# --- whole or as it was -----------------------------------------------------------------------------------------------

WRITE_FOR_EVER = """
import sys, itertools
from pathlib import Path
from avcap.files.write import replacing, write_text
text, folder = Path(sys.argv[1]), Path(sys.argv[2])
print("begun", flush=True)
for number in itertools.count():
    write_text(text, f"{number % 10}" * 300_000)
    with replacing(folder) as aside:
        aside.mkdir()
        for name in "ab":
            (aside / name).write_text(f"{number % 10}" * 1000)
"""


def test_a_writer_killed_at_any_moment_leaves_whole_files_and_nothing_for_long(tmp_path):
    text, folder = tmp_path / "one.txt", tmp_path / "folder"
    rng = random.Random(0)
    num_left = 0
    for _ in range(15):
        writer = start(WRITE_FOR_EVER, text, folder)
        time.sleep(rng.uniform(0.0, 0.05))
        kill(writer)
        if text.exists():
            content = text.read_text()
            assert len(content) == 300_000 and len(set(content)) == 1
        if folder.exists():
            contents = [(folder / name).read_text() for name in "ab"]
            assert contents[0] == contents[1] and len(contents[0]) == 1000
        num_left = max(num_left, len(list(tmp_path.glob("*.partial"))))
        assert len(list(tmp_path.glob("*.partial"))) <= 2  # of the last one: the next has cleared away all others
    assert num_left > 0, "no kill came in the middle of a write: it proves nothing"
    write._cleared.discard(tmp_path)
    write_text(text, "done")
    assert sorted(path.name for path in tmp_path.iterdir()) in (["folder", "one.txt"], ["one.txt"])


def test_a_failure_leaves_what_was_there_and_nothing_aside(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ValueError), replacing(path) as aside:
        aside.write_text("ne")
        raise ValueError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_other_peoples_partial_files_are_theirs(tmp_path):
    theirs = [tmp_path / "film.mp4.partial", tmp_path / "a.0123abcd-x-1.partial"]
    running = tmp_path / f"a.{write._host()}-{os.getppid()}-0.partial"
    elsewhere = tmp_path / "a.00000000-1-0.partial"  # another host's: whether it lives cannot be known
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead = tmp_path / f"a.{write._host()}-{gone.pid}-0.partial"
    for path in (*theirs, running, elsewhere, dead):
        path.write_text("half")
    write_text(tmp_path / "a", "whole")
    assert {*tmp_path.iterdir()} == {*theirs, running, elsewhere, tmp_path / "a"}


def test_a_link_is_followed_and_a_device_stays_one(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "real" / "a.json")
    write_json(link, {"a": 1})
    assert link.is_symlink() and json.loads((tmp_path / "real" / "a.json").read_text()) == {"a": 1}
    write_text(os.devnull, "nothing")
    assert not Path(os.devnull).is_file()


def test_a_folder_takes_the_place_of_a_folder(tmp_path):
    for text in ("old", "new"):
        with replacing(tmp_path / "deep" / "out") as aside:
            aside.mkdir()
            (aside / text).write_text(text)
    assert [path.name for path in (tmp_path / "deep" / "out").iterdir()] == ["new"]
    with folder_aside(tmp_path / "out") as workspace:
        (workspace / "x").write_text("")
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def test_names_as_long_as_they_can_be(tmp_path):
    path = tmp_path / ("n" * 255)
    write_text(path, "x")
    assert path.read_text() == "x"


# --- a full disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def full_after():
    """Sets how many bytes a file of this process can have: past it writing fails, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_said_once_and_what_was_there_stays(tmp_path, full_after):
    write_jsonl(tmp_path / "a.jsonl", [row(0)])
    full_after(2000)
    with pytest.raises(WriteError, match=r"a\.jsonl: cannot be written \(File too large\); make room and run it again"):
        write_jsonl(tmp_path / "a.jsonl", map(row, range(100)))
    assert list(read_jsonl(tmp_path / "a.jsonl", CaptionError)) == [row(0)]
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_journal_on_a_full_disk_has_all_rows_of_a_call_or_none(tmp_path, full_after):
    path = tmp_path / "a.jsonl"
    full_after(300)
    with journal(path, CaptionError) as rows:
        rows.append([row(0), row(1)])
        with pytest.raises(WriteError, match="make room and run it again: what is written is kept"):
            rows.append(map(row, range(2, 12)))
        assert list(rows.read()) == [row(0), row(1)] and rows.num_torn == 0
        full_after(3000)
        rows.append([row(2)])
    assert list(read_jsonl(path, CaptionError)) == [row(0), row(1), row(2)]


def test_a_disk_of_a_megabyte(tmp_path):
    """A file system that is really full; where this user may mount none, the limits above stand for it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    try:
        write_text(disk / "a.txt", "old")
        with pytest.raises(WriteError, match=r"a\.txt: cannot be written \(No space left on device\); make room"):
            write_text(disk / "a.txt", "x" * 2**21)
        assert (disk / "a.txt").read_text() == "old" and len(list(disk.iterdir())) == 1
        with journal(disk / "b.jsonl", CaptionError) as rows:
            rows.append([row(0)])
            with pytest.raises(WriteError, match="No space left on device"):
                rows.append([row(1, text="x" * 2**21)])
        assert list(read_jsonl(disk / "b.jsonl", CaptionError)) == [row(0)]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_places_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"file/a: cannot be written \(File exists\); check the path"):
        write_text(tmp_path / "file" / "a", "")
    with pytest.raises(WriteError, match="cannot be written"), journal(tmp_path, CaptionError):
        pass
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "b"):
        (tmp_path / "source").read_text()  # of another file: not told as if it were about this one


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(WriteError, match="Permission denied"):
        write_text(tmp_path / "a", "")


# --- journals ---------------------------------------------------------------------------------------------------------

APPEND_FOR_EVER = """
import sys, itertools
from avcap.records import CaptionError, journal
with journal(sys.argv[1], CaptionError) as rows:
    first = sum(1 for _ in rows.read())
    print("begun", flush=True)
    for number in itertools.count(first):
        rows.append([CaptionError(sample_id=f"s{number}", video="v", error="x" * (number % 7) * 3000)])
"""


def test_a_run_killed_at_any_moment_has_every_row_once(tmp_path):
    path = tmp_path / "a.jsonl"
    rng = random.Random(1)
    for _ in range(12):
        writer = start(APPEND_FOR_EVER, path)
        time.sleep(rng.uniform(0.0, 0.05))
        kill(writer)
    with journal(path, CaptionError) as rows:
        numbers = [int(found.sample_id[1:]) for found in rows.read()]
    assert numbers == list(range(len(numbers))) and len(numbers) > 12
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize("kept", [1, 12, 30, -1])
def test_a_torn_last_line_is_dropped_and_counted(tmp_path, kept, caplog):
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [row(0), row(1)])
    whole = path.read_bytes()
    first = whole[: whole.index(b"\n") + 1]
    path.write_bytes(first + whole[len(first) :][:kept])
    with caplog.at_level("INFO", logger="avcap"), journal(path, CaptionError) as rows:
        assert list(rows.read()) == [row(0)] and rows.num_torn == 1
        rows.append([row(1)])
    assert "half a line that a stopped run left is dropped" in caplog.text
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'{"question": "is this a row?"}\n', 1),
        (b'{"question": "is this a row?"}', 1),
        (b"My thesis\n", 1),
        (b"\xff\xfe\x00\n", 1),
        (b'{"sample_id": "s", "video": "v", "error": "e"}\nnotes of my own\n', 2),
        (b'{"sample_id": "s", "video": "v", "error": "e"}\nnotes of my own', 2),
        (b'{"sample_id": "s", "video": "v", "error": "e"}\n\xff\n', 2),
        (b'\n{"sample_id": "s"}\n', 2),
    ],
)
def test_what_is_no_journal_is_named_and_left_as_it_is(tmp_path, content, line):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.jsonl, line {line}: got no CaptionError"):  # noqa: SIM117
        with journal(path, CaptionError) as rows:
            list(rows.read())
    assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


def test_lines_may_hold_what_unicode_calls_an_end_of_line(tmp_path):
    odd = row(0, text="a\u2028b\x85c\udcff")
    with journal(tmp_path / "a.jsonl", CaptionError) as rows:
        rows.append([odd, row(1)])
        assert list(rows.read()) == [odd, row(1)]
        rows.rewrite(found for found in rows.read() if found == odd)
        rows.append([row(2)])
    assert list(read_jsonl(tmp_path / "a.jsonl", CaptionError)) == [odd, row(2)]


def test_a_line_begins_with_its_first_field():
    assert line_format(CaptionError).may_be_torn(b'{"sam')
    assert line_format(CaptionError).may_be_torn(b'{"sample_id": "x')
    assert not line_format(CaptionError).may_be_torn(b'{"video')


# --- one process ------------------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from avcap.files.lock import lock_file, lock_folder
with (lock_folder if sys.argv[1] == "folder" else lock_file)(sys.argv[2]):
    print("begun", flush=True)
    time.sleep(60)
"""


@needs_flock
@pytest.mark.parametrize(("kind", "hold"), [("folder", lock_folder), ("file", lock_file)])
def test_a_second_process_is_told_who_writes_and_a_dead_one_is_no_obstacle(tmp_path, kind, hold):
    path = tmp_path / "out"
    holder = start(HOLD, kind, path)
    with pytest.raises(UserError, match=rf"out: process {holder.pid} on .* is writing it; wait for it"), hold(path):
        pass
    kill(holder)
    with hold(path):
        assert list(tmp_path.rglob("*.lock"))
    assert not list(tmp_path.rglob("*.lock"))


@needs_flock
def test_many_processes_take_turns(tmp_path):
    """The lock file is deleted and made anew all the time: two must never hold it together."""
    code = """
import sys, time
from avcap.errors import UserError
from avcap.files.lock import lock_file
print("begun", flush=True)
done = 0
while done < 30:
    try:
        with lock_file(sys.argv[1]):
            number = int(open(sys.argv[1]).read())
            time.sleep(0.0005)
            open(sys.argv[1], "w").write(str(number + 1))
            done += 1
    except UserError:
        time.sleep(0.0005)
"""
    path = tmp_path / "count"
    path.write_text("0")
    writers = [start(code, path) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert path.read_text() == "90"  # 3 processes of 30 turns


# --- whose is it ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("marker", ["run.json", "config.yaml"])
def test_a_folder_is_one_runs(tmp_path, marker):
    run = {"recipe": "r", "optim": {"lr": 0.1, "betas": (0.9, 0.99)}, "world": None}
    claim(tmp_path / "new", marker, run)
    (tmp_path / "new" / "rows.jsonl").write_text("")
    claim(tmp_path / "new", marker, run)
    other = run | {"optim": {"lr": 0.2, "betas": (0.9, 0.99)}}
    with pytest.raises(UserError, match=r"another configuration; optim\.lr: got 0\.1 there, 0\.2 here"):
        claim(tmp_path / "new", marker, other)
    with pytest.raises(UserError, match="seed: got nothing there, 1 here"):
        claim(tmp_path / "new", marker, run | {"seed": 1})


def test_a_folder_with_other_things_is_no_runs(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"holds 'thesis\.tex' and was not begun by this command"):
        claim(tmp_path, "run.json", {"a": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "run.json").write_text("not JSON")
    with pytest.raises(UserError, match=r"run\.json: cannot be read"):
        claim(tmp_path, "run.json", {"a": 1})
    assert (tmp_path / "run.json").read_text() == "not JSON"


@pytest.mark.parametrize(
    ("marker", "text", "run"),
    [
        (
            "world.json",
            '{"num_clips": 3, "seed": 4, "difficulty": "easy", "domain": "default", "version": 1}\n',
            {"num_clips": 3, "seed": 4, "difficulty": "easy", "domain": "default", "version": 1},
        ),
        (
            "run.json",
            '{\n  "model": "tiny@1",\n  "methods": [\n    "generate"\n  ]\n}\n',
            {"model": "tiny@1", "methods": ("generate",)},
        ),
        (
            "config.yaml",
            "recipe: r\nmodel:\n- a@1\n- b@2\nbetas:\n- 0.9\n",
            {"recipe": "r", "model": ["a@1", "b@2"], "betas": (0.9,)},
        ),
    ],
)
def test_folders_of_version_0_1_are_gone_on_with(tmp_path, marker, text, run):
    (tmp_path / marker).write_text(text)
    (tmp_path / "rows.jsonl").write_text("")
    claim(tmp_path, marker, run)
    assert (tmp_path / marker).read_text() == text


def test_what_may_stand_before_a_claim(tmp_path):
    (tmp_path / "round-1").mkdir()
    claim(tmp_path, "config.yaml", {"a": 1}, ours=["round-*"])
    assert (tmp_path / "config.yaml").read_text() == "a: 1\n"


def test_a_file_that_is_not_ours_is_refused(tmp_path):
    path = tmp_path / "a.json"
    refuse_external(path, is_ours=lambda file: False, expected="a calibration")  # not there
    path.write_text("mine")
    with pytest.raises(UserError, match=r"a\.json: is there already and is not a calibration, expected no file or"):
        refuse_external(path, is_ours=lambda file: bool(json.loads(file.read_text())), expected="a calibration")
    refuse_external(path, is_ours=lambda file: True, expected="a calibration")
    with pytest.raises(UserError, match="got a folder"):
        refuse_external(tmp_path, is_ours=lambda file: True, expected="a calibration")


# --- names of content -------------------------------------------------------------------------------------------------


def test_hashes_change_with_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    # sha256("abc"), as in FIPS 180-2
    assert hash_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    before = hash_ends([tmp_path / "a"])
    (tmp_path / "a").write_bytes(b"abd")
    assert hash_ends([tmp_path / "a"]) != before


def test_tensors_are_hashed_as_label_and_bytes():
    import hashlib

    tensors = [("x", torch.tensor([1, 2], dtype=torch.uint8)), ("y", torch.tensor(1.0, dtype=torch.bfloat16))]
    # 1.0 in bfloat16 is 0x3f80, little-endian
    expected = hashlib.sha256(b"x\x01\x02" + b"y\x80\x3f").hexdigest()
    assert hash_tensors(tensors, digest=hashlib.sha256()) == expected
    turned = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8).T
    assert hash_tensors([("", turned)], digest=hashlib.sha256()) == hashlib.sha256(b"\x01\x03\x02\x04").hexdigest()


# --- arrows of a run --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Score:
    rounds: int
    rates: dict[str, float]


def test_an_arrow_is_computed_once(tmp_path):
    from avcap.run_folder import record, records

    calls: list[str] = []

    def rows():
        calls.append("rows")
        yield row(0)
        if len(calls) == 1:
            raise KeyboardInterrupt
        yield row(1)

    with pytest.raises(KeyboardInterrupt):
        records(tmp_path / "a.jsonl", CaptionError, rows)
    assert not list(tmp_path.iterdir())
    for _ in range(2):
        assert records(tmp_path / "a.jsonl", CaptionError, rows) == [row(0), row(1)]
    score = Score(rounds=1, rates={"missing": 0.1})
    assert record(tmp_path / "b.json", Score, lambda: score) == score
    assert record(tmp_path / "b.json", Score, lambda: pytest.fail("computed again")) == score
    assert calls == ["rows", "rows"]
    (tmp_path / "b.json").write_text("[]")
    with pytest.raises(UserError, match=r"b\.json: .*expected a Score"):
        record(tmp_path / "b.json", Score, lambda: score)
