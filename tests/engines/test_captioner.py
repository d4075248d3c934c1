"""Captions by models behind engines: a caption and a refusal of each kind, and what records say of them."""

import json
import logging
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from support.scripted_engine import (
    DASHSCOPE,
    DASHSCOPE_FLASH,
    FRAMES,
    GEMINI,
    KINDS,
    OLLAMA,
    SGLANG,
    VLLM,
    ScriptedEngine,
    describe,
)

from avcap.captioners import find_source, open_engine_captioner
from avcap.data.request import Request
from avcap.engines.captioner import ENGINE_PROMPTS, EngineCaptioner, said
from avcap.engines.engine import AudioDropped, EngineOptions
from avcap.engines.spec import read_engine_spec
from avcap.errors import UserError
from avcap.llm.budget import Budget, Price
from avcap.llm.cache import ReplyCache
from avcap.llm.types import Choice
from avcap.records import Caption, CaptionError, Decoding, Sample, Seen

GREEDY = Request(decoding=Decoding(max_new_tokens=64))
SAMPLED = Request(decoding=Decoding(max_new_tokens=64, temperature=0.7, seed=5))
KEY = "sk-this-is-the-key-of-the-engine"


def captioner_of(server: ScriptedEngine, *, query: str = "", model: str = "omni", **options) -> EngineCaptioner:
    spec = read_engine_spec(f"openai:{model}@{server.url}{query}")
    return open_engine_captioner(spec, EngineOptions(**{"timeout_s": 20, **options}))


def query_of(kind) -> str:
    return "" if kind.owned_by else f"?dialect={kind.name}"


@pytest.fixture
def talk(videos: Path) -> str:
    """3 s of video with audio."""
    return str(videos / "a.mp4")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_caption_of_each_engine(kind, talk):
    frames = 3 if kind.name in ("ollama", "frames", "gemini") else 6  # 1 a second, or 2
    with ScriptedEngine(kind) as server, captioner_of(server, query=query_of(kind)) as captioner:
        (row,) = captioner.stream([talk], GREEDY)
        (asked,) = server.captions
    assert isinstance(row, Caption), row
    assert row.text == f"A video of {frames} frames with 3.0 s of audio."
    assert row.checkpoint == f"openai:omni@{server.url}{query_of(kind)}"
    tokens = (60 * frames, round(3.008 * kind.audio_per_s)) if kind.details else (None, None)
    assert row.seen.audio == "confirmed" and row.seen.frames == frames
    assert row.seen.visual_tokens == tokens[0]
    assert row.seen.audio_tokens in (tokens[1], tokens[1] and tokens[1] - 1)  # AAC pads 3 s to 3.0 or 3.05 s
    assert row.seen.audio_seconds == asked.audio_s == pytest.approx(3.0, abs=0.06)
    assert row.finished and row.duration_s == pytest.approx(3.0, abs=0.06) and row.prompt == asked.text
    assert asked.types[-1] == "text" and asked.body["temperature"] == 0.0 and asked.body["max_tokens"] == 64


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_refusal_of_each_engine_is_one_line(kind, talk):
    said = "This model's maximum context length is 4096 tokens. However, your prompt has 9000."

    def refuse_captions(asked):
        return None if asked.text == "Say OK." else (400, said)

    with (
        ScriptedEngine(kind, script=refuse_captions) as server,
        captioner_of(server, query=query_of(kind)) as captioner,
    ):
        (row,) = captioner.stream([talk], GREEDY)
    assert row == CaptionError(
        sample_id=talk, video=talk, error=f"{talk}: {captioner.checkpoint} gave no answer: status 400: {said}"
    )


def test_the_older_flash_model_is_shown_one_file(talk):
    with ScriptedEngine(DASHSCOPE_FLASH) as server:
        with captioner_of(server, query="?dialect=dashscope", model="qwen3-omni-flash") as captioner:
            (row,) = captioner.stream([talk], GREEDY)
        assert server.captions[0].types == ("video_url", "text")
        assert row.seen.audio == "confirmed" and row.seen.audio_tokens > 0
        # told apart: another model of the same address takes both, which this one refuses
        with (
            captioner_of(server, query="?dialect=dashscope") as captioner,
            pytest.raises(AudioDropped, match="modality"),
        ):
            list(captioner.stream([talk], GREEDY))


