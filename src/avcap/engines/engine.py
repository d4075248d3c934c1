"""An engine that is open: its chat, and what was found out about it when it was first needed.

with Engine(read_engine_spec("openai:NAME@URL"), EngineOptions(key=...)) as engine:
    engine.dialect(use_video=True)    how it is spoken to: found out once
    engine.proof(use_video=True)      whether audio arrives; UserError where it is dropped and that was not allowed
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from avcap.engines.dialect import NOTHING, Dialect
from avcap.engines.dialects import detect, dialect_of, frames_of
from avcap.engines.findings import Findings, FindingsStore, Proof
from avcap.engines.proof import (
    COUNT_PROMPT,
    COUNT_TOKENS,
    is_refusal,
    probe_clip,
    probe_request,
    probe_waveform,
    prove_audio,
)
from avcap.engines.spec import AUTO, ROLE, USE_AUDIO_ALONE, USE_VIDEO, EngineSpec
from avcap.errors import RunError, UserError
from avcap.llm.budget import PRICES, Budget, Price
from avcap.llm.cache import ReplyCache
from avcap.llm.chat import OpenAIChat, open_chat
from avcap.llm.types import ChatRequest, NoReply, Reply

logger = logging.getLogger("avcap")

TIMEOUT_S = 600.0
LOOKAHEAD = 2
"""Requests with media are megabytes: few are drawn ahead."""
PROBE_RETRIES = 2


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """What goes with an engine's name: how it is asked, and what is kept."""

    key: str | None = field(default=None, repr=False)
    cache: ReplyCache | None = None
    budget: Budget | None = None
    prices: Mapping[str, Price] = field(default_factory=lambda: PRICES)
    concurrency: int = 8
    timeout_s: float = TIMEOUT_S
    findings: Path | None = None
    """Folder in which what is found out is kept; None: it is not."""
    allow_dropped_audio: bool = False


class AudioDropped(RunError):
    """Audio does not reach the model."""


