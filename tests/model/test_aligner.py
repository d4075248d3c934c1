import math

import pytest
import torch

from avcap.model.aligner import SoundAligner, pool_cells, segment_positions
from avcap.model.configuration import Salmonn2Config
from avcap.model.tiny import TINY_AUDIO, TINY_QFORMER, TINY_TEXT, TINY_VISION


def test_pool_drops_the_rest_row_and_column():
    # a 3x3 grid of 0..8, stride 2: one cell from 0 1 3 4
    patches_TNC = torch.arange(9.0).view(1, 9, 1)
    assert pool_cells(patches_TNC, stride=2, mode="max").flatten().tolist() == [4.0]
    assert pool_cells(patches_TNC, stride=2, mode="average").flatten().tolist() == [2.0]


def test_pool_keeps_cells_row_by_row():
    # a 4x4 grid: the largest of each 2x2 block is its last
    patches_TNC = torch.arange(16.0).view(1, 16, 1)
    assert pool_cells(patches_TNC, stride=2, mode="max").flatten().tolist() == [5.0, 7.0, 13.0, 15.0]


def test_segment_positions_are_zeros_then_interleaved_sinusoids():
    table = segment_positions(torch.tensor([0, 1, 2]), width=4)
    # frequencies 10000^0 = 1 and 10000^(-2/4) = 0.01; chunk 1 has angle 0, chunk 2 has angle 1 and 0.01
    wanted = [[0, 0, 0, 0], [0, 1, 0, 1], [math.sin(1), math.cos(1), math.sin(0.01), math.cos(0.01)]]
    assert table.flatten().tolist() == pytest.approx([number for row in wanted for number in row], abs=1e-6)


def sound_aligner(**fields) -> SoundAligner:
    torch.manual_seed(0)
    config = Salmonn2Config(
        vision_config=TINY_VISION,
        audio_config=TINY_AUDIO,
        qformer_config=TINY_QFORMER,
        text_config=TINY_TEXT | {"vocab_size": 8},
        **fields,
    )
    aligner = SoundAligner(config).eval()
    torch.nn.init.normal_(aligner.query_tokens)
    return aligner


def test_windows_come_chunk_by_chunk_and_in_time_order():
    # positions carry their own number; 50 a chunk, windows of 25
    sound_KPA = torch.arange(100.0).view(2, 50, 1)
    windows_WIA = sound_aligner().windows(sound_KPA)
    assert windows_WIA[..., 0].tolist() == [list(map(float, range(first, first + 25))) for first in (0, 25, 50, 75)]


def test_overlapping_windows_stay_inside_their_chunk():
    windows_WIA = sound_aligner(window_s=0.6, window_stride_s=0.2).windows(torch.arange(50.0).view(1, 50, 1))
    assert windows_WIA[:, 0, 0].tolist() == [0.0, 10.0, 20.0] and windows_WIA.shape[1] == 30


def test_windows_do_not_see_each_other():
    aligner = sound_aligner(num_queries=2)
    windows_WIA = torch.randn(4, 25, 96)
    together = aligner.qform(windows_WIA)
    assert together.shape == (8, 96)
    assert torch.allclose(aligner.qform(windows_WIA[2:3]), together[4:6], atol=1e-5)
