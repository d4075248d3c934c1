"""Sound packets in file order -> the 16 kHz waveform of a span, every sample at its time.

S samples of sound
"""

import contextlib
from typing import TYPE_CHECKING

import numpy as np

from avcap.media.clip import SAMPLE_RATE_HZ
from avcap.media.codec import (
    DecodeError,
    Resampler,
    drop_first_samples,
    first_channel,
    first_frame_samples,
    has_known_mix,
    mixed_frame,
    readable_frame,
    resampling_grid,
)
from avcap.media.video import InexactShortcut, TooMuch

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream, Packet
    from av.container import InputContainer

# Decoders and the resampler remember what came before: they start this much before the span.
WARM_UP_S = 1.0
MIN_WARM_UP_S = 0.25
# Time stamps jitter by some milliseconds, and the samples simply go on; more than this is a real gap or overlap.
MAX_JITTER_S = 0.04
# A longer silence than this comes from a damaged time stamp.
MAX_GAP_S = 3600
# All gaps of a file together: filled with zeros they take memory that no byte of the file stands for.
MAX_GAPS_S = 3600
GROWTH_S = 60
# Codecs all of whose frames have the same number of samples.
FIXED_FRAME_CODECS = frozenset(["aac", "ac3", "eac3", "flac", "libopus", "mp2", "mp2float", "mp3", "mp3float", "opus"])


