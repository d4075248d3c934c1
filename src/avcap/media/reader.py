"""One pass over a file: its packets go to the picture and the sound reader, and a Clip comes out.

T frames   H height   W width   C = 3 colours (RGB)   S samples of sound
"""

import math
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from avcap.errors import MediaError
from avcap.media.audio import AudioReader
from avcap.media.clip import SAMPLE_RATE_HZ, Clip, ClipRequest
from avcap.media.clock import JumpWatch, MendedClock
from avcap.media.codec import (
    DecodeError,
    Streams,
    check_pixels,
    display_of,
    find_streams,
    is_animated_webp,
    open_file,
    read_only,
    seek_before,
)
from avcap.media.frame_times import frame_instants
from avcap.media.official import read_official
from avcap.media.survey import Survey, survey_file
from avcap.media.video import FrameKeeper, InexactShortcut, TooMuch, VideoReader

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer

# How long before the span to start reading: sound needs a second; a keyframe index may be coarse or off.
SEEK_MARGINS_S = (2.0, 20.0)
# A damaged file may go on after an unreadable stretch, but must not keep us for ever.
MAX_UNREADABLE_STRETCHES = 100
# A waveform of so many hours takes 230 MB an hour, and as much again on its way to the encoder.
MAX_AUDIO_S = 4 * 3600
# Headers round lengths to a packet of audio.
SAME_LENGTH_S = 0.1
# More after the last packet than an index takes.
UNREAD_SHARE = 0.2
# A file that lacks more than this of what its header says was not written or copied to its end.
CUT_SHARE = 0.02
# Times are floats and clocks tick in whole numbers: this close below a tick is on the tick.
TICK_TOLERANCE = 1e-4