def test_rows_stand_in_order_with_errors_in_their_places(videos, tmp_path):
    (tmp_path / "broken.mp4").write_text("no video")
    paths = [str(path) for path in (videos / "a.mp4", tmp_path / "broken.mp4", videos / "b.mp4", tmp_path / "gone.mp4")]
    with ScriptedEngine(VLLM) as server, captioner_of(server) as captioner:
        rows = list(captioner.stream(paths, GREEDY))
    assert [row.video for row in rows] == paths
    assert [type(row) for row in rows] == [Caption, CaptionError, Caption, CaptionError]
    assert rows[0].text.startswith("A video of 6") and rows[2].text.startswith("A video of 4")


def test_a_video_without_audio_needs_no_proof(videos):
    without_audio = replace(VLLM, takes=("text", "image_url", "video_url"))
    with ScriptedEngine(without_audio) as server, captioner_of(server) as captioner:
        (row,) = captioner.stream([str(videos / "silent.mp4")], GREEDY)
        assert [one.audio_s for one in server.asked] == [0, 0]
        assert row.seen == Seen(frames=4, audio_seconds=0.0, visual_tokens=None, audio_tokens=None)
        assert row.prompt == ENGINE_PROMPTS.video_only
        with pytest.raises(AudioDropped, match="the engine refuses audio: status 400: Unknown part type: input_audio"):
            list(captioner.stream([str(videos / "a.mp4")], GREEDY))


def test_allowed_to_lose_audio_it_sends_none_and_says_so(talk):
    without_audio = replace(VLLM, takes=("text", "image_url", "video_url"))
    with ScriptedEngine(without_audio) as server, captioner_of(server, allow_dropped_audio=True) as captioner:
        (row,) = captioner.stream([talk], GREEDY)
        assert server.captions[0].types == ("video_url", "text")
    assert row.seen.audio == "dropped" and row.seen.audio_seconds == 0.0 and row.prompt == ENGINE_PROMPTS.video_only
    GREEDY.check_same(row, checkpoint=captioner.checkpoint, prompts=ENGINE_PROMPTS)


def test_one_row_whose_audio_was_lost_is_an_error(videos):
    """Asked one after the other: of b, which has 4 frames, it counts no audio."""
    with ScriptedEngine(SGLANG) as server, captioner_of(server, concurrency=1) as captioner:

        def lose_second(asked):
            if asked.frames == 4 and asked.text != "Say OK.":
                server.kind = replace(SGLANG, has_audio=False)
            return None

        server.script = lose_second
        first, second = captioner.stream([str(videos / "a.mp4"), str(videos / "b.mp4")], GREEDY)
    assert first.seen.audio == "confirmed"
    assert "its audio of 2.0 s did not reach the model: the engine counted no token of it" in second.error


def test_a_prompt_shorter_than_its_audio_cannot_have_it(videos):
    """Without picture: 12.5 tokens a second are known, and 20 tokens for 3 s are less than half of 37."""
    fast = replace(FRAMES, audio_per_s=50.0)
    with ScriptedEngine(fast) as server, captioner_of(server, allow_dropped_audio=True) as captioner:
        request = replace(GREEDY, use_video=False)
        (before,) = captioner.stream([str(videos / "a.mp4")], request)
        server.kind = replace(fast, has_audio=False)
        (after,) = captioner.stream([str(videos / "b.mp4")], request)
    assert (before.seen.audio, after.seen.audio) == ("confirmed", "dropped")
    assert before.prompt == ENGINE_PROMPTS.audio_only and before.seen.frames == 0


def test_an_interval_tells_its_seconds(videos):
    with ScriptedEngine(FRAMES) as server, captioner_of(server) as captioner:
        (row,) = captioner.stream([str(videos / "c.mp4")], replace(GREEDY, interval_s=(1, 3)))
        (asked,) = server.captions
    texts = [part["text"] for part in asked.body["messages"][0]["content"] if part["type"] == "text"]
    assert texts[:-1] == ["second 1.0:", "second 2.0:"] and asked.audio_s == 2.0
    assert texts[-1] == row.prompt and "from 1s to 3s" in row.prompt and row.interval_s == (1, 3)


def test_a_sample_brings_its_own_prompt(talk):
    sample = Sample(sample_id="s", video=talk, prompt="What is said?", interval_s=(0, 2))
    with ScriptedEngine(VLLM) as server, captioner_of(server) as captioner:
        (row,) = captioner.stream([sample], GREEDY)
        assert server.captions[0].text == row.prompt == "What is said?" and row.sample_id == "s"


