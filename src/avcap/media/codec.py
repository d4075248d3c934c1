"""The one door to PyAV: opens local files only, names their streams, and turns its frames into arrays.

H height   W width   C = 3 colours (RGB)
"""

import contextlib
import functools
import math
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import av
import av.logging
import numpy as np
from av.container import InputContainer
from PIL import Image

from avcap.errors import MediaError
from avcap.media.channels import is_cancelled, mix_to_int16, power, powers, split_channels
from avcap.media.clip import SAMPLE_RATE_HZ
from avcap.media.display import UPRIGHT, Orientation, orientation, square_size
from avcap.media.tone_mapping import Curve, to_sdr

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
# Formats that people join with `cat`, and that players are prepared to see start anew in the middle.
JOINABLE_FORMATS = frozenset(["mpegts", "mpeg", "flv", "ogg", "aac", "h264", "hevc", "mp3"])
FIRST_UNSAFE_PLANES = 8
UNKNOWN_LAYOUT = re.compile(r"channels|ambisonic|binaural")
DISPLAY_MATRIX = av.sidedata.sidedata.Type.DISPLAYMATRIX
# Numbers of ITU-T H.273, as FFmpeg has them.
HDR_CURVES: dict[int, Curve] = {16: "PQ", 18: "HLG"}
PRIMARIES = {1: "BT.709", 9: "BT.2020", 12: "P3"}
UNSPECIFIED, BT709_MATRIX, BT2020_MATRIX = 2, 1, 9
# 16384 x 8192, the largest panorama cameras make: a header that claims more would only eat memory.
MAX_PIXELS = 16384 * 8192
# Above 8K the file has to be large as well: a few bytes may stand for any number of pixels of one colour.
UNDOUBTED_PIXELS = 8192 * 4352
PIXELS_PER_BYTE = 64


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
            f"{path}: got a file that cannot be opened as media ({error.strerror}), expected a video, sound or picture "
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
        raise MediaError(f"{path}: cannot be opened ({reason}), expected a media file; check the path") from error
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size > 0:
        return descriptor
    os.close(descriptor)
    got = "an empty file" if stat.S_ISREG(status.st_mode) else "a directory, device or pipe"
    raise MediaError(f"{path}: got {got}, expected a media file; check the path")


@dataclass(frozen=True, kw_only=True)
class Streams:
    """The picture and the sound of a container, and its clock in seconds."""

    video: av.VideoStream | None
    audio: av.AudioStream | None
    origin_s: Fraction
    """Where the first of the two starts on the file's own clock: second 0 of a Clip."""
    duration_s: float | None
    video_end_s: float | None
    """Where the two end, and the picture alone, as the header says; None where it does not."""
    is_certain: bool
    """Whether the header has these from an index of every packet, which is no estimate."""
    has_others: bool
    """Whether there are streams beside them, whose length the header may have taken for that of the file."""
    clock_may_jump: bool
    """Whether this is a format that is cut and joined as bytes, or broadcast without an end."""
    has_display_times: bool
    """Whether the packets of the picture say when they are shown, and not only in which order they are decoded."""
    undecodable: tuple[str, ...] = ()
    """What was passed over because this build of FFmpeg cannot decode it, in words."""


def find_streams(container: InputContainer) -> Streams:
    """Container -> its best picture and sound stream that can be decoded, of one program, and their clock.

    A stream that is only cover art is no picture.
    """
    attached = av.stream.Disposition.attached_pic
    videos = [stream for stream in container.streams.video if not stream.disposition & attached]
    video = _best_decodable(container, videos, related=None)
    audio = _best_decodable(container, list(container.streams.audio), related=video)
    chosen = [stream for stream in (video, audio) if stream is not None]
    starts_s = [start_s for stream in chosen if (start_s := _start_s(stream)) is not None]
    origin_s = min(starts_s, default=Fraction(0))
    ends_s = [_header_end_s(stream) for stream in chosen]
    duration_s = None
    if ends_s and None not in ends_s:
        duration_s = float(max(end_s for end_s in ends_s if end_s is not None) - origin_s)
    elif container.duration is not None and container.duration > 0:
        # The container counts from the earliest of all its streams, subtitles too.
        container_start = (container.start_time or 0) * MICROSECOND
        duration_s = float(container.duration * MICROSECOND + container_start - origin_s)
    video_end_s = _header_end_s(video) if video is not None else None
    name = container.format.name
    return Streams(
        video=video,
        audio=audio,
        origin_s=origin_s,
        duration_s=duration_s,
        video_end_s=None if video_end_s is None else float(video_end_s - origin_s),
        is_certain="mp4" in name and None not in ends_s and all(stream.frames for stream in chosen),
        has_others=any(stream not in chosen and not stream.disposition & attached for stream in container.streams),
        clock_may_jump=name in JOINABLE_FORMATS,
        has_display_times=not (video and name == "avi" and video.codec_context.has_b_frames),
        undecodable=tuple(
            _undecodable(container, kind, streams=streams, is_replaced=chosen_stream is not None)
            for kind, streams, chosen_stream in (
                ("video", videos, video),
                ("audio", list(container.streams.audio), audio),
            )
            if any(stream.codec_context is None for stream in streams)
        ),
    )


