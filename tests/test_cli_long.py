"""`avcap caption` of lists, shards, clips and long videos as a user has it: real files and model, exit codes, lines."""

import json
import tarfile
from pathlib import Path

import pytest
from support.scripted_server import ScriptedServer

from avcap.infer.caption_file import read_rows


@pytest.fixture
def film(videos, tmp_path) -> Path:
    """A folder with c.mp4, of 4 s, and b.mp4, of 2 s."""
    folder = tmp_path / "films"
    folder.mkdir()
    for name in ("b.mp4", "c.mp4"):
        (folder / name).hardlink_to(videos / name)
    return folder


def test_lists_and_shards_go_wherever_files_do(random_checkpoint, film, run, tmp_path):
    rows = [
        {"file_name": "b.mp4", "prompt": "Describe the video in detail."},
        {"file_name": "c.mp4", "start": 1, "end": 3},
    ]
    (film / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"file_name": 3}\n')
    with tarfile.open(film / "s.tar", "w") as shard:
        shard.add(film / "c.mp4", arcname="k.mp4")
    words = ("caption", film / "list.jsonl", film / "s.tar", "--model", random_checkpoint)
    code, out, err = run(*words)
    assert code == 1 and "list.jsonl, row 3: got '3' for its file, expected a path" in err
    assert [line.split("  ")[0] for line in out.splitlines() if "frames" in line] == ["b.mp4", "c.mp4", "k.mp4"]
    code, _, err = run(*words, "--out", tmp_path / "out.jsonl")
    assert code == 1 and "3 captions written, 1 errors" in err
    made = {row.sample_id.rpartition("/")[2]: row for row in read_rows(tmp_path / "out.jsonl")}
    assert set(made) == {"b.mp4", "c.mp4#t=1,3", "list.jsonl#row=3", "k"}
    assert made["c.mp4#t=1,3"].interval_s == (1.0, 3.0) and made["k"].video.endswith("s.tar/k.mp4")
    code, _, err = run(*words, "--out", tmp_path / "out.jsonl")
    assert code == 1 and "0 captions written, 1 errors, 3 captions were there already" in err


def test_files_are_cut_into_clips(random_checkpoint, film, run, tmp_path):
    words = ("caption", film, "--model", random_checkpoint, "--out", tmp_path / "o", "--split", 2, "--toc")
    code, _, err = run(*words)
    assert code == 0 and "2 files were cut into 3 clips (--split)" in err and "3 captions written" in err
    assert (tmp_path / "o" / "c" / "clip_0002.txt").exists() and (tmp_path / "o" / "c.toc.md").exists()
    intervals = [row.interval_s for row in read_rows(tmp_path / "o" / "captions.jsonl")]
    assert intervals == [(0.0, 2.0), (0.0, 2.0), (2.0, 4.0)]  # of b, and two of c
    code, _, err = run(*words)
    assert code == 0 and "0 captions written, 0 errors, 3 captions were there already" in err


def test_a_long_video_is_captioned_in_windows_and_summed_up(random_checkpoint, film, run, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    words = ("caption", film, "--model", random_checkpoint, "--out", tmp_path / "o", "--window", 2.5, "--overlap", 0.5)
    with ScriptedServer(answer=lambda body: "Noise, all through.") as server:
        code, _, err = run(*words, "--summary", f"openai:text@{server.url}", "--toc")
    assert code == 0, err
    assert "1 captions are of windows of 2.5 s, overlapping by 0.5 s, summed up by openai:text" in err
    assert (tmp_path / "o" / "c.txt").read_text() == "Noise, all through."
    row = {Path(one.video).name: one for one in read_rows(tmp_path / "o" / "captions.jsonl")}["c.mp4"]
    assert len(row.windows) == 2 and row.windows[-1].end_s == pytest.approx(4.0, abs=0.1)
    assert len(list(read_rows(tmp_path / "o" / "windows.jsonl"))) == 2
    code, _, err = run(*words)
    assert code == 2 and "got captions of windows of 2.5 s, overlapping by 0.5 s, summed up by openai:text in it" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--split", "2"], "got --split without a folder to write to; add --out FOLDER/"),
        (["--window", "2", "--out", "x.jsonl"], "got --window without a folder to write to"),
        (["--split", "2", "--window", "2", "--out", "o/"], "and --window, which makes one caption; leave one out"),
        (["--overlap", "2", "--out", "o/"], "got --overlap without --window"),
        (["--toc", "--out", "o/"], "got --toc without --window or --split"),
        (["--split", "now", "--out", "o/"], "got --split now, expected scenes or a number of seconds"),
        (["--window", "1", "--out", "o/"], "expected a window of at least 2 s"),
        (["--window", "9", "--overlap", "8", "--out", "o/"], "an overlap of at most half of it"),
        (["--window", "9", "--summary", "oracle", "--out", "o/"], "got --summary oracle, expected openai:NAME@URL"),
        (["--window", "9", "--start", "3", "--out", "o/"], "which are of whole files; leave one out"),
        (["--window", "9", "--format", "srt", "--out", "o/"], "got --window and subtitles"),
    ],
)
def test_options_that_do_not_go_together(words, message, film, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run("caption", film, *words)
    assert code == 2 and message in err
    assert not (tmp_path / "o").exists()
