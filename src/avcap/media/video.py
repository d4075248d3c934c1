"""Video packets in file order -> the pictures shown at the wanted instants, decoding no more than they need.

T wanted instants   H height   W width   C = 3 colours (RGB)

Decoding is nearly all the cost of reading a video, and most of its frames are not wanted. Packets are held back until
all packets up to the next wanted instant have certainly come. Then two kinds can be left out without any effect on the
wanted picture: all before the last keyframe that is not past the instant, and those that no other frame refers to.
"""

import heapq
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from avcap.media.codec import DecodeError, Display
from avcap.media.frame_size import PixelBudget

if TYPE_CHECKING:
    from av import Packet, VideoFrame, VideoStream

# Past this many bytes held back (minutes without a keyframe) packets are decoded rather than held.
MAX_HELD_BYTES = 32 * 2**20
MAX_FRAMES_BYTES = 8 * 2**30
# Codecs whose "non-reference" frames no other frame refers to. In HEVC one of a higher temporal layer may.
DISCARDABLE_CODECS = frozenset(["h264", "mpeg4", "mpeg2video", "mpeg1video"])


class InexactShortcut(Exception):
    """A seek or a skip did not lead where the file said it would: the file has to be read without."""


class TooMuch(Exception):
    """A clip would take more memory than one file may; the message says of what."""


class FrameKeeper:
    """Frames in the order shown -> the rows of `frames_THWC`: for every instant the last frame at or before it."""

    def __init__(
        self,
        *,
        ticks_T: np.ndarray,
        frame_size: tuple[int, int] | None,
        pixel_budget: PixelBudget | None = None,
        display: Display | None = None,
    ) -> None:
        """`ticks_T`: the wanted instants, rising, in ticks of the stream's clock."""
        self.display = display or Display()
        self.ticks_T = ticks_T
        self.frame_size = frame_size
        self.pixel_budget = pixel_budget
        self.frames_THWC = np.empty((0, 0, 0, 3), np.uint8)
        self.num_kept = 0
        self.shown: VideoFrame | None = None
        self._shown_is_kept = False

    @property
    def is_full(self) -> bool:
        return self.num_kept == len(self.ticks_T)

    def show(self, frame: "VideoFrame") -> None:
        """The next frame comes on screen: instants before it get the one shown until now (the first has none)."""
        while not self.is_full and self.ticks_T[self.num_kept] < frame.pts:
            self._keep(self.shown or frame)
        self.shown, self._shown_is_kept = frame, False

    def finish(self, *, end_tick: int) -> None:
        """The picture ends: instants before `end_tick` get the last frame; with none at all, the first instant does."""
        while not self.is_full and self.shown and (self.num_kept == 0 or self.ticks_T[self.num_kept] < end_tick):
            self._keep(self.shown)
        self.frames_THWC = self.frames_THWC[: self.num_kept]

    def _keep(self, frame: "VideoFrame") -> None:
        if self._shown_is_kept and frame is self.shown:
            self.frames_THWC[self.num_kept] = self.frames_THWC[self.num_kept - 1]
        else:
            if self.num_kept == 0 and self.pixel_budget is not None:
                self.frame_size = self.pixel_budget.frame_size(*self.display.size(frame), num_frames=len(self.ticks_T))
            rgb_HWC = self.display.rgb(frame, frame_size=self.frame_size)
            if self.num_kept == 0:
                num_bytes = len(self.ticks_T) * rgb_HWC.size
                if num_bytes > MAX_FRAMES_BYTES:
                    raise TooMuch(
                        f"{len(self.ticks_T)} frames of {rgb_HWC.shape[1]}x{rgb_HWC.shape[0]} pixels, "
                        f"{num_bytes / 2**30:.0f} GiB, expected at most {MAX_FRAMES_BYTES / 2**30:g} GiB; look at "
                        "fewer or smaller ones"
                    )
                # All rows at once: a list of frames and the array made of it would be twice the memory.
                self.frames_THWC = np.empty((len(self.ticks_T), *rgb_HWC.shape), np.uint8)
                self.frame_size = rgb_HWC.shape[:2]  # a picture that changes size mid-way keeps its first one
            self.frames_THWC[self.num_kept] = rgb_HWC
            self._shown_is_kept = frame is self.shown
        self.num_kept += 1


