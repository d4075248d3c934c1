"""The public API: videos in, captions out.

    files -> worker processes decode -> encoders -> batches -> language model -> Caption | CaptionError, in order

While one batch is written, the next files are decoded. Never more than a batch and a few clips are in memory. With a
FeatureCache a file that was encoded before is neither decoded nor encoded again.
"""

import contextlib
import hashlib
import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import TypedDict, Unpack, overload

import torch

from avcap.data.encode import clip_request, encode_clip
from avcap.data.feature_cache import EncodedClip, FeatureCache, features_id
from avcap.data.prompt import ChatStyle, encode_chat
from avcap.data.request import Interval, Request, Video
from avcap.data.tokenizer import unknown_words
from avcap.errors import MediaError, ModelError, UserError
from avcap.infer.clip_check import check_clip, span_asked
from avcap.infer.find_checkpoint import find_checkpoint
from avcap.infer.generate import Generated, LoopStop, generate
from avcap.infer.official.options import name_with_official, official_decoding
from avcap.infer.official.rules import (
    check_audio_lasts,
    official_clip_request,
    official_features,
    official_fields,
    official_prompt,
)
from avcap.infer.settings import checkpoint_name, read_settings
from avcap.infer.world_check import CHECK_FILE, WorldCheck
from avcap.media.clip import Clip, ClipRequest
from avcap.media.deadline import deadline_check
from avcap.media.pool import DecodePool
from avcap.model.checkpoint.load import load
from avcap.model.checkpoint.placement import DevicePlacement
from avcap.model.checkpoint.refusals import is_out_of_memory, told_of
from avcap.model.features import MediaTokens
from avcap.model.interleave import AUDIO_ID, VISUAL_ID
from avcap.records import Caption, CaptionError, Decoding, Sample, Seen

logger = logging.getLogger("avcap")

