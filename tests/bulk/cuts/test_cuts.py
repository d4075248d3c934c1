"""Files are cut: equal intervals, scenes, what of a row's own part is left; noted, so that nothing is done twice."""

import importlib.util
import math
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.bulk_model import DECODING, Model

from avcap.bulk.clips import Part
from avcap.bulk.cuts.cutter import EverySeconds, between, check_seconds, equal_intervals
from avcap.bulk.cuts.measure import Measured
from avcap.bulk.cuts.scenes import Scenes, check_detector, without_short
from avcap.bulk.folder import caption_folder
from avcap.bulk.inputs.items import Item
from avcap.bulk.job import FolderJob, Told
from avcap.bulk.places import Root
from avcap.data.request import Prompts, Request
from avcap.errors import MediaError, UserError
from avcap.infer.caption_file import read_rows

INF = math.inf


@pytest.fixture
def split(videos, tmp_path):
    """split(names, model, ...) -> what caption_folder told of those files, cut every 2 s: a lasts 3 s, b 2 s, c 4 s."""

    def split(names, model=None, *, out="out", **fields) -> Told:
        items = [name if isinstance(name, Item) else Item(video=str(videos / name)) for name in names]
        job = FolderJob(
            out=tmp_path / out,
            videos=tuple(items),
            request=Request(decoding=DECODING),
            **{"root": Root(folder=str(videos)), "forms": ("txt",), "split": EverySeconds(every_s=2.0), **fields},
        )
        return caption_folder(job, stream=model or Model(), check=lambda row: None)

    return split


def files(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and ".avcap" not in path.parts
    )


def test_intervals_cover_a_file_and_a_short_rest_joins_the_last():
    assert equal_intervals(3.0, every_s=5.0) == [(0.0, INF)]
    assert equal_intervals(10.0, every_s=5.0) == [(0.0, 5.0), (5.0, INF)]
    assert equal_intervals(10.9, every_s=5.0) == [(0.0, 5.0), (5.0, INF)]  # 0.9 s are less than a fifth of 5 s
    assert equal_intervals(11.1, every_s=5.0) == [(0.0, 5.0), (5.0, 10.0), (10.0, INF)]
    with pytest.raises(UserError, match=r"got --split 0.1, expected 0.5 to 86400 seconds"):
        check_seconds("--split", 0.1)


def test_clips_have_numbered_side_cars_in_a_folder_called_like_their_file(split, videos, tmp_path):
    model = Model()
    told = split(["a.mp4", "c.mp4", "broken.mp4"], model)
    assert files(tmp_path / "out") == [
        "a/clip_0001.txt",
        "a/clip_0002.txt",
        "c/clip_0001.txt",
        "c/clip_0002.txt",
        "captions.jsonl",
        "clips.csv",
        "quarantine.jsonl",
    ]
    assert (told.num_cut, told.num_clips, told.num_new, len(told.new_errors)) == (2, 4, 4, 1)
    rows = [row.sample_id.removeprefix(f"{videos}/") for row in read_rows(tmp_path / "out" / "captions.jsonl")]
    assert rows == ["a.mp4#t=0,2", "a.mp4#t=2,", "broken.mp4", "c.mp4#t=0,2", "c.mp4#t=2,"]
    assert (tmp_path / "out" / "clips.csv").read_text().splitlines() == [
        "file_name,source,start_s,end_s",
        f"a/clip_0001.mp4,{videos}/a.mp4,0,2",
        f"a/clip_0002.mp4,{videos}/a.mp4,2,",
        f"c/clip_0001.mp4,{videos}/c.mp4,0,2",
        f"c/clip_0002.mp4,{videos}/c.mp4,2,",
    ]


def test_again_nothing_is_looked_at_or_asked(split, videos, tmp_path, monkeypatch):
    split(["a.mp4", "c.mp4"])
    monkeypatch.setattr("avcap.bulk.cuts.plan.measure", lambda path, **_: pytest.fail("looked at again"))
    model = Model()
    told = split(["a.mp4", "c.mp4"], model, forms=("ltx", "metadata"), toc=True)
    assert (model.asked, told.num_old, told.num_clips) == ([], 4, 4)
    # tables name the clips as they are to be cut out, below the folder of the table
    assert '"video": "a/clip_0002.mp4"' in (tmp_path / "out" / "dataset.json").read_text()
    assert '"file_name": "c/clip_0001.mp4"' in (tmp_path / "out" / "metadata.jsonl").read_text()
    contents = (tmp_path / "out" / "c.toc.md").read_text()
    assert contents == "# c.mp4\n\n- 00:00:00 The c.mp4.\n- 00:00:02 The c.mp4.\n"


