"""Frame sizes within a budget of pixels, and which frames the published 2+ code looks at."""

import math

from hypothesis import given
from hypothesis import strategies as st

from avcap.media.frame_size import PixelBudget, smart_resize
from avcap.media.frame_times import official_plus_frame_index, official_plus_seconds_per_grid

sides = st.integers(8, 4000)


@given(height=sides, width=sides, max_pixels=st.integers(28 * 28, 10**6))
def test_sides_are_multiples_and_the_area_is_within_the_limits(height, width, max_pixels):
    new_height, new_width = smart_resize(height, width, factor=28, min_pixels=784, max_pixels=max_pixels)
    assert new_height % 28 == new_width % 28 == 0
    assert new_height * new_width >= 784
    # a side of less than one multiple is rounded up, whatever the area then is
    assert new_height * new_width <= max_pixels or 28 in (new_height, new_width)


@given(height=st.integers(28, 2000), width=st.integers(28, 2000), num_frames=st.integers(1, 1000))
def test_a_frame_of_the_budgets_size_keeps_it(height, width, num_frames):
    budget = PixelBudget()
    size = budget.frame_size(height, width, num_frames=num_frames)
    assert budget.frame_size(*size, num_frames=num_frames) == size


def test_few_frames_may_be_larger():
    budget = PixelBudget(max_frame_pixels=61_250, max_frames=768)
    # at the cap 61250 pixels a frame: 1080 x 1920 shrinks by sqrt(2073600 / 61250) = 5.82 to 185.6 x 330, cut to 28s
    assert budget.frame_size(1080, 1920, num_frames=768) == (168, 308)
    # 600 frames: 0.95 * 768 / 600 * 61250 = 74480 pixels each, factor 5.277: 204.7 x 363.9
    assert budget.frame_size(1080, 1920, num_frames=600) == (196, 336)
    # 60 frames: 744800 each, factor 1.6686: 647.3 x 1150.7
    assert budget.frame_size(1080, 1920, num_frames=60) == (644, 1148)


def test_small_frames_grow_to_the_least_area():
    # 10 x 10 -> factor sqrt(784 / 100) = 2.8 -> 28 x 28
    assert smart_resize(10, 10, factor=28, min_pixels=784, max_pixels=61_250) == (28, 28)


def test_official_frames_are_spread_from_the_first_to_the_last():
    options = {"interval_s": 0.4, "min_frames": 4, "max_frames": 32}
    # 10 s of 25 frames a second: round(10 / 0.4) = 25 frames, linspace(0, 249, 25): steps of 10.375, cut
    index = official_plus_frame_index(num_frames=250, source_fps=25.0, **options)
    assert index[:4].tolist() == [0, 10, 20, 31] and index[-1] == 249 and len(index) == 25
    # 25 frames in 10 s: 2.5 a second, two of them cover 0.8 s
    assert math.isclose(official_plus_seconds_per_grid(num_frames=250, source_fps=25.0, num_looked_at=25), 0.8)


def test_official_number_of_frames_has_two_limits():
    options = {"source_fps": 25.0, "interval_s": 0.1, "min_frames": 64, "max_frames": 768}
    assert len(official_plus_frame_index(num_frames=25 * 600, **options)) == 768  # 10 min would be 6000
    assert len(official_plus_frame_index(num_frames=100, **options)) == 64  # 4 s would be 40
    assert len(official_plus_frame_index(num_frames=30, **options)) == 30  # 64 wanted, each frame once