@pytest.mark.parametrize("kind", [VLLM, OLLAMA, replace(VLLM, n="refused")], ids=["n", "ignored", "refused"])
def test_several_answers(kind, talk):
    number = iter(range(100))
    answer = describe if kind.n == "yes" else lambda asked: f"{describe(asked)} ({next(number)})"
    with ScriptedEngine(kind, answer=answer) as server, captioner_of(server) as captioner:
        rows = list(captioner.sample([talk], SAMPLED, num_answers=3))
    assert len({row.text for row in rows}) == len({row.caption_id for row in rows}) == 3
    assert [row.decoding.seed for row in rows] == [5, 6, 7]
    seeds = sorted(one.body["seed"] for one in server.captions)  # those after the first are asked side by side
    assert seeds == ([5] if kind.n == "yes" else [5, 6, 7])
    assert server.captions[0].body.get("n") == (None if kind.n == "refused" else 3)


def test_several_greedy_answers_would_be_one(talk):
    with (
        ScriptedEngine(VLLM) as server,
        captioner_of(server) as captioner,
        pytest.raises(UserError, match="temperature"),
    ):
        list(captioner.sample([talk], GREEDY, num_answers=2))


def test_thoughts_are_no_caption(videos):
    def think(asked):
        if asked.text == "Say OK.":
            return "OK"
        return f"<think>Is it a cat? {asked.frames}</think>\n\nA dog barks." if asked.frames != 4 else "<think>Hm"

    with ScriptedEngine(VLLM, answer=think) as server, captioner_of(server) as captioner:
        first, second = captioner.stream([str(videos / "a.mp4"), str(videos / "b.mp4")], GREEDY)
    assert first.text == "A dog barks."
    assert "got nothing but thoughts" in second.error


def test_an_empty_draw_among_several_is_kept_and_nothing_but_empty_ones_is_an_error():
    choices = [Choice(text=text) for text in ("A cat.", " ", "<think>Hm</think>")]
    assert said(choices, path="a.mp4", engine="e") == ["A cat.", "", ""]
    with pytest.raises(UserError, match=r"a\.mp4: got an empty answer of e"):
        said(choices[1:], path="a.mp4", engine="e")
    with pytest.raises(UserError, match="got nothing but thoughts"):
        said(choices[2:], path="a.mp4", engine="e")


def test_fields_that_are_refused_are_left_out_and_told(talk, caplog):
    """Gemini's endpoint knows no top_k: it is asked once more without, and that is said."""
    request = Request(decoding=Decoding(max_new_tokens=64, temperature=0.7, top_k=5))
    with (
        ScriptedEngine(GEMINI) as server,
        caplog.at_level(logging.WARNING, logger="avcap"),
        captioner_of(server, query="?dialect=gemini") as captioner,
    ):
        (row,) = captioner.stream([talk], request)
    assert isinstance(row, Caption)
    assert "the engine refused top_k, and is asked without it" in caplog.text


def test_an_engine_that_refuses_its_form_of_video_gets_frames(talk, caplog):
    old = replace(SGLANG, owned_by="llamacpp", takes=("text", "image_url", "input_audio"), details=False)
    with ScriptedEngine(old) as server, caplog.at_level(logging.WARNING, logger="avcap"):
        with captioner_of(server) as captioner:
            (row,) = captioner.stream([talk], GREEDY)
        assert server.captions[0].types == ("text", "image_url") * 3 + ("input_audio", "text")
        assert "video is sent as frames, as the engine said: status 400: 1 validation error" in caplog.text
        assert row.seen.frames == 3
        with (
            captioner_of(server, query="?dialect=llama_cpp") as captioner,
            pytest.raises(UserError, match=r"try \?dialect=frames"),
        ):
            list(captioner.stream([talk], GREEDY))


def test_an_engine_that_sees_nothing_is_told_in_one_line(talk):
    blind = replace(FRAMES, takes=("text", "input_audio"))
    with ScriptedEngine(blind) as server, captioner_of(server) as captioner:
        with pytest.raises(UserError, match=r"use a model that sees, or leave the video out \(--no-video\)"):
            list(captioner.stream([talk], GREEDY))
        (row,) = captioner.stream([talk], replace(GREEDY, use_video=False))
    assert row.seen.audio == "confirmed"


