"""One pass over a file: its packets go to the picture and the sound reader, and a Clip comes out.

T frames   H height   W width   C = 3 colours (RGB)   S samples of sound
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from avcap.errors import MediaError
from avcap.media.clip import SAMPLE_RATE_HZ, Clip, ClipRequest
from avcap.media.codec import DecodeError, Streams, find_streams, open_file, read_only, seek_before
from avcap.media.frame_times import frame_instants
from avcap.media.picture import FrameKeeper, InexactShortcut, PictureReader
from avcap.media.published import read_published
from avcap.media.sound import SoundReader

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer

# How long before the span to start reading: sound needs a second; a keyframe index may be coarse or off.
SEEK_MARGINS_S = (2.0, 20.0)
# A damaged file may go on after an unreadable stretch, but must not keep us for ever.
MAX_UNREADABLE_STRETCHES = 100
# Times are floats and clocks tick in whole numbers: this close below a tick is on the tick.
TICK_TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to take out of a file, in seconds after its origin."""

    duration_s: float
    start_s: float
    end_s: float
    instants_T: np.ndarray
    """Where to look, the lead-in first if there is one."""
    has_lead_in: bool


def read_request(request: ClipRequest) -> Clip:
    """Request -> Clip; tries shortcuts first (seeking, skipping frames), and reads plainly where one proves inexact."""
    if request.published is not None:
        return read_published(request)
    margins_s = SEEK_MARGINS_S if request.interval_s else SEEK_MARGINS_S[:1]
    for seek_margin_s in (*margins_s, None):
        try:
            with open_file(request.path) as container:
                return _read(container, request=request, seek_margin_s=seek_margin_s)
        except InexactShortcut:
            continue
    raise AssertionError("reading without shortcuts cannot be an inexact shortcut")


def _read(container: "InputContainer", *, request: ClipRequest, seek_margin_s: float | None) -> Clip:
    """Opened container -> Clip; `seek_margin_s` None: from the head of the file, and every frame is decoded."""
    streams = find_streams(container)
    if streams.picture is None and streams.sound is None:
        raise MediaError(f"{request.path}: got no picture and no sound stream, wanted one; check it with ffprobe")
    plan = _plan(request, duration_s=streams.duration_s or _measure_duration_s(request.path), streams=streams)
    if seek_margin_s is not None and not streams.has_display_times and request.want_picture:
        raise InexactShortcut
    seek_s = 0.0 if seek_margin_s is None else plan.instants_T[0] - seek_margin_s
    shortcuts = seek_margin_s is not None
    picture = _picture_reader(request, plan=plan, streams=streams, shortcuts=shortcuts, after_seek=seek_s > 0)
    sound = _sound_reader(request, plan=plan, streams=streams, after_seek=seek_s > 0)
    readers = [reader for reader in (picture, sound) if reader is not None]
    read_only(container, [reader.stream for reader in readers])
    if seek_s > 0:
        if sound is not None:
            sound.learn_frame_grid(container)
        seek_before(container, seek_s=seek_s + float(streams.origin_s))
    num_bad_packets = _feed(container, readers)
    for reader in readers:
        reader.finish()
        num_bad_packets += reader.num_bad_packets
    if picture is not None and picture.keeper.num_kept == 0:
        raise MediaError(
            f"{request.path}: got 0 frames from its video stream ({num_bad_packets} bad packets), wanted at least 1; "
            "check it with ffprobe"
        )
    return _clip(request, plan=plan, streams=streams, picture=picture, sound=sound, num_bad_packets=num_bad_packets)


def _plan(request: ClipRequest, *, duration_s: float, streams: Streams) -> Plan:
    """Request and file -> the span, cut to the file, and the instants in it while the picture lasts."""
    start_s, end_s = request.interval_s or (0.0, duration_s)
    if not 0 <= start_s < min(end_s, duration_s):
        raise MediaError(
            f"{request.path}: got the interval {start_s:g}..{end_s:g} s, wanted one that starts in the file and has a "
            f"length; the file lasts {duration_s:.3f} s"
        )
    end_s = min(end_s, duration_s)
    picture_end_s = duration_s if streams.picture_end_s is None else streams.picture_end_s
    instants_T = frame_instants(
        start_s=start_s, end_s=min(end_s, picture_end_s), fps=request.fps, max_frames=request.max_frames
    )
    has_lead_in = request.lead_in and start_s > 0
    if has_lead_in:
        step_s = instants_T[1] - instants_T[0] if len(instants_T) > 1 else 1 / request.fps
        instants_T = np.concatenate([[max(0.0, start_s - step_s)], instants_T])
    return Plan(duration_s=duration_s, start_s=start_s, end_s=end_s, instants_T=instants_T, has_lead_in=has_lead_in)


