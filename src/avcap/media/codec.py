"""The one door to PyAV: opens local files only, names their streams, and turns its frames into arrays.

H height   W width   C = 3 colours (RGB)
"""

import contextlib
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from PIL import Image

from avcap.errors import MediaError
from avcap.media.clip import SAMPLE_RATE_HZ

DecodeError = av.error.FFmpegError
MICROSECOND = Fraction(1, 1_000_000)

# Formats that are no media themselves but name other files, addresses or devices to read. A file from a stranger must
# not choose what else is opened, so these are not even parsed.
_PLAYLISTS = ["concat", "dash", "hls", "imf", "rtp", "rtsp", "sap", "sdp", "svg_pipe", "vobsub", "webm_dash_manifest"]
_NAMES_OF_FILES = ["avisynth", "image2", "lavfi", "mlv", "vapoursynth"]
REFERENCE_FORMATS = frozenset([*_PLAYLISTS, *_NAMES_OF_FILES])
# Formats without a header, which FFmpeg takes plain text and noise for: terminal pictures, speech of old telephones.
HEADERLESS_FORMATS = frozenset(["adf", "amrnb", "amrwb", "bin", "ea_cdata", "gsm", "idf", "tty", "xbin"])
READABLE_FORMATS = ",".join(sorted(av.formats_available - REFERENCE_FORMATS - HEADERLESS_FORMATS))
# 16384 x 8192, the largest panorama cameras make: a header that claims more would only eat memory.
MAX_PIXELS = 16384 * 8192


@contextlib.contextmanager
def open_file(path: str) -> Iterator[InputContainer]:
    """Path of a local regular file -> opened container; anything else is a MediaError.

    FFmpeg gets an open file descriptor and never a name, so that names with a meaning to it (`http:`, `subfile:`,
    `%03d.png`) have none here, and the only protocol left to it cannot open a second file.
    """
    descriptor = _open_descriptor(path)
    try:
        container = av.open(
            "fd:",
            options={
                "fd": str(descriptor),
                "protocol_whitelist": "fd",
                "format_whitelist": READABLE_FORMATS,
                "max_pixels": str(MAX_PIXELS),
            },
            metadata_errors="replace",
        )
    except DecodeError as error:
        raise MediaError(
            f"{path}: got a file that cannot be opened as media ({error.strerror}), wanted a video, sound or picture "
            "file that stands by itself (no playlist); check it with ffprobe"
        ) from error
    finally:
        os.close(descriptor)
    with container:
        yield container


def _open_descriptor(path: str) -> int:
    """Path -> file descriptor of a regular, non-empty file."""
    try:
        # Non-blocking: opening a FIFO that nobody writes to would otherwise wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise MediaError(f"{path}: cannot be opened ({reason}), wanted a media file; check the path") from error
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size > 0:
        return descriptor
    os.close(descriptor)
    got = "an empty file" if stat.S_ISREG(status.st_mode) else "a directory, device or pipe"
    raise MediaError(f"{path}: got {got}, wanted a media file; check the path")


@dataclass(frozen=True, kw_only=True)
class Streams:
    """The picture and the sound of a container, and its clock in seconds."""

    picture: av.VideoStream | None
    sound: av.AudioStream | None
    origin_s: Fraction
    """Where the first of the two starts on the file's own clock: second 0 of a Clip."""
    duration_s: float | None
    picture_end_s: float | None
    """Where the picture ends; both None where the header does not say so for certain."""
    has_display_times: bool
    """Whether the packets of the picture say when they are shown, and not only in which order they are decoded."""


def find_streams(container: InputContainer) -> Streams:
    """Container -> its best picture and sound stream and its clock; a stream that is only cover art is no picture."""
    attached = av.stream.Disposition.attached_pic
    pictures = [stream for stream in container.streams.video if not stream.disposition & attached]
    best = container.streams.best("video")
    picture = best if best in pictures else next(iter(pictures), None)
    sound = container.streams.best("audio")
    starts_s = [start_s for stream in (picture, sound) if (start_s := _start_s(stream)) is not None]
    origin_s = min(starts_s, default=Fraction(0))
    duration_s, picture_end_s = None, None
    if container.duration is not None and container.duration > 0:
        # The container counts from the earliest of all its streams, subtitles too.
        container_start = (container.start_time or 0) * MICROSECOND
        duration_s = float(container.duration * MICROSECOND + container_start - origin_s)
    picture_start_s = _start_s(picture)
    if picture and picture.time_base and picture.duration and "mp4" in container.format.name:
        picture_end_s = float((picture_start_s or 0) - origin_s + picture.duration * picture.time_base)
    return Streams(
        picture=picture,
        sound=sound,
        origin_s=origin_s,
        duration_s=duration_s,
        picture_end_s=picture_end_s,
        has_display_times=not (picture and container.format.name == "avi" and picture.codec_context.has_b_frames),
    )


