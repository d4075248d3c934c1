"""A model behind an engine captions videos as one in this process does: decoded here, asked there, many at a time.

    files -> worker processes decode -> threads encode -> requests, many in flight -> Caption | CaptionError, in order

While answers are awaited, the next files are decoded: never more than a few clips and requests are in memory.
"""

import hashlib
import logging
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from avcap.data.request import Interval, Prompts, Request, Video, format_seconds
from avcap.engines.dialect import Dialect
from avcap.engines.engine import Engine
from avcap.engines.findings import Proof
from avcap.errors import MediaError, RunError, UserError
from avcap.llm.answer import answer_of
from avcap.llm.types import ChatRequest, Choice, Message, NoReply, Reply
from avcap.media.clip import Clip, ClipRequest
from avcap.media.frame_size import PixelBudget
from avcap.media.pool import DecodePool
from avcap.records import AudioArrival, Caption, CaptionError, Decoding, Sample, Seen

logger = logging.getLogger("avcap")

ENGINE_PROMPTS = Prompts(
    interval_caption="This is the part of a video from {start}s to {end}s. Describe in detail what happens in it, what "
    "is seen and what is heard."
)
MAX_NEW_TOKENS = 1024
NUM_DECODERS = max(1, min(8, os.cpu_count() or 1))
"""Nothing else is computed here: all processors decode and encode."""
END_TOLERANCE_S = 0.1
LEAST_SHARE = 0.5
"""A prompt with fewer tokens than this share of what its audio alone should count cannot have the audio in it."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A clip that is ready to be asked about: the parts of requests, and what is sent in them."""

    clip: Clip
    dialect: Dialect
    proof: Proof
    message: Message
    """With the parts and no text yet."""
    options: dict[str, Any]
    audio_s: float

    def request(self, prompt: str, decoding: Decoding, *, attempt: int = 0, **options: Any) -> ChatRequest:
        """A prompt -> the request. `options`: further fields of the body."""
        asked = {**self.options, **_options_of(decoding), **options}
        return ChatRequest(
            messages=(replace(self.message, content=prompt),),
            max_tokens=decoding.max_new_tokens,
            temperature=decoding.temperature,
            attempt=attempt,
            options=asked,
        )

    def seen(self, reply: Reply, *, is_new: bool = True) -> Seen:
        """The engine's reply -> what the model was given. `is_new`: the engine had not read this clip before."""
        arrival = self._arrival(reply, is_new=is_new)
        return Seen(
            frames=len(self.clip.frames_THWC),
            audio_seconds=0.0 if arrival == "dropped" else self.audio_s,
            visual_tokens=reply.visual_tokens,
            audio_tokens=reply.audio_tokens,
            bad_packets=self.clip.num_bad_packets,
            notes=self.clip.notes,
            audio=arrival,
        )

    def _arrival(self, reply: Reply, *, is_new: bool) -> AudioArrival | None:
        """What is known of the engine, corrected by what it counted this time."""
        proof = self.proof
        if not self.audio_s or proof.arrival == "dropped":
            # of what the engine refuses nothing was sent; of the clip's audio nothing arrives either way
            return "dropped" if proof.arrival == "dropped" and self.clip.has_audio else None
        if reply.audio_tokens and not proof.counts_bytes:
            return "confirmed"
        is_told = reply.audio_tokens == 0 and (proof.tells_audio or proof.arrival != "confirmed")
        least = LEAST_SHARE * (proof.tokens_per_s or 0.0) * self.audio_s
        is_short = is_new and self.dialect.counts_cached and 0 < reply.input_tokens < least
        return "dropped" if is_told or is_short else proof.arrival


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A video that is asked about, and the record to be."""

    sample: Sample
    span_s: Interval | None
    prompt: str
    shown: Shown


class EngineCaptioner:
    """Captions by a model behind an engine; `checkpoint` is its name in records. Close it, or use it with `with`."""

    max_new_tokens = MAX_NEW_TOKENS

    def __init__(self, engine: Engine, *, deadline_s: float = 600.0, prompts: Prompts = ENGINE_PROMPTS) -> None:
        self.engine, self.deadline_s, self.prompts = engine, deadline_s, prompts
        self.checkpoint = engine.name
        self._told: set[str] = set()

    def __enter__(self) -> "EngineCaptioner":
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        self.engine.close()

    def stream(self, videos: Iterable[Video], request: Request) -> Iterator[Caption | CaptionError]:
        """Videos -> their rows in the same order, each as soon as it and those before it are there."""
        return self.sample(videos, request, num_answers=1)

    def sample(
        self, videos: Iterable[Video], request: Request, *, num_answers: int = 8
    ) -> Iterator[Caption | CaptionError]:
        """Videos -> `num_answers` captions of each, next to each other, or one CaptionError for a video without."""
        decoding = request.decoding
        if num_answers < 1 or (num_answers > 1 and decoding.temperature == 0):
            raise UserError(
                f"got num_answers={num_answers} at temperature {decoding.temperature:g}, expected at least 1, and a "
                "temperature above 0 for several captions of a video that differ"
            )
        several = {"n": num_answers} if num_answers > 1 else {}
        waiting: deque[_Asked | CaptionError] = deque()

        def to_send() -> Iterator[ChatRequest]:
            for item in self._asked(videos, request):
                waiting.append(item)
                if isinstance(item, _Asked):
                    yield item.shown.request(item.prompt, decoding, **several)

        for answer in self.engine.chat.ask(to_send()):
            while isinstance(waiting[0], CaptionError):
                yield waiting.popleft()  # type: ignore[misc]
            asked = waiting.popleft()
            assert isinstance(asked, _Asked)
            yield from self._rows(asked, answer, decoding=decoding, num_answers=num_answers)
        yield from (row for row in waiting if isinstance(row, CaptionError))

    # --- before the engine is asked -----------------------------------------------------------------------------------

    def clip_request(self, sample: Sample, request: Request) -> ClipRequest:
        """What is to be decoded of a sample's video for this engine."""
        dialect = self.engine.dialect(use_video=request.use_video)
        budget = PixelBudget(max_frame_pixels=dialect.max_pixels, min_frame_pixels=784, max_frames=1, factor=2)
        return ClipRequest(
            path=sample.video,
            fps=dialect.fps,
            max_frames=dialect.max_frames,
            interval_s=sample.interval_s,
            with_video=request.use_video,
            with_audio=request.use_audio,
            pixel_budget=budget,
        )

    def clips(self, samples: Iterable[Sample], request: Request) -> Iterator[Clip | MediaError]:
        """Samples -> their decoded clips or errors, in order, decoded ahead in worker processes."""
        with DecodePool(num_workers=NUM_DECODERS, deadline_s=self.deadline_s) as pool:
            yield from pool.map(self.clip_request(sample, request) for sample in samples)

    def show(self, clip: Clip, *, sample: Sample, request: Request) -> Shown:
        """A decoded clip -> the same, ready to be asked about.

        Raises:
            UserError: It is not what was asked for, or more than the engine takes.
        """
        check_clip(clip, interval_s=sample.interval_s, use_audio=request.use_audio)
        dialect = self.engine.dialect(use_video=request.use_video)
        proof = self.engine.proof(use_video=request.use_video) if len(clip.waveform_S) else Proof()
        sent_clip = replace(clip, waveform_S=clip.waveform_S[:0]) if proof.is_refused else clip
        if not len(sent_clip.frames_THWC) and not len(sent_clip.waveform_S):
            raise UserError(f"{clip.path}: got audio alone for an engine that refuses audio: {proof.why}")
        sent = dialect.sent(sent_clip)
        return Shown(
            clip=clip,
            dialect=dialect,
            proof=proof,
            options=dict(dialect.options(sent)),
            audio_s=sent.audio_s,
            message=Message(role="user", content="", parts=dialect.parts(sent_clip)),
        )

    def _asked(self, videos: Iterable[Video], request: Request) -> Iterator[_Asked | CaptionError]:
        """Videos -> asked about, in order; encoded in threads, a few ahead."""
        samples: deque[Sample] = deque()

        def each() -> Iterator[Sample]:
            for video in videos:
                samples.append(request.sample(video))
                yield samples[-1]

        under_way: deque[Future[_Asked | CaptionError]] = deque()
        with ThreadPoolExecutor(NUM_DECODERS, thread_name_prefix="encode") as threads:
            for clip in self.clips(each(), request):
                under_way.append(threads.submit(self._ask_or_error, samples.popleft(), clip, request))
                del clip
                while under_way and (under_way[0].done() or len(under_way) > NUM_DECODERS):
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()

    def _ask_or_error(self, sample: Sample, clip: Clip | MediaError, request: Request) -> _Asked | CaptionError:
        try:
            if isinstance(clip, MediaError):
                raise clip
            shown = self.show(clip, sample=sample, request=request)
        except RunError:
            raise
        except UserError as error:
            return CaptionError(sample_id=sample.sample_id, video=sample.video, error=str(error))
        span_s = None
        if sample.interval_s is not None:
            start_s, end_s = sample.interval_s
            span_s = (start_s, round(clip.duration_s, 1) if end_s == math.inf else end_s)
        prompt = sample.prompt or self.prompts.choose(
            interval_s=span_s, has_video=len(clip.frames_THWC) > 0, has_audio=shown.audio_s > 0
        )
        return _Asked(sample=sample, span_s=span_s, prompt=prompt, shown=shown)

    # --- after it has answered ----------------------------------------------------------------------------------------

    def _rows(
        self, asked: _Asked, answer: Reply | NoReply, *, decoding: Decoding, num_answers: int
    ) -> Iterator[Caption | CaptionError]:
        """An answer -> its captions, or an error in their place."""
        self._tell_dropped()
        try:
            reply = replied(answer, path=asked.sample.video, engine=self.checkpoint)
            seen = asked.shown.seen(reply)
            self._check_arrival(asked, seen, reply)
            choices = list(reply.choices[:num_answers])
            choices += self._more(asked, decoding=decoding, have=len(choices), want=num_answers)
            texts = said(choices, path=asked.sample.video, engine=self.checkpoint)
        except UserError as error:
            yield CaptionError(sample_id=asked.sample.sample_id, video=asked.sample.video, error=str(error))
            return
        for index, (choice, text) in enumerate(zip(choices, texts, strict=True)):
            yield self._caption(asked, seen, choice, text, decoding=replace(decoding, seed=decoding.seed + index))

    def _more(self, asked: _Asked, *, decoding: Decoding, have: int, want: int) -> list[Choice]:
        """The answers that an engine without n did not give, asked for one by one, each with a seed of its own."""
        requests = [
            asked.shown.request(asked.prompt, replace(decoding, seed=decoding.seed + number), attempt=number)
            for number in range(have, want)
        ]
        answers = self.engine.chat.ask(requests)
        return [replied(one, path=asked.sample.video, engine=self.checkpoint).choices[0] for one in answers]

    def _check_arrival(self, asked: _Asked, seen: Seen, reply: Reply) -> None:
        """Raises UserError where this clip's audio was dropped, and that was not allowed."""
        if seen.audio == "dropped" and not self.engine.options.allow_dropped_audio:
            counted = "no token of it" if reply.audio_tokens == 0 else f"{reply.input_tokens} tokens of all"
            raise UserError(
                f"{asked.sample.video}: its audio of {asked.shown.audio_s:.1f} s did not reach the model: the engine "
                f"counted {counted}; leave the audio out (--no-audio), or --allow-dropped-audio"
            )

    def _tell_dropped(self) -> None:
        """Says once which optional parts of requests the engine refuses, and is asked without."""
        for part in self.engine.chat.dropped:
            if part not in self._told and part != "n":  # several answers are asked for one by one then
                self._told.add(part)
                logger.warning(f"{self.checkpoint}: the engine refused {part}, and is asked without it")

    def _caption(self, asked: _Asked, seen: Seen, choice: Choice, text: str, *, decoding: Decoding) -> Caption:
        sample = asked.sample
        key = os.fsencode(f"{self.checkpoint} {sample.sample_id} {asked.prompt} {decoding}")
        return Caption(
            caption_id=hashlib.sha256(key).hexdigest()[:16],
            sample_id=sample.sample_id,
            video=sample.video,
            prompt=asked.prompt,
            text=text,
            checkpoint=self.checkpoint,
            decoding=decoding,
            seen=seen,
            finished=choice.finished,
            duration_s=round(asked.shown.clip.duration_s, 3),
            interval_s=asked.span_s,
        )


