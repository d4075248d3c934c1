"""What passes between encoders, aligners and the language model."""

# T frames  N cells (or patches) of a frame  V vision width  K sound chunks  P positions of a chunk  A sound width
# U audio tokens of all chunks  Q Q-Former width  M media tokens in time order  D language-model width  L token ids

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True, kw_only=True)
class VisionGrid:
    """How the frames of a clip were cut into tokens, for towers that take any frame size, several frames at a time."""

    height: int
    """Tokens in a column of a temporal grid."""
    width: int
    """Tokens in a row of it."""
    seconds_per_grid: float
    """From one temporal grid to the next."""
    num_frames: int
    """Frames looked at, the repeated last one of an odd number not counted."""
    is_image: bool = False
    """A single picture, which has no time."""

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.num_frames) < 1 or not self.seconds_per_grid > 0:
            raise ValueError(f"got {self}, expected all its numbers above 0")


@dataclass(frozen=True, kw_only=True)
class VisionFeatures:
    """What a vision tower made of the frames of one clip; the fields are those of MediaFeatures."""

    vision_TNV: torch.Tensor | None = None
    frame_times_T: Sequence[float] = ()
    lead_in_NV: torch.Tensor | None = None
    grid: VisionGrid | None = None


@dataclass(frozen=True, kw_only=True)
class MediaFeatures:
    """What the frozen encoders made of one clip; small enough to be cached on disk by the caller.

    Frames, sound or both must be there. Times are seconds of the video; the sound begins at `start_s`.
    """

    vision_TNV: torch.Tensor | None = None
    frame_times_T: Sequence[float] = ()
    lead_in_NV: torch.Tensor | None = None
    """Features of the frame before the first one, for `frame_difference`; None: the first difference is zero."""
    audio_KPA: torch.Tensor | None = None
    audio_queries_UQ: torch.Tensor | None = None
    """Instead of `audio_KPA`: what `qform_audio` made of it, for as long as the Q-Former is frozen."""
    audio_seconds: float = 0.0
    """Length of the real sound, without padding."""
    start_s: float = 0.0
    grid: VisionGrid | None = None
    """Of families that look at temporal grids; then T counts those, and `frame_times_T` says when each begins."""
    time_text_ids: Sequence[Sequence[int]] | None = None
    """Token ids of each frame's time as text, padded with ZERO_ID; only for pictures without sound."""

    def __post_init__(self) -> None:
        num_frames = 0 if self.vision_TNV is None else len(self.vision_TNV)
        if num_frames != len(self.frame_times_T):
            raise ValueError(f"frame_times_T: got {len(self.frame_times_T)} times for {num_frames} frames")
        if self.audio_KPA is not None and self.audio_queries_UQ is not None:
            raise ValueError("audio_KPA and audio_queries_UQ are the same sound: give one of them")
        if num_frames == 0 and not self.has_audio:
            raise ValueError("a clip needs frames or sound, this one has neither")
        if self.has_audio and self.audio_seconds <= 0:
            raise ValueError(
                f"audio_seconds: got {self.audio_seconds}, expected the length of the sound that was given"
            )
        if self.time_text_ids is not None and (self.has_audio or len(self.time_text_ids) != num_frames):
            raise ValueError(
                f"time_text_ids: got {len(self.time_text_ids)} texts, expected one for each of {num_frames} frames"
                " of a clip without sound"
            )

    @property
    def has_audio(self) -> bool:
        return self.audio_KPA is not None or self.audio_queries_UQ is not None

    def to(self, device: torch.device | str) -> "MediaFeatures":
        """The same features with their tensors on a device."""
        names = ("vision_TNV", "lead_in_NV", "audio_KPA", "audio_queries_UQ")
        tensors = {name: getattr(self, name) for name in names}
        return replace(self, **{name: found.to(device) for name, found in tensors.items() if found is not None})


@dataclass(frozen=True, kw_only=True)
class MediaTokens:
    """The media tokens of one clip, in time order.

    `ids` are placeholders (VISUAL_ID, AUDIO_ID) and, for time text and what encloses the media, real token ids and
    ZERO_ID. The tensors have one row per visual or audio token: M = num_visual + num_audio.
    """

    ids: list[int]
    embeds_MD: torch.Tensor
    content_MD: torch.Tensor
    """`embeds_MD` before the time vector was added: what a token says without when."""
    seconds_M: torch.Tensor
    """Whole second of the video to which each token belongs."""
    types_M: torch.Tensor
    """Place of each token: cell of the grid, newline, audio token within its second (`interleave.TokenTypes`)."""
    num_visual: int
    num_audio: int
    num_frames: int
    """Frames behind the visual tokens."""
    is_image: bool = False
    """A single picture, not a video."""
    places: "Positions | None" = None
    """Of `ids`, for models with several position axes, counted from the first of them."""


@dataclass(frozen=True, kw_only=True)
class Outline:
    """How the tokens of a clip will stand, without one of them being computed: the same fields as in MediaTokens.

    A family's model adds to it what it needs to compute them, so that their order is worked out once.
    """

    ids: list[int]
    seconds: list[int]
    """One for each VISUAL_ID and AUDIO_ID in `ids`; so are `types`."""
    types: list[int]
    places: "Positions | None" = None


@dataclass(frozen=True, kw_only=True)
class Positions:
    """Where token ids stand for the language model's position encoding, and where the next one goes."""

    of_ids: torch.Tensor
    """(L,), or (3, L) for models with M-RoPE: time, height, width."""
    following: int
    """On every axis."""
