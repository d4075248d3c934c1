"""The proof that audio reaches the model behind an engine: servers drop it without a word.

    nothing, 2, 4 and 8 s of audio, and a part of no known type   ->  counted tokens      (an even, plausible growth)
    a clip that says one word, and the same with another word     ->  what is heard in it (where tokens do not tell)

S samples of audio
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avcap.engines.dialect import Dialect, control_part
from avcap.engines.findings import Proof
from avcap.llm.answer import answer_of
from avcap.llm.types import ChatRequest, Message, NoReply, Part, Reply
from avcap.media.clip import SAMPLE_RATE_HZ, Clip
from avcap.media.encode import decode_wav, encode_wav

Ask = Callable[[ChatRequest], Reply | NoReply]

WORDS = ("lantern", "pelican")
"""What the two probe clips say, each followed by three beeps."""
LENGTHS_S = (2, 4, 8)
LEAST_RATE, MOST_RATE = 1.0, 100.0
"""Tokens that a second of audio can plausibly count."""
UNEVEN_SHARE, UNEVEN_TOKENS_PER_S = 0.2, 0.75
"""By how much the rates of 2 to 4 and of 4 to 8 s may differ: numbers of tokens are whole."""
COUNTED_CONTROL = 16
"""More tokens than this, and a part of no known type was counted; a placeholder for it may stand in the prompt."""
REFUSED = re.compile(r"status (?:400|413|415|422|500|501)\b")
COUNT_PROMPT = "Say OK."
LISTEN_PROMPT = (
    "A voice in the audio says one code word, and then there are beeps. Which word is it, and how many beeps are there"
    "? Answer with the word and the number alone. If there is no audio, answer: no audio."
)
COUNT_TOKENS, LISTEN_TOKENS = 16, 256


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Tokens that the engine counted: of no audio, of each length, of the control (None: it was refused)."""

    none: int
    by_length: tuple[int, ...]
    control: int | None
    is_apart: bool
    """They are of audio alone, as the engine tells them."""


def prove_audio(ask: Ask, dialect: Dialect, *, with_video: bool) -> Proof:
    """An engine -> whether audio that is sent to it reaches the model.

    Args:
        ask: Asks the engine one request.
        dialect: How it is spoken to.
        with_video: Whether real requests have video, too: then the probes have some, as audio may be lost beside it.
    """
    counts = _count(ask, dialect, with_video=with_video)
    if isinstance(counts, Proof):
        return counts
    rate, told = _told_by_tokens(counts)
    if rate is not None:
        return Proof(arrival="confirmed", why=told, tokens_per_s=rate, tells_audio=bool(counts and counts.is_apart))
    return _told_by_answers(ask, dialect, with_video=with_video, told=told, is_flat=_is_flat(counts))


def probe_clip(waveform_S: np.ndarray, *, with_video: bool) -> Clip:
    """float32 waveform (S,) at 16 kHz -> a clip with it, and with a few frames of a plain moving pattern."""
    seconds = max(2.0, len(waveform_S) / SAMPLE_RATE_HZ)
    rows, columns = np.mgrid[0:224, 0:224] // 32
    frames_THWC = np.stack([np.repeat(((rows + columns + k) % 4 * 60)[..., None], 3, axis=2) for k in range(4)])
    frames_THWC = frames_THWC.astype(np.uint8)[: 4 if with_video else 0]
    return Clip(
        path="the probe",
        frames_THWC=frames_THWC,
        frame_times_T=np.arange(len(frames_THWC)) * 0.5,
        lead_in_frame_HWC=None,
        waveform_S=waveform_S,
        sample_rate_hz=SAMPLE_RATE_HZ,
        start_s=0.0,
        end_s=seconds,
        duration_s=seconds,
        has_video=with_video,
        has_audio=len(waveform_S) > 0,
        num_bad_packets=0,
    )


def probe_waveform(word: str) -> np.ndarray:
    """One of WORDS -> the waveform (S,) that says it, and beeps."""
    return decode_wav((Path(__file__).parent / f"{word}.wav").read_bytes())


def probe_request(
    dialect: Dialect, clip: Clip, *, prompt: str, max_tokens: int, more: tuple[Part, ...] = ()
) -> ChatRequest:
    """A clip -> a request about it, greedy."""
    parts = (*dialect.parts(clip), *more)
    message = Message(role="user", content=prompt, parts=parts)
    return ChatRequest(messages=(message,), max_tokens=max_tokens, options=dict(dialect.options(dialect.sent(clip))))


# --- by tokens --------------------------------------------------------------------------------------------------------


def _count(ask: Ask, dialect: Dialect, *, with_video: bool) -> Counts | Proof | None:
    """-> what the engine counted, None if it does not count; or what follows where it gives no answer about audio."""
    speech_S = probe_waveform(WORDS[0])
    silent = probe_clip(speech_S[:0], with_video=with_video)
    longest_S = np.resize(speech_S, LENGTHS_S[-1] * SAMPLE_RATE_HZ)
    # without audio first: what the engine keeps of a prompt is the same for all that follow
    replies = [ask(probe_request(dialect, silent, prompt=COUNT_PROMPT, max_tokens=COUNT_TOKENS))]
    for seconds in LENGTHS_S:
        clip = probe_clip(longest_S[: seconds * SAMPLE_RATE_HZ], with_video=with_video)
        answer = ask(probe_request(dialect, clip, prompt=COUNT_PROMPT, max_tokens=COUNT_TOKENS))
        if isinstance(answer, NoReply):
            return _unanswered(answer.reason)
        replies.append(answer)
    control = ask(
        probe_request(
            dialect, silent, prompt=COUNT_PROMPT, max_tokens=COUNT_TOKENS, more=(control_part(encode_wav(longest_S)),)
        )
    )
    return _counts_of(replies, control)


