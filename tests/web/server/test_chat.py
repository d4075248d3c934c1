"""A server on loopback with a random tiny checkpoint, asked as clients ask."""

import base64
import hashlib
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from support.served_checkpoint import Served, data_url, media, text

from avcap.infer.captioner import Captioner
from avcap.media.encode import encode_jpeg, encode_wav
from avcap.media.load import read_clip


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


# --- forms of media ---------------------------------------------------------------------------------------------------


def seen_of(reply) -> dict:
    assert reply.status_code == 200, reply.text
    return reply.json()["avcap"]["seen"]


@pytest.fixture(scope="module")
def wav(videos) -> bytes:
    """The audio of c, 4 s."""
    return encode_wav(read_clip(videos / "c.mp4", with_video=False).waveform_S)


def test_audio_comes_in_every_form_and_alone(server, captioner, videos, wav):
    bare = base64.b64encode(wav).decode()
    expected = captioner.caption(videos / "c.mp4", use_video=False)
    for part in (
        media("input_audio", bare),
        media("input_audio", f"data:;base64,{bare}"),
        media("audio_url", f"data:audio/wav;base64,{bare}"),
        media("audio_url", data_url(videos / "c.mp4")),
    ):
        reply = server.ask([part])
        seen = seen_of(reply)
        assert (seen["frames"], seen["audio_seconds"]) == (0, expected.seen.audio_seconds)
        assert seen["audio_tokens"] == expected.seen.audio_tokens and seen["visual_tokens"] == 0
        assert reply.json()["avcap"]["prompt"] == "Describe only what is heard."


def test_audio_beside_a_video_takes_the_place_of_its_own(server, videos, wav):
    audio = media("input_audio", base64.b64encode(wav).decode())
    silent = seen_of(server.ask([media("video_url", data_url(videos / "silent.mp4")), audio]))
    assert (silent["frames"], silent["audio_seconds"]) == (2, 4.0) and not silent["notes"]
    both = seen_of(server.ask([media("video_url", data_url(videos / "a.mp4")), audio]))
    assert (both["frames"], both["audio_seconds"]) == (3, 4.0)
    assert both["notes"] == ["its own audio was left out, as audio was sent beside it"]
    without = seen_of(server.ask([media("video_url", data_url(videos / "a.mp4"))], use_audio_in_video=False))
    assert (without["frames"], without["audio_seconds"], without["audio_tokens"]) == (3, 0.0, 0)


def test_images_are_frames_at_their_seconds(server, captioner, videos, wav):
    clip = read_clip(videos / "a.mp4")
    frames = [encode_jpeg(frame) for frame in clip.frames_THWC]
    urls = [f"data:image/jpeg;base64,{base64.b64encode(frame).decode()}" for frame in frames]
    labelled = [part for k, url in enumerate(urls) for part in (text(f"second {k}.0:"), media("image_url", url))]
    audio = media("input_audio", base64.b64encode(wav).decode())
    reply = server.ask([*labelled, audio, text("What happens?")])
    seen = seen_of(reply)
    assert (seen["frames"], seen["audio_seconds"]) == (3, 4.0)
    details = reply.json()["usage"]["prompt_tokens_details"]
    assert details["image_tokens"] == seen["visual_tokens"] > 0 == details["video_tokens"]
    assert reply.json()["avcap"]["prompt"] == "What happens?"
    assert seen_of(server.ask([media("image_url", urls[0])]))["frames"] == 1
    backwards = server.ask(
        [text("second 2:"), media("image_url", urls[0]), text("second 1:"), media("image_url", urls[1])]
    )
    assert backwards.status_code == 400 and "expected them in order" in backwards.text


def test_an_interval_of_a_video_is_captioned_as_by_the_command_line(server, captioner, videos):
    content = [media("video_url", data_url(videos / "c.mp4"))]
    reply = server.ask(content, interval_s=[1, 3])
    caption = captioner.caption(videos / "c.mp4", interval_s=(1, 3))
    assert reply.json()["choices"][0]["message"]["content"] == caption.text
    assert reply.json()["avcap"]["prompt"] == caption.prompt == "Describe what happens from 1s to 3s."
    late = server.ask(content, interval_s=[1, 30])
    assert late.status_code == 400 and "video_url: got an interval that ends at 30 s" in late.json()["error"]["message"]


def test_text_alone_and_conversations_are_answered(server, videos):
    data = server.ask("How many objects appear?").json()
    assert data["usage"]["prompt_tokens_details"]["video_tokens"] == 0 and data["choices"][0]["message"]["content"]
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": [media("video_url", data_url(videos / "a.mp4"))]},
        {"role": "assistant", "content": "A circle appears."},
        {"role": "user", "content": "How many objects appear?"},
    ]
    seen = seen_of(server.post({"messages": messages, "model": "tiny"}))
    assert seen["frames"] == 3


