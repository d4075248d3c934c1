"""What is asked of a captioner, checked before anything heavy is loaded. No torch."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

from avcap.errors import UserError
from avcap.records import Caption, Decoding, Sample

Video = str | Path | Sample
Interval = tuple[float, float]

OFFICIAL_PROMPT = (
    "Provide a comprehensive description of all the content in the video, leaving out no details. "
    "Be sure to include as much of the audio information as possible, "
    "and ensure that your descriptions of the audio and video are closely aligned."
)


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """What is asked when the user gives no prompt. The defaults suit the released checkpoints."""

    global_caption: str = OFFICIAL_PROMPT
    interval_caption: str = "Describe what happens from {start}s to {end}s."
    """For a part of a video; {start} and {end} are seconds of the whole video."""
    video_only: str = "Provide a comprehensive description of all that is seen in the video, leaving out no details."
    audio_only: str = "Provide a comprehensive description of all that is heard, leaving out no details."

    def choose(self, *, interval_s: tuple[float, float] | None, has_video: bool, has_audio: bool) -> str:
        """What the model is shown -> the prompt that asks for it."""
        if interval_s is not None:
            start, end = (format_seconds(time_s) for time_s in interval_s)
            return self.interval_caption.replace("{start}", start).replace("{end}", end)
        if not has_audio:
            return self.video_only
        return self.global_caption if has_video else self.audio_only


@dataclass(frozen=True, kw_only=True)
class Request:
    """How videos are to be captioned: what the arguments of one call say about all of them."""

    decoding: Decoding
    interval_s: Interval | None = None
    prompt: str | None = None
    use_audio: bool = True
    use_video: bool = True

    def __post_init__(self) -> None:
        if not (self.use_audio or self.use_video):
            raise UserError("got neither picture nor sound to use, expected at least one of them")
        if self.interval_s is not None:
            check_interval(self.interval_s)
        if self.prompt is not None and not self.prompt.strip():
            raise UserError("got an empty prompt, expected some words; leave it out for the one of the checkpoint")
        decoding = self.decoding
        if decoding.max_new_tokens < 1:
            raise UserError(f"got max_new_tokens={decoding.max_new_tokens}, expected at least 1")
        if not 0 <= decoding.temperature < math.inf:
            raise UserError(f"got temperature={decoding.temperature}, expected 0 (greedy) or more")
        if not 0 < decoding.top_p <= 1:
            raise UserError(f"got top_p={decoding.top_p}, expected more than 0 and at most 1")
        if decoding.top_k < 0:
            raise UserError(f"got top_k={decoding.top_k}, expected 0 (all tokens) or more")
        if not 0 < decoding.repetition_penalty < math.inf:
            raise UserError(f"got repetition_penalty={decoding.repetition_penalty}, expected more than 0 (1: none)")
        if decoding.loop_ngram < 0 or decoding.loop_times < 2:
            raise UserError(
                f"got loop_ngram={decoding.loop_ngram} and loop_times={decoding.loop_times}, expected 0 (never stop a "
                "loop) or more, and at least 2"
            )

    def sample(self, video: Video) -> Sample:
        """A video as the caller names it -> a Sample that says what is asked about it."""
        if isinstance(video, Sample):
            return video
        path = os.fspath(video)
        sample_id = path + self._fragment()
        return Sample(sample_id=sample_id, video=path, prompt=self.prompt or "", interval_s=self.interval_s)

    def _fragment(self) -> str:
        """Which part of the file is asked for, as a media fragment: "#t=3,7", "#track=sound", "" for all of it."""
        parts = []
        if self.interval_s is not None:
            start_s, end_s = self.interval_s
            parts.append(f"t={format_seconds(start_s)},{'' if end_s == math.inf else format_seconds(end_s)}")
        if not self.use_audio:
            parts.append("track=picture")
        if not self.use_video:
            parts.append("track=sound")
        return "#" + "&".join(parts) if parts else ""

    def check_same(self, caption: Caption, *, checkpoint: str, prompts: Prompts) -> None:
        """Raises UserError unless this request to this checkpoint would have made the caption in the same way."""
        found = {"model": caption.checkpoint, "prompt": caption.prompt, "decoding": caption.decoding}
        asked = self._prompts_of(caption, prompts=prompts)
        prompt = caption.prompt if caption.prompt in asked else asked[0]
        for name, value in {"model": checkpoint, "prompt": prompt, "decoding": self.decoding}.items():
            if found[name] != value:
                raise UserError(
                    f"got captions of {name} {found[name]!r} in it, and {value!r} now; expected one file for one way "
                    "of captioning; choose another --out"
                )

    def _prompts_of(self, caption: Caption, *, prompts: Prompts) -> tuple[str, ...]:
        """A caption -> what this request would have asked for it; two, where the audio was dropped: before or after."""
        if self.prompt:
            return (self.prompt,)
        seen = caption.seen
        audio = (True, False) if seen.audio == "dropped" else (bool(seen.audio_tokens or seen.audio_seconds),)
        return tuple(
            prompts.choose(interval_s=caption.interval_s, has_video=seen.frames > 0, has_audio=has_audio)
            for has_audio in audio
        )


def check_interval(interval_s: Interval) -> None:
    """Raises UserError unless 0 <= start < end."""
    start_s, end_s = interval_s
    if not 0 <= start_s < end_s:
        raise UserError(
            f"got the interval {start_s:g} to {end_s:g} s, expected a start of 0 or more and an end after it"
        )


def format_seconds(time_s: float) -> str:
    """Seconds -> as they are written in prompts and ids: milliseconds at most, no trailing zeros.

    >>> format_seconds(7.0), format_seconds(2.5)
    ('7', '2.5')
    """
    return f"{time_s:.3f}".rstrip("0").rstrip(".")
