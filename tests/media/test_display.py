"""What a viewer sees: turned and mirrored, in square pixels, in the colours of an ordinary screen."""

from fractions import Fraction

import av
import numpy as np
import pytest
from support.media_files import set_display_matrix, stamped_frame, stored_for, write_media

from avcap.media import read_clip
from avcap.media.display import UPRIGHT, Orientation, orientation, square_size
from avcap.media.frame_size import PixelBudget
from avcap.media.tone_mapping import to_sdr

MATRICES = [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]


def turned(degrees: float, *, mirrored: bool = False) -> np.ndarray:
    """-> display matrix that turns clockwise, after mirroring if wanted."""
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    side = -1 if mirrored else 1
    return np.array([[side * cosine, side * sine, 0], [-sine, cosine, 0], [0, 0, 1]]) * 65536


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("quarter", range(4))
def test_an_odd_angle_is_taken_to_the_nearest_quarter(quarter, mirrored):
    exact = orientation(turned(90 * quarter, mirrored=mirrored))
    assert exact.is_mirrored == mirrored
    for off in (-40, -3, 0.2, 40):
        assert orientation(turned(90 * quarter + off, mirrored=mirrored)) == exact
    frame = np.arange(6).reshape(2, 3, 1)
    upright = frame[:, ::-1] if mirrored else frame
    np.testing.assert_array_equal(exact.apply(frame), np.rot90(upright, -quarter))  # rot90 turns the other way


def test_a_matrix_that_leads_nowhere_changes_nothing():
    assert orientation(np.zeros((3, 3), np.int32)) == UPRIGHT == Orientation()


@pytest.mark.parametrize(
    ("aspect", "size"),
    [
        (Fraction(32, 27), (480, 853)),  # 720 * 32 / 27
        (Fraction(8, 9), (540, 720)),  # 480 * 9 / 8: no pixel is lost
        (Fraction(1), (480, 720)),
        (Fraction(0), (480, 720)),
        (None, (480, 720)),
        (Fraction(1, 1000), (480, 720)),  # no camera: a damaged header
    ],
)
def test_pixels_are_made_square(aspect, size):
    assert square_size(480, 720, pixel_aspect=aspect) == size


def write_anamorphic(path, *, aspect: Fraction):
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.height, video.width, video.pix_fmt = 64, 96, "yuv420p"
        video.codec_context.sample_aspect_ratio = aspect
        frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 128, np.uint8), format="rgb24")
        for packet in [*video.encode(frame), *video.encode(None)]:
            container.mux(packet)
    return path


def test_anamorphic_video_gets_its_shape(tmp_path):
    path = write_anamorphic(tmp_path / "wide.mp4", aspect=Fraction(4, 3))
    clip = read_clip(path)
    assert clip.frames_THWC.shape == (1, 64, 128, 3)  # 96 * 4 / 3
    assert clip.notes == ("pixels of 4:3 made square",)
    # turned by a quarter, the long side is the height
    clip = read_clip(set_display_matrix(path, (0, 1, -1, 0)))
    assert clip.frames_THWC.shape == (1, 128, 64, 3)
    # a budget sees the shape as shown: 128 x 64 is 2 : 1, and 56 x 28 = 1568 pixels fit
    budget = PixelBudget(max_frame_pixels=1600, max_frames=1, min_frame_pixels=28)
    assert read_clip(path, pixel_budget=budget).frames_THWC.shape == (1, 56, 28, 3)
    assert read_clip(path, frame_size=(30, 30)).frames_THWC.shape == (1, 30, 30, 3)


@pytest.mark.parametrize("matrix", [(-1, 0, 0, 1), (0, 1, 1, 0)])
def test_a_mirrored_video_says_so(tmp_path, matrix):
    path = write_media(
        tmp_path / "mirrored.mp4", frame_times=[0, 40], image=lambda number: stored_for(stamped_frame(number), matrix)
    )
    assert read_clip(path).notes == ()
    assert read_clip(set_display_matrix(path, matrix)).notes == ("shown mirrored, as its display matrix says",)


def pq(nits: float) -> int:
    """Light -> its 16-bit PQ code, by the inverse curve of BT.2100."""
    power = (nits / 10000) ** (2610 / 16384)
    code = ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    return round(65535 * code)


