"""Which instants are looked at, for any span, rate and cap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avcap.media.frame_times import frame_instants, official_plus_frame_index, official_v1_frame_index


def test_one_instant_per_second_before_the_end():
    # 0, 1, 2 are before 3.0; 3 is not
    assert frame_instants(start_s=0, end_s=3.0, fps=1, max_frames=110).tolist() == [0, 1, 2]
    assert frame_instants(start_s=0, end_s=3.01, fps=1, max_frames=110).tolist() == [0, 1, 2, 3]


def test_interval_starts_at_its_own_start():
    assert frame_instants(start_s=2.5, end_s=4.0, fps=2, max_frames=110).tolist() == [2.5, 3.0, 3.5]


def test_a_span_shorter_than_a_step_has_one_instant():
    assert frame_instants(start_s=0, end_s=0.04, fps=1, max_frames=110).tolist() == [0]


def test_an_empty_span_has_its_start():
    assert frame_instants(start_s=2.5, end_s=2.5, fps=1, max_frames=110).tolist() == [2.5]


def test_above_the_cap_first_and_last_stay():
    # 0..10 s at 1 fps are the instants 0..9; three evenly spread ones of them: 0, 4.5, 9
    assert frame_instants(start_s=0, end_s=10, fps=1, max_frames=3).tolist() == [0, 4.5, 9]


@given(
    start_s=st.floats(0, 1e4),
    length_s=st.floats(1e-3, 1e4),
    fps=st.floats(0.01, 120),
    max_frames=st.integers(1, 500),
)
def test_instants_rise_from_the_start_and_stay_inside(start_s, length_s, fps, max_frames):
    end_s = start_s + length_s
    instants_T = frame_instants(start_s=start_s, end_s=end_s, fps=fps, max_frames=max_frames)
    assert 1 <= len(instants_T) <= max_frames
    assert instants_T[0] == start_s
    assert instants_T[-1] < end_s
    assert (np.diff(instants_T) > 0).all()
    if len(instants_T) < max_frames:  # uncapped: the next instant would be outside
        assert len(instants_T) >= length_s * fps - 1e-3


# From reference runs of the published code: frames of the video, its rate, the cap, the frames it took.
OFFICIAL = [
    (250, 25.0, 5, [0, 62, 124, 186, 249]),
    (311, 25.0, 4, [0, 103, 206, 310]),
    (744, 24.0, 7, [0, 123, 247, 371, 495, 619, 743]),
]


@pytest.mark.parametrize(("num_frames", "source_fps", "max_frames", "expected"), OFFICIAL)
def test_official_rule_takes_the_official_frames(num_frames, source_fps, max_frames, expected):
    index_T = official_v1_frame_index(num_frames=num_frames, source_fps=source_fps, fps=1, max_frames=max_frames)
    assert index_T.dtype == np.int64
    assert index_T.tolist() == expected


def test_official_rule_below_the_cap_takes_every_nth():
    # round(29.97 / 1) = 30
    index_T = official_v1_frame_index(num_frames=100, source_fps=29.97, fps=1, max_frames=110)
    assert index_T.tolist() == [0, 30, 60, 90]


# frames of the video, its rate, the cap, the interval, the frames taken: from round(start * rate) to round(end * rate)
INTERVALS = [
    (1500, 25.0, 6, (5, 38), [125, 290, 455, 620, 785, 950]),  # (950 - 125) / 5 = 165 between them
    (1798, 29.97, 6, (5, 38), [150, 347, 545, 743, 941, 1139]),  # 149.85 to 1138.86; 989 / 5 = 197.8, cut
    (900, 15.0, 6, (5, 38), [75, 174, 273, 372, 471, 570]),
    (250, 25.0, 110, (0, 3), [0, 25, 50, 75]),  # the frame at the end belongs to it
    (250, 25.0, 3, (0, 3), [0, 37, 75]),  # 37.5 is cut
    (250, 25.0, 110, (8, 20), [200, 225]),  # frames end at 249
    (250, 25.0, 2, (7, 20), [175, 249]),  # 175, 200, 225 would be three
    (240, 24.0, 110, (1.3, 3.7), [31, 55, 79]),  # 31.2 to 88.8
    (250, 25.0, 110, (0.5, 2.5), [12, 37, 62]),  # 12.5 and 62.5: to the even number, as Python rounds
    (250, 25.0, 110, (4, 4.5), [100]),
    (250, 25.0, 110, (10, 12), []),  # 250 is behind the last frame
]


@pytest.mark.parametrize(("num_frames", "source_fps", "max_frames", "interval_s", "expected"), INTERVALS)
def test_official_rule_cuts_intervals_by_frame_number(num_frames, source_fps, max_frames, interval_s, expected):
    index_T = official_v1_frame_index(
        num_frames=num_frames, source_fps=source_fps, fps=1, max_frames=max_frames, interval_s=interval_s
    )
    assert index_T.dtype == np.int64
    assert index_T.tolist() == expected


@pytest.mark.parametrize("max_frames", [4, 110])
@pytest.mark.parametrize(("num_frames", "source_fps"), [(311, 25.0), (744, 24.0), (100, 29.97)])
def test_official_rule_takes_the_whole_video_for_the_interval_of_all_of_it(num_frames, source_fps, max_frames):
    options = {"num_frames": num_frames, "source_fps": source_fps, "fps": 1, "max_frames": max_frames}
    whole_s = (0.0, num_frames / source_fps)
    index_T = official_v1_frame_index(**options, interval_s=whole_s)
    assert index_T.tolist() == official_v1_frame_index(**options).tolist()


def test_official_rule_exactly_at_the_cap_takes_every_nth_still():
    # every 25th of 100 are four; spread evenly from the first to the last they would be 0 33 66 99
    index_T = official_v1_frame_index(num_frames=100, source_fps=25, fps=1, max_frames=4)
    assert index_T.tolist() == [0, 25, 50, 75]


def test_official_rule_takes_every_frame_of_a_slow_source():
    # round(0.2 / 1) = 0 is no step
    assert official_v1_frame_index(num_frames=4, source_fps=0.2, fps=1, max_frames=110).tolist() == [0, 1, 2, 3]


def test_official_plus_rule_rounds_the_number_of_frames():
    # 65 frames of 25 a second are 2.6 s: three frames, and not two
    index_T = official_plus_frame_index(num_frames=65, source_fps=25, interval_s=1, min_frames=1, max_frames=110)
    assert index_T.tolist() == [0, 32, 64]
