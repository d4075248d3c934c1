"""Positions on three axes: as recorded from the released code, and for any length of picture and sound."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from support import ASSETS

from avcap.model.salmonn2_plus import mrope

RECORDED = load_file(ASSETS / "plus_positions.safetensors")
CASES = sorted({name.partition(".")[0] for name in RECORDED})
FIRST_PAD = 29  # where the media begin in every recorded prompt


def recorded(case: str) -> dict[str, torch.Tensor]:
    return {name.partition(".")[2]: tensor for name, tensor in RECORDED.items() if name.startswith(f"{case}.")}


def sizes(case: dict) -> tuple[int, int, int, float, int]:
    """-> grids, tokens of a column and of a row, seconds of a grid, audio tokens."""
    grids, height, width = case["grid"].tolist() if "grid" in case else (0, 0, 0)
    seconds = case["second_per_grid"].item() if "second_per_grid" in case else 1.0
    return grids, height // 2, width // 2, seconds, case["num_sound"].item() if "num_sound" in case else 0


def order(grids: int, per_grid: int, audio_times_U: np.ndarray, seconds: float) -> np.ndarray:
    if not grids:
        return np.arange(len(audio_times_U))
    counts = mrope.audio_per_grid(grids, audio_times_U, seconds_per_grid=seconds)
    rows, used = [], 0
    for grid, count in enumerate(counts):
        rows += [*range(grid * per_grid, (grid + 1) * per_grid)]
        rows += [grids * per_grid + used + token for token in range(count)]
        used += count
    return np.array(rows)


def train_positions(grids: int, height: int, width: int, seconds: float, num_audio: int) -> mrope.MediaPositions:
    audio_times_U = np.arange(num_audio)
    return mrope.train_positions(
        mrope.grid_times(grids, seconds_per_grid=seconds),
        height=height,
        width=width,
        audio_times_U=audio_times_U,
        order_M=order(grids, height * width, audio_times_U, seconds),
    )


@pytest.mark.parametrize("case", CASES)
def test_training_positions_are_those_recorded(case):
    expected = recorded(case)
    places = train_positions(*sizes(expected))
    num_tokens = places.of_tokens.shape[1]
    assert (places.of_tokens + FIRST_PAD == expected["train"][:, FIRST_PAD : FIRST_PAD + num_tokens].numpy()).all()
    assert (places.following + FIRST_PAD == expected["train"][:, FIRST_PAD + num_tokens].numpy()).all()


@pytest.mark.parametrize("case", CASES)
def test_generate_positions_are_those_recorded(case):
    expected = recorded(case)
    grids, height, width, _, num_audio = sizes(expected)
    places = mrope.official_generate_positions(grids, height=height, width=width, num_audio=num_audio, steps_per_grid=2)
    num_tokens = places.of_tokens.shape[1]
    assert (places.of_tokens + FIRST_PAD == expected["generate"][:, FIRST_PAD : FIRST_PAD + num_tokens].numpy()).all()
    assert (places.following + FIRST_PAD == expected["generate"][:, FIRST_PAD + num_tokens].numpy()).all()


def test_a_minute_as_the_released_model_sees_it():
    # 60 s at 10 frames a second: 300 grids of 0.2 s, i.e. 0.4 steps: 0, 0, 0, 1, 1, 2, 2, 2, 3, ...
    assert mrope.grid_times(300, seconds_per_grid=0.2)[[0, 1, 2, 3, 5, 299]].tolist() == [0, 0, 0, 1, 2, 119]
    counts = mrope.audio_per_grid(300, np.arange(120), seconds_per_grid=0.2)
    # grid i ends at step 0.4 (i + 1): token 0 ends at step 1, within grid 2 (1.2), token 1 at 2, the end of grid 4
    assert counts[:6] == [0, 0, 1, 0, 1, 0] and sum(counts) == 120


def test_text_after_a_large_video_with_audio_starts_after_the_time_axis():
    # one grid of 3 rows of 40: widths 0..39, times 0..1 (two audio tokens)
    assert train_positions(1, 3, 40, 1.0, 2).following == 2
    assert train_positions(1, 3, 40, 1.0, 0).following == 40


@given(
    grids=st.integers(1, 40), seconds=st.floats(0.05, 8.0), num_audio=st.integers(0, 130), per_grid=st.integers(1, 4)
)
def test_every_audio_token_has_one_place_and_none_comes_before_its_time(grids, seconds, num_audio, per_grid):
    audio_times_U = np.arange(num_audio)
    counts = mrope.audio_per_grid(grids, audio_times_U, seconds_per_grid=seconds)
    assert len(counts) == grids and min(counts) >= 0 and sum(counts) == num_audio
    ends = mrope.grid_times(grids + 1, seconds_per_grid=seconds)[1:]
    audio_so_far = np.cumsum(counts)
    for grid in range(grids - 1):
        assert audio_so_far[grid] == min(num_audio, ends[grid])
