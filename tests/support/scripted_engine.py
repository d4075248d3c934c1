"""Real HTTP servers on 127.0.0.1 that take video and audio as engines do: what they refuse, count, and lose.

    with ScriptedEngine(VLLM) as engine:
        ... --model openai:omni@{engine.url}

Each kind says which parts it takes, in the words in which the real one refuses others, how it counts, whether it gives
several answers and log-probabilities, and how it answers (whole, or as a stream). It looks into what it is sent: an mp4
that cannot be decoded, or a WAV that is not 16 kHz mono, is an error of the test.
"""

import base64
import contextlib
import io
import itertools
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import av
import numpy as np
from PIL import Image

Body = dict[str, Any]

TEXT_TOKENS, TOKENS_PER_FRAME = 20, 60


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How one kind of engine behaves. `refuse(type)`: (status, message) for a part that it does not take."""

    name: str
    takes: tuple[str, ...]
    refuse: Callable[[str], tuple[int, str]]
    owned_by: str | None = None
    audio_per_s: float = 12.5
    """Tokens that a second of audio counts."""
    has_audio: bool = True
    """False: it takes audio and drops it."""
    counts: bool = True
    """Whether it counts tokens at all."""
    details: bool = False
    """Whether it tells tokens of audio and of video apart."""
    counts_bytes: bool = False
    """Whether it counts the bytes of what may be audio, as a gateway that guesses; else the seconds of its samples."""
    takes_padding: bool = True
    """False: it refuses a WAV with other chunks than the usual two, and an mp4 with a box of padding."""
    unknown_is_ignored: bool = False
    n: str = "yes"
    """Of n answers: "yes", "ignored" or "refused"."""
    logprobs: bool = True
    must_stream: bool = False
    bare_audio: bool = True
    """Audio as bare base64; False: as a data URI."""
    unknown_fields: str = "ignored"
    """Fields that it does not know: "ignored" or "refused"."""
    most_media: int = 99


def _refuse(status: int, text: str) -> Callable[[str], tuple[int, str]]:
    return lambda kind: (status, text.format(kind=kind))


VLLM = Kind(
    name="vllm",
    owned_by="vllm",
    takes=("text", "image_url", "video_url", "audio_url", "input_audio"),
    refuse=_refuse(400, "Unknown part type: {kind}"),
)
VLLM_OMNI = replace(VLLM, name="vllm_omni", owned_by="vllm-omni")
SGLANG = Kind(
    name="sglang",
    owned_by="sglang",
    takes=("text", "image_url", "video_url", "audio_url"),
    details=True,
    refuse=_refuse(400, "1 validation error: Input tag '{kind}' found using 'type' does not match any of the tags"),
)
LLAMA_CPP = Kind(
    name="llama_cpp",
    owned_by="llamacpp",
    takes=("text", "image_url", "input_video", "input_audio"),
    n="refused",
    refuse=_refuse(400, "unsupported content[].type: {kind}"),
)
OLLAMA = Kind(
    name="ollama",
    owned_by="library",
    takes=("text", "image_url", "input_audio"),
    n="ignored",
    logprobs=False,
    refuse=_refuse(400, "invalid message format"),
)
DASHSCOPE = Kind(
    name="dashscope",
    takes=("text", "image_url", "video_url", "video", "input_audio"),
    must_stream=True,
    details=True,
    n="ignored",
    logprobs=False,
    bare_audio=False,
    refuse=_refuse(400, "<400> InternalError.Algo.InvalidParameter: The content field of type {kind} is invalid"),
)
DASHSCOPE_FLASH = replace(DASHSCOPE, most_media=1)
GEMINI = Kind(
    name="gemini",
    takes=("text", "image_url", "input_audio"),
    n="yes",
    logprobs=False,
    audio_per_s=32.0,
    unknown_is_ignored=True,
    refuse=_refuse(400, "Invalid content part type: {kind}"),
    unknown_fields="refused",
)
OPENROUTER = Kind(
    name="openrouter",
    takes=("text", "image_url", "video_url", "input_audio"),
    n="ignored",
    logprobs=False,
    refuse=_refuse(400, "Invalid input: content type {kind}"),
)
FRAMES = Kind(
    name="frames",
    takes=("text", "image_url", "input_audio"),
    refuse=_refuse(400, "Invalid value: '{kind}'."),
)
KINDS = (VLLM, SGLANG, VLLM_OMNI, LLAMA_CPP, OLLAMA, DASHSCOPE, GEMINI, OPENROUTER, FRAMES)

KNOWN_FIELDS = {
    "model",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "n",
    "stop",
    "stream",
    "seed",
    "stream_options",
    "modalities",
    "reasoning_effort",
    "response_format",
    "logprobs",
    "top_logprobs",
}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a request shows: frames (of a video or images), the video's rate, seconds of audio and which, the text."""

    types: tuple[str, ...]
    frames: int
    fps: float
    audio_s: float
    waveform_S: np.ndarray
    text: str
    unknown_bytes: int
    audio_bytes: int
    """Of the files that hold the audio."""
    body: Body

    @property
    def word(self) -> str | None:
        """The code word of the probe clip that was sent, if one was."""
        from avcap.engines.proof import WORDS, probe_waveform

        for word in WORDS:
            clip_S = probe_waveform(word)
            if len(clip_S) == len(self.waveform_S) and np.abs(clip_S - self.waveform_S).max() < 0.05:
                return word
        return None


