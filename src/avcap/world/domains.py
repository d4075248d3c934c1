"""The kinds of world there are: one to train on, and others that look or sound unlike it. Standard library only."""

from dataclasses import dataclass
from typing import Literal

from avcap.errors import UserError

TextureName = Literal["gradient", "stripes", "noise", "blobs", "checks", "ripples", "weave", "fibres", "ruled", "grid"]


@dataclass(frozen=True, kw_only=True)
class Domain:
    """How a world looks, sounds and is stored. The defaults are the world that models are trained on."""

    name: str
    description: str
    unseen_sounds: bool = False
    """Voices and pitches that training never draws."""
    textures: tuple[TextureName, ...] = ("gradient", "stripes", "noise", "blobs")
    brightness: tuple[float, float] = (0.24, 0.46)
    """Range of the value (of HSV) of background colours; muted, so that all eight object colours stand out."""
    min_clutter: float = 0.0
    """Clutter of the background even where the difficulty asks for less."""
    outlined: bool = False
    """Objects are drawn by hand: a wobbling dark outline, filled with crayon."""
    grain: float = 0.0
    """Standard deviation of moving noise in grey levels, on top of the difficulty's."""
    vignette: float = 0.0
    """How much darker the corners are: 0 not at all, 1 black."""
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Factor of red, green and blue over the whole picture."""
    video_codec: str = "libx264"
    video_options: tuple[tuple[str, str], ...] = (("crf", "20"), ("maxrate", "140k"), ("bufsize", "280k"))
    audio_codec: str = "aac"


DOMAINS: dict[str, Domain] = {
    domain.name: domain
    for domain in (
        Domain(name="default", description="what models are trained on"),
        Domain(name="unseen", description="looks like default; voices and pitches never heard", unseen_sounds=True),
        Domain(
            name="film",
            description="old film: other backgrounds, moving grain, dark corners, a warm tint; MPEG-4 part 2; "
            "unseen voices",
            unseen_sounds=True,
            textures=("checks", "ripples", "weave"),
            brightness=(0.18, 0.42),
            min_clutter=0.4,
            grain=5.0,
            vignette=0.22,
            tint=(1.03, 0.99, 0.9),
            video_codec="mpeg4",
            video_options=(("b", "130k"), ("maxrate", "160k"), ("bufsize", "320k")),
        ),
        Domain(
            name="paper",
            description="hand-drawn outlined objects on light paper; VP9 and Opus; unseen voices",
            unseen_sounds=True,
            textures=("fibres", "ruled", "grid"),
            brightness=(0.62, 0.76),
            min_clutter=0.4,
            outlined=True,
            video_codec="libvpx-vp9",
            video_options=(("crf", "30"), ("b", "150k"), ("deadline", "realtime"), ("cpu-used", "7")),
            audio_codec="libopus",
        ),
    )
}


def get_domain(name: str) -> Domain:
    """Name -> Domain; a UserError that lists the names for any other."""
    if name not in DOMAINS:
        raise UserError(f"domain {name!r} is not known; expected one of {', '.join(DOMAINS)}")
    return DOMAINS[name]