class AudioReader:
    """Packets of one sound stream -> `waveform_S`."""

    def __init__(
        self,
        stream: "AudioStream",
        *,
        origin_s: float,
        start_s: float,
        max_samples: int,
        after_seek: bool,
        only_first_channel: bool = False,
        keeps_cancelled: bool = False,
    ) -> None:
        """`start_s`, after the origin: the time of the first sample; `origin_s`: on the stream's clock. All channels
        are mixed, or only the first is heard; `keeps_cancelled`: what they lose by it stays lost."""
        self.stream = stream
        self.max_samples = max_samples
        self.only_first_channel = only_first_channel
        self.num_samples = 0
        self.num_bad_packets = 0
        self._origin_s = origin_s
        self._tick_s = float(stream.time_base or 1)
        self._start_s = start_s
        self._start_sample = round(start_s * SAMPLE_RATE_HZ)
        self._must_warm_up = after_seek
        self._buffer_S = np.zeros(0, np.float32)  # the waveform, and room after it
        self._resampler: Resampler | None = None
        self._format: tuple[str, str, int] | None = None
        self._num_overlapping = 0  # samples still to come of a time that is filled already
        self._next_s = 0.0  # when the next frame should start, after the origin
        self._first_frame_samples: int | None = None
        self._keeps_cancelled = keeps_cancelled
        self._gaps_s = 0.0
        self._cancelled_s = 0.0
        self._unplaced_channels = 0
        stream.codec_context.thread_count = 1

    def learn_frame_grid(self, container: "InputContainer") -> None:
        """Before a seek: where time stamps are coarser than samples, learn where between them frames start."""
        if self._needs_frame_grid:
            self._first_frame_samples = first_frame_samples(container, self.stream)

    @property
    def _needs_frame_grid(self) -> bool:
        codec = self.stream.codec_context
        return codec.name in FIXED_FRAME_CODECS and self._tick_s * codec.sample_rate > 1

    @property
    def is_done(self) -> bool:
        return self.num_samples >= self.max_samples

    def push(self, packet: "Packet") -> None:
        """The next packet of the stream."""
        if self.is_done:
            return
        if packet.pts is not None:
            time_s = packet.pts * self._tick_s - self._origin_s
            if time_s < self._start_s - WARM_UP_S:
                self._must_warm_up = False
                self._pass_over(packet)
                return
            if self._must_warm_up and time_s > self._start_s - MIN_WARM_UP_S:
                raise InexactShortcut  # the seek led too far
        self._must_warm_up = False
        self._decode(packet)

    def _pass_over(self, packet: "Packet") -> None:
        """A packet before the span; read from the head of the file, the first one tells the frame grid."""
        if self._first_frame_samples is None and self._needs_frame_grid:
            codec = self.stream.codec_context
            with contextlib.suppress(DecodeError):  # a bad packet before the span does no harm
                for frame in codec.decode(packet)[:1]:
                    codec.flush_buffers()
                    self._first_frame_samples = frame.samples

    def finish(self) -> None:
        """The stream has ended: take what the decoder and the resampler still hold."""
        if not self.is_done:
            self._decode(None)
            self._flush_resampler()

    def notes(self) -> list[str]:
        """-> what a record says of how the channels were mixed."""
        notes = []
        cancelled_s = self._cancelled_s + (self._resampler.cancelled_s if self._resampler else 0.0)
        if cancelled_s:
            notes.append(
                f"its audio channels cancel each other when mixed, for {cancelled_s:.1f} s: the loudest alone was "
                "taken there"
            )
        if self._unplaced_channels:
            notes.append(f"its {self._unplaced_channels} audio channels have no places that are known: all were mixed")
        return notes

    def take_waveform(self) -> np.ndarray:
        """-> waveform (S,) float32 in [-1, 1]."""
        self._buffer_S.resize(self.num_samples, refcheck=False)
        return self._buffer_S

    def _decode(self, packet: "Packet | None") -> None:
        try:
            frames = self.stream.codec_context.decode(packet)
        except DecodeError:
            self.num_bad_packets += 1
            return
        for frame in frames:
            self._hear(self._prepared(readable_frame(frame)))

    def _prepared(self, frame: "AudioFrame") -> "AudioFrame":
        """A decoded frame -> one whose channels FFmpeg can mix."""
        if self.only_first_channel:
            return first_channel(frame)
        if has_known_mix(frame):
            return frame
        self._unplaced_channels = frame.layout.nb_channels
        return mixed_frame(frame)

    def _hear(self, frame: "AudioFrame") -> None:
        """A decoded frame goes to the resampler; where time or format jumps, with a new start."""
        time_s = self._next_s
        if frame.pts is not None:
            time_s = frame.pts * self._tick_s - self._origin_s
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._resampler is None or form != self._format or abs(time_s - self._next_s) > MAX_JITTER_S:
            self._flush_resampler()
            started = self._start_at(frame, time_s=time_s)
            if started is None:
                return
            time_s += (frame.samples - started.samples) / frame.sample_rate
            frame, self._format, self._next_s = started, form, time_s
            self._resampler = Resampler(keeps_cancelled=self._keeps_cancelled)
        self._next_s += frame.samples / frame.sample_rate
        self._append(self._resampler.push(frame))

    def _start_at(self, frame: "AudioFrame", *, time_s: float) -> "AudioFrame | None":
        """The first frame after a jump -> what is left of it from an instant on that both sample rates have."""
        rate = frame.sample_rate
        first_s = (self.stream.start_time or 0) * self._tick_s - self._origin_s
        index = self._on_frame_grid(round((time_s - first_s) * rate), frame=frame)
        # Started there, the resampler gives the very samples it would give had it started at the head of the file.
        num_dropped = -index % resampling_grid(rate)
        if num_dropped >= frame.samples:
            return None
        position = round(first_s * SAMPLE_RATE_HZ) + (index + num_dropped) * SAMPLE_RATE_HZ // rate - self._start_sample
        gap = min(position, self.max_samples) - self.num_samples
        if gap > MAX_GAP_S * SAMPLE_RATE_HZ:
            self.num_bad_packets += 1
            return None
        self._num_overlapping = max(0, self.num_samples - position)
        if gap > 0:
            self._gaps_s += gap / SAMPLE_RATE_HZ
            if self._gaps_s > MAX_GAPS_S:
                raise TooMuch(
                    f"audio with more than {MAX_GAPS_S} s of gaps in it, expected a recording; caption a part of it "
                    "(--start, --end), or leave the audio out"
                )
            self._grow(gap)
        return drop_first_samples(frame, num_samples=num_dropped) if num_dropped else frame

    def _on_frame_grid(self, index: int, *, frame: "AudioFrame") -> int:
        """Sample number by a coarse time stamp -> the exact one: frames follow the first one without gaps."""
        first = self._first_frame_samples
        if first is None:
            return index
        exact = first + round((index - first) / frame.samples) * frame.samples
        is_within_a_tick = abs(exact - index) <= self._tick_s * frame.sample_rate
        return exact if is_within_a_tick else index

    def _flush_resampler(self) -> None:
        if self._resampler is not None:
            self._append(self._resampler.finish())
            self._cancelled_s += self._resampler.cancelled_s
            self._resampler = None
            self._format = None

    def _append(self, chunks: list[np.ndarray]) -> None:
        for chunk in chunks:
            overlap = min(self._num_overlapping, len(chunk))
            self._num_overlapping -= overlap
            chunk = chunk[overlap : overlap + self.max_samples - self.num_samples]
            np.multiply(chunk, np.float32(1 / 32768), out=self._grow(len(chunk)))

    def _grow(self, num_samples: int) -> np.ndarray:
        """Make the waveform longer -> its new end, zeros, to write to."""
        start, self.num_samples = self.num_samples, self.num_samples + num_samples
        if self.num_samples > len(self._buffer_S):
            # In place where the system can, and an eighth ahead: hours of sound must not be in memory twice.
            room = max(GROWTH_S * SAMPLE_RATE_HZ, self.num_samples // 8)
            self._buffer_S.resize(min(self.num_samples + room, self.max_samples), refcheck=False)
        return self._buffer_S[start : self.num_samples]
