"""Files read as the published code reads them: frames by number, sizes, sound from its own first sample."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image
from support.videos import FPS, write_video

from avcap.data.plus_inputs import resize_frames
from avcap.errors import MediaError
from avcap.media.clip import ClipRequest
from avcap.media.frame_size import PixelBudget
from avcap.media.reader import read_request

SECONDS = 3
NUM_FRAMES = SECONDS * FPS  # 15


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("published") / "a.mp4", seconds=SECONDS, sound_s=4)


def all_frames(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def read(path, **options):
    return read_request(ClipRequest(path=str(path), **options))


def test_v1_takes_every_fifth_frame_and_the_sound_while_the_picture_lasts(video):
    clip = read(video, published="v1", fps=1.0, max_frames=110, frame_size=(48, 48))
    assert clip.frame_times_T.tolist() == [0, 1, 2]  # 5 frames a second: numbers 0, 5, 10
    wanted = [Image.fromarray(frame).resize((48, 48), Image.Resampling.BICUBIC) for frame in all_frames(video)[::5]]
    assert (clip.frames_THWC == np.stack([np.asarray(image) for image in wanted])).all()
    assert clip.end_s == SECONDS and len(clip.waveform_S) == SECONDS * 16_000


def test_v1_spreads_frames_up_to_the_very_last(video):
    clip = read(video, published="v1", fps=1.0, max_frames=2, frame_size=(48, 48))
    assert clip.frame_times_T.tolist() == [0, (NUM_FRAMES - 1) / FPS]  # linspace(0, 14, 2)


def test_plus_resizes_8_bit_tensors(video):
    import torch

    budget = PixelBudget(max_frame_pixels=28 * 28, max_frames=8)
    clip = read(video, published="plus", fps=2.0, max_frames=8, pixel_budget=budget)
    index = [0, 2, 4, 6, 8, 10, 12, 14]  # linspace(0, 14, 8): 6 wanted, 64 at least, 8 at most
    assert np.allclose(clip.frame_times_T, np.array(index) / FPS)
    frames_TCHW = torch.from_numpy(all_frames(video)[index]).permute(0, 3, 1, 2)
    wanted = resize_frames(frames_TCHW, (28, 28)).permute(0, 2, 3, 1).numpy()
    assert (clip.frames_THWC == wanted).all()
    assert len(clip.waveform_S) > SECONDS * 16_000  # all the sound, past the picture's end


def test_stereo_is_its_first_channel_in_v1_and_mixed_in_plus(tmp_path):
    path = tmp_path / "stereo.wav"
    left_S = (np.sin(np.arange(16_000) * 0.3) * 16_000).astype(np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="stereo")
        packed_1S = np.stack([left_S, np.zeros_like(left_S)], axis=1).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed_1S, format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    v1 = read(path, published="v1")
    assert (v1.waveform_S == left_S / np.float32(32768)).all()
    assert np.abs(read(path, published="plus").waveform_S).max() < np.abs(v1.waveform_S).max()


def test_a_file_without_all_its_frames_is_an_error(video, tmp_path):
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    with pytest.raises(MediaError):
        read(damaged, published="v1", frame_size=(48, 48))
