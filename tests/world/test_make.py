import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avcap.errors import UserError
from avcap.records import WorldTruth, read_jsonl
from avcap.world.make import FIRST_WORLD_SEED, MAX_CLIPS, clip_seed, make_world, scene_from_dict
from avcap.world.scene import DIFFICULTIES, make_scene, stage_at

SMALL = {"num_clips": 3, "seed": 4, "difficulty": "easy", "num_workers": 1, "progress": False}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"), **SMALL).parent


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_world_holds_its_clips_and_what_is_true_of_them(world):
    truths = list(read_jsonl(world / "truth.jsonl", WorldTruth))
    assert [truth.seed for truth in truths] == [clip_seed(4, index) for index in range(3)]
    for truth in truths:
        scene = scene_from_dict(truth.scene)
        assert scene == make_scene(truth.seed, difficulty="easy")
        assert truth.duration_s == scene.duration_s
        assert truth.reference_caption and truth.questions
        assert len(truth.events) >= len(scene.visual) + len(scene.sounds)
        assert all(sample.video == truth.video for sample in truth.intervals)
    names = {truth.video for truth in truths} | {"truth.jsonl", "world.json"}
    assert set(files_of(world)) == names


def test_the_same_settings_make_the_same_bytes(world, tmp_path):
    make_world(tmp_path, **SMALL)
    assert files_of(tmp_path) == files_of(world)


@pytest.mark.slow
def test_workers_make_the_same_as_one_process(world, tmp_path):
    make_world(tmp_path, **(SMALL | {"num_workers": 2}))
    assert files_of(tmp_path) == files_of(world)


def test_a_finished_world_is_left_as_it_is(world):
    clips = sorted((world / "clips").iterdir())
    before = [clip.stat().st_mtime_ns for clip in clips]
    make_world(world, **SMALL)
    assert [clip.stat().st_mtime_ns for clip in clips] == before


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(tmp_path):
    settings = SMALL | {"num_clips": 8, "num_workers": 2}
    folder = tmp_path / "killed"
    script = tmp_path / "run.py"
    script.write_text(
        "from avcap.world.make import make_world\n"
        f"if __name__ == '__main__':\n    make_world({str(folder)!r}, **{settings!r})\n"
    )
    run = subprocess.Popen([sys.executable, str(script)])
    deadline = time.monotonic() + 60
    while not list(folder.glob("clips/*.mp4")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    assert not (folder / "truth.jsonl").exists(), "killed too late for this test to mean anything"
    settings["num_workers"] = 1
    make_world(folder, **settings)
    make_world(tmp_path / "whole", **settings)
    # a worker that outlives the killed run for a moment may leave what it was writing, which a later run clears away
    left = {name: data for name, data in files_of(folder).items() if not name.endswith(".partial")}
    assert left == files_of(tmp_path / "whole")


def test_other_settings_are_refused(world):
    for change in ({"seed": 5}, {"num_clips": 4}, {"difficulty": "hard"}, {"domain": "film"}):
        with pytest.raises(UserError, match=r"was begun with another configuration; .*: got .* there, .* here"):
            make_world(world, **(SMALL | change))


def test_a_folder_with_other_things_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"'thesis.txt' and was not begun"):
        make_world(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"domain": "cartoon"}, "expected one of default, unseen, film, paper"),
        ({"difficulty": "brutal"}, "expected one of easy, standard, hard"),
        ({"num_clips": 0}, "got 0 clips, expected 1 to 1000000"),
        ({"seed": -1}, "got seed -1, expected 0 or more"),
    ],
)
def test_settings_that_cannot_be_are_the_users_error(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        make_world(tmp_path / "world", **(SMALL | change))
    assert not (tmp_path / "world").exists()


def test_a_folder_that_cannot_be_made_is_the_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        make_world(tmp_path / "file" / "world", **SMALL)


def test_worlds_share_no_seed_with_each_other_or_with_training():
    assert clip_seed(0, 0) == FIRST_WORLD_SEED == 10**9  # training stays below
    assert clip_seed(0, MAX_CLIPS - 1) + 1 == clip_seed(1, 0)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_a_scene_survives_a_trip_through_json(difficulty):
    for seed in range(20):
        scene = make_scene(seed, difficulty=difficulty)
        data = dataclasses.asdict(scene)
        assert scene_from_dict(data) == scene
        returned = scene_from_dict(json.loads(json.dumps(data)))
        assert returned == scene and stage_at(returned, 5) == stage_at(scene, 5)
