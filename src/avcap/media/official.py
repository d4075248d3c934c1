"""A file read as the published code reads it: frames by number, sound from its own first sample. See docs/official.md.

Only to run released checkpoints exactly as published: numbers of frames are times only where the frame rate is
constant, and picture and sound that start apart are taken for starting together. What is right is in `reader`.
"""

# T frames looked at  H, W pixels  C = 3 colours  S samples of sound

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from avcap.errors import MediaError
from avcap.media.audio import AudioReader
from avcap.media.clip import SAMPLE_RATE_HZ, Clip, ClipRequest
from avcap.media.codec import DecodeError, Streams, find_streams, open_file, read_only, rotated_rgb
from avcap.media.frame_times import official_plus_frame_index, official_v1_frame_index

PLUS_MIN_FRAMES = 64
"""Of video-SALMONN 2+, in its scripts for training and test (its inference.py has 16)."""
ALL_SAMPLES = 2**40
MIN_V1_FRAMES = 2
"""Video-SALMONN 2 fails on a video with a single frame, or an interval of one."""


@dataclass(frozen=True, kw_only=True)
class _Video:
    """The frames looked at, and what the published rules know of the picture they are from."""

    frames_THWC: np.ndarray
    times_T: np.ndarray
    duration_s: float
    """Of the whole file: number of frames / average rate."""


@dataclass(frozen=True, kw_only=True)
class _Rules:
    """How the published code of one family reads a file."""

    frame_index: Callable[..., np.ndarray]
    """(request, num_frames=, rate=) -> numbers of the frames to look at (T,)."""
    fewest_frames: int
    """With fewer of them its code fails."""
    cuts_intervals: bool
    """It knows parts of files, and takes the audio of the part alone; else all audio of a file."""
    only_first_channel: bool


def read_official(request: ClipRequest) -> Clip:
    """Request with `official` -> Clip: which frames, their size and how much sound, as the published code has it.

    `end_s` - `start_s` is what it takes for the real time: of an interval as it was asked for, wherever the file ends;
    of a whole file, or to its end, by number of frames / average rate. MediaError for what it cannot read.
    """
    rules = _rules(request)
    assert request.interval_s is None or rules.cuts_intervals, f"{request.official} has no intervals"
    with open_file(request.path) as container:
        streams = find_streams(container)
        has_video, has_audio = streams.video is not None, streams.audio is not None
        num_frames = _count_frames(container, streams) if has_video and request.with_video else 0
    video = _read_video(request, num_frames=num_frames) if num_frames else None
    waveform_S = _read_audio(request) if has_audio and request.with_audio else np.empty(0, np.float32)
    whole_s = video.duration_s if video else len(waveform_S) / SAMPLE_RATE_HZ
    start_s, end_s = request.interval_s or (0.0, whole_s)
    end_s = whole_s if end_s == math.inf else end_s
    if rules.cuts_intervals:
        if video is None:  # as long as the frames of a video could be
            if len(waveform_S) and start_s >= whole_s:
                raise _outside(request, duration_s=whole_s)
            end_s = min(end_s, start_s + request.max_frames / request.fps)
        waveform_S = official_v1_audio(waveform_S, start_s=start_s, end_s=end_s)
    return Clip(
        path=request.path,
        frames_THWC=video.frames_THWC if video else np.empty((0, 0, 0, 3), np.uint8),
        frame_times_T=video.times_T if video else np.empty(0),
        lead_in_frame_HWC=None,
        waveform_S=waveform_S,
        sample_rate_hz=SAMPLE_RATE_HZ,
        start_s=start_s,
        end_s=end_s,
        duration_s=streams.duration_s or whole_s,
        has_video=has_video,
        has_audio=has_audio,
        num_bad_packets=0,
    )


def official_v1_audio(waveform_S: np.ndarray, *, start_s: float, end_s: float) -> np.ndarray:
    """All the sound of a file (S,) -> the part of an interval, by number of sample.

    The published code multiplies seconds by the rate and fails where that is no whole number in Python: it takes whole
    seconds only. Between them, this is the nearest sample.
    """
    first = round(start_s * SAMPLE_RATE_HZ)
    return waveform_S[first : first + round((end_s - start_s) * SAMPLE_RATE_HZ)]


def _outside(request: ClipRequest, *, duration_s: float) -> MediaError:
    start_s, end_s = request.interval_s or (0.0, duration_s)
    return MediaError(
        f"{request.path}: got the interval {start_s:g}..{end_s:g} s, expected one that starts in the file; by its "
        f"number of frames and their rate, or its sound, the file lasts {duration_s:.3f} s"
    )


