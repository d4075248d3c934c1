"""Where windows end: at a change of scene, else at a quiet place, else at their time; and never longer than asked."""

import math
from itertools import pairwise

import numpy as np
import pytest

from avcap.bulk.cuts.measure import Measured
from avcap.bulk.long.borders import border_in
from avcap.bulk.long.windowing import Windowing, default_overlap
from avcap.errors import UserError
from avcap.media.clip import Clip

RATE = 16000


def clip(levels=(), loudness=(), *, start_s: float = 10.0) -> Clip:
    """Frames of one grey level each, 4 a second; audio of one loudness for each quarter of a second."""
    rng = np.random.default_rng(0)
    frames = [np.full((8, 8, 3), level, np.uint8) for level in levels]
    waves = [rng.normal(0, value, RATE // 4).astype(np.float32) for value in loudness]
    return Clip(
        path="x.mp4",
        frames_THWC=np.stack(frames) if frames else np.empty((0, 0, 0, 3), np.uint8),
        frame_times_T=start_s + np.arange(len(frames)) / 4,
        lead_in_frame_HWC=None,
        waveform_S=np.concatenate(waves) if waves else np.empty(0, np.float32),
        sample_rate_hz=RATE,
        start_s=start_s,
        end_s=start_s + 2,
        duration_s=100.0,
        has_video=bool(frames),
        has_audio=bool(waves),
        num_bad_packets=0,
    )


def test_a_change_of_scene_goes_before_a_quiet_place():
    changes = clip(levels=[10, 12, 11, 90, 91, 90, 92, 91], loudness=[0.1] * 6 + [0.001, 0.1])
    assert border_in(changes, end_s=12.0) == 10.75  # the fourth frame, 3 / 4 s after 10


def test_a_quiet_place_goes_before_the_time_and_the_last_of_several():
    # the middles of the third and the seventh quarter: 10.625 and 11.625 s
    assert border_in(clip(loudness=[0.1, 0.1, 0.0, 0.1, 0.1, 0.1, 0.0, 0.1]), end_s=12.0) == 11.625
    assert border_in(clip(levels=[10] * 8, loudness=[0.1, 0.001] + [0.1] * 6), end_s=12.0) == 10.375


@pytest.mark.parametrize(
    "plain",
    [
        clip(levels=[10, 12, 11, 10, 12, 11, 10, 12]),
        clip(levels=[10, 90, 10, 90, 10, 90, 10, 90]),  # it flickers all the time
        clip(loudness=[0.1] * 8),
        clip(loudness=[0.0] * 8),  # silence all through tells nothing
        clip(levels=[10, 90]),
    ],
)
def test_without_either_the_border_is_at_its_time(plain):
    assert border_in(plain, end_s=12.0) == 12.0


def test_windows_overlap_cover_all_and_are_never_longer(monkeypatch):
    places = iter([0.3, 1.0, 0.0, 0.6] * 30)

    def find(path, *, start_s, end_s, **_):
        return start_s + next(places) * (end_s - start_s)

    monkeypatch.setattr("avcap.bulk.long.windowing.find_border", find)
    windowing = Windowing(window_s=60.0, overlap_s=6.0)
    measured = Measured(duration_s=1000.0, has_video=True, has_audio=True)
    found = windowing.intervals("x.mp4", measured, deadline_s=1.0)
    assert found[0][0] == 0.0 and found[-1][1] == math.inf and 1000.0 - found[-1][0] <= 60.0
    for (start_s, end_s), (next_s, _) in pairwise(found):
        assert end_s - next_s == pytest.approx(6.0, abs=0.002) and 45.0 <= end_s - start_s <= 60.002
    short = Measured(duration_s=60.0, has_video=True, has_audio=True)
    assert windowing.intervals("x.mp4", short, deadline_s=1.0) == [(0.0, math.inf)]


def test_overlaps_that_cannot_be():
    assert default_overlap(60.0) == 6.0
    for window_s, overlap_s in ((60.0, 31.0), (60.0, -1.0), (1.0, 0.0)):
        with pytest.raises(UserError, match="expected a window of at least 2 s and an overlap of at most half of it"):
            Windowing(window_s=window_s, overlap_s=overlap_s)
