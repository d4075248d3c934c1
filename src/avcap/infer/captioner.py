"""The public API: videos in, captions out.

    files -> VideoEncoder (decode, encode) -> Prompter (ids) -> batches -> language model -> Caption | CaptionError

While one batch is written, the next files are decoded. Never more than a batch and a few clips are in memory. With a
FeatureCache a file that was encoded before is neither decoded nor encoded again.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypedDict, Unpack, overload

import torch

from avcap.data.feature_cache import FeatureCache
from avcap.data.request import Interval, Request, Video
from avcap.errors import ModelError, UserError
from avcap.infer.find_checkpoint import find_checkpoint
from avcap.infer.generate import Generated, LoopStop, Prompt, generate
from avcap.infer.official.rules import Behaviour, Default, Official
from avcap.infer.prompter import AskedVideo, Prompter
from avcap.infer.settings import checkpoint_name, read_settings
from avcap.infer.video_encoder import EncodedVideo, VideoEncoder, seen_of
from avcap.model.checkpoint.load import load
from avcap.model.checkpoint.placement import DevicePlacement
from avcap.model.checkpoint.refusals import told_of
from avcap.model.features import MediaTokens
from avcap.records import Caption, CaptionError, Decoding, Sample


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
        self.settings, self.folder, self.batch_size = read_settings(folder), folder, batch_size
        self.behaviour: Behaviour = Official.of(folder) if official else Default()
        self.checkpoint = self.behaviour.checkpoint(checkpoint_name(folder, self.settings))
        self.model, self.tokenizer = load(
            folder, dtype=dtype, placement=placement, config_fields=self.behaviour.config_fields
        )
        self.encoder = VideoEncoder(
            self.model,
            self.tokenizer,
            folder=folder,
            settings=self.settings,
            behaviour=self.behaviour,
            deadline_s=deadline_s,
            feature_cache=feature_cache,
        )
        self.prompter = Prompter(
            self.model,
            self.tokenizer,
            folder=folder,
            settings=self.settings,
            behaviour=self.behaviour,
            checkpoint=self.checkpoint,
        )

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
        decoding = self.behaviour.decoding(decoding)
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

    def encode(self, videos: Iterable[Video], request: Request) -> Iterator[EncodedVideo | CaptionError]:
        """Videos -> their features in the same order, from the cache where they are in it."""
        return self.encoder.encode(videos, request)

    def _answer_in_batches(
        self, videos: Iterable[EncodedVideo | CaptionError], request: Request, *, decodings: list[Decoding]
    ) -> Iterator[Caption | CaptionError]:
        batch: list[AskedVideo | CaptionError] = []
        for video in videos:
            batch.append(video if isinstance(video, CaptionError) else self._ask(video, request=request))
            if len(batch) == self.batch_size:
                yield from self._answer(batch, decodings=decodings)
                batch = []
        yield from self._answer(batch, decodings=decodings)

    def _ask(self, video: EncodedVideo, *, request: Request) -> AskedVideo | CaptionError:
        try:
            return self.prompter.ask(video, request)
        except ModelError:
            raise
        except UserError as error:
            return CaptionError(sample_id=video.sample.sample_id, video=video.sample.video, error=str(error))

    def _answer(
        self, batch: list[AskedVideo | CaptionError], *, decodings: list[Decoding]
    ) -> Iterator[Caption | CaptionError]:
        """Writes the captions of a batch, one for each of `decodings`; errors keep their places in it."""
        asked = [item for item in batch if isinstance(item, AskedVideo)]
        media_tokens: list[MediaTokens] = []
        answers: list[Generated] = []
        if asked:
            videos = [item.video for item in asked]
            with torch.no_grad(), told_of(self.folder / "config.json", what="the model cannot be run"):
                media_tokens = self.model.align_batch(
                    [video.encoded.media for video in videos], [video.outline for video in videos]
                )
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
        self, asked: list[AskedVideo], media_tokens: list[MediaTokens], *, decodings: list[Decoding]
    ) -> list[Generated]:
        """Videos asked about, and decodings that differ in their seeds -> for each video an answer to each."""
        decoding = decodings[0]
        return generate(
            self.model,
            [Prompt(item.ids, tokens) for item, tokens in zip(asked, media_tokens, strict=True)],
            max_new_tokens=decoding.max_new_tokens,
            eos_ids=self.prompter.end_ids,
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            top_k=decoding.top_k,
            seeds=[sample_seed(each.seed, item.video.sample.sample_id) for item in asked for each in decodings],
            repetition_penalty=decoding.repetition_penalty,
            loop_stop=LoopStop(ngram=decoding.loop_ngram, times=decoding.loop_times) if decoding.loop_ngram else None,
            answers_per_prompt=len(decodings),
        )

    def _caption(self, asked: AskedVideo, tokens: MediaTokens, answer: Generated, decoding: Decoding) -> Caption:
        """An answered video -> its record; what was seen is counted on the tokens that the language model read."""
        sample, encoded = asked.video.sample, asked.video.encoded
        key = os.fsencode(f"{self.checkpoint} {sample.sample_id} {asked.prompt} {decoding}")
        return Caption(
            caption_id=hashlib.sha256(key).hexdigest()[:16],
            sample_id=sample.sample_id,
            video=sample.video,
            prompt=asked.prompt,
            text=self.prompter.text_of(answer.ids),
            checkpoint=self.checkpoint,
            decoding=decoding,
            seen=seen_of(encoded, tokens),
            finished=answer.finished,
            duration_s=round(encoded.duration_s, 3),
            interval_s=asked.span_s,
            in_world=None if encoded.world_score is None else encoded.world_score <= 1,
            world_score=None if encoded.world_score is None else round(encoded.world_score, 3),
        )


def sample_seed(seed: int, sample_id: str) -> int:
    """Seed of the run and sample -> seed of what is drawn for it, whatever else is in the batch."""
    return int.from_bytes(hashlib.sha256(os.fsencode(f"{seed}/{sample_id}")).digest()[:8]) >> 1
