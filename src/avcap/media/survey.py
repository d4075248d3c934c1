"""A look at all packets of a file without decoding any: how long it really is, and whether its clock can be followed.

It costs reading the file once more, so only a file whose header or clock is in doubt gets one.
"""

import contextlib
import functools
import math
import os
from dataclasses import dataclass

from avcap.media.clock import MendedClock, PacketTimes, mend_clock
from avcap.media.codec import DecodeError, Streams, find_streams, open_file, read_only


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What the packets say. Ends are seconds after `origin_s`, on the mended clock; None: there is no such packet."""

    clock: MendedClock
    origin_s: float
    video_end_s: float | None
    audio_end_s: float | None
    read_bytes: int
    """Where in the file the last packet ends."""

    @property
    def duration_s(self) -> float:
        return max(self.video_end_s or 0.0, self.audio_end_s or 0.0)


def survey_file(path: str) -> Survey:
    """File -> its survey; of one that has not changed since, the last one: it is asked for window after window."""
    status = os.stat(path)
    return _survey(os.path.abspath(path), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _survey(path: str, size: int, modified_ns: int) -> Survey:
    with open_file(path) as container:
        streams = find_streams(container)
        chosen = [stream for stream in (streams.video, streams.audio) if stream is not None]
        times = {stream.index: PacketTimes() for stream in chosen}
        read_only(container, chosen)
        num_untimed = read_bytes = 0
        with contextlib.suppress(DecodeError):  # reading comes to the same place, and counts it
            for order, packet in enumerate(container.demux(chosen)):
                if not packet.size:
                    continue
                read_bytes = max(read_bytes, (packet.pos or 0) + packet.size)
                tick_s = float(packet.time_base)
                times[packet.stream_index].add(
                    order=order,
                    decode_s=math.nan if packet.dts is None else packet.dts * tick_s,
                    show_s=math.nan if packet.pts is None else packet.pts * tick_s,
                    duration_s=(packet.duration or 0) * tick_s,
                    is_shown=not packet.is_discard,
                )
                is_video = streams.video is not None and packet.stream_index == streams.video.index
                num_untimed += is_video and packet.pts is None
        clock = mend_clock(list(times.values()), closes_alone=streams.clock_may_jump)
        return _summary(streams, clock, num_untimed=num_untimed, read_bytes=read_bytes)


def _summary(streams: Streams, clock: MendedClock, *, num_untimed: int, read_bytes: int) -> Survey:
    origin_s = float(streams.origin_s)
    if clock.is_needed:
        origin_s = min((start_s for start_s in clock.starts_s if start_s is not None), default=origin_s)
    ends_s = [None if end_s is None else end_s - origin_s for end_s in clock.ends_s]
    video_end_s = ends_s.pop(0) if streams.video is not None else None
    audio_end_s = ends_s.pop(0) if streams.audio is not None else None
    if streams.video is not None and num_untimed:
        video_end_s = max(video_end_s or 0.0, float(num_untimed / (streams.video.average_rate or 25)))
    return Survey(
        clock=clock, origin_s=origin_s, video_end_s=video_end_s, audio_end_s=audio_end_s, read_bytes=read_bytes
    )
