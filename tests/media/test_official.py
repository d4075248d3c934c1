"""Files read as the published code reads them: frames by number, sizes, sound from its own first sample."""

import math
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image
from support.videos import FPS, write_video

from avcap.errors import MediaError
from avcap.media.clip import ClipRequest
from avcap.media.frame_size import PixelBudget
from avcap.media.reader import read_request
from avcap.model.salmonn2_plus.patches import resize_frames

SECONDS = 3
NUM_FRAMES = SECONDS * FPS  # 15


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("published") / "a.mp4", seconds=SECONDS, audio_s=4)


def all_frames(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def read(path, **options):
    return read_request(ClipRequest(path=str(path), **options))


def test_v1_takes_every_fifth_frame_and_the_audio_while_the_video_lasts(video):
    clip = read(video, official="v1", fps=1.0, max_frames=110, frame_size=(48, 48))
    assert clip.frame_times_T.tolist() == [0, 1, 2]  # 5 frames a second: numbers 0, 5, 10
    expected = [Image.fromarray(frame).resize((48, 48), Image.Resampling.BICUBIC) for frame in all_frames(video)[::5]]
    assert (clip.frames_THWC == np.stack([np.asarray(image) for image in expected])).all()
    assert clip.end_s == SECONDS and len(clip.waveform_S) == SECONDS * 16_000


def test_v1_spreads_frames_up_to_the_very_last(video):
    clip = read(video, official="v1", fps=1.0, max_frames=2, frame_size=(48, 48))
    assert clip.frame_times_T.tolist() == [0, (NUM_FRAMES - 1) / FPS]  # linspace(0, 14, 2)


# 15 frames at 5 a second: 3 s; 4 s of sound. Interval, frames at, its end, samples of sound from where to where
CUTS = [
    ((0, 2), [0, 1, 2], 2, (0, 32_000)),  # frames 0, 5, 10: the one at the end, too
    ((1, 3), [1, 2], 3, (16_000, 48_000)),  # frames 5, 10; 15 is none
    ((1, math.inf), [1, 2], 3, (16_000, 48_000)),
    ((1, 9), [1, 2], 9, (16_000, None)),  # as long as asked: 8 s of real time; all the sound there is
    ((0.5, 2.5), [0.4, 1.4, 2.4], 2.5, (8_000, 40_000)),  # 2.5 and 12.5 are rounded to frames 2 and 12
]


@pytest.mark.parametrize(("interval_s", "times_s", "end_s", "samples"), CUTS)
def test_v1_cuts_an_interval(video, interval_s, times_s, end_s, samples):
    whole = read(video, official="plus", pixel_budget=PixelBudget(max_frame_pixels=28 * 28, max_frames=8))
    clip = read(video, official="v1", interval_s=interval_s, frame_size=(64, 64))
    assert clip.frame_times_T.tolist() == times_s
    assert (clip.frames_THWC == all_frames(video)[[round(time_s * FPS) for time_s in times_s]]).all()
    assert (clip.start_s, clip.end_s) == (interval_s[0], end_s)
    first, last = samples
    assert len(whole.waveform_S) >= 4 * 16_000 and (clip.waveform_S == whole.waveform_S[first:last]).all()


def test_v1_spreads_frames_over_an_interval(video):
    clip = read(video, official="v1", interval_s=(0, 2), max_frames=2, frame_size=(48, 48))
    assert clip.frame_times_T.tolist() == [0, 2]  # linspace(0, 10, 2) for 0, 5, 10


@pytest.mark.parametrize("audio_s", [0, 4])
def test_v1_refuses_intervals_on_which_the_official_code_fails(video, tmp_path, audio_s):
    path = video if audio_s else write_video(tmp_path / "silent.mp4", seconds=SECONDS, audio_s=0)
    with pytest.raises(MediaError, match=r"got the interval 3\.\.4 s, expected one that starts in the file"):
        read(path, official="v1", interval_s=(3, 4), frame_size=(48, 48))
    with pytest.raises(MediaError, match="got 1 frames to look at, expected at least 2"):  # frame 5 alone: 10 is next
        read(path, official="v1", interval_s=(1, 1.8), frame_size=(48, 48))


def test_v1_hears_an_interval_of_audio_alone_for_as_long_as_frames_could_last(video):
    whole_S = read(video, official="plus", with_video=False).waveform_S
    clip = read(video, official="v1", interval_s=(1, 3), with_video=False)
    assert (clip.waveform_S == whole_S[16_000:48_000]).all() and (clip.start_s, clip.end_s) == (1, 3)
    clip = read(video, official="v1", interval_s=(1, 4), with_video=False, fps=2.0, max_frames=3)
    assert (clip.waveform_S == whole_S[16_000:40_000]).all() and clip.end_s == 2.5  # 3 frames, 2 a second: 1.5 s
    with pytest.raises(MediaError, match="expected one that starts in the file"):
        read(video, official="v1", interval_s=(5, 6), with_video=False)


def test_plus_resizes_8_bit_tensors(video):
    import torch

    budget = PixelBudget(max_frame_pixels=28 * 28, max_frames=8)
    clip = read(video, official="plus", fps=2.0, max_frames=8, pixel_budget=budget)
    index = [0, 2, 4, 6, 8, 10, 12, 14]  # linspace(0, 14, 8): 6 wanted, 64 at least, 8 at most
    assert np.allclose(clip.frame_times_T, np.array(index) / FPS)
    frames_TCHW = torch.from_numpy(all_frames(video)[index]).permute(0, 3, 1, 2)
    expected = resize_frames(frames_TCHW, (28, 28)).permute(0, 2, 3, 1).numpy()
    assert (clip.frames_THWC == expected).all()
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
    v1 = read(path, official="v1")
    assert (v1.waveform_S == left_S / np.float32(32768)).all()
    assert np.abs(read(path, official="plus").waveform_S).max() < np.abs(v1.waveform_S).max()


def test_a_file_without_all_its_frames_is_an_error(video, tmp_path):
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    with pytest.raises(MediaError):
        read(damaged, official="v1", frame_size=(48, 48))
