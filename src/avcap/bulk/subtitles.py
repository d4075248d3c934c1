"""A file is captioned interval by interval, for subtitles: the times are ours, and the model only says what is heard.

    files -> intervals of --every seconds, or of --split -> captions of each -> cues -> clip.srt, clip.vtt

No torch by itself.
"""

from collections.abc import Iterable
from dataclasses import replace

from avcap.bulk.cuts.cutter import check_seconds
from avcap.bulk.outputs.subtitles import Cue, joined_cues, lines_of
from avcap.data.request import Request
from avcap.errors import UserError
from avcap.records import Caption

EVERY_S = 5.0
LONGEST_S = 600.0


def check_every(every_s: float) -> None:
    """Raises UserError for a length that makes no subtitles."""
    check_seconds("--every", every_s, longest_s=LONGEST_S)


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