def test_the_key_reaches_no_record_error_or_cache(talk, tmp_path, caplog):
    """Not even where a server repeats it in a caption and in an error."""

    def leak(asked):
        return f"The key is {KEY}." if asked.text != "Say OK." else "OK"

    cache = ReplyCache(tmp_path / "replies.sqlite")
    options = {"key": KEY, "cache": cache, "findings": tmp_path / "findings"}
    with ScriptedEngine(VLLM, answer=leak) as server, captioner_of(server, **options) as captioner:
        (row,) = captioner.stream([talk], GREEDY)
        assert server.headers[-1]["Authorization"] == f"Bearer {KEY}"
        server.script = lambda asked: (400, f"bad request with key {KEY}")
        (error,) = captioner.stream([talk], SAMPLED)
    cache.close()
    assert row.text == "The key is [key]." and "[key]" in error.error
    shown = [repr(row), repr(error), caplog.text, repr(options | {"key": None}), repr(captioner.engine.options)]
    shown += [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    assert all(KEY not in text for text in shown)


def test_a_wrong_key_names_the_variable(talk):
    with (
        ScriptedEngine(VLLM, script=lambda asked: (401, "Unauthorized")) as server,
        captioner_of(server) as captioner,
        pytest.raises(UserError) as caught,
    ):
        list(captioner.stream([talk], GREEDY))
    assert str(caught.value).startswith("engine openai:omni at http://") and "set OPENAI_API_KEY" in str(caught.value)


def test_captions_that_were_paid_for_come_from_the_cache(talk, tmp_path):
    rows = []
    with ScriptedEngine(VLLM) as server:
        for _ in range(2):
            cache = ReplyCache(tmp_path / "replies.sqlite")
            with captioner_of(server, cache=cache, findings=tmp_path) as captioner:
                rows.append(list(captioner.sample([talk], SAMPLED, num_answers=3)))
            cache.close()
        assert rows[0] == rows[1] and len(rows[0]) == 3
        assert len(server.captions) == 1


def test_a_budget_is_kept(videos):
    """$1 a token of output, none for input: a caption may cost $64, and two of them $128."""
    prices = {"omni": Price(input=0, output=1_000_000)}
    paths = [str(videos / f"{name}.mp4") for name in "abc"]
    budget = Budget(16 * 7 + 64 + 20)
    with ScriptedEngine(VLLM) as server, captioner_of(server, budget=budget, prices=prices, concurrency=1) as captioner:
        rows = list(captioner.stream(paths, GREEDY))
    # the probes cost $10 each: 5 of them; then one caption of $10, after which $64 are left for the next two
    assert budget.spent_usd <= budget.limit_usd
    assert isinstance(rows[0], Caption)


def test_many_are_in_flight_while_files_are_decoded(videos):
    paths = [str(videos / f"{name}.mp4") for name in "abc"] * 4
    with ScriptedEngine(VLLM, delay_s=0.15) as server, captioner_of(server, concurrency=4) as captioner:
        rows = list(captioner.stream(paths, GREEDY))
    assert [row.video for row in rows] == paths and 2 <= server.most_at_once <= 4


def test_left_early_nothing_is_left_running(videos):
    before = threading.active_count()
    with ScriptedEngine(VLLM) as server, captioner_of(server) as captioner:
        rows = captioner.stream([str(videos / "a.mp4")] * 5, GREEDY)
        next(rows)
        rows.close()
    assert threading.active_count() <= before + 1  # the server's


def test_a_stream_that_breaks_off_is_asked_again(talk):
    times = iter(range(100))

    def cut_once(asked):
        return "cut" if asked.text != "Say OK." and next(times) == 0 else None

    class Cutting(ScriptedEngine):
        def reply_to(self, body):
            payload = super().reply_to(body)
            return payload[: len(payload) // 3] if cut_once(self.asked[-1]) else payload

    with Cutting(DASHSCOPE) as server, captioner_of(server, query="?dialect=dashscope") as captioner:
        (row,) = captioner.stream([talk], GREEDY)
        assert row.text == "A video of 6 frames with 3.0 s of audio." and len(server.captions) == 2


def test_a_source_says_what_must_be_known_before_it_is_opened():
    source = find_source("openai:omni@http://127.0.0.1:1/v1?fps=1")
    assert source.name == "openai:omni@http://127.0.0.1:1/v1?fps=1.0" and source.folder is None
    assert find_source("tiny").folder is not None and find_source("tiny").engine is None
    assert json.dumps(source.prompts.choose(interval_s=(1, 2), has_video=True, has_audio=True)).count("1s to 2s") == 1
