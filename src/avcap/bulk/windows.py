"""A file is captioned interval by interval, for subtitles: the times are ours, and the model only says what is heard.

    files -> how long they are -> intervals of --every seconds -> captions of each -> cues -> clip.srt, clip.vtt

No torch by itself.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from avcap.bulk.outputs.subtitles import Cue, joined_cues, lines_of
from avcap.data.request import Interval, Request
from avcap.errors import MediaError, UserError
from avcap.records import Caption, CaptionError, Sample

EVERY_S = 5.0
SHORTEST_S, LONGEST_S = 0.5, 600.0
LOOKED_AT_S = 0.1
SHARE_OF_A_WINDOW = 0.2
"""A rest of a file that is shorter than this share of a window is captioned with the window before."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A file's length, and whether there is audio in it."""

    video: str
    duration_s: float
    has_audio: bool


def check_every(every_s: float) -> None:
    """Raises UserError for a length that makes no subtitles."""
    if not SHORTEST_S <= every_s <= LONGEST_S:
        raise UserError(f"got --every {every_s:g}, expected {SHORTEST_S:g} to {LONGEST_S:g} seconds")


def measure(videos: Sequence[str], *, deadline_s: float) -> Iterator[Measured | CaptionError]:
    """Files -> their lengths in order, or why they cannot be read; a moment of each is decoded, in worker processes."""
    from avcap.media.clip import ClipRequest  # here: NumPy takes a quarter of a second
    from avcap.media.pool import DecodePool

    requests = (ClipRequest(path=video, max_frames=1, interval_s=(0.0, LOOKED_AT_S)) for video in videos)
    with DecodePool(num_workers=max(1, min(8, os.cpu_count() or 1)), deadline_s=deadline_s) as pool:
        for video, clip in zip(videos, pool.map(requests), strict=True):
            if isinstance(clip, MediaError):
                yield CaptionError(sample_id=video, video=video, error=str(clip))
            else:
                yield Measured(video=video, duration_s=clip.duration_s, has_audio=clip.has_audio)


def windows(duration_s: float, *, every_s: float) -> list[Interval]:
    """A length -> intervals that cover it without a gap; the last has no end, so that it reaches the file's.

    >>> windows(10.9, every_s=5.0)
    [(0.0, 5.0), (5.0, inf)]
    """
    count = max(1, int(duration_s / every_s + 1 - SHARE_OF_A_WINDOW))
    starts = [round(index * every_s, 3) for index in range(count)]
    return list(zip(starts, [*starts[1:], math.inf], strict=True))


def samples_of(measured: Measured, request: Request, *, every_s: float) -> list[Sample]:
    """A measured file -> what is asked about it: the audio of each interval. Without audio, nothing is."""
    if not measured.has_audio:
        return []
    intervals = windows(measured.duration_s, every_s=every_s)
    return [replace(request, interval_s=interval).sample(measured.video) for interval in intervals]


def audio_request(request: Request) -> Request:
    """What was asked for -> the same of the audio alone: all that is told then can be heard.

    Raises:
        UserError: the audio, or a part of the file, was excluded.
    """
    if not request.use_audio:
        raise UserError("got --no-audio and subtitles, which tell what is heard; leave one of them out")
    if request.interval_s is not None:
        raise UserError("got --start or --end and subtitles, which are of whole files; leave one of them out")
    return replace(request, use_video=False)


def cues_of(captions: Iterable[Caption]) -> list[Cue]:
    """The captions of one file's intervals -> its cues in order, cut to the file."""
    cues = []
    for caption in sorted(captions, key=lambda one: one.interval_s or (0.0, 0.0)):
        assert caption.interval_s is not None, "a caption of a whole file has no place in subtitles"
        start_s, end_s = caption.interval_s
        cues.append(Cue(start_s=start_s, end_s=min(end_s, caption.duration_s), lines=lines_of(caption.text)))
    return joined_cues(cues)


def by_video(captions: Iterable[Caption]) -> Mapping[str, list[Caption]]:
    """Captions -> those of each file."""
    found: dict[str, list[Caption]] = {}
    for caption in captions:
        found.setdefault(caption.video, []).append(caption)
    return found
