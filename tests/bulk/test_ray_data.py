"""Ray Data on this machine: actors that die change nothing. Skipped where Ray is not installed (avcap[ray])."""

import os
import signal
import threading
from functools import partial
from pathlib import Path

import pytest
from support.scripted_engine import VLLM, ScriptedEngine

from avcap.bulk.ray_data import RayOptions, ray_rows
from avcap.bulk.workers import Captions, Opening
from avcap.captioners import find_source
from avcap.data.request import Request
from avcap.errors import RunError, UserError
from avcap.records import Caption, CaptionError, Decoding

REQUEST = Request(decoding=Decoding(max_new_tokens=9))
NEEDS_RAY = "Ray is not installed"


@pytest.fixture
def ray():
    module = pytest.importorskip("ray", reason=NEEDS_RAY)
    yield module
    module.shutdown()


def ray_actors() -> list[int]:
    """The actors that this process's Ray has started."""
    parents, found = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if b"MapWorker" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue

    def is_ours(pid: int) -> bool:
        while pid > 1 and pid != os.getpid():
            pid = parents.get(pid, 0)
        return pid == os.getpid()

    return sorted(pid for pid in found if is_ours(pid))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes by /proc")
def test_a_worker_killed_in_the_middle_changes_no_row(ray, videos, tmp_path):
    paths = [str(tmp_path / f"{index:02}.mp4") for index in range(12)]
    for path in paths[:-1]:
        os.link(videos / "b.mp4", path)
    Path(paths[-1]).write_text("no video")
    go_on, is_asked = threading.Event(), threading.Event()

    def answer(asked) -> str:
        if "code word" not in asked.text and asked.text != "Say OK.":
            is_asked.set()
            go_on.wait(60)  # both workers wait for their first answers until one of them is killed
        return f"A video of {asked.frames} frames."

    with ScriptedEngine(VLLM, answer=answer) as engine:
        opening = Opening(model=engine.model)
        make = partial(Captions, request=REQUEST, opening=opening)

        def kill() -> None:
            is_asked.wait(120)
            os.kill(ray_actors()[0], signal.SIGKILL)
            go_on.set()

        killer = threading.Thread(target=kill)
        killer.start()
        options = RayOptions(num_workers=2, batch_size=2)
        rows = list(ray_rows(paths, REQUEST, make=make, source=find_source(engine.model), options=options))
        killer.join()
        alone = make().rows([REQUEST.sample(path) for path in paths])
    assert go_on.is_set() and not killer.is_alive()
    assert sorted(rows, key=lambda row: row.video) == alone
    assert [type(row) for row in alone] == [Caption] * 11 + [CaptionError]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_every_file_would_meet_ends_the_run(ray, tmp_path):
    make = partial(Captions, request=REQUEST, opening=Opening(model=str(tmp_path / "nothing")))
    with pytest.raises(RunError, match="nothing': no model of that name"):
        list(ray_rows(["a.mp4"], REQUEST, make=make, source=find_source("tiny"), options=RayOptions(num_workers=1)))


@pytest.mark.filterwarnings("ignore")
def test_nobody_at_the_address_is_told_at_once():
    pytest.importorskip("ray", reason=NEEDS_RAY)
    with pytest.raises(UserError, match=r"got --ray 127\.0\.0\.1:1, and nobody answers there"):
        options = RayOptions(address="127.0.0.1:1")
        list(ray_rows(["a.mp4"], REQUEST, make=lambda: None, source=find_source("tiny"), options=options))


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'avcap\[ray\]'"):
        list(ray_rows(["a.mp4"], REQUEST, make=lambda: None, source=find_source("tiny"), options=RayOptions()))


def test_options_that_are_for_ray_alone(run):
    code, _, err = run("caption", "a.mp4", "--workers", 2)
    assert code == 2 and "got --workers 2 without --ray" in err
    code, _, err = run("caption", "a.mp4", "--ray", "local", "--budget", 1, "--model", "openai:a@http://127.0.0.1:1/v1")
    assert code == 2 and "got --ray and --budget" in err