class Engine:
    """Close it, or use it with `with`."""

    def __init__(self, spec: EngineSpec, options: EngineOptions) -> None:
        self.spec, self.options = spec, options
        self.name = spec.name
        self.chat = self._open_chat(cache=options.cache)
        self._store = FindingsStore(folder=options.findings)
        self._known: dict[bool, Findings] = {}
        self._lock = threading.RLock()
        self._is_told = False

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        self.chat.close()

    def dialect(self, *, use_video: bool) -> Dialect:
        """Whether videos are to be sent -> how the engine is spoken to.

        Raises:
            UserError: It takes no such request.
        """
        with self._lock:
            return self.known_dialect(self._found(use_video=use_video))

    def proof(self, *, use_video: bool) -> Proof:
        """-> whether audio, beside video or alone, arrives; it is found out when the first of it is to be sent.

        Raises:
            AudioDropped: It does not, and that was not allowed.
        """
        with self._lock:
            found = self._found(use_video=use_video)
            if found.audio.arrival is None:
                with self.probing() as chat:
                    proof = prove_audio(asker(chat), self.known_dialect(found), with_video=use_video)
                found = self._keep(replace(found, audio=proof), use_video=use_video)
            self._tell_audio(found.audio)
        return found.audio

    def find_out(self, *, use_video: bool) -> Findings:
        """All that there is to find out, asked anew."""
        with self._lock:
            found = self._ask_dialect(use_video=use_video)
            with self.probing() as chat:
                proof = prove_audio(asker(chat), self.known_dialect(found), with_video=use_video)
            return self._keep(replace(found, audio=proof), use_video=use_video)

    def _found(self, *, use_video: bool) -> Findings:
        """What is known, or asked now: all but the proof of audio."""
        found = self._known.get(use_video) or self._store.get(self.name, use=_use(use_video))
        if found is None:
            found = self._keep(self._ask_dialect(use_video=use_video), use_video=use_video)
        if use_video not in self._known and found.frames_because:
            logger.warning(f"{self.name}: video is sent as frames, as the engine said: {found.frames_because}")
        self._known[use_video] = found
        return found

    def _keep(self, found: Findings, *, use_video: bool) -> Findings:
        self._store.put(found, self.name, use=_use(use_video))
        if found.audio.arrival is not None:
            self._known[use_video] = found
        return found

    def _tell_audio(self, proof: Proof) -> None:
        """Says once what a user has to know of audio. AudioDropped where it does not arrive and that is not allowed."""
        if proof.arrival == "dropped" and not self.options.allow_dropped_audio:
            raise AudioDropped(
                f"{self.name}: audio does not reach the model: {proof.why}; use a model that hears, another ?dialect= "
                "(frames), leave the audio out (--no-audio), or --allow-dropped-audio"
            )
        if self._is_told or proof.arrival == "confirmed":
            return
        self._is_told = True
        if proof.arrival == "dropped":
            logger.warning(f"{self.name}: audio does not reach the model: {proof.why}")
        else:
            logger.warning(f"{self.name}: audio is sent, but nothing proves that it arrives: {proof.why}")

    def _ask_dialect(self, *, use_video: bool) -> Findings:
        with self.probing() as chat:
            detected = detect(self.spec, chat.fetch)
            dialect = dialect_of(self.spec, detected.name)
            refused = self._refusal_of_video(asker(chat), dialect) if use_video else ""
        return Findings(
            dialect=detected.name,
            how=detected.how,
            frames_because=refused,
            context_tokens=detected.context_tokens,
            checked_at=time.time(),
        )

    def probing(self) -> OpenAIChat:
        """A chat of its own for what is asked anew each time: the cache would give what another server once said."""
        return self._open_chat(cache=None, max_retries=PROBE_RETRIES)

    def _refusal_of_video(self, ask: Callable[[ChatRequest], Reply | NoReply], dialect: Dialect) -> str:
        """-> what the engine says when it refuses video in its dialect's form, so that frames are sent; "" if not.

        Raises:
            UserError: It refuses frames, too, or the form was asked for.
        """
        clip = probe_clip(probe_waveform("lantern")[:0], with_video=True)
        answer = ask(probe_request(dialect, clip, prompt=COUNT_PROMPT, max_tokens=COUNT_TOKENS))
        if isinstance(answer, Reply):
            return ""
        if not is_refusal(answer.reason):
            raise UserError(f"{self.name}: got no answer about a short probe video: {answer.reason}; try again")
        if dialect.video is None or self.spec.dialect != AUTO:
            todo = "leave the video out (--no-video)" if dialect.video is None else "try ?dialect=frames"
            raise UserError(
                f"{self.name}: got no answer about a short video sent as {dialect.video_form} ({answer.reason}), "
                f"expected an engine that takes it; use a model that sees, or {todo}"
            )
        second = ask(probe_request(frames_of(self.spec, dialect), clip, prompt=COUNT_PROMPT, max_tokens=COUNT_TOKENS))
        if isinstance(second, NoReply):
            raise UserError(
                f"{self.name}: got no answer about a short video, neither as {dialect.video_form} ({answer.reason}) "
                f"nor as frames ({second.reason}); use a model that sees, or leave the video out (--no-video)"
            )
        return answer.reason

    def fixed_options(self) -> dict[str, Any]:
        """Fields that every request of this engine has, with media or without."""
        known = next(iter(self._known.values()))
        return dict(self.known_dialect(known).options(NOTHING))

    def known_dialect(self, found: Findings) -> Dialect:
        dialect = dialect_of(self.spec, found.dialect)
        return frames_of(self.spec, dialect) if found.frames_because else dialect

    def _open_chat(self, *, cache: ReplyCache | None, **settings: Any) -> OpenAIChat:
        options = self.options
        return open_chat(
            self.spec.chat_spec,
            api_key=options.key,
            cache=cache,
            budget=options.budget,
            prices=options.prices,
            concurrency=options.concurrency,
            timeout_s=options.timeout_s,
            role=ROLE,
            key_variable=self.spec.key_variables[-1],
            lookahead=LOOKAHEAD,
            **settings,
        )


def _use(use_video: bool) -> str:
    return USE_VIDEO if use_video else USE_AUDIO_ALONE


def asker(chat: OpenAIChat) -> Callable[[ChatRequest], Reply | NoReply]:
    """A chat -> what asks it one request."""
    return lambda request: next(iter(chat.ask([request])))
