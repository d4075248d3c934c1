"""In which order frames and audio tokens enter the language model: pure functions on numbers, no tensors.

A plan is a list of groups. A group is a frame (or none) and the indices of the audio tokens that follow it.
Two orders exist. `plan_true_time` puts every real audio token behind the frame of its instant. `plan_official` is
what the released model was trained with: it stretches all tokens of all padded chunks evenly over the frames.
"""

import itertools
import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

VISUAL_ID = -200  # stands for one visual token in a list of token ids
AUDIO_ID = -201  # one audio token
ZERO_ID = -202  # a vector of zeros, which pads the official time text

EPSILON_S = 1e-6  # far below one audio sample (62 us): absorbs float noise such as 0.1 + 0.5 != 0.6


@dataclass(frozen=True)
class Group:
    """One frame and the audio tokens after it; frame None: sound before the first frame, or a clip without frames."""

    frame: int | None
    audio: tuple[int, ...]


@dataclass(frozen=True)
class TokenOrder:
    """The media tokens of one clip in order. The last three lists have one entry per VISUAL_ID or AUDIO_ID in `ids`.

    `rows`: which row of [visual tokens of all frames, audio tokens] stands there; `seconds`: whole second of the video;
    `types`: place of the token, see `token_types`.
    """

    ids: list[int]
    rows: list[int]
    seconds: list[int]
    types: list[int]


@dataclass(frozen=True)
class TokenTypes:
    """Type numbers: cells of a frame first, then the newline, then the audio tokens of a second.

    >>> TokenTypes(cells_per_side=2, row_newline=True, windows_per_s=2, num_queries=1).of_frame
    (0, 1, 4, 2, 3, 4)
    """

    cells_per_side: int
    row_newline: bool
    windows_per_s: int
    num_queries: int

    @property
    def of_frame(self) -> tuple[int, ...]:
        """Types of the visual tokens of one frame, row by row."""
        side, newline = self.cells_per_side, (self.cells_per_side**2,) * self.row_newline
        return tuple(t for row in range(side) for t in (*range(row * side, (row + 1) * side), *newline))

    @property
    def first_audio(self) -> int:
        return self.cells_per_side**2 + int(self.row_newline)

    @property
    def count(self) -> int:
        return self.first_audio + self.windows_per_s * self.num_queries

    def of_audio(self, token: int, time_s: float) -> int:
        """Sound token and the instant at which its window starts -> its type."""
        part_of_second = (time_s + EPSILON_S) % 1.0
        window = min(int(part_of_second * self.windows_per_s + EPSILON_S), self.windows_per_s - 1)
        return self.first_audio + window * self.num_queries + token % self.num_queries


def window_starts(num_chunks: int, *, windows_per_chunk: int, chunk_s: float, stride_s: float) -> list[float]:
    """Number of sound chunks -> second at which each window starts, from the beginning of the sound."""
    return [chunk * chunk_s + window * stride_s for chunk in range(num_chunks) for window in range(windows_per_chunk)]


def num_real_windows(starts_s: Sequence[float], *, audio_seconds: float) -> int:
    """Sorted window starts -> how many of them begin inside the sound; the others see only padded silence."""
    return bisect_left(starts_s, audio_seconds - EPSILON_S)


def plan_true_time(frame_times_s: Sequence[float], audio_times_s: Sequence[float]) -> list[Group]:
    """Sorted times of frames and of audio tokens (same clock) -> groups, with every frame and token exactly once.

    Tokens in [time of frame k, time of frame k+1) follow frame k; earlier ones come first, the rest come last.
    """
    for name, times_s in (("frame", frame_times_s), ("audio", audio_times_s)):
        if any(later < earlier for earlier, later in itertools.pairwise(times_s)):
            raise ValueError(f"{name} times must not decrease: {list(times_s)[:8]}")
    first_of_frame = [bisect_left(audio_times_s, time_s - EPSILON_S) for time_s in frame_times_s]
    borders = [0, *first_of_frame, len(audio_times_s)]
    frames: list[int | None] = [None, *range(len(frame_times_s))]
    groups = [
        Group(frame=frame, audio=tuple(range(start, end)))
        for frame, start, end in zip(frames, borders[:-1], borders[1:], strict=True)
    ]
    return groups[1:] if not groups[0].audio else groups


def plan_official(num_frames: int, num_audio_tokens: int) -> list[Group]:
    """Counts -> the released order: ceil(tokens / frames) tokens after every frame, some repeated to make it even."""
    if num_frames == 0:
        return [Group(frame=None, audio=tuple(range(num_audio_tokens)))]
    per_frame = math.ceil(num_audio_tokens / num_frames)
    audio = nearest_indices(num_audio_tokens, per_frame * num_frames)
    return [
        Group(frame=frame, audio=tuple(audio[frame * per_frame : (frame + 1) * per_frame]))
        for frame in range(num_frames)
    ]


def nearest_indices(num_in: int, num_out: int) -> list[int]:
    """Lengths -> the source index that nearest-neighbour interpolation takes for every output position.

    In float32, as `torch.nn.functional.interpolate` computes it: exact arithmetic differs by one now and then.
    """
    if num_out == 0:
        return []
    scale = np.float32(num_in) / np.float32(num_out)
    indices = np.floor(np.arange(num_out, dtype=np.float32) * scale).astype(int)
    return np.minimum(indices, num_in - 1).tolist()


def lay_out(
    groups: Sequence[Group],
    *,
    frame_times_s: Sequence[float],
    audio_times_s: Sequence[float],
    types: TokenTypes,
    time_text_ids: Sequence[Sequence[int]] | None = None,
) -> TokenOrder:
    """A plan and the times of its frames and audio tokens -> the order of all tokens, time text after its frame."""
    frame_types = types.of_frame
    first_audio_row = len(frame_times_s) * len(frame_types)
    order = TokenOrder(ids=[], rows=[], seconds=[], types=[])
    for group in groups:
        if group.frame is not None:
            first_row = group.frame * len(frame_types)
            order.ids.extend([VISUAL_ID] * len(frame_types))
            order.rows.extend(range(first_row, first_row + len(frame_types)))
            order.seconds.extend([_whole_second(frame_times_s[group.frame])] * len(frame_types))
            order.types.extend(frame_types)
            order.ids.extend(time_text_ids[group.frame] if time_text_ids is not None else ())
        order.ids.extend([AUDIO_ID] * len(group.audio))
        for token in group.audio:
            order.rows.append(first_audio_row + token)
            order.seconds.append(_whole_second(audio_times_s[token]))
            order.types.append(types.of_audio(token, audio_times_s[token]))
    return order


def _whole_second(time_s: float) -> int:
    return max(0, math.floor(time_s + EPSILON_S))