def _best_decodable(
    container: InputContainer, streams: list[av.stream.Stream], *, related: av.stream.Stream | None
) -> av.stream.Stream | None:
    """Streams of one kind -> the one to take, if any can be decoded: FFmpeg's choice, or else the next best."""
    if not streams:
        return None
    best = container.streams.best(streams[0].type, related=related)
    if best is not None and best in streams and best.codec_context is not None:
        return best
    decodable = [stream for stream in streams if stream.codec_context is not None]
    default = av.stream.Disposition.default

    def rank(stream: av.stream.Stream) -> tuple[bool, bool, int]:
        is_of_program = related is None or container.streams.best(related.type, related=stream) == related
        return not is_of_program, not stream.disposition & default, stream.index

    return min(decodable, key=rank, default=None)


def _undecodable(container: InputContainer, kind: str, *, streams: list[av.stream.Stream], is_replaced: bool) -> str:
    """Streams of one kind, some without a decoder -> the words for a record."""
    names = ", ".join(_codec_name(container, stream) for stream in streams if stream.codec_context is None)
    if is_replaced:
        return f"{kind} in {names} cannot be decoded here: other {kind} of the file was taken"
    return f"its {kind} is in {names}, which cannot be decoded here: it was left out"


def _codec_name(container: InputContainer, stream: av.stream.Stream) -> str:
    """Stream without a decoder -> what FFmpeg calls its codec, with the code that the file has for it."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)  # the description is a message of its log, and nowhere else
    try:
        text = container.dumps_format()  # type: ignore[attr-defined]  # PyAV's types leave it out
    finally:
        av.logging.set_level(level)
    found = re.search(rf"Stream #0:{stream.index}\b.*?: (?:Audio|Video): (\w+)(?: \((\w+) /)?", text)
    words = [word for word in (found.groups() if found else ()) if word and word != "none"]
    return " ".join(words) or "an unknown codec"


def check_pixels(path: str, stream: av.VideoStream) -> None:
    """Raises MediaError for frames so large that decoding them takes memory that the file does not stand for."""
    most = max(UNDOUBTED_PIXELS, min(MAX_PIXELS, PIXELS_PER_BYTE * os.stat(path).st_size))
    stream.codec_context.options = {"max_pixels": str(most)}  # for frames that grow in the middle of the file
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > most:
        raise MediaError(
            f"{path}: got frames of {width}x{height} pixels in a file of {os.stat(path).st_size} bytes, expected at "
            f"most {most} pixels; make it smaller, for example with ffmpeg -vf scale=1920:-2"
        )


def is_animated_webp(path: str) -> bool:
    """Whether a WebP file says in its extended header that it is an animation."""
    with open(path, "rb") as handle:
        head = handle.read(64)
    return head[12:16] == b"VP8X" and bool(head[20] & 2)


def _start_s(stream: av.stream.Stream | None) -> Fraction | None:
    """Stream -> its first time on the file's clock, if it has one."""
    if stream is None or stream.start_time is None or stream.time_base is None:
        return None
    return Fraction(stream.start_time * stream.time_base)


def _header_end_s(stream: av.stream.Stream) -> Fraction | None:
    """Stream -> where it ends on the file's clock as its own header says: its duration, or Matroska's tag of it."""
    if stream.duration and stream.time_base:
        return (_start_s(stream) or Fraction(0)) + stream.duration * stream.time_base
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if not found:
        return None
    hours, minutes, seconds = found.groups()
    return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds) or None


