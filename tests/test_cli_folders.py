"""`avcap caption --out FOLDER`, `merge` and `filter` as a user has them: real videos and model, exit codes, lines."""

import json
import time
from pathlib import Path

import pytest

from avcap.bulk.outputs.h3 import H3_PROMPT
from avcap.bulk.outputs.subtitles import SUBTITLE_PROMPT
from avcap.bulk.places import Root
from avcap.captioners import find_source
from avcap.cli.folders import FolderFlags, folder_job, is_folder
from avcap.data.request import Request
from avcap.infer.caption_file import read_rows
from avcap.infer.find_checkpoint import find_checkpoint
from avcap.records import Caption, Decoding


@pytest.fixture
def clips(videos, tmp_path) -> Path:
    """Two clips of one stem in two folders, one beside them, and a file that is none."""
    folder = tmp_path / "clips"
    for name, video in (("x/001.mp4", "a"), ("y/001.mp4", "b"), ("c.mp4", "c")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).hardlink_to(videos / f"{video}.mp4")
    (folder / "broken.mp4").write_text("no video")
    return folder


def test_a_folder_is_captioned_beside_its_clips(random_checkpoint, clips, run):
    (clips / "c.txt").write_text("my own")
    words = ("caption", clips, "--model", random_checkpoint, "--out", f"{clips}/")
    code, out, err = run(*words)
    assert (code, out) == (1, "")
    assert "captions.jsonl: 3 captions written, 1 errors, 0 captions were there already" in err
    assert "2 files of captions written (txt)" in err
    assert (
        "1 files are there that avcap did not make, or that were edited since, and were left as they are: c.txt" in err
    )
    texts = {row.video: row.text for row in read_rows(clips / "captions.jsonl") if isinstance(row, Caption)}
    assert (clips / "x/001.txt").read_text() == texts[str(clips / "x/001.mp4")]
    assert (clips / "y/001.txt").read_text() == texts[str(clips / "y/001.mp4")] != texts[str(clips / "x/001.mp4")]
    assert (clips / "c.txt").read_text() == "my own"
    code, _, err = run(*words)
    assert code == 1 and "0 captions written, 0 errors, 3 captions were there already" in err
    assert "1 clips failed before and were not tried again; --retry-failed does" in err
    (clips / "broken.mp4").unlink()
    (clips / "broken.mp4").hardlink_to(clips / "c.mp4")
    (clips / "c.txt").unlink()
    code, _, err = run(*words, "--retry-failed", "--format", "ltx", "--format", "txt")
    assert code == 0 and "1 captions written, 0 errors, 3 captions were there already" in err
    rows = json.loads((clips / "dataset.json").read_text())
    assert [row["video"] for row in rows] == ["broken.mp4", "c.mp4", "x/001.mp4", "y/001.mp4"]


def test_samples_are_printed_to_be_looked_at(random_checkpoint, clips, tmp_path, run):
    (clips / "broken.mp4").unlink()
    out = tmp_path / "new"  # no suffix: a folder
    code, printed, err = run("caption", clips, "--model", random_checkpoint, "--out", out, "--sample", 2)
    assert code == 0 and "the same command without --sample captions the rest" in err
    assert [line.split("  ")[0] for line in printed.splitlines() if "frames" in line] == ["c.mp4", "y/001.mp4"]
    assert sorted(path.name for path in out.rglob("*.txt")) == ["001.txt", "c.txt"]


def test_shards_merged_equal_one_process(random_checkpoint, clips, tmp_path, run):
    words = ("caption", clips, "--model", random_checkpoint)
    assert run(*words, "--out", tmp_path / "one")[0] == 1
    shards = []
    for index in (1, 2):
        code, _, err = run(*words, "--out", tmp_path / "out", "--shard", f"{index}/2")
        assert code in (0, 1), err
        shards.append(tmp_path / "out" / f"captions.{index}-of-2.jsonl")
        run(*words, "--out", tmp_path / f"{index}.jsonl", "--shard", f"{index}/2")
        assert sorted(shards[-1].read_text().splitlines()) == sorted(
            (tmp_path / f"{index}.jsonl").read_text().splitlines()
        )
    code, _, err = run("merge", tmp_path / "all.jsonl", *shards[::-1])
    assert code == 0 and "3 captions and 1 errors of 2 files" in err
    assert (tmp_path / "all.jsonl").read_bytes() == (tmp_path / "one" / "captions.jsonl").read_bytes()


