"""What of the published behaviour is decided between file and model."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from avcap.errors import UserError
from avcap.infer.official.options import official_decoding, refuse_interval
from avcap.infer.official.rules import Official
from avcap.model.features import MediaFeatures, VisionGrid
from avcap.model.salmonn2.official import Salmonn2Official
from avcap.model.salmonn2_plus.official import Salmonn2PlusOfficial
from avcap.records import Decoding


class Tokenizer:
    def __init__(self, pad_token_id):
        self.pad_token_id = pad_token_id

    def convert_tokens_to_ids(self, token):
        return 7


def media(num_frames: int, *, seconds_per_grid: float) -> MediaFeatures:
    num_grids = -(-num_frames // 2)
    grid = VisionGrid(height=1, width=1, seconds_per_grid=seconds_per_grid, num_frames=num_frames)
    times_s = [seconds_per_grid * index for index in range(num_grids)]
    return MediaFeatures(vision_TNV=torch.zeros(num_grids, 1, 1), frame_times_T=times_s, grid=grid)


def test_a_grid_lasts_two_frames_of_frames_spread_over_the_duration():
    # 100 frames of 10 s: 2 / (100 / 10), whatever the frames' own distance
    found = Salmonn2PlusOfficial().features(media(100, seconds_per_grid=0.2013), SimpleNamespace(end_s=10.0))
    assert found.grid.seconds_per_grid == 2.0 / (100 / 10.0)


def test_audio_that_ends_before_the_video_is_said_to_fail():
    # 0.2 s a grid: the last of n begins at floor(0.4 (n - 1)); 152 grids: 60, 154 grids: 61
    check_audio = Salmonn2PlusOfficial().check_audio
    check_audio(media(2 * 152, seconds_per_grid=0.2), num_audio=60, path="a.mp4")
    with pytest.raises(UserError, match=r"a\.mp4: got 60 tokens of sound for a picture that takes 61"):
        check_audio(media(2 * 154, seconds_per_grid=0.2), num_audio=60, path="a.mp4")


@pytest.mark.parametrize(("pad", "kept"), [(3, [1, 7, 2, 7]), (7, [1, 2]), (None, [1, 2])])
def test_end_markers_are_lost_where_they_are_the_padding(pad, kept, tmp_path):
    official = Official(folder=tmp_path, rules=Salmonn2Official())
    about = {"media": media(2, seconds_per_grid=1.0), "num_audio": 0, "tokenizer": Tokenizer(pad), "path": "a.mp4"}
    assert official.prompt([1, 7, 2, 7], **about) == kept
    plus = replace(official, rules=Salmonn2PlusOfficial())  # whose collator masks by length
    assert plus.prompt([1, 7, 2, 7], **about) == [1, 7, 2, 7]


def test_repetition_penalty_is_that_of_the_folder(tmp_path):
    greedy = Decoding(max_new_tokens=5)
    assert official_decoding(greedy, tmp_path) == greedy
    (tmp_path / "generation_config.json").write_text(json.dumps({"repetition_penalty": 1.05, "temperature": 1e-6}))
    assert official_decoding(greedy, tmp_path) == replace(greedy, repetition_penalty=1.05)
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(UserError, match=r"generation_config\.json"):
        official_decoding(greedy, tmp_path)


def test_what_cannot_be_is_said():
    with pytest.raises(UserError, match="expected a whole video: its published code knows no parts"):
        refuse_interval(Salmonn2PlusOfficial(), (1.0, 2.0))
    refuse_interval(Salmonn2PlusOfficial(), None)
    refuse_interval(Salmonn2Official(), (1.0, 2.0))
