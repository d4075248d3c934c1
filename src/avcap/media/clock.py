"""Where a file's own clock jumps, and what to add to its times so that counting goes on.

Recordings joined by `cat`, streams whose server was restarted and counters that run over begin again at another time
in the middle. A jump back is never meant. A jump forward is a gap: of one stream alone it may be real (a slide that
stays, a pause in the audio), of video and audio together it is a piece that was never recorded.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

# Decoding times of one stream never fall, but for the rounding of clocks.
BACK_S = 0.1
# A longer gap in video and audio at once is a jump.
FORWARD_S = 1.0
# So many packets with wrong times between right ones are damage, not a new recording.
SPIKE_PACKETS = 4
SPIKE_TOLERANCE_S = 1.0
# Shown out of order, the first and the last frame of a recording are among so many packets.
REORDERED_PACKETS = 16
# What video and audio of one recording may differ in length without a choice between them: video leads.
ALIGNED_S = 0.5
# Jumps of video and audio that lead this close to each other, or are this close in length, are the same.
SAME_JUMP_S = 2.0
NEAR_JUMP_S = 60.0  # and one recording's video and audio do not end further apart


@dataclass(kw_only=True)
class PacketTimes:
    """The packets of one stream in file order, in seconds; NaN where a packet does not say."""

    order: array = field(default_factory=lambda: array("q"))
    """Of each packet among those of all streams."""
    decode_s: array = field(default_factory=lambda: array("d"))
    show_s: array = field(default_factory=lambda: array("d"))
    duration_s: array = field(default_factory=lambda: array("d"))
    is_shown: array = field(default_factory=lambda: array("b"))
    """Whether it is more than a help to decode others."""

    def add(self, *, order: int, decode_s: float, show_s: float, duration_s: float, is_shown: bool) -> None:
        self.order.append(order)
        self.decode_s.append(decode_s)
        self.show_s.append(show_s)
        self.duration_s.append(duration_s)
        self.is_shown.append(is_shown)

    def __len__(self) -> int:
        return len(self.order)


@dataclass(frozen=True, kw_only=True)
class Jump:
    """Packet `index` of a stream does not follow the one before it."""

    index: int
    order: int
    from_s: float
    to_s: float

    @property
    def length_s(self) -> float:
        return self.to_s - self.from_s


@dataclass(frozen=True, kw_only=True)
class Correction:
    """What to add to the times of one stream: `added_s[k]` from packet `first_packets[k]` on."""

    first_packets: np.ndarray
    added_s: np.ndarray

    def at(self, packet: int) -> float:
        """Number of a packet -> seconds to add to its times."""
        return float(self.added_s[np.searchsorted(self.first_packets, packet, side="right") - 1])


@dataclass(frozen=True, kw_only=True)
class MendedClock:
    """Corrections of the streams, in their order, and where on the corrected clock jumps were."""

    corrections: tuple[Correction, ...]
    back_s: tuple[float, ...] = ()
    closed_s: tuple[float, ...] = ()
    """How long each jump forward was that is now closed."""
    num_spikes: int = 0
    starts_s: tuple[float | None, ...] = ()
    ends_s: tuple[float | None, ...] = ()
    """Of each stream on the corrected clock: where its first packet starts and its last one ends."""

    @property
    def is_needed(self) -> bool:
        return bool(self.back_s or self.closed_s or self.num_spikes)

    def notes(self, *, origin_s: float) -> list[str]:
        """-> what a record says of the corrections."""
        notes = []
        if self.back_s:
            times = f"{len(self.back_s)} times, first " if len(self.back_s) > 1 else ""
            notes.append(f"its clock jumps back ({times}at {self.back_s[0] - origin_s:.1f} s): counting goes on there")
        if self.closed_s:
            times = f"{len(self.closed_s)} gaps" if len(self.closed_s) > 1 else "a gap"
            notes.append(f"its clock jumps forward: {times} of {sum(self.closed_s):.1f} s in all its streams closed")
        if self.num_spikes:
            notes.append(f"{self.num_spikes} of its packets carry a wrong time: placed after the one before")
        return notes


def mend_clock(streams: Sequence[PacketTimes], *, closes_alone: bool = False) -> MendedClock:
    """Packets of the chosen streams, video first -> the mended clock.

    `closes_alone`: a gap in an only stream is a jump too, as in formats whose clock is known to start anew.
    """
    builders = [_Builder(times) for times in streams if len(times)]
    num_spikes = sum(builder.num_spikes for builder in builders)
    back_s, closed_s = [], []
    jumps = sorted(((jump, builder) for builder in builders for jump in builder.jumps), key=lambda pair: pair[0].order)
    done: set[tuple[int, int]] = set()
    for jump, builder in jumps:
        if (id(builder), jump.index) in done:
            continue
        together = {id(builder): jump}
        for other in builders:
            if (
                other is not builder
                and (match := _same_jump(jump, other, done, added_s=builder.added_at(jump.index - 1))) is not None
            ):
                together[id(other)] = match
        done |= {(owner, found.index) for owner, found in together.items()}
        is_shared = len(together) > 1 or (len(builders) == 1 and closes_alone)
        if jump.length_s > 0 and not is_shared:
            continue
        start_s = _go_on(builders, together)
        if jump.length_s < 0:
            back_s.append(start_s)
        else:
            closed_s.append(jump.length_s)
    found = {id(builder.times): builder for builder in builders}
    none = Correction(first_packets=np.zeros(1, np.int64), added_s=np.zeros(1))
    spans = [found[id(times)].span() if id(times) in found else (None, None) for times in streams]
    return MendedClock(
        corrections=tuple(found[id(times)].correction() if id(times) in found else none for times in streams),
        back_s=tuple(back_s),
        closed_s=tuple(closed_s),
        num_spikes=num_spikes,
        starts_s=tuple(start_s for start_s, _ in spans),
        ends_s=tuple(end_s for _, end_s in spans),
    )


class _Builder:
    """One stream: its jumps, and its correction so far."""

    def __init__(self, times: PacketTimes) -> None:
        self.times = times
        self.show_s = np.array(times.show_s)
        self.decode_s = np.array(times.decode_s)
        self.show_s = np.where(np.isnan(self.show_s), self.decode_s, self.show_s)
        steps_s = np.diff(self.decode_s[~np.isnan(self.decode_s)])
        usual_s = float(np.median(steps_s[steps_s > 0])) if (steps_s > 0).any() else 0.0
        durations_s = np.array(times.duration_s)
        self.duration_s = np.where(durations_s > 0, durations_s, usual_s)
        self._starts: dict[int, float] = {0: 0.0}
        jumps = self._find_jumps()
        kept, self._spikes = _without_spikes(jumps)
        self.jumps = [self._exact(jump) for jump in kept]
        self.num_spikes = sum(end - start for start, end, _ in self._spikes)
        for start, end, added_s in self._spikes:
            self.show_s[start:end] += added_s

    def _find_jumps(self) -> list[Jump]:
        known = np.flatnonzero(~np.isnan(self.decode_s))
        ends_s = self.decode_s[known][:-1] + self.duration_s[known][:-1]
        lengths_s = self.decode_s[known][1:] - ends_s
        falls = self.decode_s[known][1:] < self.decode_s[known][:-1] - BACK_S
        return [
            Jump(
                index=int(known[i + 1]),
                order=self.times.order[known[i + 1]],
                from_s=float(ends_s[i]),
                to_s=float(self.decode_s[known[i + 1]]),
            )
            for i in np.flatnonzero(falls | (lengths_s > FORWARD_S))
        ]

    def _exact(self, jump: Jump) -> Jump:
        """A jump of decoding times, some of which are guesses by the demuxer -> where the times of showing jump."""
        if abs(jump.length_s) < FORWARD_S:
            return jump
        index = jump.index
        while index > 1 and abs(self.show_s[index - 1] - jump.to_s) < abs(self.show_s[index - 1] - jump.from_s):
            index -= 1
            if jump.index - index > REORDERED_PACKETS:
                return jump
        return replace(jump, index=index, order=self.times.order[index])

    def end_before(self, index: int) -> float:
        """Packet number -> where the stream ends before it, on the corrected clock."""
        first = max(0, index - REORDERED_PACKETS, *[start for start in self._starts if start < index])
        ends_s = self.show_s[first:index] + self.duration_s[first:index]
        return float(np.nanmax(ends_s, initial=-np.inf)) + self.added_at(index - 1)

    def start_from(self, index: int) -> float:
        """Packet number after a jump -> where the stream begins there, on the file's clock."""
        later = [jump.index for jump in self.jumps if jump.index > index]
        return float(np.nanmin(self.show_s[index : min([index + REORDERED_PACKETS, *later])], initial=np.inf))

    def added_at(self, index: int) -> float:
        return self._starts[max(start for start in self._starts if start <= index)]

    def go_on(self, index: int, *, added_s: float) -> None:
        self._starts[index] = added_s

    def begins_after(self, order: int) -> bool:
        return self.times.order[0] > order

    def span(self) -> tuple[float | None, float | None]:
        """-> where the shown packets of this stream start and end on the corrected clock; None: no packet says."""
        firsts = np.array(sorted(self._starts))
        added_s = np.array([self._starts[first] for first in sorted(self._starts)])
        numbers = np.arange(len(self.show_s))
        show_s = self.show_s + added_s[np.searchsorted(firsts, numbers, side="right") - 1]
        known = ~np.isnan(show_s) & (np.array(self.times.is_shown) != 0)
        if not known.any():
            return None, None
        return float(show_s[known].min()), float((show_s + self.duration_s)[known].max())

    def correction(self) -> Correction:
        """-> the correction of this stream, packets with a wrong time among right ones included."""
        starts = dict(self._starts)
        for start, end, added_s in self._spikes:
            base_s = self.added_at(start)
            starts[start] = base_s + added_s
            starts.setdefault(end, base_s)
        first_packets = np.array(sorted(starts))
        return Correction(first_packets=first_packets, added_s=np.array([starts[first] for first in sorted(starts)]))


