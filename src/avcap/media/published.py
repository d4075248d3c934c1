"""A file read as the published code reads it: frames by number, sound from its own first sample. See docs/compat.md.

Only to run released checkpoints exactly as published: numbers of frames are times only where the frame rate is
constant, and picture and sound that start apart are taken for starting together. What is right is in `reader`.
"""

# T frames looked at  H, W pixels  C = 3 colours  S samples of sound

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from avcap.errors import MediaError
from avcap.media.clip import SAMPLE_RATE_HZ, Clip, ClipRequest
from avcap.media.codec import DecodeError, Streams, find_streams, open_file, read_only, rotated_rgb
from avcap.media.frame_times import official_plus_frame_index, official_v1_frame_index
from avcap.media.sound import SoundReader

PLUS_MIN_FRAMES = 64
"""Of video-SALMONN 2+, in its scripts for training and test (its inference.py has 16)."""
ALL_SAMPLES = 2**40


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """The frames looked at, and what the published rules know of the picture they are from."""

    frames_THWC: np.ndarray
    times_T: np.ndarray
    duration_s: float


def read_published(request: ClipRequest) -> Clip:
    """Request with `published` -> Clip: which frames, their size and how much sound, as the published code has it.

    `end_s` is the duration that it computes: number of frames / average rate. MediaError for what it cannot read.
    """
    with open_file(request.path) as container:
        streams = find_streams(container)
        has_picture, has_sound = streams.picture is not None, streams.sound is not None
        num_frames = _count_frames(container, streams) if has_picture and request.want_picture else 0
    picture = _read_picture(request, num_frames=num_frames) if num_frames else None
    waveform_S = _read_sound(request) if has_sound and request.want_sound else np.empty(0, np.float32)
    if request.published == "v1" and picture is not None:
        waveform_S = waveform_S[: round(picture.duration_s * SAMPLE_RATE_HZ)]
    end_s = picture.duration_s if picture else len(waveform_S) / SAMPLE_RATE_HZ
    return Clip(
        path=request.path,
        frames_THWC=picture.frames_THWC if picture else np.empty((0, 0, 0, 3), np.uint8),
        frame_times_T=picture.times_T if picture else np.empty(0),
        lead_in_frame_HWC=None,
        waveform_S=waveform_S,
        sample_rate_hz=SAMPLE_RATE_HZ,
        start_s=0.0,
        end_s=end_s,
        duration_s=streams.duration_s or end_s,
        has_picture=has_picture,
        has_sound=has_sound,
        num_bad_packets=0,
    )


def _count_frames(container, streams: Streams) -> int:  # type: ignore[no-untyped-def]
    """Opened container -> how many frames its picture has, as its packets say."""
    read_only(container, [streams.picture])
    try:
        return sum(packet.size > 0 and not packet.is_discard for packet in container.demux(streams.picture))
    except DecodeError as error:
        raise MediaError(f"{container.name}: cannot be read to its end ({error.strerror}); drop --compat") from error


def _read_picture(request: ClipRequest, *, num_frames: int) -> _Picture:
    """Request -> the frames that its family's rule picks among `num_frames`, brought to size as that family does it."""
    with open_file(request.path) as container:
        streams = find_streams(container)
        stream = streams.picture
        assert stream is not None
        rate = float(stream.average_rate or Fraction(0))
        if not rate:
            raise MediaError(f"{request.path}: got a picture without a frame rate, wanted one; leave out --compat")
        index_T = _frame_index(request, num_frames=num_frames, rate=rate)
        frames_THWC = np.empty((0, 0, 0, 3), np.uint8)
        read_only(container, [stream])
        number = kept = 0
        try:
            for frame in container.decode(stream):
                if number == index_T[kept]:
                    rgb_HWC = rotated_rgb(frame, frame_size=request.frame_size)
                    rgb_HWC = _sized(rgb_HWC, request, num_frames=len(index_T))
                    if not kept:
                        frames_THWC = np.empty((len(index_T), *rgb_HWC.shape), np.uint8)
                    frames_THWC[kept] = rgb_HWC
                    kept += 1
                number += 1
                if kept == len(index_T):
                    break
        except DecodeError as error:
            raise MediaError(
                f"{request.path}: frame {number} of {num_frames} cannot be decoded ({error.strerror}); the published "
                "code has no answer to that, so leave out --compat"
            ) from error
    if kept < len(index_T):
        raise MediaError(
            f"{request.path}: got {number} frames from {num_frames} packets, wanted frame {index_T[kept]}; the "
            "published code counts frames, so leave out --compat for this file"
        )
    return _Picture(frames_THWC=frames_THWC, times_T=index_T / rate, duration_s=num_frames / rate)


def _frame_index(request: ClipRequest, *, num_frames: int, rate: float) -> np.ndarray:
    """-> (T,) numbers of the frames to look at."""
    if request.published == "v1":
        return official_v1_frame_index(
            num_frames=num_frames, source_fps=rate, fps=request.fps, max_frames=request.max_frames
        )
    return official_plus_frame_index(
        num_frames=num_frames, source_fps=rate, interval_s=1 / request.fps, min_frames=PLUS_MIN_FRAMES,
        max_frames=request.max_frames,
    )  # fmt: skip


def _sized(rgb_HWC: np.ndarray, request: ClipRequest, *, num_frames: int) -> np.ndarray:
    """Frame -> the same in the size of its budget, if it has one: the 8-bit tensor resize of video-SALMONN 2+."""
    if request.pixel_budget is None:
        return rgb_HWC
    size = request.pixel_budget.frame_size(*rgb_HWC.shape[:2], num_frames=num_frames)
    if size == rgb_HWC.shape[:2]:
        return rgb_HWC
    import torch  # here: other workers do without it
    import torch.nn.functional as F

    frame_1CHW = torch.from_numpy(rgb_HWC).permute(2, 0, 1)[None]
    # as data.plus_inputs.resize_frames, frame by frame: 768 frames in the size of the file would be gigabytes
    return F.interpolate(frame_1CHW, size=size, mode="bicubic", antialias=True)[0].permute(1, 2, 0).numpy()


def _read_sound(request: ClipRequest) -> np.ndarray:
    """Request -> waveform (S,) of the whole sound stream, from its first sample on."""
    with open_file(request.path) as container:
        stream = find_streams(container).sound
        assert stream is not None
        first_s = float((stream.start_time or 0) * (stream.time_base or 1))
        reader = SoundReader(
            stream, origin_s=first_s, start_s=0.0, max_samples=ALL_SAMPLES, after_seek=False,
            only_first_channel=request.published == "v1", keeps_cancelled=True,
        )  # fmt: skip
        read_only(container, [stream])
        try:
            for packet in container.demux(stream):
                if packet.size:
                    reader.push(packet)
        except DecodeError as error:
            raise MediaError(
                f"{request.path}: its sound cannot be read to its end ({error.strerror}); the published code would "
                "silently go on without any sound, so leave out --compat"
            ) from error
        reader.finish()
        return reader.take_waveform()