Answer = Callable[[Asked], str]


def describe(asked: Asked) -> str:
    """What a perfect model would say: what it was given, and the code word if that is asked for."""
    if "code word" in asked.text:
        return f"{asked.word}, 3" if asked.word else "no audio"
    return f"A video of {asked.frames} frames with {asked.audio_s:.1f} s of audio."


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass
class ScriptedEngine:
    """The server. `asked` lists what was answered; `bodies` and `headers` all that came; `delay_s`: of each answer."""

    kind: Kind
    answer: Answer = describe
    delay_s: float = 0.0
    script: Callable[[Asked], tuple[int, str] | None] = lambda asked: None
    """A request -> (status, message) to refuse it with, or None."""
    asked: list[Asked] = field(default_factory=list)
    bodies: list[Body] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    most_at_once: int = 0
    busy_s: float = 0.0
    _now: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._http = _Server(("127.0.0.1", 0), _handler_of(self))
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    @property
    def model(self) -> str:
        """What --model is given."""
        return f"openai:omni@{self.url}"

    def __enter__(self) -> "ScriptedEngine":
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            start_s = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._now -= 1
                self.busy_s += time.monotonic() - start_s

    @property
    def captions(self) -> list[Asked]:
        """What was asked that is no probe."""
        return [one for one in self.asked if not ("code word" in one.text or one.text == "Say OK.")]

    # --- what it answers ----------------------------------------------------------------------------------------------

    def reply_to(self, body: Body) -> bytes:
        """A request's JSON -> the whole body of the answer; Refused where the real one would refuse."""
        kind = self.kind
        if kind.must_stream and not body.get("stream"):
            raise Refused(400, "This model only support stream mode, please enable the stream parameter")
        if kind.unknown_fields == "refused" and (unknown := sorted(set(body) - KNOWN_FIELDS)):
            raise Refused(400, f'Invalid JSON payload received. Unknown name "{unknown[0]}": Cannot find field.')
        if kind.n == "refused" and body.get("n", 1) != 1:
            raise Refused(400, "Only one completion choice is allowed")
        asked = read_request(body, kind)
        if refused := self.script(asked):
            raise Refused(*refused)
        with self._lock:
            self.asked.append(asked)
        time.sleep(self.delay_s)
        return self._completion(asked, body)

    def _completion(self, asked: Asked, body: Body) -> bytes:
        audio = asked if self.kind.has_audio else replace(asked, audio_s=0.0, waveform_S=asked.waveform_S[:0])
        number = body.get("n", 1) if self.kind.n == "yes" else 1
        first = body.get("seed", 0) if body.get("temperature") else 0
        texts = [self.answer(audio) + " At 1s a horn sounds." * (first + index) for index in range(number)]
        usage = self._usage(audio)
        if body.get("stream"):
            return b"".join(_events(texts, usage if (body.get("stream_options") or {}).get("include_usage") else None))
        choices = [
            {
                "index": index,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": text},
                **({"logprobs": _logprobs(text)} if body.get("logprobs") and self.kind.logprobs else {}),
            }
            for index, text in enumerate(texts)
        ]
        told = {"usage": usage} if usage else {}
        return json.dumps({"object": "chat.completion", "choices": choices, **told}).encode()

    def _usage(self, asked: Asked) -> Body | None:
        if not self.kind.counts:
            return None
        video, audio = TOKENS_PER_FRAME * asked.frames, round(self.kind.audio_per_s * asked.audio_s)
        if self.kind.counts_bytes:  # a guess at 25 tokens for each second of a WAV's bytes, heard or not
            audio = round((asked.unknown_bytes + asked.audio_bytes) / 32_000 * 25)
        usage: Body = {"prompt_tokens": TEXT_TOKENS + video + audio, "completion_tokens": 10}
        if self.kind.details:
            usage["prompt_tokens_details"] = {"cached_tokens": 0, "audio_tokens": audio, "video_tokens": video}
        return usage