def _without_spikes(jumps: list[Jump]) -> tuple[list[Jump], list[tuple[int, int, float]]]:
    """Jumps -> those that stay, and (first packet, packet after the last, seconds to add) of those that lead back."""
    kept: list[Jump] = []
    spikes: list[tuple[int, int, float]] = []
    for jump in jumps:
        is_return = (
            kept
            and jump.index - kept[-1].index <= SPIKE_PACKETS
            and abs(jump.length_s + kept[-1].length_s) < SPIKE_TOLERANCE_S
        )
        if is_return:
            first = kept.pop()
            spikes.append((first.index, jump.index, -first.length_s))
        else:
            kept.append(jump)
    return kept, spikes


def _same_jump(jump: Jump, other: _Builder, done: set[tuple[int, int]], *, added_s: float) -> Jump | None:
    """A jump of one stream, before which `added_s` is added -> the same jump of the other, if that makes it."""
    for candidate in other.jumps:
        apart_s = candidate.from_s + other.added_at(candidate.index - 1) - jump.from_s - added_s
        is_taken = (id(other), candidate.index) in done
        if is_taken or (candidate.length_s > 0) != (jump.length_s > 0) or abs(apart_s) > NEAR_JUMP_S:
            continue
        if jump.length_s > 0:
            both_s = min(jump.to_s, candidate.to_s) - max(jump.from_s, candidate.from_s)
            if both_s >= FORWARD_S:
                return candidate
            continue
        leads_there = abs(jump.to_s - candidate.to_s) <= SAME_JUMP_S
        is_as_long = abs(jump.length_s - candidate.length_s) <= max(SAME_JUMP_S, -0.1 * jump.length_s)
        if leads_there or is_as_long:
            return candidate
    return None


