"""What a released model is fed by the published rules and by ours, side by side: nothing but headers of it is read.

file -> read twice -> encoders that compute nothing -> order, positions and prompt -> Fed "official", Fed "default"
"""

# T frames, or temporal grids (of _TNV)  C channels  H, W pixels  L ids of a prompt  3 position axes

from dataclasses import dataclass, replace
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from avcap.data.encode import clip_request, encode_clip
from avcap.data.prompt import ChatStyle, encode_chat
from avcap.data.request import Interval, check_interval
from avcap.infer.clip_check import check_clip, span_asked
from avcap.infer.official.rules import Behaviour, Default, Official
from avcap.infer.settings import CaptionerSettings, read_settings
from avcap.media.clip import Clip
from avcap.media.pool import decode
from avcap.model.checkpoint.load import load_tokenizer, open_source, skeleton
from avcap.model.family import family_of
from avcap.model.interleave import AUDIO_ID, VISUAL_ID


@dataclass(frozen=True, kw_only=True)
class AudioTokens:
    """The tokens of one second of sound in a prompt."""

    first: int
    """Index in the prompt."""
    last: int
    number: int
    """Fewer than last - first + 1 where a frame stands between them."""
    beside_s: float | None
    """Time of the frame that stands before the first of them; None: before all frames, or none."""


@dataclass(frozen=True, kw_only=True)
class Fed:
    """What a model is fed with one file."""

    name: str = ""
    """"official" or "default"."""
    frame_times_s: list[float]
    frame_size: tuple[int, int]
    """(height, width) that the tower sees; (0, 0) without a picture."""
    resize: str = ""
    audio_s: float
    """Length of the real sound."""
    audio_end_s: float
    """Second of the file at which it ends."""
    ids: list[int]
    """The prompt with placeholders VISUAL_ID and AUDIO_ID."""
    seconds: list[int]
    """Second of the file to which each placeholder belongs."""
    frame_of: list[int]
    """For every id the frame, or temporal grid, before it; -1 before the first."""
    group_times_s: list[float]
    """When each frame, or temporal grid, is."""
    positions: list[tuple[int, int, int]] | list[int]
    """Of every id: counted, or time, height and width."""
    seconds_per_grid: float | None

    @property
    def num_visual(self) -> int:
        return self.ids.count(VISUAL_ID)

    @property
    def num_audio(self) -> int:
        return self.ids.count(AUDIO_ID)

    @property
    def num_padding(self) -> int:
        """Sound tokens of the silence that fills the last chunk."""
        return sum(second >= self.audio_end_s for _, second in self.placed(AUDIO_ID))

    def placed(self, kind: int) -> list[tuple[int, int]]:
        """Kind of placeholder -> (index in the prompt, second of the file) of each."""
        indices = [index for index, token in enumerate(self.ids) if token in (VISUAL_ID, AUDIO_ID)]
        pairs = zip(indices, self.seconds, strict=True)
        return [(index, second) for index, second in pairs if self.ids[index] == kind]

    def beside_s(self, index: int) -> float | None:
        """Index in the prompt -> time of the frame that stands before it."""
        frame = self.frame_of[index]
        return None if frame < 0 else self.group_times_s[frame]

    def audio_of_second(self) -> dict[int, AudioTokens]:
        """Second of the file -> where its sound stands."""
        found: dict[int, list[int]] = {}
        for index, second in self.placed(AUDIO_ID):
            found.setdefault(second, []).append(index)
        return {
            second: AudioTokens(
                first=indices[0], last=indices[-1], number=len(indices), beside_s=self.beside_s(indices[0])
            )
            for second, indices in sorted(found.items())
        }


