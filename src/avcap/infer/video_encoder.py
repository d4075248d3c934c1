"""Files become what a model is asked about: decoded by workers, encoded, checked, and kept where there is a cache.

    Sample --clip_request--> worker processes --Clip--> encode_clip --EncodedMedia--> EncodedVideo

Captions and answers to questions begin with it. Of a video that is encoded the order of its tokens is known, too.
"""

import contextlib
import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from avcap.data import encode
from avcap.data.feature_cache import EncodedMedia, FeatureCache, features_id
from avcap.data.request import Request, Video
from avcap.errors import MediaError, ModelError, UserError
from avcap.infer.clip_check import check_clip
from avcap.infer.official.rules import Behaviour
from avcap.infer.settings import CaptionerSettings
from avcap.infer.world_check import CHECK_FILE, WorldCheck
from avcap.media.clip import Clip, ClipRequest
from avcap.media.deadline import Check, deadline_check
from avcap.media.pool import DecodePool
from avcap.model.captioning import CaptioningModel
from avcap.model.checkpoint.refusals import is_out_of_memory, told_of
from avcap.model.features import MediaTokens, Outline
from avcap.model.interleave import AUDIO_ID
from avcap.records import CaptionError, Sample, Seen

NUM_DECODERS = max(1, min(4, (os.cpu_count() or 1) // 2))


@dataclass(frozen=True, kw_only=True)
class EncodedVideo:
    """A sample whose video went through the encoders."""

    sample: Sample
    encoded: EncodedMedia
    outline: Outline
    """How its tokens will stand in a prompt."""
    key: str | None = None
    """Its name in the FeatureCache, if there is one."""


def seen_of(encoded: EncodedMedia, tokens: MediaTokens) -> Seen:
    """What a file gave -> what was seen of it, counted on the tokens that the language model reads."""
    return Seen(
        frames=tokens.num_frames,
        audio_seconds=round(encoded.media.audio_seconds, 3) if tokens.num_audio else 0.0,
        visual_tokens=tokens.num_visual,
        audio_tokens=tokens.num_audio,
        bad_packets=encoded.num_bad_packets,
        notes=encoded.notes,
    )


@dataclass(frozen=True, kw_only=True)
class _Planned:
    """A video that is to be looked at; `key` None: there is no cache, or the file cannot be read."""

    sample: Sample
    clip_request: ClipRequest
    key: str | None


class VideoEncoder:
    """The way from files to features of one model."""

    def __init__(
        self,
        model: CaptioningModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        folder: Path,
        settings: CaptionerSettings,
        behaviour: Behaviour,
        deadline_s: float,
        feature_cache: FeatureCache | None = None,
    ):
        """`folder`: of the checkpoint. `deadline_s`: how long one file may take to be decoded and encoded."""
        self.model, self.tokenizer, self.folder = model, tokenizer, folder
        self.settings, self.behaviour, self.deadline_s = settings, behaviour, deadline_s
        self.world_check = WorldCheck.load(folder)
        self.feature_cache = feature_cache
        self._features_id = ""
        if feature_cache is not None:
            self._features_id = features_id(model, tokenizer)
            if self.world_check:  # its score is kept with the features
                self._features_id += hashlib.sha256((folder / CHECK_FILE).read_bytes()).hexdigest()

    def clip_request(self, sample: Sample, request: Request) -> ClipRequest:
        """What is to be decoded of a sample's video, at the rate and size that this checkpoint looks at."""
        return self.behaviour.clip_request(
            encode.clip_request(
                self.model.config,
                sample.video,
                fps=self.settings.fps,
                max_frames=self.settings.max_frames,
                interval_s=sample.interval_s,
                with_video=request.use_video,
                with_audio=request.use_audio,
            )
        )

    def decode(self, samples: Iterable[Sample], request: Request) -> Iterator[Clip | MediaError]:
        """Samples -> their decoded clips or errors, in order, decoded ahead in worker processes."""
        with DecodePool(num_workers=NUM_DECODERS, deadline_s=self.deadline_s) as pool:
            yield from pool.map(self.clip_request(sample, request) for sample in samples)

    def encode(self, videos: Iterable[Video], request: Request) -> Iterator[EncodedVideo | CaptionError]:
        """Videos -> their features in the same order, from the cache where they are in it."""
        planned = (self._plan(request.sample(video), request) for video in videos)
        with DecodePool(num_workers=NUM_DECODERS, deadline_s=self.deadline_s) as pool:
            for is_kept, run in groupby(planned, key=self._is_kept):
                if is_kept:
                    for plan in run:
                        yield self._kept_or_fresh(plan, pool=pool, request=request)
                else:
                    yield from self._fresh(run, pool=pool, request=request)

    def encode_clip(self, clip: Clip, *, sample: Sample, request: Request, check: Check | None = None) -> EncodedVideo:
        """A decoded clip -> the same, encoded. `check` may end the work; None: it ends at the deadline.

        Raises:
            UserError: it is not what was asked for, has audio that gave no token, or memory ran out over it.
        """
        with named_memory_error(sample.video):
            return self._encoded(clip, sample=sample, request=request, check=check or self._deadline(clip))

    def _encoded(self, clip: Clip, *, sample: Sample, request: Request, check: Check) -> EncodedVideo:
        check_clip(clip, interval_s=sample.interval_s)
        with self._told_of_model():
            media = encode.encode_clip(self.model, clip, tokenizer=self.tokenizer, check=check)
        media = self.behaviour.features(media, clip)
        outline = self.model.outline(media)
        if request.use_audio and clip.has_audio and AUDIO_ID not in outline.ids:
            raise UserError(
                f"{clip.path}: got a sound track but no sound from {clip.start_s:g} to {clip.end_s:g} s; choose "
                "another interval, or leave the sound out (--no-audio)"
            )
        encoded = EncodedMedia(
            media=media,
            duration_s=clip.duration_s,
            num_bad_packets=clip.num_bad_packets,
            notes=clip.notes,
        )
        return EncodedVideo(sample=sample, encoded=encoded, outline=outline)

    def _plan(self, sample: Sample, request: Request) -> _Planned:
        clip_request = self.clip_request(sample, request)
        key = None
        if self.feature_cache is not None:
            with contextlib.suppress(MediaError):  # decoding says it better, in the video's place
                key = self.feature_cache.key(clip_request, encoders=self._features_id)
        return _Planned(sample=sample, clip_request=clip_request, key=key)

    def _is_kept(self, plan: _Planned) -> bool:
        return self.feature_cache is not None and plan.key is not None and plan.key in self.feature_cache

    def _kept_or_fresh(self, plan: _Planned, *, pool: DecodePool, request: Request) -> EncodedVideo | CaptionError:
        """A video in the cache -> its features; encoded again if they were damaged or removed meanwhile."""
        assert self.feature_cache is not None and plan.key is not None
        encoded = self.feature_cache.get(plan.key)
        if encoded is not None:
            outline = self.model.outline(encoded.media)
            return EncodedVideo(sample=plan.sample, encoded=encoded, outline=outline, key=plan.key)
        (fresh,) = self._fresh([plan], pool=pool, request=request)
        return fresh

    def _fresh(
        self, planned: Iterable[_Planned], *, pool: DecodePool, request: Request
    ) -> Iterator[EncodedVideo | CaptionError]:
        """Videos -> decoded, encoded and put into the cache."""
        decoding: deque[_Planned] = deque()

        def clip_requests() -> Iterator[ClipRequest]:
            for plan in planned:
                decoding.append(plan)
                yield plan.clip_request

        for clip in pool.map(clip_requests()):
            plan = decoding.popleft()
            try:
                if isinstance(clip, MediaError):
                    raise clip
                with named_memory_error(plan.sample.video):
                    check = self._deadline(clip)
                    video = self.encode_clip(clip, sample=plan.sample, request=request, check=check)
                    score = None if self.world_check is None else self.world_check.score(clip, check=check)
            except ModelError:
                raise
            except UserError as error:
                yield CaptionError(sample_id=plan.sample.sample_id, video=plan.sample.video, error=str(error))
                continue
            del clip  # encoded: its frames need not stay while the batch fills
            encoded = replace(video.encoded, world_score=score)
            if self.feature_cache is not None and plan.key is not None:
                encoded = self.feature_cache.put(plan.key, encoded)
            yield replace(video, encoded=encoded, key=plan.key)

    def _deadline(self, clip: Clip) -> Check:
        return deadline_check(clip.path, seconds=self.deadline_s, spent_s=clip.decoding_s)

    def _told_of_model(self) -> AbstractContextManager[None]:
        return told_of(self.folder / "config.json", what="the model cannot be run")


@contextlib.contextmanager
def named_memory_error(path: str) -> Iterator[None]:
    """Makes memory that ran out over one file that file's error: the others may be smaller."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise MediaError(
            f"{path}: memory ran out while it was encoded; caption a part of it (--start, --end), or on a larger "
            "machine"
        ) from None