class SurveyNeeded(Exception):
    """What the header or the clock says is in doubt: all packets have to be looked at before going on."""


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Where a file and its picture end, and where its second 0 is on the file's clock."""

    duration_s: float
    video_end_s: float
    origin_s: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to take out of a file, in seconds after its origin."""

    origin_s: float
    duration_s: float
    start_s: float
    end_s: float
    instants_T: np.ndarray
    """Where to look, the lead-in first if there is one."""
    has_lead_in: bool


def read_request(request: ClipRequest) -> Clip:
    """Request -> Clip; tries shortcuts first (seeking, skipping frames), and reads plainly where one proves inexact."""
    if request.official is not None:
        return read_official(request)
    margins_s = deque([*(SEEK_MARGINS_S if request.interval_s else SEEK_MARGINS_S[:1]), None])
    survey = None
    while True:
        try:
            with open_file(request.path) as container:
                return _read(container, request=request, seek_margin_s=margins_s[0], survey=survey)
        except InexactShortcut:
            assert len(margins_s) > 1, "reading without shortcuts cannot be an inexact shortcut"
            margins_s.popleft()
        except SurveyNeeded:
            assert survey is None, "a file that was surveyed cannot need it again"
            survey = survey_file(request.path)
        except TooMuch as error:
            raise MediaError(f"{request.path}: got {error}") from None


def _read(
    container: "InputContainer", *, request: ClipRequest, seek_margin_s: float | None, survey: Survey | None
) -> Clip:
    """Opened container -> Clip; `seek_margin_s` None: from the head of the file, and every frame is decoded."""
    streams = find_streams(container)
    _check_streams(request.path, container=container, streams=streams)
    plan = _plan(request, lengths=_lengths(request, streams=streams, survey=survey))
    _check_size(request, plan=plan, streams=streams, is_sure=survey is not None or streams.is_certain)
    if seek_margin_s is not None and not streams.has_display_times and request.with_video:
        raise InexactShortcut
    clock = survey.clock if survey is not None and survey.clock.is_needed else None
    seek_s = 0.0 if seek_margin_s is None or clock else plan.instants_T[0] - seek_margin_s
    shortcuts = seek_margin_s is not None
    video = _video_reader(request, plan=plan, streams=streams, shortcuts=shortcuts, after_seek=seek_s > 0)
    audio = _audio_reader(request, plan=plan, streams=streams, after_seek=seek_s > 0)
    readers = [reader for reader in (video, audio) if reader is not None]
    read_only(container, [reader.stream for reader in readers])
    if seek_s > 0:
        if audio is not None:
            audio.learn_frame_grid(container)
        seek_before(container, seek_s=seek_s + plan.origin_s)
    packets = PacketFeed(streams, readers=readers, clock=clock, is_watched=survey is None)
    reads_on = survey is None and request.interval_s is None and not streams.is_certain
    num_bad_packets = packets.feed(container, reads_on=reads_on)
    for reader in readers:
        reader.finish()
        num_bad_packets += reader.num_bad_packets
    if survey is None and packets.is_at_end and not streams.is_certain:
        plan = _confirmed(plan, request=request, streams=streams, packets=packets)
    if video is not None and video.keeper.num_kept == 0:
        raise MediaError(
            f"{request.path}: got 0 frames from its video stream ({num_bad_packets} bad packets), expected at least 1; "
            "check it with ffprobe"
        )
    clip = _clip(request, plan=plan, streams=streams, video=video, audio=audio, num_bad_packets=num_bad_packets)
    notes = _notes(streams, plan=plan, clock=clock, video=video, audio=audio)
    read_bytes = packets.read_bytes if survey is None else survey.read_bytes
    if read_bytes and (packets.is_at_end or survey is not None):
        notes += _unread_tail(container, read_bytes=read_bytes)
    return replace(clip, notes=notes)


def _check_streams(path: str, *, container: "InputContainer", streams: Streams) -> None:
    """Raises MediaError where there is nothing to decode, and says why."""
    if streams.video is None and streams.audio is None:
        if streams.undecodable:
            raise MediaError(
                f"{path}: got nothing that can be decoded ({'; '.join(streams.undecodable)}); convert it, for example "
                "to mp4 with H.264 and AAC"
            )
        raise MediaError(f"{path}: got no picture and no sound stream, expected one; check it with ffprobe")
    if container.format.name == "webp_pipe" and is_animated_webp(path):
        raise MediaError(
            f"{path}: got an animated WebP, which FFmpeg cannot decode; make a GIF or an mp4 of it (ImageMagick: "
            "magick FILE.webp FILE.gif) and caption that"
        )
    if streams.video is not None:
        check_pixels(path, streams.video)


def _lengths(request: ClipRequest, *, streams: Streams, survey: Survey | None) -> Lengths:
    """-> how long file and picture are: as surveyed, or as the header has it, which reading to the end confirms."""
    if survey is not None:
        if survey.duration_s <= 0:
            raise MediaError(
                f"{request.path}: got no packets, expected a video, sound or picture; check it with ffprobe"
            )
        duration_s, video_end_s, origin_s = survey.duration_s, survey.video_end_s, survey.origin_s
        return Lengths(duration_s=duration_s, video_end_s=video_end_s or duration_s, origin_s=origin_s)
    is_in_doubt = streams.duration_s is None or streams.duration_s <= 0
    if request.interval_s is not None and not streams.is_certain:
        # The end of the file, where the header would be found wrong, may never be read.
        is_in_doubt = is_in_doubt or streams.clock_may_jump or (streams.has_others and streams.video_end_s is None)
        is_in_doubt = is_in_doubt or request.interval_s[0] >= (streams.duration_s or 0.0)
    if is_in_doubt:
        raise SurveyNeeded
    assert streams.duration_s is not None
    video_end_s = streams.duration_s if streams.video_end_s is None else streams.video_end_s
    return Lengths(duration_s=streams.duration_s, video_end_s=video_end_s, origin_s=float(streams.origin_s))


def _plan(request: ClipRequest, *, lengths: Lengths) -> Plan:
    """Request and file -> the span, cut to the file, and the instants in it while the picture lasts."""
    duration_s = lengths.duration_s
    start_s, end_s = request.interval_s or (0.0, duration_s)
    if not 0 <= start_s < min(end_s, duration_s):
        raise MediaError(
            f"{request.path}: got the interval {start_s:g}..{end_s:g} s, expected one that starts in the file and has "
            f"a length; the file lasts {duration_s:.3f} s"
        )
    end_s = min(end_s, duration_s)
    instants_T = frame_instants(
        start_s=start_s, end_s=min(end_s, lengths.video_end_s), fps=request.fps, max_frames=request.max_frames
    )
    has_lead_in = request.lead_in and start_s > 0
    if has_lead_in:
        step_s = instants_T[1] - instants_T[0] if len(instants_T) > 1 else 1 / request.fps
        instants_T = np.concatenate([[max(0.0, start_s - step_s)], instants_T])
    return Plan(
        origin_s=lengths.origin_s,
        duration_s=duration_s,
        start_s=start_s,
        end_s=end_s,
        instants_T=instants_T,
        has_lead_in=has_lead_in,
    )


def _check_size(request: ClipRequest, *, plan: Plan, streams: Streams, is_sure: bool) -> None:
    """Raises MediaError for more audio than memory should be spent on; an estimated length is looked at first."""
    length_s = plan.end_s - plan.start_s
    if streams.audio is None or not request.with_audio or length_s <= MAX_AUDIO_S:
        return
    if not is_sure:
        raise SurveyNeeded
    raise MediaError(
        f"{request.path}: got {length_s / 3600:.1f} h of audio, expected at most {MAX_AUDIO_S / 3600:g} h at once; "
        "caption a part of it (--start, --end), or leave the audio out"
    )


def _confirmed(plan: Plan, *, request: ClipRequest, streams: Streams, packets: "PacketFeed") -> Plan:
    """A plan by the header, carried out to the end of the file -> the same with the lengths that the packets have.

    SurveyNeeded where another plan would have been right.
    """
    ends_s = {index: end_s - plan.origin_s for index, end_s in packets.ends_s.items()}
    chosen = [stream for stream in (streams.video, streams.audio) if stream is not None]
    longest_s = max(ends_s.values(), default=0.0)
    if len(ends_s) < len(chosen):
        # A stream that was not read may be the longer one.
        if abs(longest_s - plan.duration_s) > SAME_LENGTH_S:
            raise SurveyNeeded
        longest_s = plan.duration_s
    if longest_s <= 0:
        return plan
    video_end_s = longest_s if streams.video is None else ends_s.get(streams.video.index, longest_s)
    lengths = Lengths(duration_s=longest_s, video_end_s=video_end_s, origin_s=plan.origin_s)
    expected_end_s = math.inf if request.interval_s is None else request.interval_s[1]
    if plan.start_s >= longest_s or plan.end_s + SAME_LENGTH_S < min(longest_s, expected_end_s):
        raise SurveyNeeded
    right = _plan(request, lengths=lengths)
    if not np.array_equal(right.instants_T, plan.instants_T[: len(right.instants_T)]):
        raise SurveyNeeded
    return replace(plan, duration_s=longest_s, end_s=right.end_s)


def _unread_tail(container: "InputContainer", *, read_bytes: int) -> tuple[str, ...]:
    """Container read to what FFmpeg takes for its end -> a note if much of the file comes after."""
    unread = container.size - read_bytes
    if container.format.name not in ("matroska,webm", "flv") or unread < UNREAD_SHARE * container.size:
        return ()
    return (f"its last {unread} of {container.size} bytes were not read: another file seems to be joined to it",)


def _notes(
    streams: Streams,
    *,
    plan: Plan,
    clock: MendedClock | None,
    video: VideoReader | None,
    audio: AudioReader | None,
) -> tuple[str, ...]:
    """-> what was corrected, or could not be, in words for a record."""
    notes = list(streams.undecodable)
    if clock is not None:
        notes += clock.notes(origin_s=plan.origin_s)
    elif not streams.has_others and streams.duration_s is not None:
        header_s, duration_s = streams.duration_s, plan.duration_s
        if header_s - duration_s > max(1.0, CUT_SHARE * duration_s):
            notes.append(f"its header says {header_s:.1f} s, its packets end at {duration_s:.1f} s: cut off?")
    if video is not None:
        notes += sorted(video.keeper.display.notes)
    if audio is not None:
        notes += audio.notes()
    return tuple(notes)


def _video_reader(
    request: ClipRequest, *, plan: Plan, streams: Streams, shortcuts: bool, after_seek: bool
) -> VideoReader | None:
    """-> the reader of the video stream, if there is one and it is wanted."""
    if streams.video is None or not request.with_video:
        return None
    clock_T = (plan.instants_T + plan.origin_s) / float(streams.video.time_base)
    ticks_T = np.floor(clock_T + TICK_TOLERANCE).astype(np.int64)
    keeper = FrameKeeper(
        ticks_T=ticks_T,
        frame_size=request.frame_size,
        pixel_budget=request.pixel_budget,
        display=display_of(streams.video),
    )
    return VideoReader(
        streams.video,
        keeper=keeper,
        has_display_times=streams.has_display_times,
        shortcuts=shortcuts,
        after_seek=after_seek,
    )


def _audio_reader(request: ClipRequest, *, plan: Plan, streams: Streams, after_seek: bool) -> AudioReader | None:
    """-> the reader of the sound stream, if there is one and it is wanted."""
    if streams.audio is None or not request.with_audio:
        return None
    return AudioReader(
        streams.audio,
        origin_s=plan.origin_s,
        start_s=plan.start_s,
        max_samples=int((plan.end_s - plan.start_s) * SAMPLE_RATE_HZ + TICK_TOLERANCE),
        after_seek=after_seek,
    )


class PacketFeed:
    """Gives packets to their readers, on the mended clock, and notices where the file is not what its header says."""

    def __init__(
        self,
        streams: Streams,
        *,
        readers: list[VideoReader | AudioReader],
        clock: MendedClock | None,
        is_watched: bool,
    ) -> None:
        self._readers = readers
        self._reader_of = {reader.stream.index: reader for reader in readers}
        chosen = [stream for stream in (streams.video, streams.audio) if stream is not None]
        self._corrections = (
            {}
            if clock is None
            else {stream.index: correction for stream, correction in zip(chosen, clock.corrections, strict=True)}
        )
        self._num_packets = dict.fromkeys(self._reader_of, 0)
        # of the streams, not of each packet: fractions are slow
        self._tick_s = {reader.stream.index: float(reader.stream.time_base or 1) for reader in readers}
        self._watch = (
            JumpWatch(num_streams=len(chosen), num_read=len(readers), closes_alone=streams.clock_may_jump)
            if is_watched
            else None
        )
        self._is_measured = is_watched and not streams.is_certain
        self.ends_s: dict[int, float] = {}
        """Stream -> where its last packet ends on the file's clock, of those that were read."""
        self.is_at_end = False
        self.read_bytes = 0
        """Where in the file the last packet ends."""

    def feed(self, container: "InputContainer", *, reads_on: bool) -> int:
        """Give every packet to its reader until all have enough, or to the end -> number of unreadable stretches met.

        `reads_on`: even readers that have enough do not end it, so that the end is seen.
        """
        if not self._readers:  # only what is not wanted is there, and demuxing no stream would mean demuxing all
            return 0
        num_unreadable = 0
        while num_unreadable <= MAX_UNREADABLE_STRETCHES:
            try:
                for packet in container.demux([reader.stream for reader in self._readers]):
                    if not packet.size:  # PyAV ends with empty ones
                        continue
                    self._take(packet)
                    self._reader_of[packet.stream_index].push(packet)
                    if not reads_on and all(reader.is_done for reader in self._readers):
                        return num_unreadable
                self.is_at_end = True
                return num_unreadable
            except DecodeError:
                num_unreadable += 1
        return num_unreadable

    def _take(self, packet: "Packet") -> None:
        """Looks at the times of a packet, and corrects them."""
        index = packet.stream_index
        if self._corrections:
            added = round(self._corrections[index].at(self._num_packets[index]) / self._tick_s[index])
            self._num_packets[index] += 1
            if added:
                packet.pts = None if packet.pts is None else packet.pts + added
                packet.dts = None if packet.dts is None else packet.dts + added
        if self._watch is None:
            return
        tick_s = self._tick_s[index]
        duration = packet.duration or 0
        dts, pts = packet.dts, packet.pts
        if self._is_measured:
            self.read_bytes = max(self.read_bytes, (packet.pos or 0) + packet.size)
            show_tick = dts if pts is None else pts
            if show_tick is not None and not packet.is_discard:
                self.ends_s[index] = max(self.ends_s.get(index, 0.0), (show_tick + duration) * tick_s)
        # Only decoding times rise from packet to packet: times of showing say nothing about the next packet.
        if dts is not None and self._watch.is_jump(index, decode_s=dts * tick_s, duration_s=duration * tick_s):
            raise SurveyNeeded


def _clip(
    request: ClipRequest,
    *,
    plan: Plan,
    streams: Streams,
    video: VideoReader | None,
    audio: AudioReader | None,
    num_bad_packets: int,
) -> Clip:
    """What the readers found -> Clip."""
    frames_THWC = np.empty((0, 0, 0, 3), np.uint8) if video is None else video.keeper.frames_THWC
    waveform_S = np.empty(0, np.float32) if audio is None else audio.take_waveform()
    times_T = plan.instants_T[: len(frames_THWC)]
    lead_in_frame_HWC = None
    if plan.has_lead_in and len(frames_THWC):
        lead_in_frame_HWC, frames_THWC, times_T = frames_THWC[0], frames_THWC[1:], times_T[1:]
    end_s = plan.end_s
    if num_bad_packets and (video is None or not video.keeper.is_full):
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
        has_video=streams.video is not None,
        has_audio=streams.audio is not None,
        num_bad_packets=num_bad_packets,
    )
