"""The model of a server: loaded when it is needed, unloaded when it is not; jobs become responses, batch by batch.

All of it but `submit` happens on the queue's thread: a model answers one batch at a time. No torch before a model is
loaded.
"""

import asyncio
import gc
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from avcap.data.request import Request
from avcap.errors import ModelError, UserError
from avcap.media.clip import Clip, ClipRequest
from avcap.media.pool import stop_idle_workers
from avcap.records import Decoding, Sample
from avcap.web.server.call import Call
from avcap.web.server.media import bad_media
from avcap.web.server.metrics import SIZES, Metrics
from avcap.web.server.queue import BatchQueue, Job
from avcap.web.server.refusals import Refused
from avcap.web.server.settings import ServerSettings

if TYPE_CHECKING:
    from avcap.data.feature_cache import EncodedMedia
    from avcap.infer.captioner import Captioner
    from avcap.infer.responder import Response

logger = logging.getLogger("avcap")

Told = tuple[int, str]
"""(Which answer, all of its text up to now)."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What is to be known of a model while it is not loaded.

    Attributes:
        checkpoint: Its name in records.
        max_new_tokens: Where a request does not say.
        templates: (use video, use audio) -> how files are decoded for it.
    """

    checkpoint: str
    max_new_tokens: int
    templates: Mapping[tuple[bool, bool], ClipRequest]


@dataclass(frozen=True, kw_only=True)
class Replied:
    """A response, and what its record tells of the clip."""

    response: "Response"
    clip: "EncodedMedia | None"


@dataclass(eq=False, kw_only=True)
class ChatJob:
    """A request that waits for the model. Made on the event loop, which hears of `told` and `done`.

    Attributes:
        call: What is asked.
        key: Names the clip; "": there is none.
        clip: Decoded; None where its features are kept, or there is none.
        features: Of its clip, where they are kept.
        told: Texts as they grow, for a stream; then None.
        done: The result.
    """

    call: Call
    key: str
    clip: Clip | None
    features: "EncodedMedia | None"
    loop: asyncio.AbstractEventLoop
    done: "asyncio.Future[Replied]"
    told: "asyncio.Queue[Told | None]" = field(default_factory=asyncio.Queue)
    is_given_up: bool = False
    ids: dict[int, list[int]] = field(default_factory=dict)

    @property
    def group(self) -> Hashable:
        call = self.call
        # seeds are told apart by the key of the clip; those of one batch count from the same number
        return (call.decoding, call.num_answers, call.top_logprobs)

    @property
    def rows(self) -> int:
        return self.call.num_answers

    def finish(self, result: Replied) -> None:
        self._tell(lambda: None if self.done.done() else self.done.set_result(result))

    def fail(self, error: BaseException) -> None:
        self._tell(lambda: None if self.done.done() else self.done.set_exception(error))

    def tell(self, answer: int, text: str) -> None:
        """Called by the model's thread: so much of an answer is written."""
        self._tell(lambda: self.told.put_nowait((answer, text)))

    def _tell(self, act: Callable[[], None]) -> None:
        try:
            self.loop.call_soon_threadsafe(act)
        except RuntimeError:  # the loop has ended, and with it whoever waited
            logger.debug("nobody is left to be told")


