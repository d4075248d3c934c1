"""The worker processes: same Clip, late ones killed, dead ones replaced, none left over."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from support.media_files import tone, write_media

from avcap.errors import MediaError
from avcap.media import Clip, ClipRequest, load_clip, pool, read_clip


@pytest.fixture(autouse=True)
def no_workers_from_elsewhere():
    pool.stop_idle_workers()
    yield
    pool.stop_idle_workers()


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    return write_media(
        tmp_path_factory.mktemp("pool") / "film.mp4",
        frame_times=[40 * index for index in range(100)],
        waveform=tone(seconds=4, rate=48000),
        audio_codec="aac",
    )


@pytest.fixture(scope="module")
def long_film(tmp_path_factory) -> Path:
    """A file that takes seconds to decode: large frames that all have to be decoded."""
    big = np.random.default_rng(0).integers(0, 255, (540, 960, 3), dtype=np.uint8)
    return write_media(
        tmp_path_factory.mktemp("pool") / "long.mkv",
        frame_times=[10 * index for index in range(40)],
        video_codec="mjpeg",
        pix_fmt="yuvj420p",
        image=lambda _: big,
    )


def only_worker_id() -> int:
    (worker,) = pool._idle_workers
    return worker.process_id


def assert_same(left: Clip, right: Clip) -> None:
    for field in dataclasses.fields(Clip):
        if field.name == "decoding_s":  # the one thing that a worker adds
            continue
        np.testing.assert_array_equal(getattr(left, field.name), getattr(right, field.name), err_msg=field.name)


def test_a_worker_gives_the_clip_that_this_process_reads(film):
    arguments = {"fps": 3, "interval_s": (1.0, 3.5), "frame_size": (24, 40), "lead_in": True}
    assert_same(load_clip(film, **arguments), read_clip(film, **arguments))
    assert_same(load_clip(film, with_video=False), read_clip(film, with_video=False))


def test_one_worker_serves_file_after_file(film, tmp_path):
    load_clip(film)
    first = only_worker_id()
    with pytest.raises(MediaError, match="No such file"):
        load_clip(tmp_path / "none.mp4")
    load_clip(film)
    assert only_worker_id() == first


def test_relative_paths_are_those_of_the_asking_process(film, monkeypatch):
    load_clip(film)  # the worker is running, elsewhere
    monkeypatch.chdir(film.parent)
    assert load_clip("film.mp4").path == "film.mp4"


def test_a_late_worker_is_killed_and_the_next_file_works(film, long_film):
    load_clip(film)
    late = only_worker_id()
    with pytest.raises(MediaError, match=r"long.mkv: got no result after 0.05 s"):
        load_clip(long_film, fps=1000, max_frames=10_000, deadline_s=0.05)
    with pytest.raises(ProcessLookupError):  # gone, and not even a zombie
        os.kill(late, 0)
    assert len(load_clip(film).frames_THWC) == 4


def test_a_worker_that_hangs_is_killed(film):
    load_clip(film)
    os.kill(only_worker_id(), signal.SIGSTOP)
    with pytest.raises(MediaError, match=r"got no result after 0\.3 s"):
        load_clip(film, deadline_s=0.3)
    assert len(load_clip(film).frames_THWC) == 4


def test_a_worker_that_dies_is_replaced(film, long_film):
    load_clip(film)
    killer = threading.Timer(0.05, os.kill, [only_worker_id(), signal.SIGSEGV])
    killer.start()
    with pytest.raises(MediaError, match=r"long.mkv: the decoding process ended with signal SIGSEGV"):
        load_clip(long_film, fps=1000, max_frames=10_000)
    killer.join()
    assert len(load_clip(film).frames_THWC) == 4


def test_a_worker_that_died_while_idle_harms_one_file_at_most(film):
    load_clip(film)
    os.kill(only_worker_id(), signal.SIGKILL)
    with pytest.raises(MediaError, match="SIGKILL"):
        load_clip(film)
    assert len(load_clip(film).frames_THWC) == 4


def test_threads_each_get_their_own_clip(film):
    lengths_s = [0.5, 1.0, 1.5, 2.0]
    clips: dict[float, Clip] = {}
    threads = [
        threading.Thread(target=lambda end_s=end_s: clips.update({end_s: load_clip(film, interval_s=(0.0, end_s))}))
        for end_s in lengths_s
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(clips[end_s].waveform_S) for end_s in lengths_s] == [8000, 16000, 24000, 32000]


def test_a_forked_child_does_not_take_its_parents_worker(film):
    load_clip(film)
    parents = only_worker_id()
    child = os.fork()
    if child == 0:
        os._exit(len(pool._idle_workers))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    load_clip(film)
    assert only_worker_id() == parents


def test_pool_keeps_the_order_and_goes_on_after_a_bad_file(film, tmp_path):
    paths = [str(film), str(tmp_path / "none.mp4"), str(film), str(film)]
    requests = [ClipRequest(path=path, max_frames=index + 1) for index, path in enumerate(paths)]
    with pool.DecodePool(num_workers=2) as decoders:
        in_order = list(decoders.map(requests))
        unordered = dict(decoders.map_unordered(requests))
    assert isinstance(in_order[1], MediaError)
    assert [len(clip.frames_THWC) for clip in in_order if isinstance(clip, Clip)] == [1, 3, 4]
    assert sorted(unordered) == [0, 1, 2, 3]
    assert isinstance(unordered[1], MediaError)


def test_the_pool_reads_ahead_only_a_little(film):
    taken = []

    def requests():
        for index in range(20):
            taken.append(index)
            yield ClipRequest(path=str(film), max_frames=1)

    with pool.DecodePool(num_workers=2) as decoders:
        clips = decoders.map(requests())
        next(clips)
        assert len(taken) == 3  # the one returned and one for each worker
        clips.close()


def test_decoding_imports_no_torch_and_leaves_no_process(film):
    code = (
        "import sys, avcap.media.clip\n"
        "assert not {'av', 'torch', 'PIL'} & set(sys.modules), 'a Clip needs numpy only'\n"
        f"clip = avcap.media.load.load_clip({str(film)!r})\n"
        "assert not {'av', 'torch'} & set(sys.modules)\n"
        "from avcap.media import pool\n"
        "process_id = pool._idle_workers[0].process_id\n"
        "maps = open(f'/proc/{process_id}/maps').read()\n"
        "assert 'libtorch' not in maps and 'libavcodec' in maps\n"
        "print(process_id)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_an_exception_that_nobody_foresaw_is_one_line_and_the_worker_lives_on(film, capfd):
    load_clip(film)
    first = only_worker_id()
    with pytest.raises(MediaError, match=r"^\S+film\.mp4: TypeError \(.*\) while it was decoded; please report it$"):
        pool.decode(ClipRequest(path=str(film), frame_size=("a", "b")), deadline_s=60)
    assert len(load_clip(film).frames_THWC) == 4
    assert only_worker_id() == first
    assert capfd.readouterr().err == ""


def test_memory_that_runs_out_over_a_file_is_its_error(film):
    # 4 s * 2**60 instants, thinned to 2**58: 2 EiB for their times alone
    with pytest.raises(MediaError, match="memory ran out while it was decoded"):
        pool.decode(ClipRequest(path=str(film), fps=2.0**60, max_frames=2**58), deadline_s=60)
    assert len(load_clip(film).frames_THWC) == 4


def test_notes_come_through(tmp_path):
    path = write_media(tmp_path / "inverted.mkv", waveform=tone(seconds=2, rate=48000), gains=[1, -1])
    clip = load_clip(path)
    assert clip.notes == read_clip(path).notes and len(clip.notes) == 1
    assert 0 < clip.decoding_s < 60