def _picture_reader(
    request: ClipRequest, *, plan: Plan, streams: Streams, shortcuts: bool, after_seek: bool
) -> PictureReader | None:
    """-> the reader of the video stream, if there is one and it is wanted."""
    if streams.picture is None or not request.want_picture:
        return None
    clock_T = (plan.instants_T + float(streams.origin_s)) / float(streams.picture.time_base)
    ticks_T = np.floor(clock_T + TICK_TOLERANCE).astype(np.int64)
    keeper = FrameKeeper(ticks_T=ticks_T, frame_size=request.frame_size, pixel_budget=request.pixel_budget)
    return PictureReader(
        streams.picture,
        keeper=keeper,
        has_display_times=streams.has_display_times,
        shortcuts=shortcuts,
        after_seek=after_seek,
    )


def _sound_reader(request: ClipRequest, *, plan: Plan, streams: Streams, after_seek: bool) -> SoundReader | None:
    """-> the reader of the sound stream, if there is one and it is wanted."""
    if streams.sound is None or not request.want_sound:
        return None
    return SoundReader(
        streams.sound,
        origin_s=float(streams.origin_s),
        start_s=plan.start_s,
        max_samples=int((plan.end_s - plan.start_s) * SAMPLE_RATE_HZ + TICK_TOLERANCE),
        after_seek=after_seek,
    )


def _feed(container: "InputContainer", readers: list[PictureReader | SoundReader]) -> int:
    """Give every packet to its reader until all have enough -> number of unreadable stretches met."""
    if not readers:  # the file has only what is not wanted, and demuxing no stream would mean demuxing all
        return 0
    reader_of = {reader.stream.index: reader for reader in readers}
    num_unreadable = 0
    while num_unreadable <= MAX_UNREADABLE_STRETCHES:
        try:
            for packet in _packets(container, readers):
                reader_of[packet.stream_index].push(packet)
                if all(reader.is_done for reader in readers):
                    return num_unreadable
            return num_unreadable
        except DecodeError:
            num_unreadable += 1
    return num_unreadable


def _packets(container: "InputContainer", readers: list[PictureReader | SoundReader]) -> Iterator["Packet"]:
    """Container -> the packets of the readers' streams, without the empty ones PyAV ends with."""
    for packet in container.demux([reader.stream for reader in readers]):
        if packet.size:
            yield packet


def _measure_duration_s(path: str) -> float:
    """File whose header gives no duration -> where its last packet ends, after the origin; decodes nothing."""
    end_s, num_untimed = 0.0, 0
    with open_file(path) as container:
        streams = find_streams(container)
        tracks = [stream for stream in (streams.picture, streams.sound) if stream is not None]
        with contextlib.suppress(DecodeError):  # reading comes to the same place, and counts it
            for packet in container.demux(tracks):
                if packet.pts is not None:
                    packet_end_s = float((packet.pts + (packet.duration or 1)) * packet.time_base - streams.origin_s)
                    end_s = max(end_s, packet_end_s)
                elif packet.size:
                    num_untimed += 1
        if streams.picture is not None:
            end_s = max(end_s, float(num_untimed / (streams.picture.average_rate or 25)))
    if end_s <= 0:
        raise MediaError(f"{path}: got no packets, wanted a video, sound or picture; check it with ffprobe")
    return end_s


def _clip(
    request: ClipRequest,
    *,
    plan: Plan,
    streams: Streams,
    picture: PictureReader | None,
    sound: SoundReader | None,
    num_bad_packets: int,
) -> Clip:
    """What the readers found -> Clip."""
    frames_THWC = np.empty((0, 0, 0, 3), np.uint8) if picture is None else picture.keeper.frames_THWC
    waveform_S = np.empty(0, np.float32) if sound is None else sound.take_waveform()
    times_T = plan.instants_T[: len(frames_THWC)]
    lead_in_frame_HWC = None
    if plan.has_lead_in and len(frames_THWC):
        lead_in_frame_HWC, frames_THWC, times_T = frames_THWC[0], frames_THWC[1:], times_T[1:]
    end_s = plan.end_s
    if num_bad_packets and (picture is None or not picture.keeper.is_full):
        last_instant_s = times_T[-1] if len(times_T) else plan.start_s
        end_s = min(end_s, max(last_instant_s, plan.start_s + len(waveform_S) / SAMPLE_RATE_HZ))
    return Clip(
        path=request.path,
        frames_THWC=frames_THWC,
        frame_times_T=times_T,
        lead_in_frame_HWC=lead_in_frame_HWC,
        waveform_S=waveform_S,
        sample_rate_hz=SAMPLE_RATE_HZ,
        start_s=plan.start_s,
        end_s=float(end_s),
        duration_s=plan.duration_s,
        has_picture=streams.picture is not None,
        has_sound=streams.sound is not None,
        num_bad_packets=num_bad_packets,
    )