class KeptFeatures:
    """The features of clips that were asked about lately, within a number of bytes."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, EncodedMedia] = OrderedDict()
        self.num_bytes = 0

    def get(self, key: str) -> "EncodedMedia | None":
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: str, clip: "EncodedMedia") -> None:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = clip
                self.num_bytes += _num_bytes(clip)
            while self.num_bytes > self._most_bytes:
                self.num_bytes -= _num_bytes(self._kept.popitem(last=False)[1])


def _num_bytes(clip: "EncodedMedia") -> int:
    media = clip.media
    tensors = (media.vision_TNV, media.lead_in_NV, media.audio_KPA)
    return sum(one.numel() * one.element_size() for one in tensors if one is not None)


class ServedModel:
    """A captioner that answers jobs. `start` it, `stop` it; `submit` from the event loop."""

    def __init__(
        self, open_captioner: "Callable[[], Captioner]", *, settings: ServerSettings, metrics: Metrics
    ) -> None:
        self._open, self._settings, self._metrics = open_captioner, settings, metrics
        self._captioner: Captioner | None = None
        self.kept = KeptFeatures(settings.kept_bytes)
        self.facts = _facts_of(self._loaded())
        self._queue = BatchQueue(
            self._answer,
            batch_size=settings.batch_size,
            gather_s=settings.gather_s,
            idle_s=settings.unload_after_s,
            when_idle=self._unload,
        )

    def start(self) -> None:
        self._queue.start()

    def stop(self) -> None:
        self._queue.stop()
        stop_idle_workers()

    def submit(self, job: ChatJob) -> None:
        self._queue.submit(job)

    @property
    def is_loaded(self) -> bool:
        return self._captioner is not None

    @property
    def num_waiting(self) -> int:
        return self._queue.num_waiting

    def _loaded(self) -> "Captioner":
        if self._captioner is None:
            self._captioner = self._open()
            self._metrics.count("model_loads")
        return self._captioner

    def _unload(self) -> None:
        """Frees the memory of the model and the decoding processes; the next request loads it again."""
        self._captioner = None
        gc.collect()
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        stop_idle_workers()
        logger.info("no request lately: the model is unloaded until the next one")

    def _answer(self, batch: Sequence[Job]) -> None:
        """A batch of jobs that are alike -> each is finished or fails."""
        from avcap.infer.responder import Dialogue, Responder, Response

        start_s = time.monotonic()
        captioner = self._loaded()
        jobs: list[ChatJob] = []
        dialogues: list[Dialogue] = []
        clips: list[EncodedMedia | None] = []
        for job in batch:
            assert isinstance(job, ChatJob)
            try:
                clip = self._encoded(job, captioner) if job.key else None
            except Refused as error:
                job.fail(error)
                continue
            jobs.append(job)
            clips.append(clip)
            call = job.call
            dialogues.append(Dialogue(turns=call.turns, key=job.key, clip=clip, interval_s=call.interval_s))
        if not jobs:
            return
        responder, call = Responder(captioner), jobs[0].call
        found = responder.respond(
            dialogues,
            decoding=call.decoding,
            num_answers=call.num_answers,
            top_logprobs=call.top_logprobs,
            listener=lambda index, answer, token: _take_token(jobs[index], answer, token, text=responder.text),
        )
        self._metrics.observe("batch_size", sum(job.rows for job in jobs), bounds=SIZES)
        self._metrics.observe("batch_seconds", time.monotonic() - start_s)
        for job, result, clip in zip(jobs, found, clips, strict=True):
            if isinstance(result, Response):
                job.finish(Replied(response=result, clip=clip))
            else:
                job.fail(Refused(str(result), code="context_length_exceeded", param="messages"))

    def _encoded(self, job: ChatJob, captioner: "Captioner") -> "EncodedMedia":
        """A job -> the features of its clip, from memory where they are there."""
        kept = job.features or self.kept.get(job.key)
        if kept is not None:
            self._metrics.count("features_kept")
            return kept
        clip, job.clip = job.clip, None
        assert clip is not None, "a job has a clip or its features"
        sample = Sample(sample_id=job.key, video=clip.path, prompt="", interval_s=job.call.interval_s)
        request = Request(
            decoding=Decoding(max_new_tokens=1),
            interval_s=job.call.interval_s,
            use_audio=clip.has_audio or not len(clip.frames_THWC),
            use_video=bool(len(clip.frames_THWC)),
        )
        try:
            encoded = captioner.encoder.encode_clip(clip, sample=sample, request=request).encoded
        except ModelError:
            raise
        except UserError as error:
            raise bad_media(error, path=clip.path, param=job.call.media[0].param) from None
        self._metrics.count("clips_encoded")
        self.kept.put(job.key, encoded)
        return encoded


def _take_token(job: ChatJob, answer: int, token: int, *, text: Callable[[list[int]], str]) -> bool:
    """A token of an answer -> whether it is still expected; of a stream the text up to the token before is told."""
    if job.call.is_stream and not job.is_given_up:
        ids = job.ids.setdefault(answer, [])
        # one token late: what comes next may still change how the last one is spelled
        if ids:
            job.tell(answer, text(ids))
        ids.append(token)
    return not job.is_given_up


def _facts_of(captioner: "Captioner") -> ModelFacts:
    """A loaded model -> what is to be known of it."""
    decoding = Decoding(max_new_tokens=captioner.settings.max_new_tokens)
    sample = Sample(sample_id="", video="", prompt="")
    uses = ((True, True), (True, False), (False, True))
    return ModelFacts(
        checkpoint=captioner.checkpoint,
        max_new_tokens=captioner.settings.max_new_tokens,
        templates={
            (video, audio): replace(
                captioner.encoder.clip_request(sample, Request(decoding=decoding, use_video=video, use_audio=audio)),
                path="",
            )
            for video, audio in uses
        },
    )