def _count_frames(container, streams: Streams) -> int:  # type: ignore[no-untyped-def]
    """Opened container -> how many frames its picture has, as its packets say."""
    read_only(container, [streams.video])
    try:
        return sum(packet.size > 0 and not packet.is_discard for packet in container.demux(streams.video))
    except DecodeError as error:
        raise MediaError(f"{container.name}: cannot be read to its end ({error.strerror}); drop --official") from error


def _read_video(request: ClipRequest, *, num_frames: int) -> _Video:
    """Request -> the frames that its family's rule picks among `num_frames`, brought to size as that family does it."""
    with open_file(request.path) as container:
        streams = find_streams(container)
        stream = streams.video
        assert stream is not None
        rate = float(stream.average_rate or Fraction(0))
        if not rate:
            raise MediaError(f"{request.path}: got a picture without a frame rate, expected one; leave out --official")
        rules = _rules(request)
        index_T = rules.frame_index(request, num_frames=num_frames, rate=rate)
        if len(index_T) < rules.fewest_frames:
            raise _too_few_frames(request, num_frames=len(index_T), duration_s=num_frames / rate)
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
                "code has no answer to that, so leave out --official"
            ) from error
    if kept < len(index_T):
        raise MediaError(
            f"{request.path}: got {number} frames from {num_frames} packets, expected frame {index_T[kept]}; the "
            "published code counts frames, so leave out --official for this file"
        )
    return _Video(frames_THWC=frames_THWC, times_T=index_T / rate, duration_s=num_frames / rate)


def _v1_frame_index(request: ClipRequest, *, num_frames: int, rate: float) -> np.ndarray:
    """-> (T,) numbers of the frames that video-SALMONN 2 looks at."""
    interval_s = request.interval_s
    if interval_s is not None:  # to the end of the file: as published, its own duration
        interval_s = interval_s[0], min(interval_s[1], num_frames / rate)
    return official_v1_frame_index(
        num_frames=num_frames,
        source_fps=rate,
        fps=request.fps,
        max_frames=request.max_frames,
        interval_s=interval_s,
    )


def _plus_frame_index(request: ClipRequest, *, num_frames: int, rate: float) -> np.ndarray:
    """-> (T,) numbers of the frames that video-SALMONN 2+ looks at."""
    return official_plus_frame_index(
        num_frames=num_frames,
        source_fps=rate,
        interval_s=1 / request.fps,
        min_frames=PLUS_MIN_FRAMES,
        max_frames=request.max_frames,
    )


_RULES = {
    "v1": _Rules(
        frame_index=_v1_frame_index, fewest_frames=MIN_V1_FRAMES, cuts_intervals=True, only_first_channel=True
    ),
    "plus": _Rules(frame_index=_plus_frame_index, fewest_frames=0, cuts_intervals=False, only_first_channel=False),
}


def _rules(request: ClipRequest) -> _Rules:
    assert request.official is not None, f"{request.path}: is not to be read by official rules"
    return _RULES[request.official]


def _too_few_frames(request: ClipRequest, *, num_frames: int, duration_s: float) -> MediaError:
    """The error for fewer frames than video-SALMONN 2 can do with."""
    if request.interval_s is not None and request.interval_s[0] >= duration_s:
        return _outside(request, duration_s=duration_s)
    return MediaError(
        f"{request.path}: got {num_frames} frames to look at, expected at least {MIN_V1_FRAMES}; the published code "
        "fails on fewer: take a longer part, or leave out --official"
    )


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
    # as resize_frames of model.salmonn2_plus.patches, frame by frame: 768 of the size in the file would be gigabytes
    return F.interpolate(frame_1CHW, size=size, mode="bicubic", antialias=True)[0].permute(1, 2, 0).numpy()


def _read_audio(request: ClipRequest) -> np.ndarray:
    """Request -> waveform (S,) of the whole sound stream, from its first sample on."""
    with open_file(request.path) as container:
        stream = find_streams(container).audio
        assert stream is not None
        first_s = float((stream.start_time or 0) * (stream.time_base or 1))
        reader = AudioReader(
            stream,
            origin_s=first_s,
            start_s=0.0,
            max_samples=ALL_SAMPLES,
            after_seek=False,
            only_first_channel=_rules(request).only_first_channel,
            keeps_cancelled=True,
        )
        read_only(container, [stream])
        try:
            for packet in container.demux(stream):
                if packet.size:
                    reader.push(packet)
        except DecodeError as error:
            raise MediaError(
                f"{request.path}: its sound cannot be read to its end ({error.strerror}); the published code would "
                "silently go on without any sound, so leave out --official"
            ) from error
        reader.finish()
        return reader.take_waveform()