NUM_DECODERS = max(1, min(4, (os.cpu_count() or 1) // 2))


class CaptionOptions(TypedDict, total=False):
    """The keyword arguments of `Captioner.caption`, for type checkers."""

    interval_s: Interval | None
    prompt: str | None
    use_audio: bool
    use_video: bool
    max_new_tokens: int | None
    temperature: float
    top_p: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class EncodedVideo:
    """A sample whose video went through the encoders; `key` is its name in the FeatureCache, if there is one."""

    sample: Sample
    clip: EncodedClip
    key: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A video that is encoded and asked about: all that the language model needs, and the record to be."""

    sample: Sample
    span_s: Interval | None
    prompt: str
    ids: list[int]
    clip: EncodedClip


@dataclass(frozen=True, kw_only=True)
class _Planned:
    """A video that is to be looked at; `key` None: there is no cache, or the file cannot be read."""

    sample: Sample
    clip_request: ClipRequest
    key: str | None


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
        device_map: str | None = None,
        quantize: str | None = None,
        batch_size: int = 8,
        deadline_s: float = 600.0,
        feature_cache: FeatureCache | None = None,
        official: bool = False,
    ):
        """`model`: the name of a shipped model or the path of a checkpoint folder, released layouts included.

        `device` None: a GPU if there is one. `dtype` None: float32 on a CPU, bfloat16 elsewhere. `device_map` "auto":
        layers spread over all GPUs. `quantize`: "8bit" or "4bit", which needs bitsandbytes. `deadline_s`: how long one
        file may take to be decoded and encoded. `feature_cache`: where encoded clips are kept, and looked for first.
        `official`: exactly as the published code runs a released checkpoint, its mistakes included
        (docs/official.md).
        """
        if batch_size < 1 or not deadline_s > 0:
            raise UserError(f"got batch_size={batch_size} and deadline_s={deadline_s}, expected both above 0")
        folder = find_checkpoint(model)
        device = str(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        placement = DevicePlacement(device=device, device_map=device_map, quantize=quantize)
        self.device = torch.device(device)
        dtype = dtype or (torch.float32 if self.device.type == "cpu" else torch.bfloat16)
        self.settings = read_settings(folder)
        self.official, self.folder = official, folder
        self.checkpoint = name_with_official(checkpoint_name(folder, self.settings), official=official)
        self.batch_size = batch_size
        self.deadline_s = deadline_s
        fields = official_fields(folder) if official else {}
        self.model, self.tokenizer = load(folder, dtype=dtype, placement=placement, **fields)
        self.world_check = WorldCheck.load(folder)
        with self._told_of_model(what="its chat cannot be written"):
            self.chat = ChatStyle(**self.model.config.chat)
            if wrong := [name for name, text in vars(self.chat).items() if not isinstance(text, str)]:
                raise TypeError(f"chat.{wrong[0]}: got {getattr(self.chat, wrong[0])!r}, expected text")
            # What closes an answer in the chat, which is not always what the tokenizer calls its end.
            closing = self.tokenizer(self.chat.answer_suffix, add_special_tokens=False)["input_ids"]
            self.end_ids = {closing[0], self.tokenizer.eos_token_id}
        self.feature_cache = feature_cache
        self._features_id = ""
        if feature_cache is not None:
            self._features_id = features_id(self.model, self.tokenizer)
            if self.world_check:  # its score is kept with the features
                self._features_id += hashlib.sha256((folder / CHECK_FILE).read_bytes()).hexdigest()
        self._warned: set[str] = set()

    def _told_of_model(self, *, what: str = "the model cannot be run") -> AbstractContextManager[None]:
        """What goes wrong within is the checkpoint's: its config, tokenizer and weights do not fit each other."""
        return told_of(self.folder / "config.json", what=what)

    # A str is an iterable of str, and a list an iterable: the first that fits is what happens.
    @overload
    def caption(  # type: ignore[overload-overlap]
        self, video: Video, **options: Unpack[CaptionOptions]
    ) -> Caption: ...
    @overload
    def caption(  # type: ignore[overload-overlap]
        self, video: list[Video], **options: Unpack[CaptionOptions]
    ) -> list[Caption | CaptionError]: ...
    @overload
    def caption(
        self, video: Iterable[Video], **options: Unpack[CaptionOptions]
    ) -> Iterator[Caption | CaptionError]: ...
    def caption(
        self,
        video: Video | Iterable[Video],
        *,
        interval_s: Interval | None = None,
        prompt: str | None = None,
        use_audio: bool = True,
        use_video: bool = True,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Caption | list[Caption | CaptionError] | Iterator[Caption | CaptionError]:
        """One video -> its Caption, or UserError; a list -> a list; any other iterable -> an iterator, for any number.

        In lists and iterators a bad video is a CaptionError in its place. A Sample brings its own prompt and interval.
        `interval_s`: seconds (start, end) of the video, end may be math.inf. `prompt` and `max_new_tokens` None: what
        the checkpoint says. A temperature above 0 samples; what is drawn depends on `seed` and the video alone.
        """
        decoding = Decoding(
            max_new_tokens=self.settings.max_new_tokens if max_new_tokens is None else max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
        )
        if self.official:
            decoding = official_decoding(decoding, self.folder)
        request = Request(
            decoding=decoding, interval_s=interval_s, prompt=prompt, use_audio=use_audio, use_video=use_video
        )
        if isinstance(video, str | Path | Sample):
            (row,) = self.stream([video], request)
            if isinstance(row, CaptionError):
                raise UserError(row.error)
            return row
        rows = self.stream(video, request)
        return list(rows) if isinstance(video, list) else rows

    def stream(self, videos: Iterable[Video], request: Request) -> Iterator[Caption | CaptionError]:
        """Videos -> their rows in the same order, a batch at a time, while the next files are being decoded."""
        return self.sample(videos, request, num_answers=1)

    def sample(
        self, videos: Iterable[Video], request: Request, *, num_answers: int = 8
    ) -> Iterator[Caption | CaptionError]:
        """Videos -> `num_answers` captions of each, next to each other, or one CaptionError for a bad video.

        A video is decoded, encoded and read once. Answer k is the caption that the request's seed + k alone would give.
        """
        return self.sample_encoded(self.encode(videos, request), request, num_answers=num_answers)

    def sample_encoded(
        self, videos: Iterable[EncodedVideo | CaptionError], request: Request, *, num_answers: int = 8
    ) -> Iterator[Caption | CaptionError]:
        """As `sample`, of videos that `encode` gave; errors keep their places."""
        decoding = request.decoding
        if num_answers < 1 or (num_answers > 1 and decoding.temperature == 0):
            raise UserError(
                f"got num_answers={num_answers} at temperature {decoding.temperature:g}, expected at least 1, and a "
                "temperature above 0 for several captions of a video that differ"
            )
        return self._answer_in_batches(
            videos, request, decodings=[replace(decoding, seed=decoding.seed + k) for k in range(num_answers)]
        )

    def _answer_in_batches(
        self, videos: Iterable[EncodedVideo | CaptionError], request: Request, *, decodings: list[Decoding]
    ) -> Iterator[Caption | CaptionError]:
        batch: list[_Asked | CaptionError] = []
        for video in videos:
            batch.append(video if isinstance(video, CaptionError) else self._ask_or_error(video, request=request))
            if len(batch) == self.batch_size:
                yield from self._answer(batch, decodings=decodings)
                batch = []
        yield from self._answer(batch, decodings=decodings)

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

    def _plan(self, sample: Sample, request: Request) -> _Planned:
        clip_request = self.clip_request(sample, request)
        key = None
        if self.feature_cache is not None:
            try:
                key = self.feature_cache.key(clip_request, encoders=self._features_id)
            except MediaError:  # decoding says it better, in the video's place
                key = None
        return _Planned(sample=sample, clip_request=clip_request, key=key)

    def _is_kept(self, plan: _Planned) -> bool:
        return self.feature_cache is not None and plan.key is not None and plan.key in self.feature_cache

    def _kept_or_fresh(self, plan: _Planned, *, pool: DecodePool, request: Request) -> EncodedVideo | CaptionError:
        """A video in the cache -> its features; encoded again if they were damaged or removed meanwhile."""
        assert self.feature_cache is not None and plan.key is not None
        clip = self.feature_cache.get(plan.key)
        if clip is not None:
            return EncodedVideo(sample=plan.sample, clip=clip, key=plan.key)
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
                encoded = self.encode_clip(clip, sample=plan.sample, request=request)
            except ModelError:
                raise
            except UserError as error:
                yield CaptionError(sample_id=plan.sample.sample_id, video=plan.sample.video, error=str(error))
                continue
            del clip  # encoded: its frames need not stay while the batch fills
            if self.feature_cache is not None and plan.key is not None:
                encoded = self.feature_cache.put(plan.key, encoded)
            yield EncodedVideo(sample=plan.sample, clip=encoded, key=plan.key)

    def clip_request(self, sample: Sample, request: Request) -> ClipRequest:
        """What is to be decoded of a sample's video, at the rate and size that this checkpoint looks at."""
        expected = clip_request(
            self.model.config,
            sample.video,
            fps=self.settings.fps,
            max_frames=self.settings.max_frames,
            interval_s=sample.interval_s,
            with_video=request.use_video,
            with_audio=request.use_audio,
        )
        return official_clip_request(expected, self.model.config) if self.official else expected

    def encode_clip(self, clip: Clip, *, sample: Sample, request: Request) -> EncodedClip:
        """A clip, decoded as `clip_request` says -> its features.

        Raises:
            UserError: it is not what was asked for, or memory ran out over it.
        """
        with named_memory_error(sample.video):
            return self._encode(clip, sample=sample, request=request)

    def _encode(self, clip: Clip, *, sample: Sample, request: Request) -> EncodedClip:
        check_clip(clip, interval_s=sample.interval_s)
        check = deadline_check(clip.path, seconds=self.deadline_s, spent_s=clip.decoding_s)
        with self._told_of_model():
            media = encode_clip(self.model, clip, tokenizer=self.tokenizer, check=check)
        if self.official:
            media = official_features(media, clip)
        if request.use_audio and clip.has_audio and AUDIO_ID not in self.model.placeholders(media):
            raise UserError(
                f"{clip.path}: got a sound track but no sound from {clip.start_s:g} to {clip.end_s:g} s; choose "
                "another interval, or leave the sound out (--no-audio)"
            )
        world_score = None if self.world_check is None else self.world_check.score(clip, check=check)
        return EncodedClip(
            media=media,
            duration_s=clip.duration_s,
            num_bad_packets=clip.num_bad_packets,
            world_score=world_score,
            notes=clip.notes,
        )

    def _ask_or_error(self, video: EncodedVideo, *, request: Request) -> _Asked | CaptionError:
        try:
            with self._told_of_model(what="its tokenizer cannot write the prompt"):
                return self._ask(video, request=request)
        except ModelError:
            raise
        except UserError as error:
            return CaptionError(sample_id=video.sample.sample_id, video=video.sample.video, error=str(error))

    def _ask(self, video: EncodedVideo, *, request: Request) -> _Asked:
        """Asks about an encoded video; UserError if it cannot be captioned as wanted."""
        sample, clip = video.sample, video.clip
        media_ids = self.model.placeholders(clip.media)
        span_s = None if sample.interval_s is None else span_asked(sample.interval_s, duration_s=clip.duration_s)
        prompt = sample.prompt or self.settings.prompts.choose(
            interval_s=span_s, has_video=VISUAL_ID in media_ids, has_audio=AUDIO_ID in media_ids
        )
        self._warn_of_unknown_words(prompt)
        self._warn_of_another_world(sample.video, score=clip.world_score)
        ids, _ = encode_chat(self.tokenizer, [(prompt, None)], media_ids, self.chat)
        if self.official:
            check_audio_lasts(clip.media, num_audio=media_ids.count(AUDIO_ID), path=sample.video)
            ids = official_prompt(ids, self.tokenizer, self.model.config)
        self._check_length(sample.video, num_prompt=len(ids), max_new_tokens=request.decoding.max_new_tokens)
        return _Asked(sample=sample, span_s=span_s, prompt=prompt, ids=ids, clip=clip)

    def _check_length(self, path: str, *, num_prompt: int, max_new_tokens: int) -> None:
        """Raises UserError where the model would be led past the positions that it knows."""
        longest = self.model.config.text_config.max_position_embeddings
        if num_prompt + max_new_tokens > longest:
            raise UserError(
                f"{path}: got {num_prompt} tokens of video and prompt and {max_new_tokens} to be written, expected at "
                f"most {longest} together; caption it in parts (--start, --end) or lower --max-new-tokens"
            )

    def _warn_of_another_world(self, path: str, *, score: float | None) -> None:
        """Says where the model finds a video unlike its world. `score` None: a model of any video."""
        if score is not None and score > 1:
            logger.warning(
                f"{path}: this looks or sounds unlike all that {self.settings.name} was made for"
                f"{self.settings.describes and f' ({self.settings.describes})'}, so do not believe its caption "
                f"(score {score:.1f}, border 1.0); for real videos choose a model with --model"
            )

    def _warn_of_unknown_words(self, prompt: str) -> None:
        if prompt in self._warned:
            return
        self._warned.add(prompt)
        if unknown := unknown_words(self.tokenizer, prompt):
            words = ", ".join(repr(word) for word in dict.fromkeys(unknown))
            logger.warning(f"the prompt has words that {self.checkpoint} does not know and will not see: {words}")

    def _answer(
        self, batch: list[_Asked | CaptionError], *, decodings: list[Decoding]
    ) -> Iterator[Caption | CaptionError]:
        """Writes the captions of a batch, one for each of `decodings`; errors keep their places in it."""
        asked = [item for item in batch if isinstance(item, _Asked)]
        media_tokens: list[MediaTokens] = []
        answers: list[Generated] = []
        if asked:
            with torch.no_grad(), self._told_of_model():
                media_tokens = self.model.align_batch([item.clip.media for item in asked])
                answers = self._generate(asked, media_tokens, decodings=decodings)
        captions = (
            self._caption(item, tokens, answers[index * len(decodings) + decoding_index], decoding)
            for index, (item, tokens) in enumerate(zip(asked, media_tokens, strict=True))
            for decoding_index, decoding in enumerate(decodings)
        )
        for item in batch:
            if isinstance(item, CaptionError):
                yield item
            else:
                yield from islice(captions, len(decodings))

    def _generate(
        self, asked: list[_Asked], media_tokens: list[MediaTokens], *, decodings: list[Decoding]
    ) -> list[Generated]:
        """Videos asked about, and decodings that differ in their seeds -> for each video an answer to each."""
        decoding = decodings[0]
        return generate(
            self.model,
            [(item.ids, tokens) for item, tokens in zip(asked, media_tokens, strict=True)],
            max_new_tokens=decoding.max_new_tokens,
            eos_ids=self.end_ids,
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            top_k=decoding.top_k,
            seeds=[sample_seed(each.seed, item.sample.sample_id) for item in asked for each in decodings],
            repetition_penalty=decoding.repetition_penalty,
            loop_stop=LoopStop(ngram=decoding.loop_ngram, times=decoding.loop_times) if decoding.loop_ngram else None,
            answers_per_prompt=len(decodings),
        )

    def _caption(self, asked: _Asked, tokens: MediaTokens, answer: Generated, decoding: Decoding) -> Caption:
        """An answered video -> its record; what was seen is counted on the tokens that the language model read."""
        sample = asked.sample
        key = os.fsencode(f"{self.checkpoint} {sample.sample_id} {asked.prompt} {decoding}")
        return Caption(
            caption_id=hashlib.sha256(key).hexdigest()[:16],
            sample_id=sample.sample_id,
            video=sample.video,
            prompt=asked.prompt,
            text=self.tokenizer.decode(answer.ids, skip_special_tokens=True).strip(),
            checkpoint=self.checkpoint,
            decoding=decoding,
            seen=Seen(
                frames=tokens.num_frames,
                audio_seconds=round(asked.clip.media.audio_seconds, 3) if tokens.num_audio else 0.0,
                visual_tokens=tokens.num_visual,
                audio_tokens=tokens.num_audio,
                bad_packets=asked.clip.num_bad_packets,
                notes=asked.clip.notes,
            ),
            finished=answer.finished,
            duration_s=round(asked.clip.duration_s, 3),
            interval_s=asked.span_s,
            in_world=None if asked.clip.world_score is None else asked.clip.world_score <= 1,
            world_score=None if asked.clip.world_score is None else round(asked.clip.world_score, 3),
        )


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


def sample_seed(seed: int, sample_id: str) -> int:
    """Seed of the run and sample -> seed of what is drawn for it, whatever else is in the batch."""
    return int.from_bytes(hashlib.sha256(os.fsencode(f"{seed}/{sample_id}")).digest()[:8]) >> 1
