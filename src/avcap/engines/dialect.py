"""What an engine's dialect is, and how a decoded clip becomes the parts of a request in it. One file per dialect.

Clip --Dialect--> Part, Part, ... (video first, then audio; the text comes last), and fields of the body
"""

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from avcap.errors import UserError
from avcap.llm.types import Part
from avcap.media.clip import Clip
from avcap.media.encode import encode_jpeg, encode_mp4, encode_wav

Body = dict[str, Any]

MOST_TOKENS_PER_FRAME = 2000
MOST_TOKENS_PER_AUDIO_S = 100
"""What a budget counts with: no engine is known to make more of frames within our budget of pixels, or of audio."""
CONTROL_TYPE = "avcap_control"
"""A type of part that no engine knows."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an engine takes at most of one request; None: no limit is known."""

    part_base64_bytes: int | None = None
    seconds: float | None = None
    least_frames: int = 1


@dataclass(frozen=True, kw_only=True)
class TokenRates:
    """About how many tokens an engine makes; for plans and budgets, never for a proof."""

    pixels_per_token: float = 28 * 28
    frames_per_grid: int = 1
    per_frame: int | None = None
    """Instead of pixels: every frame counts so many."""
    audio_per_s: float = 25.0

    def video(self, *, num_frames: int, height: int, width: int) -> int:
        """Frames and their size in pixels -> about how many tokens."""
        per_frame = self.per_frame or height * width / self.pixels_per_token / self.frames_per_grid
        return round(num_frames * per_frame)

    def audio(self, seconds: float) -> int:
        return round(seconds * self.audio_per_s)