def replied(answer: Reply | NoReply, *, path: str, engine: str) -> Reply:
    """An answer about a file -> the reply. UserError if there is none."""
    if isinstance(answer, NoReply):
        raise UserError(f"{path}: {engine} gave no answer: {answer.reason}")
    return answer


def said(choices: Sequence[Choice], *, path: str, engine: str) -> list[str]:
    """Answers about one file -> their texts without thoughts; of several samples some may be empty, as any draw may.

    Raises:
        UserError: nothing is left of any of them.
    """
    answers = [answer_of(choice.text) for choice in choices]
    texts = [answer.text.strip() for answer in answers]
    if not any(texts):
        why = "nothing but thoughts" if answers[0].has_thoughts else "an empty answer"
        todo = "" if choices[0].finished else "; it was cut off: raise --max-new-tokens"
        raise UserError(f"{path}: got {why} of {engine}, expected a text{todo}")
    return texts


def _options_of(decoding: Decoding) -> dict[str, Any]:
    """Fields of the body that are not at their defaults."""
    values = {
        "top_p": (decoding.top_p, 1.0),
        "top_k": (decoding.top_k, 0),
        "repetition_penalty": (decoding.repetition_penalty, 1.0),
    }
    asked: dict[str, Any] = {name: value for name, (value, plain) in values.items() if value != plain}
    return asked | ({"seed": decoding.seed} if decoding.temperature > 0 else {})


def check_clip(clip: Clip, *, interval_s: Interval | None, use_audio: bool) -> None:
    """Raises UserError where a clip is not what was asked for, or has nothing to send."""
    if interval_s is not None and clip.duration_s + END_TOLERANCE_S < interval_s[1] < math.inf:
        raise UserError(
            f"{clip.path}: got an interval that ends at {format_seconds(interval_s[1])} s, expected one within the "
            f"file, which lasts {clip.duration_s:.1f} s; leave out --end for all the rest of it"
        )
    if not len(clip.frames_THWC) and not len(clip.waveform_S):
        raise UserError(f"{clip.path}: got nothing of it to be used; leave out --no-video or --no-audio")
    if use_audio and clip.has_audio and not len(clip.waveform_S):
        raise UserError(
            f"{clip.path}: got a sound track but no sound from {clip.start_s:g} to {clip.end_s:g} s; choose another "
            "interval, or leave the sound out (--no-audio)"
        )