@dataclass(frozen=True, kw_only=True)
class Display:
    """How the frames of one stream come on screen: square pixels, and `notes` on what had to be done for it."""

    pixel_aspect: Fraction | None = None
    notes: set[str] = field(default_factory=set)
    _orientations: dict[int, Orientation] = field(default_factory=dict)

    def size(self, frame: av.VideoFrame) -> tuple[int, int]:
        """Decoded frame -> (height, width) as a viewer sees it."""
        square = square_size(frame.height, frame.width, pixel_aspect=self.pixel_aspect)
        if self.pixel_aspect and square != (frame.height, frame.width):
            self.notes.add(f"pixels of {self.pixel_aspect.numerator}:{self.pixel_aspect.denominator} made square")
        return self._orientation(frame).size(*square)

    def rgb(self, frame: av.VideoFrame, *, frame_size: tuple[int, int] | None) -> np.ndarray:
        """Decoded frame -> (H, W, C) uint8 RGB as a viewer sees it, squashed to `frame_size` (height, width) if given.

        A frame of non-square pixels is resized once, from its stored shape.
        """
        turned = self._orientation(frame)
        if turned.is_mirrored:
            self.notes.add("shown mirrored, as its display matrix says")
        size = frame_size or self.size(frame)
        return _resized(turned.apply(self._colours(frame, smallest=min(size))), size)

    def _orientation(self, frame: av.VideoFrame) -> Orientation:
        """Decoded frame -> how it is to be laid down; its matrix is only read where its rotation is a new one.

        In PyAV a frame whose side data was looked at refers to itself and stays in memory.
        """
        rotation = frame.rotation
        if rotation not in self._orientations:
            matrix = frame.side_data.get(DISPLAY_MATRIX)
            self._orientations[rotation] = (
                UPRIGHT if matrix is None else orientation(np.frombuffer(matrix, np.int32).reshape(3, 3))
            )
        return self._orientations[rotation]

    def _colours(self, frame: av.VideoFrame, *, smallest: int) -> np.ndarray:
        """Decoded frame -> its colours on an SDR screen, as it lies in the file."""
        curve = HDR_CURVES.get(frame.color_trc)
        if frame.colorspace == UNSPECIFIED and (curve or _is_high_definition(frame)):
            frame.colorspace = BT2020_MATRIX if curve else BT709_MATRIX  # FFmpeg itself would take all for BT.601
        if curve is None:
            return frame.to_ndarray(format="rgb24")
        self.notes.add(f"HDR ({curve}) tone-mapped to SDR")
        # Mapping is slow in all pixels of a 4K frame: twice the lines that are kept are enough to be resized well.
        shrink = max(1, min(frame.height, frame.width) // (2 * smallest))
        size = {"width": frame.width // shrink, "height": frame.height // shrink, "interpolation": "AREA"}
        codes_HWC = frame.to_ndarray(format="rgb48le", **(size if shrink > 1 else {}))
        primaries = PRIMARIES.get(frame.color_primaries, "BT.2020")
        return to_sdr(codes_HWC, curve=curve, primaries=primaries)


def display_of(stream: av.VideoStream) -> Display:
    """Video stream -> how its frames come on screen."""
    return Display(pixel_aspect=stream.sample_aspect_ratio)


def _is_high_definition(frame: av.VideoFrame) -> bool:
    """Whether a frame that does not say by which matrix its colours are coded is of the kind that uses BT.709."""
    return frame.width >= 1280 or frame.height > 576


def rotated_rgb(frame: av.VideoFrame, *, frame_size: tuple[int, int] | None) -> np.ndarray:
    """Decoded frame -> (H, W, C) uint8 RGB, turned by its rotation alone: what is fed to models run as published."""
    rgb_HWC = frame.to_ndarray(format="rgb24")
    if frame.rotation:
        rgb_HWC = np.ascontiguousarray(np.rot90(rgb_HWC, k=frame.rotation // 90))
    return rgb_HWC if frame_size is None else _resized(rgb_HWC, frame_size)


def _resized(rgb_HWC: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Frame -> the same in (height, width)."""
    if size == rgb_HWC.shape[:2]:
        return rgb_HWC
    height, width = size
    return np.asarray(Image.fromarray(rgb_HWC).resize((width, height), Image.Resampling.BICUBIC))


class Resampler:
    """Sound frames of one format -> 16 kHz mono int16, which FFmpeg mixes down without clipping, unlike float.

    A second in which the channels cancel each other in the mix is taken from the loudest of them.
    """

    def __init__(self, *, keeps_cancelled: bool = False) -> None:
        """`keeps_cancelled`: the mix stays as it is, whatever is lost in it, as in the published code."""
        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
        # A codec's frame is some 20 ms: resampled one by one they cost more than decoding them.
        self._waiting = av.AudioFifo()
        self._keeps_cancelled = keeps_cancelled
        self.cancelled_s = 0.0

    def push(self, frame: av.AudioFrame) -> list[np.ndarray]:
        """The next frame -> the samples that are ready, in parts."""
        frame.pts = None  # sound is placed by whoever uses this; here it just goes on
        self._waiting.write(frame)
        return self._mix(self._waiting.read()) if self._waiting.samples >= frame.sample_rate else []

    def finish(self) -> list[np.ndarray]:
        """-> the last samples."""
        rest = self._mix(self._waiting.read()) if self._waiting.samples else []
        return rest + self._resample(None)

    def _mix(self, block: av.AudioFrame) -> list[np.ndarray]:
        if self._keeps_cancelled or block.layout.nb_channels == 1:
            return self._resample(block)
        samples_NS = split_frame(block)
        powers_N = powers(samples_NS)
        weights_N = _mix_weights(block.layout.name)
        mix_power = power(weights_N @ samples_NS)
        if is_cancelled(mix_power=mix_power, channel_powers_N=powers_N):
            self.cancelled_s += block.samples / block.sample_rate
            block = _with_one_channel(block, channel=int(powers_N.argmax()))
        return self._resample(block)

    def _resample(self, frame: av.AudioFrame | None) -> list[np.ndarray]:
        return [ready.to_ndarray()[0] for ready in self._resampler.resample(frame)]


@functools.cache
def _mix_weights(layout: str) -> np.ndarray:
    """Channel layout -> how much of each channel is in FFmpeg's mono mix of whole numbers, found by mixing."""
    num_channels = av.AudioLayout(layout).nb_channels
    unit_1S = np.eye(num_channels, dtype=np.float32).reshape(1, -1)  # packed: sample k is in channel k alone
    frame = av.AudioFrame.from_ndarray(unit_1S, format="flt", layout=layout)
    frame.sample_rate = SAMPLE_RATE_HZ
    mixer = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
    mixed = [ready.to_ndarray()[0] for ready in [*mixer.resample(frame), *mixer.resample(None)]]
    weights_N = np.concatenate(mixed)[:num_channels]
    return weights_N / max(1.0, float(weights_N.sum()))


def split_frame(frame: av.AudioFrame) -> np.ndarray:
    """Sound frame -> (channels, samples) float32."""
    return split_channels(frame.to_ndarray(), num_channels=frame.layout.nb_channels, is_planar=frame.format.is_planar)


def _with_one_channel(frame: av.AudioFrame, *, channel: int) -> av.AudioFrame:
    """Sound frame -> the same with one channel in the place of all."""
    num_channels = frame.layout.nb_channels
    samples = frame.to_ndarray()
    if frame.format.is_planar:
        samples = np.repeat(samples[channel : channel + 1], num_channels, axis=0)
    else:
        samples = np.repeat(samples[:, channel::num_channels], num_channels, axis=1)
    copied = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples), format=frame.format.name, layout=frame.layout.name
    )
    copied.sample_rate = frame.sample_rate
    return copied


def readable_frame(frame: av.AudioFrame) -> av.AudioFrame:
    """Sound frame -> the same laid out so that its samples can be read.

    PyAV looks for the end of the list of planes by a null pointer, which a list of eight and more planes does not have.
    """
    if not frame.format.is_planar or frame.layout.nb_channels < FIRST_UNSAFE_PLANES or not frame.samples:
        return frame
    pts, time_base = frame.pts, frame.time_base
    frame.pts = None
    (packed,) = av.AudioResampler(format="flt", layout=frame.layout, rate=frame.sample_rate).resample(frame)
    packed.pts, packed.time_base = pts, time_base
    return packed


def has_known_mix(frame: av.AudioFrame) -> bool:
    """Whether FFmpeg knows where the channels of a frame are, and so how to mix them."""
    return frame.layout.nb_channels <= 2 or not UNKNOWN_LAYOUT.search(frame.layout.name)


def mixed_frame(frame: av.AudioFrame) -> av.AudioFrame:
    """Sound frame of channels in unknown places -> one channel at the same time: their mean.

    Where they cancel each other, the loudest; of an ambisonic recording, the first, which is all directions.
    """
    samples_NS = np.nan_to_num(split_frame(frame))
    if frame.layout.name.startswith("ambisonic"):
        samples_NS = samples_NS[:1]
    powers_N = powers(samples_NS)
    if is_cancelled(mix_power=power(samples_NS.mean(axis=0)), channel_powers_N=powers_N):
        loudest = int(powers_N.argmax())
        samples_NS = samples_NS[loudest : loudest + 1]
    mono = av.AudioFrame.from_ndarray(mix_to_int16(samples_NS), format="s16", layout="mono")
    mono.sample_rate, mono.pts, mono.time_base = frame.sample_rate, frame.pts, frame.time_base
    return mono


def drop_first_samples(frame: av.AudioFrame, *, num_samples: int) -> av.AudioFrame:
    """Sound frame -> the same without its first `num_samples`."""
    channels = frame.layout.nb_channels
    samples = frame.to_ndarray()  # (channels, samples) when planar, (1, samples * channels) when packed
    skipped = num_samples if frame.format.is_planar else num_samples * channels
    shorter = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples[:, skipped:]), format=frame.format.name, layout=frame.layout.name
    )
    shorter.sample_rate = frame.sample_rate
    return shorter


def first_channel(frame: av.AudioFrame) -> av.AudioFrame:
    """Sound frame -> its first channel alone, at the same time."""
    num_channels = frame.layout.nb_channels
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