def test_clips_are_asked_about_as_files_of_their_own_and_silent_ones_as_such(split, videos):
    asked = {}

    def stream(samples):
        for sample in samples:
            asked[sample.sample_id.rpartition("/")[2]] = sample.prompt
            yield from Model()([sample])

    prompts = Prompts(global_caption="All?", video_only="Seen?")
    bad = Item(video=str(videos / "a.mp4"), error="no")
    split(["b.mp4", "silent.mp4", bad], stream, clip_prompts=prompts)
    assert asked == {"b.mp4#t=0,": "All?", "silent.mp4#t=0,": "Seen?"}


def test_a_rows_own_part_is_cut_and_no_more(split, videos, tmp_path):
    row = Item(video=str(videos / "c.mp4"), sample_id="mine", interval_s=(1.0, 3.0))
    split([row])
    # 0..2 and 2..4 s, of which 1..3 s are asked for
    assert [one.sample_id for one in read_rows(tmp_path / "out" / "captions.jsonl")] == ["mine#t=1,2", "mine#t=2,3"]
    assert "c_1-3/clip_0001.txt" in files(tmp_path / "out")


def test_subtitles_are_timed_by_the_cuts(split, tmp_path):
    def stream(samples):
        for row in Model()(samples):
            start_s = float(row.sample_id.partition("#t=")[2].partition(",")[0])
            yield type(row)(
                **{**vars(row), "interval_s": (start_s, start_s + 3), "duration_s": 4.0, "text": f"{start_s:g} bells."}
            )

    split(["c.mp4"], stream, forms=(), subtitles=("srt",), split=EverySeconds(every_s=3.0))
    assert (tmp_path / "out" / "c.srt").read_text().splitlines() == [
        *("1", "00:00:00,000 --> 00:00:03,000", "[0 bells]", ""),
        *("2", "00:00:03,000 --> 00:00:04,000", "[3 bells]"),
    ]


def test_samples_of_a_cut_file_are_some_of_its_clips(split):
    model = Model()
    told = split(["c.mp4"], model, num_samples=1, split=EverySeconds(every_s=1.0))
    assert (len(model.asked), told.num_clips, len(told.samples)) == (1, 4, 1)


def test_a_clip_of_another_file_of_that_stem_is_told(split, videos, tmp_path):
    for name in ("x.mp4", "x.mkv"):
        (tmp_path / name).hardlink_to(videos / "b.mp4")
    told = split([Item(video=str(tmp_path / name)) for name in ("x.mp4", "x.mkv")], root=Root(folder=str(tmp_path)))
    assert [one.reason for one in told.left_out] == ["x/clip_0001.txt is that of x/clip_0001.mkv"]


# --- scenes -----------------------------------------------------------------------------------------------------------


def write_scenes(path: Path, colours: list[tuple[int, int, int]], *, seconds: float, fps: int = 10) -> Path:
    """-> a video of one colour after the other, with some noise."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for index in range(int(len(colours) * seconds * fps)):
            plain = np.full((64, 64, 3), colours[int(index / (seconds * fps))], np.int16)
            noisy = (plain + rng.integers(-3, 4, plain.shape)).clip(0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(noisy, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_short_scenes_are_of_the_clip_before():
    assert without_short([2.0, 2.4, 9.8], duration_s=10.0, shortest_s=1.0) == [0.0, 2.0]
    assert without_short([0.5, 4.0], duration_s=10.0, shortest_s=1.0) == [0.0, 4.0]
    assert between([0.0, 4.0]) == [(0.0, 4.0), (4.0, INF)]


@pytest.mark.slow
def test_scenes_are_found_where_a_detector_is_installed_and_else_it_is_said_what_to_install(tmp_path):
    path = write_scenes(tmp_path / "x.mp4", [(200, 30, 30), (30, 200, 30), (30, 30, 200)], seconds=2.0)
    measured = Measured(duration_s=6.0, has_video=True, has_audio=False)
    if importlib.util.find_spec("scenedetect") is None:
        with pytest.raises(UserError, match=r"needs PySceneDetect; pip install 'avcap\[scenes\]'"):
            check_detector()
        with pytest.raises(MediaError, match=r"its scenes cannot be found \(.*scenedetect.*; give seconds"):
            Scenes().intervals(str(path), measured, deadline_s=60.0)
        return
    check_detector()
    intervals = Scenes().intervals(str(path), measured, deadline_s=60.0)
    # colours change at 2 and 4 s; a frame lasts 0.1 s
    assert [round(start_s) for start_s, _ in intervals] == [0, 2, 4] and intervals[-1][1] == INF


def test_audio_files_are_one_scene(tmp_path):
    measured = Measured(duration_s=6.0, has_video=False, has_audio=True)
    assert Scenes().intervals("x.wav", measured, deadline_s=1.0) == [(0.0, INF)]


def test_a_part_knows_whether_it_has_a_file_of_its_own():
    assert Part(item=Item(video="a.mp4"), name="a.mp4").has_own_file
    assert not Part(item=Item(video="a.mp4", interval_s=(1.0, 2.0)), name="a_1-2.mp4").has_own_file
    assert os.path.splitext(Part(item=Item(video="a.mp4"), name="x/clip_0001.mp4").stem)[0] == "x/clip_0001"
