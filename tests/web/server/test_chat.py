"""A server on loopback with a random tiny checkpoint, asked as clients ask."""

import json

import pytest
from support.served_checkpoint import Served, data_url, media, text

from avcap.infer.captioner import Captioner


@pytest.fixture(scope="module")
def captioner(random_checkpoint) -> Captioner:
    return Captioner(random_checkpoint)


@pytest.fixture(scope="module")
def server(random_checkpoint, captioner):
    with Served(random_checkpoint, open_captioner=lambda: captioner) as server:
        yield server


def test_a_video_alone_brings_its_own_audio_and_gets_the_caption_of_the_command_line(server, captioner, videos):
    reply = server.ask([media("video_url", data_url(videos / "a.mp4"))])
    caption = captioner.caption(videos / "a.mp4")
    data = reply.json()
    assert reply.status_code == 200, data
    (choice,) = data["choices"]
    assert choice["message"] == {"role": "assistant", "content": caption.text}
    assert choice["finish_reason"] == ("stop" if caption.finished else "length")
    seen = data["avcap"]["seen"]
    assert (seen["frames"], seen["audio_seconds"]) == (caption.seen.frames, caption.seen.audio_seconds) == (3, 3.0)
    assert data["avcap"]["prompt"] == caption.prompt and data["avcap"]["checkpoint"] == caption.checkpoint
    details = data["usage"]["prompt_tokens_details"]
    assert (details["video_tokens"], details["audio_tokens"]) == (
        caption.seen.visual_tokens,
        caption.seen.audio_tokens,
    )
    assert data["usage"]["prompt_tokens"] == sum(details.values())
    assert data["usage"]["completion_tokens"] <= 12


def test_a_stream_is_the_whole_answer_in_pieces(server, videos):
    content = [media("video_url", data_url(videos / "b.mp4")), text("Describe the video.")]
    whole = server.ask(content, n=2, temperature=1.0, seed=5).json()
    reply = server.ask(content, n=2, temperature=1.0, seed=5, stream=True, stream_options={"include_usage": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in reply.text.split("\n\n") if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    texts = {0: "", 1: ""}
    for one in events:
        for choice in one["choices"]:
            texts[choice["index"]] += choice["delta"].get("content", "")
    assert [texts[0], texts[1]] == [choice["message"]["content"] for choice in whole["choices"]]
    assert texts[0] != texts[1] and len(events) > 8
    assert events[-1]["usage"] == whole["usage"]
    (record,) = [one["avcap"] for one in events if "avcap" in one]
    assert record == whole["avcap"]
    reasons = [choice["finish_reason"] for one in events for choice in one["choices"] if choice["finish_reason"]]
    assert reasons == [choice["finish_reason"] for choice in whole["choices"]]
