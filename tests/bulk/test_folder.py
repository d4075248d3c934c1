"""A folder of captions: nothing of anybody else's is touched, and whatever stopped it, it goes on to the same end."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from support.bulk_model import DECODING, Model, caption_of, contents

from avcap.bulk.clips import Part
from avcap.bulk.cuts.cutter import equal_intervals
from avcap.bulk.filter import COLUMNS
from avcap.bulk.folder import caption_folder
from avcap.bulk.inputs.items import Item
from avcap.bulk.job import FolderJob
from avcap.bulk.merge import merge_captions
from avcap.bulk.places import Root, Shard, find_root, order_key, read_shard
from avcap.bulk.subtitles import audio_request
from avcap.bulk.where import read_where
from avcap.bulk.wording import Wording
from avcap.data.request import Request
from avcap.errors import UserError
from avcap.files.journal import Journal
from avcap.infer.caption_file import read_rows
from avcap.records import Caption, CaptionError, Seen, read_jsonl, write_jsonl

SIDE_CARS = {"a/001.txt", "b/001.txt", "b/é 2.txt", "c.txt"}


def test_each_clip_has_its_side_car_at_its_place(fill, tmp_path):
    told = fill(tmp_path / "out", Model({"c.wav": "Wind."}))
    found = contents(tmp_path / "out")
    assert set(found) == {*SIDE_CARS, "captions.jsonl"}
    assert found["c.txt"] == "Wind." and found["a/001.txt"] == "The 001.mp4."
    assert (told.num_new, told.num_written, told.is_whole) == (4, 4, True)


def test_beside_the_clips_and_again_nothing_is_written_or_asked(fill, clips):
    fill(clips)
    before = {path: path.stat().st_mtime_ns for path in clips.rglob("*.txt")}
    model = Model()
    told = fill(clips, model)
    assert (told.num_old, told.num_new, told.num_written, model.asked) == (4, 0, 0, [])
    assert {path: path.stat().st_mtime_ns for path in clips.rglob("*.txt")} == before


def test_what_avcap_did_not_make_is_left_counted_and_written_once_it_is_moved(fill, clips):
    (clips / "c.txt").write_text("my own")
    (clips / "a/001.txt").mkdir()
    (clips / "b/001.txt").symlink_to("nowhere")
    told = fill(clips)
    assert told.external == ["c.txt", "a/001.txt", "b/001.txt"] and not told.is_whole
    assert (clips / "c.txt").read_text() == "my own" and (clips / "b/001.txt").is_symlink()
    assert not (clips / "b" / "nowhere").exists()
    (clips / "c.txt").unlink()
    model = Model()
    told = fill(clips, model)
    assert (clips / "c.txt").read_text() == "The c.wav." and model.asked == []
    assert told.external == ["a/001.txt", "b/001.txt"]


def test_what_a_person_edited_is_that_persons_and_our_own_is_written_anew(fill, clips):
    fill(clips)
    (clips / "c.txt").write_text("better")
    told = fill(clips, wording=Wording(trigger="sks"))
    assert told.external == ["c.txt"] and (clips / "c.txt").read_text() == "better"
    assert (clips / "a/001.txt").read_text() == "sks The 001.mp4."
    fill(clips)  # and back: both contents are ours
    assert (clips / "a/001.txt").read_text() == "The 001.mp4."


def test_a_table_of_somebody_elses_is_refused_before_any_work(fill, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dataset.json").write_text("[]")
    model = Model()
    with pytest.raises(UserError, match=r"dataset\.json: is there already and is not of avcap"):
        fill(tmp_path / "out", model, forms=("ltx",))
    assert model.asked == [] and (tmp_path / "out" / "dataset.json").read_text() == "[]"


def test_a_record_of_somebody_elses_or_of_another_model_is_refused_and_nothing_is_made(fill, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "captions.jsonl").write_text('{"mine": 1}\n')
    with pytest.raises(UserError, match=r"captions\.jsonl, line 1: got no row of captions"):
        fill(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["captions.jsonl"]


def test_clips_with_a_side_car_are_left_out_with_keep_existing(fill, clips):
    (clips / "c.txt").write_text("my own")
    model = Model()
    told = fill(clips, model, keep_existing=True)
    assert sorted(model.asked) == ["001.mp4", "001.mp4", "é 2.mov"]
    assert (told.num_kept, told.external, told.is_whole) == (1, [], True)
    assert (clips / "c.txt").read_text() == "my own"


def test_two_clips_of_one_stem_in_one_folder_are_told(fill, clips):
    (clips / "a/001.mov").write_bytes(b"x")
    told = fill(clips)
    assert [(one.name, one.reason) for one in told.left_out] == [("a/001.mp4", "a/001.txt is that of a/001.mov")]
    assert (clips / "a/001.txt").read_text() == "The 001.mov."
    assert {row.video for row in read_rows(clips / "captions.jsonl")} >= {
        str(clips / "a/001.mov"),
        str(clips / "a/001.mp4"),
    }


def test_failed_clips_are_quarantined_and_asked_again_only_when_told(fill, clips):
    told = fill(clips, Model(bad=("c.wav",)))
    (row,) = read_jsonl(clips / "quarantine.jsonl", CaptionError)
    assert row.error == "c.wav: is no video" and row.video == str(clips / "c.wav") and not told.is_whole
    model = Model()
    told = fill(clips, model)
    assert (model.asked, told.num_old_errors, told.is_whole) == ([], 1, False)
    told = fill(clips, model, retry_failed=True)
    assert (model.asked, told.num_new, told.is_whole) == (["c.wav"], 1, True)
    assert (clips / "quarantine.jsonl").read_text() == "" and (clips / "c.txt").exists()


def test_samples_are_spread_and_paid_once(fill, clips):
    model = Model()
    told = fill(clips, model, num_samples=2)
    assert model.asked == ["c.wav", "é 2.mov"]  # the first and the last in order
    assert [Path(caption.video).name for caption in told.samples] == ["c.wav", "é 2.mov"]
    fill(clips, model)
    assert model.asked == ["c.wav", "é 2.mov", "001.mp4", "001.mp4"]


def test_empty_captions_are_counted_and_truncated_ones_too(fill, clips):
    told = fill(clips, Model({"c.wav": "  "}))
    assert told.num_empty == 1 and not (clips / "c.txt").exists()


def test_a_condition_decides_what_is_written_and_the_record_keeps_all(fill, clips):
    model = Model({"c.wav": "one two three four five one two three four five"})
    fill(clips, model)
    assert (clips / "c.txt").exists()
    where = read_where("repetition<0.1", kinds=COLUMNS)
    told = fill(clips, model, forms=("txt", "metadata"), where=where)
    assert told.num_filtered == 1 and told.is_whole
    assert not (clips / "c.txt").exists() and (clips / "a/001.txt").exists()
    assert "c.wav" not in (clips / "metadata.jsonl").read_text()
    fill(clips, model)
    assert (clips / "c.txt").exists() and len(model.asked) == 4
    (clips / "c.txt").write_text("edited")
    fill(clips, where=where)
    assert (clips / "c.txt").read_text() == "edited"


@pytest.mark.parametrize("stop_at", range(1, 14))
def test_stopped_anywhere_it_comes_to_the_same_end(stop_at, fill, clips, tmp_path, monkeypatch):
    """A stop before any replacement of a file, and before any line of a journal: the n-th of all of them."""
    fill(tmp_path / "whole", forms=("txt", "ltx"))
    calls = 0

    def count(real):
        def counted(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == stop_at:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        return counted

    with monkeypatch.context() as patched:
        patched.setattr("avcap.files.write.os.replace", count(os.replace))
        patched.setattr("avcap.files.journal.Journal.append", count(Journal.append))
        try:
            fill(tmp_path / "out", forms=("txt", "ltx"), rows_at_once=1)
        except KeyboardInterrupt:
            pass
        else:
            assert calls < stop_at
    told = fill(tmp_path / "out", forms=("txt", "ltx"), rows_at_once=1)
    assert told.external == []
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_tables_rows_are_all_of_the_record_whose_files_are_there(fill, clips, tmp_path):
    out = tmp_path / "out"
    fill(out, forms=("ltx",))
    (clips / "b/é 2.mov").unlink()
    told = fill(out, videos=[str(clips / "a/001.mp4")], forms=("ltx",))
    rows = json.loads((out / "dataset.json").read_text())
    assert [row["video"] for row in rows] == [str(clips / "a/001.mp4"), str(clips / "b/001.mp4")]
    assert told.num_gone == 1 and [one.name for one in told.left_out] == ["c.wav"]


# --- roots, shards, merging -------------------------------------------------------------------------------------------


def test_the_root_is_the_folder_that_was_named_or_the_deepest_that_holds_all(clips, tmp_path):
    a, b = str(clips / "a/001.mp4"), str(clips / "b/001.mp4")
    assert find_root([str(clips)], [a]).folder == str(clips)
    assert find_root([a], [a]).folder == str(clips / "a")
    assert find_root([a, str(clips / "b")], [a, b]).folder == str(clips)
    assert find_root([a], [a], relative_to=tmp_path).relative(a) == "clips/a/001.mp4"
    with pytest.raises(UserError, match=r"got a file outside .*expected all files below it"):
        find_root([a, b], [a, b], relative_to=clips / "a").relative(b)
    with pytest.raises(UserError, match="got no folder for --relative-to"):
        find_root([a], [a], relative_to=clips / "nothing")


def test_files_of_a_folder_come_before_its_folders():
    names = ["b/a.mp4", "a.mp4", "b.mp4", "a/z.mp4", "a/b/c.mp4"]
    assert sorted(names, key=order_key) == ["a.mp4", "b.mp4", "a/z.mp4", "a/b/c.mp4", "b/a.mp4"]


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3", "", "٣/٤", "1/1000000000"])
def test_shards_that_cannot_be(text):
    with pytest.raises(UserError, match="expected I/N with I from 1 to N"):
        read_shard(text)


def test_every_clip_is_of_one_shard_whatever_comes_later():
    names = [f"{index}.mp4" for index in range(200)]
    shards = [Shard(index=index, count=3) for index in (1, 2, 3)]
    held = [[name for name in names if shard.holds(name)] for shard in shards]
    assert sorted(name for some in held for name in some) == sorted(names)
    assert all(40 < len(some) < 95 for some in held)  # 200 / 3 = 67
    # 8 bytes of sha256 as a number, modulo 3
    assert shards[0].holds("0.mp4") == (int.from_bytes(hashlib.sha256(b"0.mp4").digest()[:8]) % 3 == 0)


def test_shards_merged_are_what_one_process_writes(fill, clips, tmp_path):
    bad = ("001.mp4",)
    fill(tmp_path / "one", Model(bad=bad))
    out = tmp_path / "out"
    for index in (3, 1, 2):
        told = fill(out, Model(bad=bad), shard=Shard(index=index, count=3), forms=("txt", "ltx"))
        assert told.skipped_tables == ("dataset.json",)
    files = sorted(out.glob("captions.*-of-3.jsonl"))
    assert len(files) == 3
    merged = merge_captions(out / "captions.jsonl", files[::-1])
    assert (out / "captions.jsonl").read_bytes() == (tmp_path / "one" / "captions.jsonl").read_bytes()
    assert (merged.num_captions, merged.num_errors, merged.num_same) == (2, 2, 0)
    model = Model()
    fill(out, model, forms=("txt", "ltx"))  # what shards wrote is ours, and the table is made now
    assert model.asked == [] and (out / "dataset.json").exists()
    assert merge_captions(out / "captions.jsonl", [out / "captions.jsonl", *files]).num_same == 4


def test_merging_refuses_two_models_and_two_captions_and_takes_a_caption_for_an_error(tmp_path):
    def write(name: str, *rows) -> Path:
        write_jsonl(tmp_path / name, rows)
        return tmp_path / name

    one = write("1.jsonl", caption_of("b.mp4", "B."), CaptionError(sample_id="a.mp4", video="a.mp4", error="late"))
    two = write("2.jsonl", caption_of("a.mp4", "A."))
    out = tmp_path / "out.jsonl"
    assert merge_captions(out, [one, two]).num_same == 1
    assert [row.text for row in read_rows(out)] == ["A.", "B."]
    for other, message in (
        (caption_of("c.mp4", "C.", checkpoint="other"), r"of another model \(other\) than .*1\.jsonl has \(model@1\)"),
        (caption_of("c.mp4", "C.", prompt="What?"), "of another prompt"),
        (caption_of("b.mp4", "Another."), "got another caption of b.mp4"),
    ):
        before = out.read_bytes()
        with pytest.raises(UserError, match=message):
            merge_captions(out, [one, write("3.jsonl", other)])
        assert out.read_bytes() == before
    (tmp_path / "mine.jsonl").write_text("mine\n")
    with pytest.raises(UserError, match=r"mine\.jsonl: is there already and is not a file of captions"):
        merge_captions(tmp_path / "mine.jsonl", [one])


def test_merging_sorts_intervals_by_their_times(tmp_path):
    rows = [
        caption_of("a.mp4", "x", sample_id=f"a.mp4#t={start},", interval_s=(float(start), float(start + 5)))
        for start in (10, 5, 100, 0)
    ]
    write_jsonl(tmp_path / "1.jsonl", rows)
    merge_captions(tmp_path / "out.jsonl", [tmp_path / "1.jsonl"])
    assert [row.interval_s[0] for row in read_rows(tmp_path / "out.jsonl")] == [0.0, 5.0, 10.0, 100.0]


# --- subtitles --------------------------------------------------------------------------------------------------------


def test_of_a_file_the_audio_alone_is_asked_about():
    request = audio_request(Request(decoding=DECODING))
    parts = [Part(item=Item(video="a.mp4"), name="a.mp4", interval_s=part) for part in equal_intervals(7.0, every_s=5)]
    assert [part.sample(request).sample_id for part in parts] == ["a.mp4#t=0,5&track=sound", "a.mp4#t=5,&track=sound"]
    with pytest.raises(UserError, match="got --no-audio and subtitles"):
        audio_request(Request(decoding=DECODING, use_audio=False))


def test_subtitles_are_timed_by_intervals_whatever_times_the_model_writes(videos, tmp_path):
    """Real files are measured: a lasts 3 s, c 4 s, silent has no audio; broken is none."""
    (tmp_path / "broken.mp4").write_text("no video")

    def stream(samples):
        for sample in samples:
            start_s, end_s = sample.interval_s
            yield Caption(
                **{
                    **vars(caption_of(sample.video, f"At 99s, a bell rings {len(sample.sample_id)} times.")),
                    "sample_id": sample.sample_id,
                    "interval_s": (start_s, min(end_s, 4.2)),
                    "duration_s": 3.0 if "a.mp4" in sample.video else 4.0,
                    "seen": Seen(frames=0, audio_seconds=2.0, visual_tokens=0, audio_tokens=4),
                }
            )

    paths = [str(videos / name) for name in ("a.mp4", "c.mp4", "silent.mp4")] + [str(tmp_path / "broken.mp4")]
    job = FolderJob(
        out=tmp_path / "out",
        root=Root(folder="/"),
        videos=tuple(paths),
        request=audio_request(Request(decoding=DECODING)),
        subtitles=("srt",),
        every_s=2.0,
    )
    told = caption_folder(job, stream=stream, check=lambda row: None)
    assert (told.num_new, told.num_without_audio, len(told.new_errors)) == (4, 1, 1)
    written = {Path(name).name: text for name, text in contents(tmp_path / "out").items() if name.endswith(".srt")}
    assert set(written) == {"a.srt", "c.srt"}
    # the second interval of a is 2 s to its end, 3 s; of c to 4 s, although the record's end is rounded up
    assert [line for line in written["a.srt"].splitlines() if "-->" in line] == [
        "00:00:00,000 --> 00:00:02,000",
        "00:00:02,000 --> 00:00:03,000",
    ]
    assert written["c.srt"].splitlines()[5] == "00:00:02,000 --> 00:00:04,000" and "99" not in written["c.srt"]
    told = caption_folder(job, stream=lambda samples: pytest.fail("asked again"), check=lambda row: None)
    assert (told.num_old, told.num_old_errors, told.num_written) == (4, 1, 0)