def _start_s(stream: av.stream.Stream | None) -> Fraction | None:
    """Stream -> its first time on the file's clock, if it has one."""
    if stream is None or stream.start_time is None or stream.time_base is None:
        return None
    return Fraction(stream.start_time * stream.time_base)


def upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    """Decoded frame -> (height, width) as a viewer sees it."""
    return (frame.width, frame.height) if frame.rotation % 180 else (frame.height, frame.width)


def upright_rgb(frame: av.VideoFrame, *, frame_size: tuple[int, int] | None) -> np.ndarray:
    """Decoded frame -> (H, W, C) uint8 RGB as a viewer sees it, squashed to `frame_size` (height, width) if given."""
    rgb_HWC = frame.to_ndarray(format="rgb24")
    if frame.rotation:
        rgb_HWC = np.ascontiguousarray(np.rot90(rgb_HWC, k=frame.rotation // 90))
    if frame_size is None or frame_size == rgb_HWC.shape[:2]:
        return rgb_HWC
    height, width = frame_size
    return np.asarray(Image.fromarray(rgb_HWC).resize((width, height), Image.Resampling.BICUBIC))


class Resampler:
    """Sound frames of one format -> 16 kHz mono int16, which FFmpeg mixes down without clipping, unlike float."""

    def __init__(self) -> None:
        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
        # A codec's frame is some 20 ms: resampled one by one they cost more than decoding them.
        self._waiting = av.AudioFifo()

    def push(self, frame: av.AudioFrame) -> list[np.ndarray]:
        """The next frame -> the samples that are ready, in parts."""
        frame.pts = None  # sound is placed by whoever uses this; here it just goes on
        self._waiting.write(frame)
        return self._resample(self._waiting.read()) if self._waiting.samples >= frame.sample_rate else []

    def finish(self) -> list[np.ndarray]:
        """-> the last samples."""
        rest = self._resample(self._waiting.read()) if self._waiting.samples else []
        return rest + self._resample(None)

    def _resample(self, frame: av.AudioFrame | None) -> list[np.ndarray]:
        return [ready.to_ndarray()[0] for ready in self._resampler.resample(frame)]


def drop_first_samples(frame: av.AudioFrame, *, num_samples: int) -> av.AudioFrame:
    """Sound frame -> the same without its first `num_samples`."""
    channels = len(frame.layout.channels)
    samples = frame.to_ndarray()  # (channels, samples) when planar, (1, samples * channels) when packed
    skipped = num_samples if frame.format.is_planar else num_samples * channels
    shorter = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples[:, skipped:]), format=frame.format.name, layout=frame.layout.name
    )
    shorter.sample_rate = frame.sample_rate
    return shorter


def first_channel(frame: av.AudioFrame) -> av.AudioFrame:
    """Sound frame -> its first channel alone, at the same time."""
    num_channels = len(frame.layout.channels)
    if num_channels == 1:
        return frame
    samples = frame.to_ndarray()
    first_1S = samples[:1] if frame.format.is_planar else samples[:, ::num_channels]
    mono = av.AudioFrame.from_ndarray(np.ascontiguousarray(first_1S), format=frame.format.name, layout="mono")
    mono.sample_rate, mono.pts, mono.time_base = frame.sample_rate, frame.pts, frame.time_base
    return mono


def first_frame_samples(container: InputContainer, stream: av.AudioStream) -> int:
    """Container at its head -> how many samples the first sound frame has; leaves it some packets further on."""
    for packet in container.demux(stream):
        with contextlib.suppress(DecodeError):
            for frame in stream.codec_context.decode(packet if packet.size else None):
                stream.codec_context.flush_buffers()
                return frame.samples
    return 0


def resampling_grid(sample_rate_hz: int) -> int:
    """Source rate -> how many source samples apart a source sample and a 16 kHz sample fall on the same instant."""
    return sample_rate_hz // math.gcd(sample_rate_hz, SAMPLE_RATE_HZ)


def read_only(container: InputContainer, streams: list[av.stream.Stream]) -> None:
    """Let the demuxer pass over all other streams: for sound alone, gigabytes of picture need not leave the disk."""
    for stream in container.streams:
        if stream not in streams:
            stream.discard = av.stream.Discard.all


def seek_before(container: InputContainer, *, seek_s: float) -> None:
    """Go on reading at a keyframe at or before `seek_s` on the file's own clock, as far as the file's index knows."""
    with contextlib.suppress(DecodeError):  # a file that cannot seek is read on from its head, which is before as well
        container.seek(int(seek_s / MICROSECOND))