def test_the_video_of_a_repeated_request_is_encoded_once(server, videos):
    content = [media("video_url", data_url(videos / "short_audio.mp4"))]
    before = server.counted("clips_encoded"), server.counted("features_kept")
    with ThreadPoolExecutor(4) as clients:
        replies = list(
            clients.map(lambda prompt: server.ask([*content, text(prompt)]), ["What?", "Who?", "When?", "What?"])
        )
    texts = [reply.json()["choices"][0]["message"]["content"] for reply in replies]
    assert texts[0] == texts[3]
    assert server.counted("clips_encoded") - before[0] == 1 and server.counted("features_kept") - before[1] == 3


# --- real clients -----------------------------------------------------------------------------------------------------


def test_the_openai_client_reads_answers_streams_logprobs_and_errors(server, videos):
    client = OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    content = [media("video_url", data_url(videos / "a.mp4")), text("Describe the video.")]
    asked = {"model": "tiny", "messages": [{"role": "user", "content": content}], "max_tokens": 6}
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "avcap"
    whole = client.chat.completions.create(**asked, n=2, temperature=1, seed=1, logprobs=True, top_logprobs=3)
    assert len(whole.choices) == 2 and whole.usage.prompt_tokens_details.audio_tokens > 0
    tokens = whole.choices[0].logprobs.content
    assert tokens and all(len(one.top_logprobs) == 3 for one in tokens)
    assert whole.model_extra["avcap"]["seen"]["frames"] == 3
    greedy = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == greedy.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == greedy.choices[0].finish_reason
    with pytest.raises(NotFoundError):
        client.chat.completions.create(**(asked | {"model": "other"}))
    with pytest.raises(BadRequestError, match="stop is not supported"):
        client.chat.completions.create(**asked, stop=["x"])


def test_curl_asks_and_streams(server, videos, tmp_path):
    body = {"messages": [{"role": "user", "content": [media("video_url", data_url(videos / "b.mp4"))]}], "stream": True}
    (tmp_path / "body.json").write_text(json.dumps(body))
    command = [
        "curl",
        "--silent",
        "--fail",
        "--no-buffer",
        "--noproxy",
        "*",
        "--header",
        "Content-Type: application/json",
    ]
    done = subprocess.run(
        [*command, "--data", f"@{tmp_path / 'body.json'}", f"{server.url}/v1/chat/completions"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stdout.endswith("data: [DONE]\n\n")
    assert '"finish_reason": "' in done.stdout


@pytest.mark.slow
def test_our_own_client_captions_through_the_server_and_the_doctor_proves_its_audio(
    server, videos, run, monkeypatch, tmp_path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("COLUMNS", "250")
    code, out, err = run("doctor", server.engine)
    assert (code, err) == (0, "")
    assert "vllm (vLLM): its models are owned by 'avcap'" in out and "video_url: taken" in out
    assert "input_audio: confirmed" in out and "2 answers to one request" in out
    assert "of each token, with the 5 likeliest" in out and "problems    none" in out
    code, out, err = run("caption", videos / "a.mp4", "--model", server.engine)
    assert (code, err) == (0, "")
    head, caption = out.splitlines()
    assert head == "a.mp4  3.0 s: 6 frames, 3.0 s of sound (confirmed)" and caption


def test_a_judge_behind_the_server_is_asked_and_what_it_babbles_is_unscored(
    random_checkpoint, run, monkeypatch, tmp_path
):
    """A random model judges nothing: what counts is that its replies come and no caption has a verdict by accident."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("avcap.llm.chat.FIRST_PAUSE_S", 0.01)
    truth = {"sample_id": "a", "video": "a.mp4", "prompt": "", "reference_caption": "A red circle appears."}
    events = [{"event_id": "e1", "text": "A red circle appears.", "modality": "visual"}]
    (tmp_path / "truth.jsonl").write_text(json.dumps({**truth, "events": events}) + "\n")
    (tmp_path / "captions.jsonl").write_text(json.dumps({"video": "a.mp4", "caption": "A circle."}) + "\n")

    def brief() -> Captioner:
        captioner = Captioner(random_checkpoint)
        captioner.end_ids = set(range(0, len(captioner.tokenizer), 2))  # of the thousands of tokens that it may write
        return captioner

    words = ("evaluate", tmp_path / "captions.jsonl", "--truth", tmp_path / "truth.jsonl", "--out", tmp_path / "report")
    with Served(random_checkpoint, open_captioner=brief) as server:
        _, out, err = run(*words, "--judge", server.engine)
        assert server.counted("requests", status="200") > 0, out + err
    assert "1 unscored" in out + err


# --- the server itself ------------------------------------------------------------------------------------------------


def test_health_metrics_and_the_page(server, videos):
    server.ask([media("video_url", data_url(videos / "a.mp4"))])
    assert server.client.get("/health").json() == {"status": "ok"}
    metrics = server.client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'avcap_requests_total{status="200"} ' in metrics.text and "avcap_model_loaded 1" in metrics.text
    for line in metrics.text.splitlines():  # each is a comment, or a name, labels and a number
        assert line.startswith("# TYPE ") or float(line.rpartition(" ")[2]) >= 0
    page = server.client.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for tag in ("script", "style"):
        inside = page.text.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        assert base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode() in policy
    assert "http://" not in page.text and "https://" not in page.text
    assert server.client.get("/docs").status_code == 404
    assert server.client.get("/docs").json()["error"]["code"] == "not_found"
