"""The server with a model of the salmonn2_plus family, which looks at frames of any shape: the same promises."""

import base64
import json

import pytest
from support.served_checkpoint import Served, data_url, media, text
from support.tiny_plus import write_tiny_plus

from avcap.infer.captioner import Captioner
from avcap.media.encode import encode_jpeg, encode_wav
from avcap.media.load import read_clip


@pytest.fixture(scope="module")
def captioner(tmp_path_factory) -> Captioner:
    return Captioner(write_tiny_plus(tmp_path_factory.mktemp("plus") / "model"))


@pytest.fixture(scope="module")
def server(captioner):
    with Served(captioner.folder, open_captioner=lambda: captioner) as server:
        yield server


def test_videos_and_parts_of_them_get_the_captions_of_the_command_line(server, captioner, videos):
    for name in ("a.mp4", "silent.mp4", "audio.m4a"):
        kind = "audio_url" if name.endswith("m4a") else "video_url"
        data = server.ask([media(kind, data_url(videos / name))], max_tokens=8).json()
        caption = captioner.caption(videos / name, max_new_tokens=8)
        assert data["choices"][0]["message"]["content"] == caption.text
        seen = data["avcap"]["seen"]
        assert (seen["visual_tokens"], seen["audio_tokens"]) == (caption.seen.visual_tokens, caption.seen.audio_tokens)
    content = [media("video_url", data_url(videos / "c.mp4"))]
    part = server.ask(content, interval_s=[1, 3], max_tokens=8).json()
    caption = captioner.caption(videos / "c.mp4", interval_s=(1, 3), max_new_tokens=8)
    assert part["choices"][0]["message"]["content"] == caption.text


def test_frames_audio_samples_logprobs_and_streams(server, videos):
    clip = read_clip(videos / "a.mp4")
    frames = [base64.b64encode(encode_jpeg(frame)).decode() for frame in clip.frames_THWC]
    parts = [media("image_url", f"data:image/jpeg;base64,{frame}") for frame in frames]
    audio = media("input_audio", base64.b64encode(encode_wav(clip.waveform_S)).decode())
    content = [*parts, audio, text("What happens?")]
    fields = {"n": 2, "temperature": 1.0, "seed": 3, "max_tokens": 6}
    whole = server.ask(content, logprobs=True, top_logprobs=2, **fields).json()
    assert (whole["avcap"]["seen"]["frames"], whole["avcap"]["seen"]["audio_seconds"]) == (3, 3.0)
    tokens = whole["choices"][0]["logprobs"]["content"]
    assert tokens and all(one["logprob"] <= 0 and len(one["top_logprobs"]) == 2 for one in tokens)
    streamed = server.ask(content, stream=True, **fields).text
    texts = ["", ""]
    for line in streamed.split("\n\n")[:-2]:
        for choice in json.loads(line.removeprefix("data: "))["choices"]:
            texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == [choice["message"]["content"] for choice in whole["choices"]]