def _unanswered(reason: str) -> Proof:
    """Why a probe with audio got no answer -> what follows: refused for good, or only not known."""
    if is_refusal(reason):
        return Proof(arrival="dropped", is_refused=True, why=f"the engine refuses audio: {reason}")
    return Proof(arrival="sent, not confirmed", why=f"a probe with audio got no answer: {reason}")


def is_refusal(reason: str) -> bool:
    """Why a request got no reply -> whether the engine refuses such a request, each time."""
    return REFUSED.match(reason) is not None


def _counts_of(replies: list[Reply | NoReply], control: Reply | NoReply) -> Counts | None:
    none, *others = replies
    with_audio = [one for one in others if isinstance(one, Reply)]
    beside = control.input_tokens if isinstance(control, Reply) else None
    if all(one.audio_tokens for one in with_audio):
        apart = tuple(one.audio_tokens or 0 for one in with_audio)
        counted = (control.audio_tokens or 0) if isinstance(control, Reply) else None
        return Counts(none=0, by_length=apart, control=counted, is_apart=True)
    if isinstance(none, NoReply) or not none.input_tokens or not all(one.input_tokens for one in with_audio):
        return None
    by_length = tuple(one.input_tokens for one in with_audio)
    return Counts(none=none.input_tokens, by_length=by_length, control=beside, is_apart=False)


def _told_by_tokens(counts: Counts | None) -> tuple[float | None, str]:
    """Counts -> (tokens a second, or None where they are no proof; what they show, in words)."""
    if counts is None:
        return None, "the engine counts no tokens"
    grown = [one - counts.none for one in counts.by_length]
    lengths = " and ".join(", ".join(map(str, LENGTHS_S)).rsplit(", ", 1))
    told = f"{lengths} s of audio count {', '.join(f'{one:,}' for one in grown)} tokens"
    if counts.control is not None and counts.control - counts.none > COUNTED_CONTROL:
        return None, f"{told}, but a part of no known type counts {counts.control - counts.none:,}, too"
    first, second = (
        (after - before) / (after_s - before_s)
        for before, after, before_s, after_s in zip(grown, grown[1:], LENGTHS_S, LENGTHS_S[1:], strict=False)
    )
    allowed = max(UNEVEN_TOKENS_PER_S, UNEVEN_SHARE * max(abs(first), abs(second)))
    if abs(first - second) > allowed:
        return None, f"{told}: no even growth"
    rate = (grown[-1] - grown[0]) / (LENGTHS_S[-1] - LENGTHS_S[0])
    if not LEAST_RATE <= rate <= MOST_RATE:
        return None, f"{told}: {rate:,.1f} a second, expected {LEAST_RATE:g} to {MOST_RATE:g}"
    beside = "is refused" if counts.control is None else "counts nothing"
    return rate, f"{told}: {rate:.1f} a second; a part of no known type with as many bytes {beside}"


def _is_flat(counts: Counts | None) -> bool:
    """Whether audio counts nothing, however long it is, and nothing that could stand for any length."""
    if counts is None:
        return False
    grown = [one - counts.none for one in counts.by_length]
    return grown[-1] - grown[0] < LEAST_RATE * (LENGTHS_S[-1] - LENGTHS_S[0]) and grown[-1] <= COUNTED_CONTROL


# --- by answers -------------------------------------------------------------------------------------------------------


def _told_by_answers(ask: Ask, dialect: Dialect, *, with_video: bool, told: str, is_flat: bool) -> Proof:
    """What the engine says about two clips that differ in one word -> whether it has heard them."""
    said = []
    for word in WORDS:
        clip = probe_clip(probe_waveform(word), with_video=with_video)
        answer = ask(probe_request(dialect, clip, prompt=LISTEN_PROMPT, max_tokens=LISTEN_TOKENS))
        if isinstance(answer, NoReply):
            return Proof(arrival="sent, not confirmed", why=f"{told}; the probe clip got no answer: {answer.reason}")
        said.append(" ".join(answer_of(answer.text).text.split()))
    if all(_names(text, word) and not _names(text, other) for text, word, other in _pairs(said)):
        return Proof(arrival="confirmed", why=f"{told}, but both code words are heard ({', '.join(WORDS)})")
    shown = " and ".join(repr(text[:40]) for text in said)
    if said[0] == said[1] or is_flat:
        return Proof(arrival="dropped", why=f"{told}, and clips that say {' and '.join(WORDS)} are answered {shown}")
    return Proof(
        arrival="sent, not confirmed", why=f"{told}, and clips that say {' and '.join(WORDS)} are answered {shown}"
    )


def _pairs(said: list[str]) -> list[tuple[str, str, str]]:
    """Two answers -> each with the word of its clip, and that of the other."""
    return [(said[0], WORDS[0], WORDS[1]), (said[1], WORDS[1], WORDS[0])]


def _names(text: str, word: str) -> bool:
    return re.search(rf"\b{word}s?\b", text, re.IGNORECASE) is not None