@pytest.mark.parametrize(
    ("nits", "expected"),
    [
        (0, 0),
        (203 * 0.5, 191),  # below the knee as it is: 255 * 0.5 ** (1 / 2.4)
        (203 * 0.18, 125),  # 255 * 0.18 ** (1 / 2.4)
        (203, 244),  # 0.8 + 0.2 / 2 = 0.9; 255 * 0.9 ** (1 / 2.4)
        (10000, 255),
    ],
)
def test_pq_grey_is_mapped_by_its_light(nits, expected):
    grey_111 = np.full((1, 1, 3), pq(nits), np.uint16)
    assert np.abs(to_sdr(grey_111, curve="PQ").astype(int) - expected).max() <= 1


def test_hlg_reference_white_is_that_of_pq():
    # BT.2408: 75 % HLG on a screen of 1000 cd/m2 is 203 cd/m2
    white_111 = np.full((1, 1, 3), round(0.75 * 65535), np.uint16)
    assert np.abs(to_sdr(white_111, curve="HLG").astype(int) - 244).max() <= 1


def test_brighter_stays_brighter_and_hue_stays():
    ramp_1W3 = np.array([[[pq(n), pq(n / 4), pq(n / 4)] for n in (10, 100, 203, 600, 4000)]], np.uint16)
    sdr_W3 = to_sdr(ramp_1W3, curve="PQ", primaries="BT.709")[0].astype(float)
    assert (np.diff(sdr_W3[:, 0]) > 0).all()
    np.testing.assert_allclose((sdr_W3[:, 1] / sdr_W3[:, 0]) ** 2.4, 0.25, atol=0.02)


@pytest.mark.parametrize(("curve", "trc", "code"), [("PQ", 16, pq(203)), ("HLG", 18, round(0.75 * 65535))])
def test_an_hdr_file_comes_out_as_on_an_sdr_screen(tmp_path, curve, trc, code):
    path = tmp_path / "hdr.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=25)
        video.height, video.width, video.pix_fmt = 64, 64, "yuv420p10le"
        context = video.codec_context
        context.color_trc, context.color_primaries, context.colorspace, context.color_range = trc, 9, 9, 1
        frame = av.VideoFrame(64, 64, "yuv420p10le")
        grey = round(64 + code / 65535 * 876)  # limited range of 10 bits
        for plane, value in zip(frame.planes, (grey, 512, 512), strict=True):
            plane.update(np.full(plane.buffer_size // 2, value, np.uint16).tobytes())
        frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range = trc, 9, 9, 1
        for packet in [*video.encode(frame), *video.encode(None)]:
            container.mux(packet)
    clip = read_clip(path)
    assert np.abs(clip.frames_THWC.astype(int) - 244).max() <= 3
    assert clip.notes == (f"HDR ({curve}) tone-mapped to SDR",)


@pytest.mark.parametrize(("height", "luma"), [(576, (0.299, 0.114)), (720, (0.2126, 0.0722))])
def test_colours_without_a_matrix_are_those_of_their_size(tmp_path, height, luma):
    """Standard definition is BT.601 and high definition BT.709, as players take it."""
    red, blue = luma
    rgb = np.array([200, 40, 60]) / 255
    y = rgb @ [red, 1 - red - blue, blue]
    planes = 16 + 219 * y, 128 + 112 * (rgb[2] - y) / (1 - blue), 128 + 112 * (rgb[0] - y) / (1 - red)
    path = tmp_path / "plain.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=25)
        video.height, video.width, video.pix_fmt = height, 64, "yuv420p"
        frame = av.VideoFrame(64, height, "yuv420p")
        for plane, value in zip(frame.planes, planes, strict=True):
            plane.update(bytes([round(value)]) * plane.buffer_size)
        for packet in [*video.encode(frame), *video.encode(None)]:
            container.mux(packet)
    assert np.abs(read_clip(path).frames_THWC.astype(int) - [200, 40, 60]).max() <= 4


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"), [("a.png", "png", "rgba"), ("a.mov", "qtrle", "argb"), ("a.mkv", "ffv1", "yuva420p")]
)
def test_alpha_and_odd_sizes_are_no_obstacle(tmp_path, name, codec, pix_fmt):
    with av.open(str(tmp_path / name), "w") as container:
        video = container.add_stream(codec, rate=25)
        video.height, video.width, video.pix_fmt = 33, 35, pix_fmt
        frame = av.VideoFrame.from_ndarray(np.full((33, 35, 3), (200, 40, 60), np.uint8), format="rgb24")
        for packet in [*video.encode(frame), *video.encode(None)]:
            container.mux(packet)
    frames_THWC = read_clip(tmp_path / name).frames_THWC
    assert frames_THWC.shape == (1, 33, 35, 3)
    assert np.abs(frames_THWC.astype(int) - [200, 40, 60]).max() <= 4
