"""MiniMax H3: a side-car of three named fields, each on its own line. No torch.

    integrated_multimodal_description: [Shot 1] ... [Shot 2] At 00:03.500, the camera cuts to ...
    overall_soundscape: ...
    non_diegetic_music: N/A

A model that was asked for the three fields (`H3_PROMPT`) gives them; its answer is checked. A caption in prose is put
into them: all of it is the first shot, and its sentences about audio are repeated in their field.
"""

import re
from dataclasses import dataclass
from itertools import pairwise

from avcap.bulk.outputs.clips import CaptionedClip, SideCar
from avcap.bulk.wording import Wording, one_line, with_trigger

FIELDS = ("integrated_multimodal_description", "overall_soundscape", "non_diegetic_music")
NONE = "N/A"
H3_PROMPT = (
    "Describe this video with its audio as three fields, each on a line of its own that begins with its name and a "
    "colon, and write nothing else.\n"
    "integrated_multimodal_description: begin with [Shot 1], the visual style and the framing, then tell in the "
    "order of time all that is seen and heard. Begin each later shot as in [Shot 2] At 00:03.500, the camera cuts to. "
    "Give each speaker a number, as in (S1), and write spoken words as in <d>[English] the exact words</d>.\n"
    "overall_soundscape: the ambience and the audio of actions in one to four sentences, without spoken words; N/A if "
    "the video is silent.\n"
    "non_diegetic_music: music that nobody in the scene can hear, in one to three sentences; N/A if there is none."
)
_FIELD = re.compile(rf"^[ \t]*[*_`#\- ]*({'|'.join(FIELDS)})[*_`]*[ \t]*:[*_`]*", re.MULTILINE | re.IGNORECASE)
_SHOT = re.compile(r"\[Shot (\d+)\](?:\s*At (\d+):(\d\d(?:\.\d+)?))?")
AUDIO_WORDS = re.compile(
    r"\b(?:sounds?|audio|hear[ds]?|audible|music|melody|song|sings?|voices?|says?|speaks?|speech|shouts?|whispers?|"
    r"laugh\w*|noises?|rings?|beeps?|buzz\w*|hum(?:s|ming)?|bell|chimes?|bangs?|knocks?|claps?|applause|barks?|roars?|engine|"
    r"footsteps?|thunder|silence|silent|quiet)\b",
    re.IGNORECASE,
)
_MUSIC = re.compile(
    r"\b(?:background music|soundtrack|score (?:plays|swells)|non-diegetic|underscor\w+)\b", re.IGNORECASE
)
_SPOKEN = re.compile(r"[\"“”]|\b(?:says?|speaks?|sings?|asks?|replies)\b", re.IGNORECASE)
SENTENCE_END = re.compile(r"(?<=[.!?])[\"”)]?\s+")


@dataclass(frozen=True, kw_only=True)
class H3Caption:
    """The three fields."""

    description: str
    soundscape: str
    music: str

    def text(self) -> str:
        """The side-car."""
        values = (self.description, self.soundscape, self.music)
        return "\n".join(f"{name}: {one_line(value)}" for name, value in zip(FIELDS, values, strict=True))


def read_h3(text: str, *, duration_s: float) -> H3Caption | None:
    """A model's answer -> its three fields; None if it is not in the form: one, or a shot, is missing or out of order.

    Times of cuts have to grow and to lie within the clip.
    """
    found = list(_FIELD.finditer(text))
    if tuple(match[1].lower() for match in found) != FIELDS or text[: found[0].start()].strip():
        return None
    ends = [match.start() for match in found[1:]] + [len(text)]
    values = [text[match.end() : end].strip() for match, end in zip(found, ends, strict=True)]
    if not all(values) or not _has_good_shots(values[0], duration_s=duration_s):
        return None
    return H3Caption(description=values[0], soundscape=values[1], music=values[2])


def _has_good_shots(description: str, *, duration_s: float) -> bool:
    shots = list(_SHOT.finditer(description))
    if not shots or shots[0].start() != 0 or [int(shot[1]) for shot in shots] != list(range(1, len(shots) + 1)):
        return False
    if shots[0][2] is not None or any(shot[2] is None for shot in shots[1:]):
        return False
    times = [0.0] + [60 * int(shot[2]) + float(shot[3]) for shot in shots[1:]]
    return all(a < b for a, b in pairwise(times)) and times[-1] < max(duration_s, 1e-9)


def put_into_fields(text: str, *, has_audio: bool) -> H3Caption:
    """A caption in prose -> the three fields; a field that it says nothing about is N/A."""
    sentences = SENTENCE_END.split(one_line(text)) if has_audio else []
    music = [sentence for sentence in sentences if _MUSIC.search(sentence)]
    others = [
        one for one in sentences if AUDIO_WORDS.search(one) and not _MUSIC.search(one) and not _SPOKEN.search(one)
    ]
    return H3Caption(
        description=f"[Shot 1] {one_line(text)}",
        soundscape=" ".join(others) or NONE,
        music=" ".join(music) or NONE,
    )


def _render(clip: CaptionedClip, wording: Wording) -> str:
    caption = clip.caption
    found = read_h3(caption.text, duration_s=caption.duration_s)
    if found is None:
        plain = Wording(one_line=True, strip_openings=wording.strip_openings).apply(_without_names(caption.text))
        seen = caption.seen
        found = put_into_fields(plain, has_audio=bool(seen.audio_tokens or seen.audio_seconds))
    if wording.trigger is not None:
        rest = found.description.removeprefix("[Shot 1]").strip()
        found = H3Caption(
            description=f"[Shot 1] {with_trigger(rest, wording.trigger)}",
            soundscape=found.soundscape,
            music=found.music,
        )
    return found.text()


def _without_names(text: str) -> str:
    """An answer with some of the names in it -> without them, and without marks of shots: there must be one each."""
    return _SHOT.sub("", _FIELD.sub("", text))


def is_in_form(clip: CaptionedClip) -> bool:
    """Whether the model itself gave the three fields."""
    return read_h3(clip.caption.text, duration_s=clip.caption.duration_s) is not None


H3 = SideCar(suffix=".txt", render=_render, reader="a trainer of H3")