def audit_official(
    video: str,
    folder: Path,
    *,
    interval_s: Interval | None = None,
    prompt: str | None = None,
    deadline_s: float = 120.0,
) -> tuple[Fed, Fed]:
    """File, or an interval of it, and checkpoint folder -> what the model is fed: official, default.

    UserError as captioning would raise.
    """
    if interval_s is not None:
        check_interval(interval_s)
    official, default = Official.of(folder), Default()
    source = open_source(folder)
    ours = {field_name: getattr(source.config, field_name) for field_name in official.config_fields}
    settings = read_settings(folder)
    tokenizer = load_tokenizer(source.checkpoint.path, source.config)
    model = _without_encoders(skeleton(source))
    expected = clip_request(
        source.config,
        video,
        fps=settings.fps,
        max_frames=settings.max_frames,
        interval_s=interval_s,
        with_video=True,
        with_audio=True,
    )
    resize = official.rules.resize, source.family.resize
    fed = []
    for behaviour, fields, name, resized in (
        (official, official.config_fields, "official", resize[0]),
        (default, ours, "default", resize[1]),
    ):
        clip = decode(behaviour.clip_request(expected), deadline_s=deadline_s)
        check_clip(clip, interval_s=interval_s)
        span_s = None if interval_s is None else span_asked(interval_s, duration_s=clip.duration_s)
        for field_name, value in fields.items():
            setattr(model.config, field_name, value)
        one = _feed(model, clip, behaviour, tokenizer=tokenizer, settings=settings, span_s=span_s, prompt=prompt)
        fed.append(replace(one, name=name, resize=resized))
    return fed[0], fed[1]


def _feed(
    model: Any,
    clip: Clip,
    behaviour: Behaviour,
    *,
    tokenizer: PreTrainedTokenizerBase,
    settings: CaptionerSettings,
    span_s: Interval | None,
    prompt: str | None,
) -> Fed:
    """A clip as one of the two ways reads it -> what the model is fed."""
    media = behaviour.features(encode_clip(model, clip, tokenizer=tokenizer), clip)
    outline = model.outline(media)
    num_visual, num_audio = outline.ids.count(VISUAL_ID), outline.ids.count(AUDIO_ID)
    asked = prompt or settings.prompts.choose(interval_s=span_s, has_video=num_visual > 0, has_audio=num_audio > 0)
    ids = encode_chat(tokenizer, [(asked, None)], outline.ids, ChatStyle(**model.config.chat)).ids
    ids = behaviour.prompt(ids, media=media, num_audio=num_audio, tokenizer=tokenizer, path=clip.path)
    of_ids = model.positions(ids, outline).of_ids
    return Fed(
        frame_times_s=clip.frame_times_T.tolist(),
        frame_size=clip.frames_THWC.shape[1:3] if len(clip.frames_THWC) else (0, 0),
        audio_s=media.audio_seconds,
        audio_end_s=media.start_s + media.audio_seconds,
        ids=ids,
        seconds=outline.seconds,
        frame_of=_frame_of(ids, tokens_per_frame=num_visual // max(1, len(media.frame_times_T))),
        group_times_s=list(media.frame_times_T),
        positions=of_ids.tolist() if of_ids.dim() == 1 else [tuple(column) for column in of_ids.T.tolist()],
        seconds_per_grid=media.grid.seconds_per_grid if media.grid else None,
    )


def _frame_of(ids: list[int], *, tokens_per_frame: int) -> list[int]:
    """Ids of a prompt -> for every one the number of the frame before it, -1 before the first."""
    numbers, seen = [], 0
    for token in ids:
        seen += token == VISUAL_ID
        numbers.append((seen - 1) // tokens_per_frame if seen else -1)
    return numbers


def _without_encoders(model: Any) -> Any:
    """Model without memory -> the same, whose encoders give features of the right number and of no content."""
    model.encode_video = MethodType(_empty_vision, model)
    model.encode_audio = MethodType(_empty_audio, model)
    return model


def _empty_vision(model: Any, frames_TCHW: torch.Tensor) -> torch.Tensor:
    return torch.empty(*family_of(model.config).vision_shape(model.config, frames_TCHW), 1)


def _empty_audio(model: Any, mel_KMF: torch.Tensor) -> torch.Tensor:
    return torch.empty(len(mel_KMF), model.config.audio_config.max_source_positions, 1)