class VideoReader:
    """Packets of one video stream -> frames in a FrameKeeper."""

    def __init__(
        self,
        stream: "VideoStream",
        *,
        keeper: FrameKeeper,
        has_display_times: bool,
        shortcuts: bool,
        after_seek: bool,
    ) -> None:
        """`shortcuts` need display times; `after_seek`: the first packets may belong to a frame group joined late."""
        self.stream = stream
        self.keeper = keeper
        self.has_display_times = has_display_times
        self.shortcuts = shortcuts
        self.num_bad_packets = 0
        self.is_done = False
        self._decoder = stream.codec_context
        self._decoder.thread_count = 1  # files are decoded in parallel instead, which wastes nothing
        self._held: list[Packet] = []
        self._held_bytes = 0
        self._num_sent = 0  # instants whose packets have all been given to the decoder
        self._is_lost = after_seek  # nothing can be decoded before the next keyframe
        self._jump_tick: int | None = None  # held packets start at this keyframe, and some before it were dropped
        self._landing_tick: int | None = None  # the decoder went on at this keyframe, which has not come out yet
        self._last_duration = 0
        self._untimed_ticks: list[int] = []  # heap: of packets in the decoder that do not say when they are shown
        self._num_untimed = 0

    def push(self, packet: "Packet") -> None:
        """The next packet of the stream."""
        if self.is_done:
            return
        self._last_duration = packet.duration or self._last_duration
        if not self.shortcuts:
            self._note_time(packet)
            self._decode(packet)
            self.is_done = self.keeper.is_full
            return
        if packet.pts is None or (self._num_sent and packet.pts <= self.keeper.ticks_T[self._num_sent - 1]):
            raise InexactShortcut
        self._hold(packet)
        if (packet.dts is not None and packet.dts > self._next_tick) or self._held_bytes > MAX_HELD_BYTES:
            self._send(before_tick=packet.dts)
            if self._num_sent == len(self.keeper.ticks_T):
                self._end()
                self.keeper.finish(end_tick=packet.dts)

    def finish(self) -> None:
        """The stream has ended: decode what is held back and give the last instants their frame."""
        if self.is_done:
            return
        self._send(before_tick=None)
        self._end()
        if self.keeper.shown is not None:
            self.keeper.finish(end_tick=self.keeper.shown.pts + self._frame_ticks(self.keeper.shown))
        if self.shortcuts and self.keeper.num_kept == 0:
            raise InexactShortcut  # a seek that led past the last packet

    def _end(self) -> None:
        self._drain()
        self.is_done = True

    def _note_time(self, packet: "Packet") -> None:
        """Without display times, the k-th frame to be shown is shown at the k-th decoding time."""
        if packet.pts is None or not self.has_display_times:
            counted_tick = self._num_untimed * self._rate_ticks()
            heapq.heappush(self._untimed_ticks, counted_tick if packet.dts is None else packet.dts)
            self._num_untimed += 1

    @property
    def _next_tick(self) -> int:
        return int(self.keeper.ticks_T[self._num_sent])

    def _hold(self, packet: "Packet") -> None:
        """Hold a packet back; a keyframe that is not past the next instant makes all held before it needless."""
        is_usable_start = packet.is_keyframe and not packet.is_discard
        if is_usable_start and packet.pts <= self._next_tick:
            if self._held or self._is_lost:
                self._jump_tick = packet.pts
            self._held, self._held_bytes = [], 0
            self._is_lost = False
        if self._is_lost and packet.is_keyframe:
            raise InexactShortcut  # the seek led past the first instant
        if not self._is_lost:
            self._held.append(packet)
            self._held_bytes += packet.size

    def _send(self, *, before_tick: int | None) -> None:
        """Decode the packets held back; every instant before `before_tick` then has had all its packets."""
        if self._jump_tick is not None:
            self._drain()
            self._decoder.flush_buffers()
            self._landing_tick, self._jump_tick = self._jump_tick, None
        num_sent_before = self._num_sent
        if before_tick is not None:
            self._num_sent = int(np.searchsorted(self.keeper.ticks_T, before_tick))
        complete_ticks = self.keeper.ticks_T[num_sent_before : self._num_sent]
        needless = self._needless_pts(complete_ticks) if self._decoder.name in DISCARDABLE_CODECS else set()
        for packet in self._held:
            self._decoder.skip_frame = "NONREF" if packet.pts in needless else "DEFAULT"
            self._decode(packet)
        self._held, self._held_bytes = [], 0

    def _needless_pts(self, complete_ticks: Iterable[int]) -> set[int]:
        """Instants with all packets here -> times of held frames that are shown at none of them, nor at later ones."""
        times = sorted(packet.pts for packet in self._held if not packet.is_keyframe)
        needless: set[int] = set()
        for tick in complete_ticks:
            past = times[: int(np.searchsorted(times, tick, side="right"))]
            needless.update(past[:-1])
            times = times[len(past) :]
        return needless

    def _decode(self, packet: "Packet | None") -> None:
        try:
            frames = self._decoder.decode(packet)
        except DecodeError:
            self.num_bad_packets += 1
            return
        for frame in frames:
            self._show(frame)

    def _drain(self) -> None:
        self._decode(None)
        if self._landing_tick is not None:
            raise InexactShortcut  # the "keyframe" was none, and the decoder waited for a real one

    def _show(self, frame: "VideoFrame") -> None:
        """A decoded frame, in the order shown."""
        shown = self.keeper.shown
        if self._untimed_ticks and (frame.pts is None or not self.has_display_times):
            frame.pts = heapq.heappop(self._untimed_ticks)
        if frame.pts is None:
            frame.pts = 0 if shown is None else shown.pts + self._frame_ticks(shown)
        if self._landing_tick is not None:
            if frame.pts < self._landing_tick:
                return  # refers to frames before the keyframe, and is shown before it: not wanted
            if frame.pts != self._landing_tick or frame.is_corrupt:
                raise InexactShortcut  # the "keyframe" was none
            self._landing_tick = None
        self.num_bad_packets += frame.is_corrupt
        if shown is None or frame.pts > shown.pts:
            self.keeper.show(frame)
        elif self.shortcuts:
            raise InexactShortcut
        else:
            self.num_bad_packets += 1  # a clock that jumps back: its frames cannot be placed

    def _frame_ticks(self, frame: "VideoFrame") -> int:
        """Frame -> how many ticks it stays on screen."""
        return frame.duration or self._last_duration or self._rate_ticks()

    def _rate_ticks(self) -> int:
        """-> ticks from frame to frame at the average rate."""
        return round(1 / ((self.stream.average_rate or 25) * self.stream.time_base))
