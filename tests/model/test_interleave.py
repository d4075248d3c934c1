import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from avcap.model.interleave import (
    AUDIO_ID,
    VISUAL_ID,
    ZERO_ID,
    Group,
    TokenTypes,
    lay_out,
    nearest_indices,
    num_real_windows,
    plan_official,
    plan_true_time,
    window_starts,
)

TYPES = TokenTypes(cells_per_side=2, row_newline=True, windows_per_s=2, num_queries=1)

clips = st.fixed_dictionaries(
    {
        "fps": st.sampled_from([0.1, 0.5, 1.0, 2.0, 10.0, 24.0, 29.97]),
        "duration_s": st.floats(0.0, 70.0),
        "start_s": st.one_of(st.integers(0, 90).map(float), st.floats(0.0, 90.0)),
        "chunk_s": st.sampled_from([1.0, 30.0]),
        "has_video": st.booleans(),
        "audio_s": st.one_of(st.just(0.0), st.floats(0.01, 70.0)),
    }
)


def times_of(clip: dict) -> tuple[list[float], list[float]]:
    """Clip -> times of its frames and of its real audio tokens."""
    num_frames = max(1, math.ceil(clip["duration_s"] * clip["fps"])) if clip["has_video"] else 0
    num_chunks = math.ceil(clip["audio_s"] / clip["chunk_s"])
    starts = window_starts(
        num_chunks, windows_per_chunk=round(clip["chunk_s"] / 0.5), chunk_s=clip["chunk_s"], stride_s=0.5
    )
    num_real = num_real_windows(starts, audio_seconds=clip["audio_s"])
    frame_times = [clip["start_s"] + frame / clip["fps"] for frame in range(num_frames)]
    return frame_times, [clip["start_s"] + start for start in starts[:num_real]]


@given(clips)
def test_every_half_second_of_audio_gives_one_token(clip):
    _, audio_times = times_of(clip)
    # ceil(seconds / 0.5), where the last 1e-6 s of a window do not count
    assert len(audio_times) == max(0, math.ceil((clip["audio_s"] - 1e-6) / 0.5))


@given(clips)
def test_true_time_keeps_every_frame_and_token_once_and_in_order(clip):
    frame_times, audio_times = times_of(clip)
    groups = plan_true_time(frame_times, audio_times)
    assert [group.frame for group in groups if group.frame is not None] == list(range(len(frame_times)))
    assert [token for group in groups for token in group.audio] == list(range(len(audio_times)))


@given(clips)
def test_true_time_puts_audio_between_its_frames(clip):
    frame_times, audio_times = times_of(clip)
    for group in plan_true_time(frame_times, audio_times):
        begin = -math.inf if group.frame is None else frame_times[group.frame]
        following = 0 if group.frame is None else group.frame + 1
        end = frame_times[following] if following < len(frame_times) else math.inf
        assert all(begin - 2e-6 <= audio_times[token] < end for token in group.audio)


@given(clips)
def test_layout_is_a_permutation_of_all_rows(clip):
    frame_times, audio_times = times_of(clip)
    groups = plan_true_time(frame_times, audio_times)
    layout = lay_out(groups, frame_times_s=frame_times, audio_times_s=audio_times, types=TYPES)
    assert sorted(layout.rows) == list(range(6 * len(frame_times) + len(audio_times)))
    assert layout.ids.count(VISUAL_ID) == 6 * len(frame_times)
    assert layout.ids.count(AUDIO_ID) == len(audio_times)
    assert len(layout.ids) == len(layout.rows) == len(layout.seconds) == len(layout.types)
    assert layout.seconds == sorted(layout.seconds)


def test_true_time_by_hand():
    # frames at 1 s and 2 s; windows at 0.5 1.0 1.5 2.0 2.5 s: one before the first frame, two in each second after it
    groups = plan_true_time([1.0, 2.0], [0.5, 1.0, 1.5, 2.0, 2.5])
    assert groups == [Group(None, (0,)), Group(0, (1, 2)), Group(1, (3, 4))]


def test_float_noise_does_not_move_a_token():
    # 0.1 + 0.2 is a little more than 0.3: a frame at that time still comes before the sound at 0.3
    assert plan_true_time([0.1 + 0.2], [0.3]) == [Group(0, (0,))]


