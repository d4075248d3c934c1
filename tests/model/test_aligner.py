import math

import pytest
import torch

from avcap.model.aligner import AudioAligner
from avcap.model.salmonn2.aligner import VisionAligner, pool_cells, segment_positions, token_types
from avcap.model.salmonn2.configuration import Salmonn2Config
from avcap.model.salmonn2.tiny import TINY_AUDIO, TINY_QFORMER, TINY_TEXT, TINY_VISION


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
    expected = [[0, 0, 0, 0], [0, 1, 0, 1], [math.sin(1), math.cos(1), math.sin(0.01), math.cos(0.01)]]
    assert table.flatten().tolist() == pytest.approx([number for row in expected for number in row], abs=1e-6)


def config(**fields) -> Salmonn2Config:
    return Salmonn2Config(
        vision_config=TINY_VISION,
        audio_config=TINY_AUDIO,
        qformer_config=TINY_QFORMER,
        text_config=TINY_TEXT | {"vocab_size": 8},
        **fields,
    )


def test_a_frame_is_joined_by_its_change_since_the_frame_before():
    aligner = VisionAligner(config(frame_difference=True))
    vision_TNV, lead_in_NV = torch.tensor([[[1.0, 2.0]], [[4.0, 8.0]]]), torch.tensor([[0.5, 3.0]])
    # later - earlier: 1 - 0.5, 2 - 3; 4 - 1, 8 - 2
    joined = aligner.input(vision_TNV, lead_in_NV=lead_in_NV)
    assert joined.tolist() == [[[1.0, 2.0, 0.5, -1.0]], [[4.0, 8.0, 3.0, 6.0]]]
    # without a frame before it the first one has not changed
    assert aligner.input(vision_TNV, lead_in_NV=None)[0].tolist() == [[1.0, 2.0, 0.0, 0.0]]
    plain = VisionAligner(config())
    assert plain.input(vision_TNV, lead_in_NV=lead_in_NV) is vision_TNV


def test_a_newline_ends_every_row_of_cells():
    # 8 x 8 patches pooled by 4: 2 x 2 cells; cells are projected to 0, and the newline is all ones
    aligner = VisionAligner(config(pool_stride=4, projector="linear"))
    torch.nn.init.zeros_(aligner.projector.weight)
    torch.nn.init.zeros_(aligner.projector.bias)
    torch.nn.init.ones_(aligner.newline)
    tokens_TND = aligner(torch.randn(3, 64, 96))
    assert tokens_TND.shape == (3, 6, 128)
    assert tokens_TND[..., 0].tolist() == [[0, 0, 1, 0, 0, 1]] * 3


@pytest.mark.parametrize(
    ("stride_s", "windows_per_s"),
    [(0.5, 2), (0.2, 5), (0.6, 2), (1.0, 1), (2.0, 1)],  # 1 / 0.6 = 1.67 is nearer to 2; 1 / 2 = 0.5, but at least 1
)
def test_places_of_audio_tokens_in_a_second(stride_s, windows_per_s):
    assert token_types(config(window_stride_s=stride_s)).windows_per_s == windows_per_s


def audio_aligner(**fields) -> AudioAligner:
    torch.manual_seed(0)
    dials = config(**fields)
    aligner = AudioAligner(dials, input_norm=dials.audio_layer_norm, final_layers=dials.use_final_linear).eval()
    torch.nn.init.normal_(aligner.query_tokens)
    return aligner


def test_windows_come_chunk_by_chunk_and_in_time_order():
    # positions carry their own number; 50 a chunk, windows of 25
    audio_KPA = torch.arange(100.0).view(2, 50, 1)
    windows_WIA = audio_aligner().windows(audio_KPA)
    assert windows_WIA[..., 0].tolist() == [list(map(float, range(first, first + 25))) for first in (0, 25, 50, 75)]


def test_overlapping_windows_stay_inside_their_chunk():
    windows_WIA = audio_aligner(window_s=0.6, window_stride_s=0.2).windows(torch.arange(50.0).view(1, 50, 1))
    assert windows_WIA[:, 0, 0].tolist() == [0.0, 10.0, 20.0] and windows_WIA.shape[1] == 30


def test_windows_do_not_see_each_other():
    aligner = audio_aligner(num_queries=2)
    windows_WIA = torch.randn(4, 25, 96)
    together = aligner.qform(windows_WIA)
    assert together.shape == (8, 96)
    assert torch.allclose(aligner.qform(windows_WIA[2:3]), together[4:6], atol=1e-5)


def test_queries_are_projected_and_then_go_through_the_final_layers():
    aligner = audio_aligner()
    first, _, last = aligner.final
    with torch.no_grad():
        for layer in (aligner.proj, first, last):
            layer.weight.zero_()
        aligner.proj.bias.fill_(2.0)  # whatever the query: 2
        first.weight.fill_diagonal_(1.0)
        first.bias.fill_(-1.0)  # 2 - 1 = 1
        last.weight.fill_diagonal_(10.0)
        last.bias.fill_(0.5)
    # gelu(1) = 1 * P(normal < 1) = 0.8413; 10 x 0.8413 + 0.5
    assert aligner.project(torch.randn(3, 96)).unique().tolist() == pytest.approx([8.913], abs=1e-3)
