"""Captions of a video's windows -> the one Caption of the video. No torch."""

import hashlib
import os
from collections.abc import Sequence

from avcap.bulk.long.stitch import Stitched, stitch, whole_text
from avcap.bulk.long.summary import Summarizer
from avcap.errors import UserError
from avcap.records import AudioArrival, Caption, CaptionError, CaptionWindow, Sample, Seen

GAP = "no caption of"
"""How the note of a window that failed begins."""
ARRIVALS: tuple[AudioArrival, ...] = ("dropped", "sent, not confirmed", "confirmed")
"""From the worst: what is true of one window is said of all."""


def windows_of(captions: Sequence[Caption]) -> tuple[CaptionWindow, ...]:
    """Captions of windows -> their times and texts, in order."""
    windows = []
    for caption in captions:
        assert caption.interval_s is not None, "a window is a part of a video"
        start_s, end_s = caption.interval_s
        windows.append(CaptionWindow(start_s=start_s, end_s=min(end_s, caption.duration_s), text=caption.text))
    return tuple(windows)


def joined(
    captions: Sequence[Caption],
    *,
    sample: Sample,
    prompt: str,
    made_by: str,
    failed: Sequence[CaptionError] = (),
    summarizer: Summarizer | None = None,
) -> Caption:
    """Captions of a video's windows, in order -> its caption.

    Args:
        captions: At least one.
        sample: The whole video.
        prompt: What would have been asked about all of it: a record has one prompt.
        made_by: What the record says of how it came about.
        failed: Windows without a caption, which is noted.
        summarizer: What makes one text of all; None: they are stitched.

    Raises:
        UserError: The summarizer gave none.
    """
    windows = windows_of(captions)
    parts = stitch(windows)
    told = [part for part in parts if part.text]
    text = whole_text(parts) if summarizer is None or not told else summarizer.summed_up(told)
    key = os.fsencode(f"{captions[0].checkpoint} {sample.sample_id} {made_by} {captions[0].decoding} {text}")
    scores = [one.world_score for one in captions if one.world_score is not None]
    worlds = [one.in_world for one in captions if one.in_world is not None]
    return Caption(
        caption_id=hashlib.sha256(key).hexdigest()[:16],
        sample_id=sample.sample_id,
        video=sample.video,
        prompt=prompt,
        text=text,
        checkpoint=captions[0].checkpoint,
        decoding=captions[0].decoding,
        seen=_seen(captions, failed),
        finished=all(one.finished for one in captions),
        duration_s=captions[-1].duration_s,
        interval_s=sample.interval_s,
        in_world=all(worlds) if worlds else None,
        world_score=max(scores) if scores else None,
        windows=windows,
        made_by=made_by,
    )


def _seen(captions: Sequence[Caption], failed: Sequence[CaptionError]) -> Seen:
    """What the model was given in all windows together; what it was given twice counts twice."""
    all_seen = [caption.seen for caption in captions]
    notes = dict.fromkeys(note for seen in all_seen for note in seen.notes)
    gaps = [f"{GAP} {_part_of(error)}: {error.error[:200]}" for error in failed]
    arrivals = [seen.audio for seen in all_seen if seen.audio is not None]
    return Seen(
        frames=sum(seen.frames for seen in all_seen),
        audio_seconds=round(sum(seen.audio_seconds for seen in all_seen), 3),
        visual_tokens=_sum([seen.visual_tokens for seen in all_seen]),
        audio_tokens=_sum([seen.audio_tokens for seen in all_seen]),
        bad_packets=sum(seen.bad_packets for seen in all_seen),
        notes=(*notes, *gaps),
        audio=min(arrivals, key=ARRIVALS.index) if arrivals else None,
    )


def _part_of(error: CaptionError) -> str:
    """ "film.mp4#t=60,120&track=picture" -> "its part t=60,120"."""
    return f"its part t={error.sample_id.rpartition('#t=')[2].partition('&')[0]}"


def _sum(counts: Sequence[int | None]) -> int | None:
    """None where one of them is not known."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def gap_error(sample: Sample, failed: Sequence[CaptionError], *, num_windows: int) -> CaptionError:
    """A video some of whose windows have no caption -> its row."""
    return CaptionError(
        sample_id=sample.sample_id,
        video=sample.video,
        error=(
            f"{sample.video}: {len(failed)} of its {num_windows} windows have no caption, the first: "
            f"{failed[0].error[:300]}; --retry-failed tries these again, and does without them if they fail again"
        ),
    )


def check_made_by(caption: Caption, *, made_by: str) -> None:
    """Raises UserError for a caption that was made of other windows, or otherwise."""
    if caption.windows and caption.made_by != made_by:
        raise UserError(
            f"got captions of {caption.made_by or 'whole videos'} in it, and {made_by or 'whole videos'} now; expected "
            "one folder for one way of captioning; choose another --out"
        )


def parts_of(caption: Caption) -> list[Stitched]:
    """A caption of windows -> what each of them adds."""
    return stitch(caption.windows)