def _go_on(builders: list[_Builder], together: dict[int, Jump]) -> float:
    """Streams, and those of them that jump at once -> where they go on, on the corrected clock, all in step."""
    jumping = [(builder, together[id(builder)]) for builder in builders if id(builder) in together]
    order = min(jump.order for _, jump in jumping)
    added_s = [builder.end_before(jump.index) - builder.start_from(jump.index) for builder, jump in jumping]
    # The first is video where there is one: its frames stand exactly, the audio is moved by some milliseconds.
    chosen_s = added_s[0] if max(added_s) - min(added_s) <= ALIGNED_S else max(added_s)
    start_s = min(builder.start_from(jump.index) for builder, jump in jumping) + chosen_s
    for builder, jump in jumping:
        builder.go_on(jump.index, added_s=chosen_s)
    for builder in builders:
        if id(builder) not in together and builder.begins_after(order):
            builder.go_on(0, added_s=chosen_s)
    return start_s


class JumpWatch:
    """Notices on the way, at little cost, that a clock jumps; the whole file is looked at only then."""

    def __init__(self, *, num_streams: int, num_read: int, closes_alone: bool) -> None:
        """`num_streams` of the file should be in step; those that are not read cannot be asked about a gap."""
        self._num_read = num_read
        self._doubts_each_gap = closes_alone if num_streams == 1 else num_read < num_streams
        self._last: dict[int, tuple[float, float]] = {}
        """Stream -> time of its last packet, and where that ends."""
        self._gaps: dict[int, tuple[float, float]] = {}

    def is_jump(self, stream_index: int, *, decode_s: float, duration_s: float) -> bool:
        """The next packet of a stream -> whether the clock has jumped there."""
        last = self._last.get(stream_index)
        self._last[stream_index] = (decode_s, decode_s + duration_s)
        if last is None:
            return False
        last_decode_s, last_end_s = last
        if decode_s < last_decode_s - BACK_S:
            return True
        if decode_s - last_end_s <= FORWARD_S:
            return False
        if self._doubts_each_gap:
            return True
        self._gaps[stream_index] = (last_end_s, decode_s)
        starts, ends = zip(*self._gaps.values(), strict=True)
        return len(self._gaps) == self._num_read > 1 and min(ends) - max(starts) >= FORWARD_S