QWEN_RATES = TokenRates(pixels_per_token=28 * 28, frames_per_grid=2, audio_per_s=13.0)
"""Of the models that most engines of one's own serve: 2 frames and 28 x 28 pixels a token, 12.5 tokens of audio a
second and their marks."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A clip as it is shown to an engine: how many frames at which rate, and how many seconds of audio."""

    num_frames: int
    fps: Fraction
    audio_s: float


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How one kind of engine is spoken to.

    Attributes:
        name: As in ?dialect=.
        title: As in messages.
        video: base64 of an mp4, and what is sent -> the part's body. None: frames are sent, as images.
        audio: base64 of a WAV -> the part's body.
        options: What is sent -> fields of the request's body; the transport leaves out those that are refused.
        video_has_audio: The mp4 holds the audio, too, and there is no part of it beside.
        counts_cached: Tokens that the engine took from its cache are in its count.
        fps: Frames a second that are looked at, unless ?fps= says otherwise.
        max_frames: At most so many of a clip.
        max_pixels: Of a frame.
    """

    name: str
    title: str
    audio: Callable[[str], Body]
    video: Callable[[str, Sent], Body] | None = None
    options: Callable[[Sent], Mapping[str, Any]] = field(default=lambda sent: {})
    video_has_audio: bool = False
    counts_cached: bool = True
    limits: Limits = field(default_factory=Limits)
    rates: TokenRates = QWEN_RATES
    fps: float = 2.0
    max_frames: int = 128
    max_pixels: int = 480 * 854

    @property
    def video_form(self) -> str:
        """How video is sent, in a word: the type of its part."""
        return "frames" if self.video is None else str(self.video("", NOTHING)["type"])

    @property
    def audio_form(self) -> str:
        return f"within the {self.video_form}" if self.video_has_audio else str(self.audio("")["type"])

    def sent(self, clip: Clip) -> Sent:
        """A decoded clip -> what of it is sent."""
        return Sent(
            num_frames=len(clip.frames_THWC),
            fps=frame_rate(clip),
            audio_s=round(len(clip.waveform_S) / clip.sample_rate_hz, 3),
        )

    def parts(self, clip: Clip, *, as_large_as: Clip | None = None) -> tuple[Part, ...]:
        """A decoded clip -> the parts of a request about it, video before audio.

        Args:
            clip: What is shown.
            as_large_as: One with more audio: the file of the audio is padded to the bytes of its one.

        Raises:
            UserError: The engine is known not to take so much, or so little.
        """
        self._check(clip)
        has_audio = len(clip.waveform_S) > 0
        inside = self.video_has_audio and len(clip.frames_THWC) > 0
        return (
            *self._video_parts(clip, with_audio=has_audio and inside, as_large_as=as_large_as if inside else None),
            *(self._audio_parts(clip, as_large_as) if has_audio and not inside else ()),
        )

    def _video_parts(self, clip: Clip, *, with_audio: bool, as_large_as: Clip | None) -> tuple[Part, ...]:
        num_frames = len(clip.frames_THWC)
        if not num_frames:
            return ()
        if self.video is None:
            return tuple(part for index in range(num_frames) for part in self._frame_parts(clip, index))
        data = _mp4(clip, with_audio=with_audio)
        if as_large_as is not None:
            data = _mp4(clip, with_audio=with_audio, num_bytes=len(_mp4(as_large_as, with_audio=with_audio)))
        height, width = clip.frames_THWC.shape[1:3]
        tokens = self.rates.video(num_frames=num_frames, height=height, width=width)
        most = MOST_TOKENS_PER_FRAME * num_frames
        if with_audio:
            audio_s = len(clip.waveform_S) / clip.sample_rate_hz
            tokens += self.rates.audio(audio_s)
            most += round(MOST_TOKENS_PER_AUDIO_S * audio_s)
        sent = self.sent(clip)
        return (self._part(clip, data, lambda text: self.video(text, sent), tokens=tokens, most=most),)  # type: ignore[misc]

    def _frame_parts(self, clip: Clip, index: int) -> tuple[Part, Part]:
        """One frame, behind the second of the video that it shows."""
        frame_HWC = clip.frames_THWC[index]
        label = text_part(f"second {clip.frame_times_T[index]:.1f}:")
        height, width = frame_HWC.shape[:2]
        tokens = self.rates.video(num_frames=1, height=height, width=width)
        return label, self._part(clip, encode_jpeg(frame_HWC), jpeg_body, tokens=tokens, most=MOST_TOKENS_PER_FRAME)

    def _audio_parts(self, clip: Clip, as_large_as: Clip | None) -> tuple[Part]:
        audio_s = len(clip.waveform_S) / clip.sample_rate_hz
        num_bytes = None if as_large_as is None else len(encode_wav(as_large_as.waveform_S))
        return (
            self._part(
                clip,
                encode_wav(clip.waveform_S, num_bytes=num_bytes),
                self.audio,
                tokens=self.rates.audio(audio_s),
                most=round(MOST_TOKENS_PER_AUDIO_S * audio_s),
            ),
        )

    def _part(self, clip: Clip, data: bytes, body_of: Callable[[str], Body], *, tokens: int, most: int) -> Part:
        text = base64.b64encode(data).decode("ascii")
        longest = self.limits.part_base64_bytes
        if longest is not None and len(text) >= longest:
            raise UserError(
                f"{clip.path}: got {len(text) / 1e6:.1f} MB of base64 for {self.title}, expected less than "
                f"{longest / 1e6:g} MB; caption a part of it (--start, --end), or lower ?max_frames= or ?max_pixels="
            )
        shape = hashlib.sha256(repr(body_of("")).encode() + data).hexdigest()
        return Part(body=body_of(text), digest=shape, tokens=tokens, most_tokens=most)

    def _check(self, clip: Clip) -> None:
        length_s, num_frames = clip.end_s - clip.start_s, len(clip.frames_THWC)
        if self.limits.seconds is not None and length_s > self.limits.seconds:
            raise UserError(
                f"{clip.path}: got {length_s:.1f} s for {self.title}, expected at most {self.limits.seconds:g} s; "
                "caption a part of it (--start, --end)"
            )
        if 0 < num_frames < self.limits.least_frames:
            raise UserError(
                f"{clip.path}: got {num_frames} frames for {self.title}, expected at least {self.limits.least_frames}; "
                "raise ?fps=, or leave the video out"
            )


def _mp4(clip: Clip, *, with_audio: bool, num_bytes: int | None = None) -> bytes:
    waveform_S = clip.waveform_S if with_audio else None
    return encode_mp4(clip.frames_THWC, fps=frame_rate(clip), waveform_S=waveform_S, num_bytes=num_bytes)


NOTHING = Sent(num_frames=0, fps=Fraction(1), audio_s=0.0)


def frame_rate(clip: Clip) -> Fraction:
    """A decoded clip -> frames a second, so that the last of them stands where it stood in the file."""
    times_T = clip.frame_times_T
    if len(times_T) < 2:
        return Fraction(1)
    return 1 / Fraction((times_T[-1] - times_T[0]) / (len(times_T) - 1)).limit_denominator(1000)


def text_part(text: str) -> Part:
    """A text between other parts."""
    return Part(
        body={"type": "text", "text": text},
        digest=hashlib.sha256(text.encode()).hexdigest(),
        tokens=-(-len(text) // 4),
        most_tokens=len(text.encode()),
    )


def control_part(data: bytes) -> Part:
    """A part of a type that does not exist: whatever counts it, counts no audio."""
    text = base64.b64encode(data).decode("ascii")
    body = {"type": CONTROL_TYPE, CONTROL_TYPE: {"data": text, "format": "wav"}}
    return Part(body=body, digest=hashlib.sha256(data).hexdigest(), most_tokens=len(text))


# --- bodies that several engines share --------------------------------------------------------------------------------


def jpeg_body(text: str) -> Body:
    return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{text}"}}


def input_audio(text: str) -> Body:
    """The form of OpenAI: bare base64."""
    return {"type": "input_audio", "input_audio": {"data": text, "format": "wav"}}


def video_url(text: str, sent: Sent) -> Body:
    return {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{text}"}}
