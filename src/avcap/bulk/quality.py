"""What a caption's record says about how far to trust it, without any ground truth. No torch."""

import dataclasses
from dataclasses import dataclass

from avcap.judge.metrics.words import count_words
from avcap.records import Caption

_KINDS: dict[object, str] = {float: "float64", int: "int64", bool: "bool"}


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The columns that `avcap filter --where` reads and captions.parquet has. None: not known."""

    repetition: float
    """Words in the second and later occurrences of any run of five words / words, 0 to 1."""
    words: int
    finished: bool
    """The model ended the caption itself."""
    truncated: bool
    """The opposite: it ran into the token limit, or into a loop."""
    has_audio: bool
    """Whether the model was given audio, or should have been."""
    audio_seconds: float
    audio_confirmed: bool | None
    """Whether the audio is known to have reached the model; None: there was none."""
    bad_packets: int
    duration_s: float
    in_world: bool | None
    """Only of models that know one world: whether the video looks and sounds like it."""
    world_score: float | None
    """How unlike that world it is; the border is 1."""
    in_form: bool | None
    """Only of captions that were asked for in a style: whether none of its rules is broken."""
    asked_again: bool
    """Whether the first answer broke one."""

    @staticmethod
    def kinds() -> dict[str, str]:
        """Column -> the kind of its values: "float64", "int64", "bool"."""
        return {one.name: _KINDS[_plain(one.type)] for one in dataclasses.fields(Quality)}


def _plain(kind: object) -> object:
    """`bool | None` -> bool."""
    return next(arg for arg in getattr(kind, "__args__", (kind,)) if arg is not type(None))


def quality_of(caption: Caption) -> Quality:
    """A caption -> its columns."""
    counts, seen = count_words(caption.text), caption.seen
    has_audio = bool(seen.audio_tokens or seen.audio_seconds or seen.audio)
    # in this process audio tokens are counted where they enter the language model; an engine has to prove it
    is_confirmed = seen.audio == "confirmed" if seen.audio is not None else bool(seen.audio_tokens)
    return Quality(
        repetition=round(counts.repetition_rate, 4),
        words=counts.num_words,
        finished=caption.finished,
        truncated=not caption.finished,
        has_audio=has_audio,
        audio_seconds=seen.audio_seconds,
        audio_confirmed=is_confirmed if has_audio else None,
        bad_packets=seen.bad_packets,
        duration_s=caption.duration_s,
        in_world=caption.in_world,
        world_score=caption.world_score,
        in_form=None if caption.style is None else not caption.broken_rules,
        asked_again=caption.asked_again,
    )
