"""What each dialect sends: types, order, exact shapes, and what it refuses before anything is sent."""

import base64
import io
import wave
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from avcap.engines import dashscope
from avcap.engines.dialect import Limits, frame_rate
from avcap.engines.dialects import DIALECTS, detect
from avcap.engines.spec import NAMES, EngineSpec
from avcap.errors import UserError
from avcap.llm.dialect import OPTIONAL
from avcap.media.clip import Clip

FPS = Fraction(2)


def clip(*, frames: int = 4, audio_s: float = 1.0, seconds: float = 2.0) -> Clip:
    rng = np.random.default_rng(0)
    return Clip(
        path="a.mp4",
        frames_THWC=rng.integers(0, 256, (frames, 64, 96, 3), dtype=np.uint8),
        frame_times_T=np.arange(frames) / float(FPS),
        lead_in_frame_HWC=None,
        waveform_S=np.linspace(-1, 1, round(audio_s * 16000), dtype=np.float32),
        sample_rate_hz=16000,
        start_s=0.0,
        end_s=seconds,
        duration_s=seconds,
        has_video=True,
        has_audio=True,
        num_bad_packets=0,
    )


def bodies(name: str, asked: Clip | None = None):
    return [part.body for part in DIALECTS[name].parts(asked or clip())]


def test_every_dialect_is_there():
    assert set(DIALECTS) == set(NAMES)


TYPES = {
    "vllm": ["video_url", "input_audio"],
    "vllm_omni": ["video_url", "input_audio"],
    "sglang": ["video_url", "audio_url"],
    "llama_cpp": ["input_video", "input_audio"],
    "dashscope": ["video_url", "input_audio"],
    "gemini": ["image_url", "input_audio"],
    "openrouter": ["video_url", "input_audio"],
    "ollama": ["text", "image_url"] * 4 + ["input_audio"],
    "frames": ["text", "image_url"] * 4 + ["input_audio"],
}


@pytest.mark.parametrize("name", NAMES)
def test_video_stands_before_audio(name):
    assert [body["type"] for body in bodies(name)] == TYPES[name]
    assert [body["type"] for body in bodies(name, clip(audio_s=0))] == [
        each for each in TYPES[name] if "audio" not in each
    ]
    assert [body["type"] for body in bodies(name, clip(frames=0))] == TYPES[name][-1:]


URL_STARTS = {
    "vllm": "data:video/mp4;base64,",
    "vllm_omni": "data:video/mp4;base64,",
    "sglang": "data:video/mp4;base64,",
    "openrouter": "data:video/mp4;base64,",
    "gemini": "data:video/mp4;base64,",
    "dashscope": "data:;base64,",
}


@pytest.mark.parametrize("name", sorted(URL_STARTS))
def test_the_video_is_an_mp4_of_constant_rate_without_audio(name):
    body = bodies(name)[0]
    url = body[body["type"]]["url"]
    assert url.startswith(URL_STARTS[name])
    _check_mp4(url.removeprefix(URL_STARTS[name]))


def _check_mp4(text: str) -> None:
    with av.open(io.BytesIO(base64.b64decode(text, validate=True))) as container:
        assert not container.streams.audio
        frames = list(container.decode(container.streams.video[0]))
        assert [float(frame.pts * frame.time_base) for frame in frames] == [0.0, 0.5, 1.0, 1.5]
        assert (frames[0].height, frames[0].width) == (64, 96)


def test_llama_cpp_takes_bare_base64():
    video, audio = bodies("llama_cpp")
    assert set(video) == {"type", "input_video"} and set(video["input_video"]) == {"data"}
    _check_mp4(video["input_video"]["data"])
    _check_wav(audio["input_audio"]["data"])


def test_the_audio_is_a_wav_of_16_khz_mono():
    for name, start in (("vllm", ""), ("ollama", ""), ("gemini", ""), ("dashscope", "data:;base64,")):
        audio = bodies(name)[-1]["input_audio"]
        assert audio["format"] == "wav" and audio["data"].startswith(start)
        _check_wav(audio["data"].removeprefix(start))
    assert bodies("sglang")[-1]["audio_url"]["url"].startswith("data:audio/wav;base64,")