def read_request(body: Body, kind: Kind) -> Asked:
    """A request's JSON -> what it shows. Refused as the kind refuses; AssertionError for what no engine could read."""
    content = body["messages"][-1]["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    types = [part["type"] for part in parts]
    media = [each for each in types if each != "text"]
    frames, fps, unknown, audio_bytes = 0, 0.0, 0, 0
    waves = [np.zeros(0, np.float32)]
    for part in parts:
        each = part["type"]
        if each not in kind.takes:
            if not kind.unknown_is_ignored:
                raise Refused(*kind.refuse(each))
            unknown += len(json.dumps(part)) * 3 // 4
            continue
        if each in ("video_url", "input_video") or (each == "image_url" and "video/mp4" in part[each]["url"][:40]):
            if each == "image_url" and kind.name != "gemini":
                raise Refused(400, "cannot identify image file")
            data = _mp4_of(part[each]["data"] if each == "input_video" else part[each]["url"], kind)
            found = _read_mp4(data)
            frames, fps = frames + found[0], found[1]
            waves.append(found[2])
            audio_bytes += len(data) if len(found[2]) else 0
        elif each == "image_url":
            video = base64.b64decode(part[each]["url"].removeprefix("data:image/jpeg;base64,"), validate=True)
            Image.open(io.BytesIO(video)).load()
            frames += 1
        elif each == "audio_url":
            text = part[each]["url"].removeprefix("data:audio/wav;base64,")
            waves.append(_read_wav(text, kind))
            audio_bytes += len(base64.b64decode(text))
        elif each == "input_audio":
            text = part[each]["data"]
            if kind.bare_audio == text.startswith("data:"):
                raise Refused(400, "Invalid base64 of input_audio")
            text = text.removeprefix("data:;base64,")
            waves.append(_read_wav(text, kind))
            audio_bytes += len(base64.b64decode(text))
    if len(media) > kind.most_media:
        raise Refused(400, "Only one modality besides text is supported by this model")
    waveform_S = np.concatenate(waves)
    last = parts[-1]
    assert last["type"] == "text", f"the text stands before the media: {types}"
    return Asked(
        types=tuple(types),
        frames=frames,
        fps=fps,
        audio_s=round(len(waveform_S) / 16000, 3),
        waveform_S=waveform_S,
        text=last["text"],
        unknown_bytes=unknown,
        audio_bytes=audio_bytes,
        body=body,
    )


def _mp4_of(text: str, kind: Kind) -> bytes:
    start = {"llama_cpp": "", "dashscope": "data:;base64,"}.get(kind.name, "data:video/mp4;base64,")
    assert text.startswith(start), text[:40]
    data = base64.b64decode(text.removeprefix(start), validate=True)
    if not kind.takes_padding and list(_boxes(data))[-1] == b"free":
        raise Refused(400, "Invalid video file")
    return data


def _boxes(data: bytes) -> Iterator[bytes]:
    """An mp4 -> the names of its outermost boxes."""
    at = 0
    while at < len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        yield name
        at += length


def _read_mp4(data: bytes) -> tuple[int, float, np.ndarray]:
    """An mp4 -> its frames, their rate, and a waveform as long as its audio track."""
    with av.open(io.BytesIO(data)) as container:
        (stream,) = container.streams.video
        times = [float(frame.pts * stream.time_base) for frame in container.decode(stream)]
        steps = {round(after - before, 3) for before, after in itertools.pairwise(times)}
        assert len(steps) <= 1, f"no constant frame rate: {sorted(steps)}"
        audio_s = 0.0
        for track in container.streams.audio:
            audio_s = float(track.duration * track.time_base)
    rate = 1 / (times[1] - times[0]) if len(times) > 1 else 0.0
    return len(times), rate, np.zeros(round(audio_s * 16000), np.float32)


def _read_wav(text: str, kind: Kind) -> np.ndarray:
    """base64 of a WAV -> the samples of its data chunk, whatever else is in the file."""
    chunks = dict(_chunks(base64.b64decode(text, validate=True)))
    _, num_channels, rate_hz, _, _, bits = struct.unpack("<HHIIHH", chunks.pop(b"fmt "))
    assert (rate_hz, num_channels, bits) == (16000, 1, 16)
    samples_S = np.frombuffer(chunks.pop(b"data"), "<i2")
    if chunks and not kind.takes_padding:
        raise Refused(400, "Invalid audio file")
    return samples_S.astype(np.float32) / 32768


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """A RIFF file -> each chunk's name and content."""
    assert data[:4] == b"RIFF" and data[8:12] == b"WAVE" and struct.unpack_from("<I", data, 4)[0] == len(data) - 8
    at = 12
    while at < len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        yield name, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _logprobs(text: str) -> Body:
    """Every word is a token, its log-probability is minus a tenth of its length; the first has letters beside it."""
    first = [{"token": letter, "logprob": -1.0 - index} for index, letter in enumerate("BACD")]
    tokens = [{"token": word, "logprob": -len(word) / 10, "top_logprobs": first} for word in text.split()]
    return {"content": tokens}


def _events(texts: list[str], usage: Body | None) -> Iterator[bytes]:
    def event(data: Any) -> bytes:
        return f"data: {json.dumps(data)}\n\n".encode()

    for index, text in enumerate(texts):
        for word in text.split(" "):
            yield event({"choices": [{"index": index, "delta": {"content": f"{word} "}, "finish_reason": None}]})
        yield event({"choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]})
    if usage is not None:
        yield event({"choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is part of the game."""


def _handler_of(engine: ScriptedEngine) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = 65_536
        timeout = 60

        def do_GET(self) -> None:
            if self.path != "/v1/models" or engine.kind.owned_by is None:
                self._send({"error": {"message": "no such route"}}, status=404)
                return
            row = {"id": "omni", "object": "model", "owned_by": engine.kind.owned_by, "max_model_len": 32768}
            self._send({"object": "list", "data": [row]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            engine.headers.append(dict(self.headers))
            engine.bodies.append(body)
            with engine.busy():
                try:
                    payload = engine.reply_to(body)
                except Refused as error:
                    self._send({"error": {"message": error.message, "code": error.status}}, status=error.status)
                    return
            kind = "text/event-stream" if body.get("stream") else "application/json"
            self._send_raw(payload, status=200, kind=kind)

        def _send(self, data: Any, *, status: int = 200) -> None:
            self._send_raw(json.dumps(data).encode(), status=status, kind="application/json")

        def _send_raw(self, payload: bytes, *, status: int, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    return Handler
