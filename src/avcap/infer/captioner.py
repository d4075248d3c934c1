"""The public API: videos in, captions out.

    files -> worker processes decode -> encoders -> batches -> language model -> Caption | CaptionError, in order
    while one batch is written, the next files are decoded; never more than a batch and a few clips are in memory
"""

import hashlib
import logging
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import torch

from avcap.data.prompt import ChatStyle, encode_chat
from avcap.data.tokenizer import unknown_words
from avcap.errors import MediaError, UserError
from avcap.infer.encode import encode_clip
from avcap.infer.generate import Generated, generate
from avcap.infer.settings import checkpoint_name, format_seconds, read_settings
from avcap.infer.shipped import find_checkpoint
from avcap.infer.world_check import WorldCheck
from avcap.media.clip import Clip, ClipRequest
from avcap.media.pool import DecodePool
from avcap.model.checkpoints import load
from avcap.model.features import MediaFeatures, MediaTokens
from avcap.records import Caption, CaptionError, Decoding, Sample, Seen

logger = logging.getLogger("avcap")

Video = str | Path | Sample
Interval = tuple[float, float]
MAX_DECODERS = 4
# Headers round a file's length to a frame or a packet of sound: so much past its end is still its end.
END_TOLERANCE_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Request:
    """How videos are to be captioned: what the arguments of one call say about all of them."""

    decoding: Decoding
    interval_s: Interval | None = None
    prompt: str | None = None
    use_sound: bool = True
    use_picture: bool = True

    def __post_init__(self) -> None:
        if not (self.use_sound or self.use_picture):
            raise UserError("got neither picture nor sound to use, wanted at least one of them")
        if self.interval_s is not None:
            check_interval(self.interval_s)
        decoding = self.decoding
        if decoding.max_new_tokens < 1:
            raise UserError(f"got max_new_tokens={decoding.max_new_tokens}, wanted at least 1")
        if not 0 <= decoding.temperature < math.inf:
            raise UserError(f"got temperature={decoding.temperature}, wanted 0 (greedy) or more")
        if not 0 < decoding.top_p <= 1:
            raise UserError(f"got top_p={decoding.top_p}, wanted more than 0 and at most 1")

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
        if not self.use_sound:
            parts.append("track=picture")
        if not self.use_picture:
            parts.append("track=sound")
        return "#" + "&".join(parts) if parts else ""


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A video that is encoded and asked about: all that the language model needs, and the record to be."""

    sample: Sample
    clip_span_s: Interval | None
    duration_s: float
    num_bad_packets: int
    prompt: str
    ids: list[int]
    media: MediaFeatures
    world_score: float | None


class Captioner:
    """A model that captions videos.

    >>> captioner = Captioner("tiny")
    >>> captioner.caption("talk.mp4", interval_s=(3, 7)).text
    """

    def __init__(
        self,
        model: str | Path = "tiny",
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        batch_size: int = 8,
        deadline_s: float = 120.0,
    ):
        """`model`: the name of a shipped model or the path of a checkpoint folder, released layouts included.

        `device` None: a GPU if there is one. `dtype` None: float32 on a CPU, bfloat16 elsewhere. `deadline_s`: how long
        the decoding of one file may take.
        """
        if batch_size < 1 or not deadline_s > 0:
            raise UserError(f"got batch_size={batch_size} and deadline_s={deadline_s}, wanted both above 0")
        folder = find_checkpoint(model)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dtype = dtype or (torch.float32 if self.device.type == "cpu" else torch.bfloat16)
        self.settings = read_settings(folder)
        self.checkpoint = checkpoint_name(folder, self.settings)
        self.batch_size = batch_size
        self.deadline_s = deadline_s
        self.model, self.tokenizer = load(folder, dtype=dtype)
        self.model.to(self.device)
        self.world_check = WorldCheck.load(folder)
        self._chat = ChatStyle(**self.model.config.chat)
        self._warned: set[str] = set()

    @overload
    def caption(self, video: str | Path | Sample, **options: object) -> Caption: ...
    @overload
    def caption(self, video: list[Video], **options: object) -> list[Caption | CaptionError]: ...
    @overload
    def caption(self, video: Iterable[Video], **options: object) -> Iterator[Caption | CaptionError]: ...
    def caption(self, video, *, interval_s=None, prompt=None, use_sound=True, use_picture=True,
                max_new_tokens=None, temperature=0.0, top_p=1.0, seed=0):  # fmt: skip
        """One video -> its Caption; a list -> a list; any other iterable -> an iterator that works while it is read.
        """