def _check_wav(text: str) -> None:
    with wave.open(io.BytesIO(base64.b64decode(text, validate=True))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth(), file.getnframes()) == (
            16000,
            1,
            2,
            16000,
        )
        samples = np.frombuffer(file.readframes(16000), "<i2")
    assert samples[0] == -32768 and samples[-1] == 32767  # -1 and 1, the latter cut to what 16 bits hold


def test_frames_stand_behind_their_seconds():
    labels = [body["text"] for body in bodies("frames") if body["type"] == "text"]
    assert labels == ["second 0.0:", "second 0.5:", "second 1.0:", "second 1.5:"]
    assert bodies("frames")[1]["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")


def test_fields_of_the_body():
    def fields(name):
        return DIALECTS[name].options(DIALECTS[name].sent(clip()))

    assert fields("vllm") == {
        "chat_template_kwargs": {"enable_thinking": False},
        "mm_processor_kwargs": {"fps": 2.0},
        "media_io_kwargs": {"video": {"num_frames": 4}},
    }
    assert fields("vllm_omni") == {**fields("vllm"), "modalities": ["text"]}
    assert fields("sglang") == {"use_audio_in_video": False, "chat_template_kwargs": {"enable_thinking": False}}
    assert bodies("sglang")[0]["video_url"].items() >= {"fps": 2.0, "max_frames": 4}.items()
    assert fields("dashscope") == {
        "stream": True,
        "stream_options": {"include_usage": True},
        "modalities": ["text"],
        "enable_thinking": False,
    }
    assert all(not fields(name) for name in ("llama_cpp", "ollama", "gemini", "openrouter", "frames"))


def test_fields_that_an_engine_may_refuse_are_optional_to_the_transport():
    asked = {name for dialect in DIALECTS.values() for name in dialect.options(dialect.sent(clip()))}
    assert asked - {"stream", "stream_options"} <= set(OPTIONAL)


def test_a_rate_is_that_of_the_frames_that_are_left():
    # 3 frames at 0, 10.5 and 21 s: one each 10.5 s
    asked = replace(clip(frames=3), frame_times_T=np.array([0.0, 10.5, 21.0]))
    assert frame_rate(asked) == Fraction(2, 21)


def test_the_older_flash_models_get_one_file_with_both():
    one = dashscope.for_model("qwen3-omni-flash")
    (part,) = one.parts(clip())
    with av.open(
        io.BytesIO(base64.b64decode(part.body["video_url"]["url"].removeprefix("data:;base64,")))
    ) as container:
        (audio,) = container.streams.audio
        assert float(audio.duration * audio.time_base) == pytest.approx(1.0, abs=0.1)  # frames of AAC are 64 ms
    assert one.limits.seconds == 150.0
    assert not dashscope.for_model("qwen3.5-omni-plus").video_has_audio


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        (Limits(seconds=1.5), "a.mp4: got 2.0 s for vLLM, expected at most 1.5 s; caption a part of it"),
        (Limits(part_base64_bytes=1000), "MB of base64 for vLLM, expected less than 0.001 MB; caption a part of it"),
        (Limits(least_frames=5), "a.mp4: got 4 frames for vLLM, expected at least 5; raise ?fps="),
    ],
)
def test_what_an_engine_does_not_take_is_one_line(limits, told):
    with pytest.raises(UserError, match=told.replace("?", r"\?").replace(".", r"\.")):
        replace(DIALECTS["vllm"], limits=limits).parts(clip())


@pytest.mark.parametrize(
    ("owner", "dialect"),
    [
        ("vllm", "vllm"),
        ("vllm-omni", "vllm_omni"),
        ("sglang", "sglang"),
        ("llamacpp", "llama_cpp"),
        ("library", "ollama"),
        ("somebody", "frames"),
        (None, "frames"),
    ],
)
def test_a_server_tells_what_it_is(owner, dialect):
    listed = {"data": [{"id": "other", "owned_by": "x"}, {"id": "omni", "owned_by": owner, "max_model_len": 4096}]}
    found = detect(EngineSpec(model="omni", url="http://127.0.0.1/v1"), lambda path: listed if owner else None)
    assert (found.name, found.context_tokens) == (dialect, 4096 if owner else None)


@pytest.mark.parametrize("answer", [None, [], {"data": None}, {"data": ["omni"]}, {"data": [{"owned_by": 3}]}, "x"])
def test_nonsense_of_a_server_means_frames(answer):
    assert detect(EngineSpec(model="omni", url="http://127.0.0.1/v1"), lambda path: answer).name == "frames"
