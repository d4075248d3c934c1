"""The proof that audio reaches the model behind an engine: servers drop it without a word.

    nothing, 2, 4 and 8 s of audio                                ->  counted tokens      (an even, plausible growth)
    a part of no known type                                       ->  nothing is counted
    2 s of audio in a file of as many bytes as that of 8 s        ->  as many tokens as of 2 s
    a clip that says one word, and the same with another word     ->  what is heard in it (where tokens do not tell)

Whoever guesses tokens by bytes and drops the audio is found out by the third: no decoder plays what the file is padded
with.

S samples of audio
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
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
PADDED = f"{LENGTHS_S[0]} s in a file as large as that of {LENGTHS_S[-1]} s"
PADDED_SHARE = 0.25
"""Of what 8 s count more than 2 s: by no more may 2 s in a larger file differ from 2 s."""
REFUSED = re.compile(r"status (?:400|413|415|422|500|501)\b")
COUNT_PROMPT = "Say OK."
LISTEN_PROMPT = (
    "A voice in the audio says one code word, and then there are beeps. Which word is it, and how many beeps are there"
    "? Answer with the word and the number alone. If there is no audio, answer: no audio."
)
COUNT_TOKENS, LISTEN_TOKENS = 16, 256


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Tokens that the engine counted: of no audio, of each length, and of the controls (None: no answer)."""

    none: int
    by_length: tuple[int, ...]
    control: int | None
    """Of a part of no known type."""
    padded: int | None = None
    """Of the shortest audio in a file as large as that of the longest."""
    is_apart: bool
    """They are of audio alone, as the engine tells them."""

    @property
    def counts_control(self) -> bool:
        """Whether a part of no known type is counted."""
        return self.control is not None and self.control - self.none > COUNTED_CONTROL

    @property
    def padding_share(self) -> float | None:
        """Of what the longest audio counts more than the shortest: how much a padded file does. None: not known."""
        grown = self.by_length[-1] - self.by_length[0]
        return None if self.padded is None or grown <= 0 else (self.padded - self.by_length[0]) / grown

    @property
    def counts_padding(self) -> bool:
        """Whether tokens follow the bytes of a file, and not the audio in it."""
        return (self.padding_share or 0) > PADDED_SHARE


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
    proof = _told_by_answers(ask, dialect, with_video=with_video, told=told, is_flat=_is_flat(counts))
    return replace(proof, counts_bytes=counts is not None and (counts.counts_control or counts.counts_padding))


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
    dialect: Dialect,
    clip: Clip,
    *,
    prompt: str,
    max_tokens: int,
    more: tuple[Part, ...] = (),
    as_large_as: Clip | None = None,
) -> ChatRequest:
    """A clip -> a request about it, greedy. `more` parts stand behind it; `as_large_as`: see Dialect.parts."""
    parts = (*dialect.parts(clip, as_large_as=as_large_as), *more)
    message = Message(role="user", content=prompt, parts=parts)
    return ChatRequest(messages=(message,), max_tokens=max_tokens, options=dict(dialect.options(dialect.sent(clip))))


# --- by tokens --------------------------------------------------------------------------------------------------------


def _count(ask: Ask, dialect: Dialect, *, with_video: bool) -> Counts | Proof | None:
    """-> what the engine counted, None if it does not count; or what follows where it gives no answer about audio."""
    speech_S = probe_waveform(WORDS[0])
    silent = probe_clip(speech_S[:0], with_video=with_video)
    longest_S = np.resize(speech_S, LENGTHS_S[-1] * SAMPLE_RATE_HZ)
    # without audio first: what the engine keeps of a prompt is the same for all that follow
    request = partial(probe_request, dialect, prompt=COUNT_PROMPT, max_tokens=COUNT_TOKENS)
    replies = [ask(request(silent))]
    clips = [probe_clip(longest_S[: seconds * SAMPLE_RATE_HZ], with_video=with_video) for seconds in LENGTHS_S]
    for clip in clips:
        answer = ask(request(clip))
        if isinstance(answer, NoReply):
            return _unanswered(answer.reason)
        replies.append(answer)
    padded = ask(request(clips[0], as_large_as=clips[-1]))
    control = ask(request(silent, more=(control_part(encode_wav(longest_S)),)))
    return _counts_of(replies, control=control, padded=padded)


def _unanswered(reason: str) -> Proof:
    """Why a probe with audio got no answer -> what follows: refused for good, or only not known."""
    if is_refusal(reason):
        return Proof(arrival="dropped", is_refused=True, why=f"the engine refuses audio: {reason}")
    return Proof(arrival="sent, not confirmed", why=f"a probe with audio got no answer: {reason}")


def is_refusal(reason: str) -> bool:
    """Why a request got no reply -> whether the engine refuses such a request, each time."""
    return REFUSED.match(reason) is not None


def _counts_of(replies: list[Reply | NoReply], *, control: Reply | NoReply, padded: Reply | NoReply) -> Counts | None:
    none, *others = replies
    with_audio = [one for one in others if isinstance(one, Reply)]
    is_apart = all(one.audio_tokens for one in with_audio)

    def counted(one: Reply | NoReply) -> int | None:
        if isinstance(one, NoReply):
            return None
        return one.audio_tokens or 0 if is_apart else one.input_tokens

    if not is_apart and (
        isinstance(none, NoReply) or not none.input_tokens or not all(one.input_tokens for one in with_audio)
    ):
        return None
    return Counts(
        none=0 if is_apart else counted(none) or 0,
        by_length=tuple(counted(one) or 0 for one in with_audio),
        control=counted(control),
        padded=counted(padded),
        is_apart=is_apart,
    )


def _told_by_tokens(counts: Counts | None) -> tuple[float | None, str]:
    """Counts -> (tokens a second, or None where they are no proof; what they show, in words)."""
    if counts is None:
        return None, "the engine counts no tokens"
    grown = [one - counts.none for one in counts.by_length]
    lengths = " and ".join(", ".join(map(str, LENGTHS_S)).rsplit(", ", 1))
    told = f"{lengths} s of audio count {', '.join(f'{one:,}' for one in grown)} tokens"
    if counts.counts_control:
        return None, f"{told}, but a part of no known type counts {(counts.control or 0) - counts.none:,}, too"
    if counts.counts_padding:
        return None, f"{told}, but {PADDED} count {(counts.padded or 0) - counts.none:,}: bytes are counted"
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
    unknown = f"a part of no known type with as many bytes {beside}"
    return rate, f"{told}: {rate:.1f} a second; {unknown}; {_told_of_padded(counts)}"


def _told_of_padded(counts: Counts) -> str:
    """Counts that do not follow the bytes -> what the padded file showed, in words."""
    if counts.padded is None:
        return f"{PADDED} got no answer, which leaves open whether bytes are counted"
    told = f"{PADDED} count {counts.padded - counts.none:,}"
    return told if (counts.padding_share or 0) >= -PADDED_SHARE else f"{told}: it leaves open whether bytes are counted"


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
