import resource

import av
import numpy as np
import pytest

from avcap.errors import UserError
from avcap.media.load import load_clip
from avcap.world.clip_file import FPS, write_clip, write_media
from avcap.world.domains import DOMAINS
from avcap.world.render import render_frames
from avcap.world.scene import Scene, make_scene
from avcap.world.speech import SAMPLE_RATE_HZ

LOOKS = [name for name in DOMAINS if name != "unseen"]  # which is coded as default is


def decode_frames(path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def decode_audio(path) -> tuple[np.ndarray, int]:
    """Samples from the time 0 of the file, and their rate."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    assert frames[0].time == 0
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]), frames[0].sample_rate


@pytest.mark.parametrize("domain", LOOKS)
def test_frames_are_those_of_the_scene_at_their_times(tmp_path, domain):
    scene = make_scene(21, domain=domain, sound_rate=0.0)
    write_clip(tmp_path / "clip.mp4", scene)
    frames = decode_frames(tmp_path / "clip.mp4")
    assert len(frames) == FPS * scene.duration_s
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(len(frames)) / FPS, atol=1e-4)
    rendered = render_frames(scene, range(scene.duration_s)).astype(float)
    for second in range(scene.duration_s):
        decoded = frames[second * FPS].to_ndarray(format="rgb24")
        error = np.abs(decoded - rendered[second]).mean()
        # film: moving grain of 5 levels, most of which the codec drops
        assert error < (8 if domain == "film" else 4), f"second {second}: {error:.1f} grey levels"


def test_a_change_is_not_yet_there_a_third_of_a_second_before_its_second(tmp_path):
    scene = make_scene(21, difficulty="easy", sound_rate=0.0)
    write_clip(tmp_path / "clip.mp4", scene)
    frames = [frame.to_ndarray(format="rgb24").astype(float) for frame in decode_frames(tmp_path / "clip.mp4")]
    assert scene.visual
    for change in scene.visual:
        before, settled = frames[change.second * FPS - 5], frames[change.second * FPS]
        earlier, later = render_frames(scene, [change.second - 1, change.second]).astype(float)
        assert np.abs(before - earlier).mean() < np.abs(before - later).mean()
        assert np.abs(settled - later).mean() < np.abs(settled - earlier).mean()


@pytest.mark.parametrize("domain", LOOKS)
def test_sound_is_where_it_was_put(tmp_path, domain):
    waveform_S = np.zeros(4 * SAMPLE_RATE_HZ, dtype=np.float32)
    for second in (0.5, 1, 3):
        start = int(second * SAMPLE_RATE_HZ)
        waveform_S[start : start + 800] = 0.8 * np.sin(0.6 * np.arange(800))
    frames_THW3 = np.zeros((4 * FPS, 64, 64, 3), dtype=np.uint8)
    write_media(tmp_path / "c.mp4", frames_THW3, waveform_S=waveform_S, fps=FPS, domain=DOMAINS[domain])
    read_S, rate_hz = decode_audio(tmp_path / "c.mp4")
    assert len(read_S) / rate_hz == pytest.approx(4, abs=0.025)
    for second in (0.5, 1, 3):
        first = int((second - 0.2) * rate_hz)
        onset_s = first / rate_hz + np.argmax(np.abs(read_S[first : first + rate_hz // 2]) > 0.2) / rate_hz
        assert onset_s == pytest.approx(second, abs=0.01)


@pytest.mark.parametrize("domain", LOOKS)
def test_the_package_reads_back_what_it_wrote(tmp_path, domain):
    scene = make_scene(2, domain=domain)
    write_clip(tmp_path / "clip.mp4", scene)
    clip = load_clip(tmp_path / "clip.mp4", fps=1.0)
    assert clip.duration_s == pytest.approx(scene.duration_s, abs=0.03)
    assert len(clip.waveform_S) / clip.sample_rate_hz == pytest.approx(scene.duration_s, abs=0.03)
    assert clip.num_bad_packets == 0
    np.testing.assert_allclose(clip.frame_times_T, np.arange(scene.duration_s))
    rendered = render_frames(scene, range(scene.duration_s)).astype(float)
    assert np.abs(clip.frames_THWC - rendered).mean() < 8


@pytest.mark.slow
def test_files_are_small(tmp_path):
    for domain in LOOKS:
        scene = make_scene(1, difficulty="hard", domain=domain, seconds=(10, 10))
        write_clip(tmp_path / "clip.mp4", scene)
        assert (tmp_path / "clip.mp4").stat().st_size < 250_000, domain


def test_a_folder_that_cannot_be_is_the_users_error(tmp_path):
    (tmp_path / "nowhere").write_text("a file")
    with pytest.raises(UserError, match="cannot be written"):
        write_clip(tmp_path / "nowhere" / "clip.mp4", make_scene(1, seconds=(2, 2)))


def test_a_full_disk_is_the_users_error_and_leaves_nothing(tmp_path):
    scene = Scene(seed=1, difficulty="hard", domain="film", duration_s=4, visual=(), sounds=())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # writing past it fails, as on a full disk
    try:
        with pytest.raises(UserError, match="cannot be written"):
            write_clip(tmp_path / "clip.mp4", scene)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