def test_subtitles_of_the_intervals_of_a_clip(random_checkpoint, clips, tmp_path, run):
    words = ("caption", clips, "--model", random_checkpoint, "--out", tmp_path / "o", "--every", 2)
    code, _, err = run(*words, "--format", "srt", "--format", "vtt")
    assert code == 1 and "broken.mp4: got a file that cannot be opened" in err
    assert "intervals.jsonl: 5 captions written, 1 errors, 0 captions were there already" in err
    (clips / "broken.mp4").unlink()
    rows = {
        row.sample_id.removeprefix(f"{clips}/"): row
        for row in read_rows(tmp_path / "o" / "intervals.jsonl")
        if isinstance(row, Caption)
    }
    # 4 s, 3 s and 2 s in intervals of 2 s, the last of each without an end
    assert list(rows) == [
        f"{name}&track=sound"
        for name in ("c.mp4#t=0,2", "c.mp4#t=2,", "x/001.mp4#t=0,2", "x/001.mp4#t=2,", "y/001.mp4#t=0,")
    ]
    assert {row.seen.frames for row in rows.values()} == {0}
    assert (tmp_path / "o/x/001.vtt").read_text().startswith("WEBVTT\n")
    assert (tmp_path / "o/c.srt").exists() and (tmp_path / "o/y/001.srt").exists()
    code, _, err = run(*words, "--format", "srt")
    assert code == 0 and "0 captions written, 0 errors, 5 captions were there already" in err


def test_captions_are_filtered(random_checkpoint, clips, tmp_path, run):
    run("caption", clips, "--model", random_checkpoint, "--out", tmp_path / "o")
    code, out, err = run("filter", tmp_path / "o", "--where", "repetition<2 and not has_audio")
    assert (code, out) == (0, "")
    assert "kept.jsonl: 0 captions kept" in err and "dropped.jsonl: 4 dropped" in err
    assert "3 dropped: not has_audio" in err and "1 dropped: no caption" in err


@pytest.mark.slow
def test_killed_in_the_middle_a_folder_goes_on(random_checkpoint, videos, tmp_path, run, forks):
    clips, out = tmp_path / "clips", tmp_path / "out"
    clips.mkdir()
    for index in range(40):
        (clips / f"{index:02}.mp4").hardlink_to(videos / "b.mp4")
    words = (
        "caption",
        clips,
        "--model",
        random_checkpoint,
        "--out",
        out,
        "--batch-size",
        1,
        "--format",
        "ltx",
        "--format",
        "txt",
    )
    process = forks.begin(*words)
    while len(list(out.glob("*.txt"))) < 3:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.kill()
    process.wait()
    code, _, err = run(*words)
    assert code == 0, err
    assert run(*words[:4], "--out", tmp_path / "whole", "--format", "ltx", "--format", "txt")[0] == 0
    for name in ("captions.jsonl", "dataset.json", *(f"{index:02}.txt" for index in range(40))):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("out", "formats", "expected"),
    [
        ("new", [], True),
        ("new/", [], True),
        ("new.d/", [], True),
        ("new.d", ["srt"], True),
        ("there", [], True),
        ("there.d", [], True),
        ("new.jsonl", [], False),
        ("file", [], False),
        ("/dev/null", [], False),
    ],
)
def test_what_out_means(out, formats, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("there", "there.d"):
        Path(name).mkdir()
    Path("file").write_text("")
    assert is_folder(out, flags=FolderFlags(formats=formats)) is expected


def test_forms_that_need_another_prompt_bring_it_for_models_that_know_more_than_one_world():
    request = Request(decoding=Decoding(max_new_tokens=9))
    engine = find_source("openai:omni@http://127.0.0.1:1/v1")
    tiny = find_source(find_checkpoint("tiny"))

    def prompt(source, name, request=request):
        flags, videos = FolderFlags(formats=[name]), ["a.mp4"]
        job = folder_job(
            "o", Root(folder="."), videos, request, flags=flags, source=source, rows_at_once=1, deadline_s=1.0
        )
        return job.request.prompt

    assert [prompt(engine, name) for name in ("h3", "srt", "ltx")] == [H3_PROMPT, SUBTITLE_PROMPT, None]
    assert [prompt(tiny, name) for name in ("h3", "srt", "ltx")] == [None, None, None]
    own = Request(decoding=request.decoding, prompt="My own.")
    assert [prompt(engine, name, own) for name in ("h3", "srt")] == ["My own.", "My own."]
