"""Videos inside of tars and parquet files: which there are, where their bytes go, and when these are removed."""

import io
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from support.bulk_model import DECODING, Model, caption_of

from avcap.bulk.folder import caption_folder
from avcap.bulk.inputs.find import find_items
from avcap.bulk.inputs.items import root_of
from avcap.bulk.inputs.spool import Asked, Spool, rows_of
from avcap.bulk.inputs.tar import safe_name
from avcap.bulk.job import FolderJob
from avcap.data.request import Request
from avcap.errors import UserError
from avcap.infer.caption_file import read_rows
from avcap.records import Caption, CaptionError

REQUEST = Request(decoding=DECODING)
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write_tar(path: Path, **members: bytes) -> str:
    """abc__mp4=b"..." -> a tar with abc.mp4, in the order given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as shard:
        for name, data in members.items():
            about = tarfile.TarInfo(name.replace("__", ".").replace("_of_", "/"))
            about.size = len(data)
            shard.addfile(about, io.BytesIO(data))
    return str(path)


def rows_by_id(words: list[str], *, stream) -> dict[str, Caption | CaptionError]:
    found = find_items(words)
    asked = [one.failed(REQUEST) if one.error else Asked(item=one, sample=one.sample(REQUEST)) for one in found.items]
    with Spool() as spool:
        return {row.sample_id: row for row in rows_of(asked, stream=stream, spool=spool)}


def reads(samples):
    """A model that says what bytes its file has, and fails for the word "bad"."""
    for sample in samples:
        data = Path(sample.video).read_bytes()
        if data == b"bad":
            yield CaptionError(sample_id=sample.sample_id, video=sample.video, error=f"{sample.video}: is bad")
        else:
            yield caption_of(sample.video, data.decode(), sample_id=sample.sample_id)


def test_members_of_a_tar_are_grouped_by_key_and_called_by_it(tmp_path):
    shard = write_tar(
        tmp_path / "0.tar",
        a__json=b"{}",
        a__low__mp4=b"of a",
        x_of_b__mp4=b"bad",
        x_of_b__wav=b"not this",
        c__jpg=b"c",
        d__wav=b"of d",
    )
    rows = rows_by_id([shard], stream=reads)
    assert list(rows) == [f"{shard}/a", f"{shard}/x/b", f"{shard}/c", f"{shard}/d"]
    a, b, c, d = rows.values()
    assert (a.text, a.video) == ("of a", f"{shard}/a.mp4") and d.text == "of d"
    assert (b.video, b.error) == (f"{shard}/x/b.mp4", f"{shard}/x/b.mp4: is bad")
    assert c.error == f"{shard}/c: got .jpg and no video or audio file"


def test_a_shard_that_is_cut_off_gives_what_it_has_and_a_row_that_says_so(tmp_path):
    shard = Path(write_tar(tmp_path / "0.tar", a__mp4=b"of a", b__mp4=b"b" * 5000))
    # a header of 512 and data of 512 bytes are before the header of b
    os.truncate(shard, 512 + 512 + 512 + 1000)
    rows = rows_by_id([str(shard)], stream=reads)
    assert rows[f"{shard}/a"].text == "of a"
    assert "ends 4000 bytes before it does" in rows[f"{shard}/b"].error
    assert len(rows) == 3 and "cannot be read as tar after 2 files" in rows[f"{shard}#damaged"].error
    shard.write_text("no tar")
    (row,) = rows_by_id([str(shard)], stream=reads).values()
    assert "cannot be read as tar after 0 files" in row.error
    with pytest.raises(UserError, match="got a compressed archive"):
        find_items([str(tmp_path / "0.tar.gz")])


def test_shards_are_named_by_ranges_patterns_and_folders(tmp_path):
    for number in (8, 9, 10):
        write_tar(tmp_path / "in" / f"s-{number:02}.tar", **{f"k{number}__mp4": b"x"})
    expected = [f"{tmp_path}/in/s-{number:02}.tar/k{number}" for number in (8, 9, 10)]
    for word in ("in/s-{08..10}.tar", "in/s-*.tar", "in"):
        assert sorted(one.sample_id for one in find_items([f"{tmp_path}/{word}"]).items) == sorted(expected), word


def test_temporary_files_are_there_while_they_are_captioned_and_no_longer(tmp_path):
    shard = write_tar(tmp_path / "0.tar", **{f"k{index:02}__mp4": f"{index}".encode() for index in range(20)})
    places, most = set(), 0

    def stream(samples):
        """Has three in hand, as a captioner that decodes ahead."""
        nonlocal most
        waiting = []
        for sample in samples:
            waiting.append(sample)
            places.add(Path(sample.video).parent)
            most = max(most, len(os.listdir(places.copy().pop())))
            if len(waiting) == 3:
                yield from reads([waiting.pop(0)])
        yield from reads(waiting)

    rows = rows_by_id([shard], stream=stream)
    assert [row.text for row in rows.values()] == [str(index) for index in range(20)]
    assert most == 3 and len(places) == 1 and not places.pop().exists()


def test_of_errors_alone_no_model_is_started(tmp_path):
    shard = write_tar(tmp_path / "0.tar", a__txt=b"a", b__txt=b"b")
    rows = rows_by_id([shard], stream=lambda samples: pytest.fail("started"))
    assert len(rows) == 2 and all(isinstance(row, CaptionError) for row in rows.values())


@pytest.mark.parametrize("kind", [STRUCT, pa.binary()])
def test_videos_in_a_parquet_file_are_read_one_at_a_time(kind, tmp_path):
    (tmp_path / "ds" / "data").mkdir(parents=True)
    path = tmp_path / "ds" / "data" / "train-0.parquet"
    values = [b"zero", None, b"two", b"three"]
    if kind is STRUCT:
        values = [None if value is None else {"bytes": value, "path": f"n{value.decode()}.mkv"} for value in values]
    parquet.write_table(pa.table({"label": list("abcd"), "video": pa.array(values, kind)}), path, row_group_size=3)
    rows = rows_by_id([str(tmp_path / "ds")], stream=reads)
    assert list(rows) == [f"{path}/{index}" for index in range(4)]
    assert [row.text for row in rows.values() if isinstance(row, Caption)] == ["zero", "two", "three"]
    assert "got an empty cell, expected the bytes of a video" in rows[f"{path}/1"].error
    assert rows[f"{path}/3"].video.endswith(".mkv" if kind is STRUCT else ".mp4")


def test_metadata_of_a_folder_adds_prompts_and_what_is_missing(tmp_path):
    (tmp_path / "train").mkdir()
    for name in ("a.mp4", "train/b.mp4", "train/c.mp4"):
        (tmp_path / name).write_text("x")
    (tmp_path / "train" / "metadata.csv").write_text("file_name,prompt\nb.mp4,Who?\ngone.mp4,\n")
    found = find_items([str(tmp_path)])
    assert [(item.video.removeprefix(f"{tmp_path}/"), item.prompt) for item in found.items] == [
        ("a.mp4", ""),
        ("train/b.mp4", "Who?"),
        ("train/c.mp4", ""),
        ("train/gone.mp4", ""),
    ]
    assert not found.not_taken


def test_metadata_that_avcap_wrote_itself_is_passed_over(fill, clips):
    fill(clips, forms=("metadata",))
    (clips / "c.wav").unlink()
    names = [item.video.removeprefix(f"{clips}/") for item in find_items([str(clips)]).items]
    assert names == ["a/001.mp4", "b/001.mp4", "b/é 2.mov"]


def test_a_shard_is_captioned_into_a_folder_and_again_nothing_is_asked(tmp_path):
    shard = write_tar(tmp_path / "in" / "0.tar", **{".._of_.._of_a__mp4": b"of a", "b__txt": b"no"})

    def job() -> FolderJob:
        found = find_items([shard])
        root = root_of([shard], found.items, lists=found.lists)
        return FolderJob(
            out=tmp_path / "out", root=root, videos=tuple(found.items), request=REQUEST, forms=("txt", "ltx")
        )

    told = caption_folder(job(), stream=reads, check=lambda row: None)
    assert (told.num_new, len(told.new_errors)) == (1, 1)
    assert (tmp_path / "out" / "0" / "a.txt").read_text() == "of a"  # whatever its name leads to
    assert '"video": "0/a.mp4"' in (tmp_path / "out" / "dataset.json").read_text()
    assert [row.sample_id for row in read_rows(tmp_path / "out" / "captions.jsonl")] == [
        f"{shard}/a",
        f"{shard}/b",
    ]
    model = Model()
    told = caption_folder(job(), stream=model, check=lambda row: None)
    assert (model.asked, told.num_old, told.num_old_errors) == ([], 1, 1)
    assert safe_name("../../a/./b") == "a/b" and safe_name("..") == "_"