def test_time_running_backwards_is_an_error():
    with pytest.raises(ValueError, match="frame times"):
        plan_true_time([1.0, 0.0], [])
    with pytest.raises(ValueError, match="audio times"):
        plan_true_time([], [0.5, 0.0])


def test_tokens_of_one_window_have_one_time_and_stay_together():
    # two queries a window: windows at 0.5 1.0 1.5 s give tokens 0 1, 2 3, 4 5
    groups = plan_true_time([1.0], [0.5, 0.5, 1.0, 1.0, 1.5, 1.5])
    assert groups == [Group(None, (0, 1)), Group(0, (2, 3, 4, 5))]


def test_overlapping_windows_keep_the_time_of_their_chunk():
    # chunks of 2 s, windows of 1 s every 0.5 s: 3 a chunk, and the next chunk starts at 2 s again
    starts = window_starts(2, windows_per_chunk=3, chunk_s=2.0, stride_s=0.5)
    assert starts == [0.0, 0.5, 1.0, 2.0, 2.5, 3.0]


@given(st.integers(1, 120), st.integers(1, 8))
def test_official_order_is_the_official_stretch(num_frames, num_chunks):
    num_tokens = 60 * num_chunks
    per_frame = math.ceil(num_tokens / num_frames)
    groups = plan_official(num_frames, num_tokens)
    assert [group.frame for group in groups] == list(range(num_frames))
    official_order = torch.arange(num_tokens, dtype=torch.float32)[None, None]
    official_order = F.interpolate(official_order, size=per_frame * num_frames, mode="nearest")[0, 0].long().tolist()
    assert [token for group in groups for token in group.audio] == official_order


def test_official_order_without_frames_or_audio():
    assert plan_official(0, 4) == [Group(None, (0, 1, 2, 3))]
    assert plan_official(2, 0) == [Group(0, ()), Group(1, ())]


@given(st.integers(1, 700), st.integers(1, 900))
def test_nearest_indices_are_those_of_torch(num_in, num_out):
    numbers = torch.arange(num_in, dtype=torch.float32)[None, None]
    assert nearest_indices(num_in, num_out) == F.interpolate(numbers, size=num_out)[0, 0].long().tolist()


def test_types_of_tokens():
    # cells 0-3, newline 4, sound of the first and second half of a second 5 and 6
    assert TYPES.of_frame == (0, 1, 4, 2, 3, 4)
    assert [TYPES.of_audio(token, time_s) for token, time_s in enumerate([0.0, 0.5, 1.0, 2.5, 3.9999999])] == [
        5,
        6,
        5,
        6,
        5,
    ]
    assert TYPES.count == 7
    # two queries a window: 5 and 6 in the first half of a second, 7 and 8 in the second half
    two = TokenTypes(cells_per_side=2, row_newline=True, windows_per_s=2, num_queries=2)
    times_s = [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]
    assert [two.of_audio(token, time_s) for token, time_s in enumerate(times_s)] == [5, 6, 7, 8, 5, 6]
    assert two.count == 9


def test_a_token_from_before_the_video_is_of_its_first_second():
    layout = lay_out(
        plan_true_time([-0.5, 1.5], [-1.5]),
        frame_times_s=[-0.5, 1.5],
        audio_times_s=[-1.5],
        types=TokenTypes(cells_per_side=1, row_newline=False, windows_per_s=2, num_queries=1),
    )
    assert layout.ids == [AUDIO_ID, VISUAL_ID, VISUAL_ID] and layout.seconds == [0, 0, 1]


def test_time_text_follows_its_frame():
    layout = lay_out(
        plan_true_time([0.0, 1.0], []),
        frame_times_s=[0.0, 1.0],
        audio_times_s=[],
        types=TokenTypes(cells_per_side=1, row_newline=False, windows_per_s=2, num_queries=1),
        time_text_ids=[[7, ZERO_ID], [8, 9]],
    )
    assert layout.ids == [VISUAL_ID, 7, ZERO_ID, VISUAL_ID, 8, 9]
    assert layout.rows == [0, 1]
