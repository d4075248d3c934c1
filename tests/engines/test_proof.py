"""Whether audio arrives: by counted tokens, by what is heard, and kept as long as it may be true."""

from dataclasses import replace

import numpy as np
import pytest
from support.scripted_engine import DASHSCOPE_FLASH, FRAMES, KINDS, LLAMA_CPP, SGLANG, VLLM, ScriptedEngine

from avcap.engines import findings as findings_module
from avcap.engines.engine import AudioDropped, Engine, EngineOptions
from avcap.engines.proof import WORDS, Counts, _is_flat, _told_by_tokens, probe_waveform
from avcap.engines.spec import read_engine_spec
from avcap.world.speech import speak


def engine_of(server: ScriptedEngine, *, query: str = "", **options) -> Engine:
    return Engine(read_engine_spec(server.model + query), EngineOptions(timeout_s=20, **options))


def counts(
    *by_length: int, none: int = 100, control: int | None = None, padded: int | None = None, is_apart: bool = False
) -> Counts:
    return Counts(none=none, by_length=by_length, control=control, padded=padded, is_apart=is_apart)


@pytest.mark.parametrize(
    ("counted", "rate"),
    [
        (counts(125, 150, 200), 12.5),  # (100 - 25) / 6 s
        (counts(102, 104, 108), 1.0),
        (counts(300, 500, 900), 100.0),
        (counts(110, 120, 140), 5.0),  # with 10 tokens around: they do not grow
        (counts(126, 150, 201), 12.5),  # rounded: 12 and 12.75 a second
        (counts(125, 150, 200, control=116), 12.5),  # a placeholder for the control
        (counts(125, 150, 200, control=117), None),
        (counts(125, 150, 200, control=200), None),
        (counts(125, 150, 200, padded=125), 12.5),  # 2 s in a file of 8 s
        (counts(125, 150, 200, padded=143), 12.5),  # a quarter of the way from 125 to 200 is 143.75
        (counts(125, 150, 200, padded=144), None),
        (counts(125, 150, 200, padded=200), None),
        (counts(25, 50, 100, none=0, padded=100, is_apart=True), None),  # told apart, and by bytes
        (counts(125, 150, 200, padded=100), 12.5),  # it cannot read the file: that says nothing
        (counts(100, 100, 100), None),
        (counts(475, 475, 475), None),  # a fixed number for each 30 s
        (counts(125, 150, 170), None),  # 12.5, then 5
        (counts(302, 504, 908), None),  # 101 a second
        (counts(101, 102, 104), None),  # half a token a second
        (counts(200, 150, 125), None),
        (None, None),
    ],
)
def test_what_counts_prove(counted, rate):
    found, why = _told_by_tokens(counted)
    assert found == (None if rate is None else pytest.approx(rate, abs=0.01)) and why


def test_flat_is_what_counts_nothing_at_all():
    assert _is_flat(counts(100, 100, 100)) and _is_flat(counts(104, 104, 104))
    assert not _is_flat(counts(475, 475, 475)) and not _is_flat(counts(125, 150, 200)) and not _is_flat(None)


CASES = {
    "counts and hears": (FRAMES, "confirmed"),
    "tells audio apart": (replace(SGLANG, owned_by=None, takes=(*FRAMES.takes,)), "confirmed"),
    "drops it": (replace(FRAMES, has_audio=False), "dropped"),
    "drops it and does not count": (replace(FRAMES, has_audio=False, counts=False), "dropped"),
    "hears and does not count": (replace(FRAMES, counts=False), "confirmed"),
    "counts bytes and drops it": (replace(FRAMES, counts_bytes=True, has_audio=False), "dropped"),
    "counts bytes and hears": (replace(FRAMES, counts_bytes=True), "confirmed"),
    "counts all bytes and drops it": (
        replace(FRAMES, counts_bytes=True, unknown_is_ignored=True, has_audio=False),
        "dropped",
    ),
    "counts all bytes and hears": (replace(FRAMES, counts_bytes=True, unknown_is_ignored=True), "confirmed"),
    "tells bytes apart and drops it": (
        replace(SGLANG, owned_by=None, takes=(*FRAMES.takes,), counts_bytes=True, has_audio=False),
        "dropped",
    ),
    "refuses it": (replace(FRAMES, takes=("text", "image_url")), "dropped"),
    "refuses padding": (replace(FRAMES, takes_padding=False), "confirmed"),
}


@pytest.mark.parametrize("name", CASES)
def test_engines_that_lose_audio_and_such_that_do_not(name):
    kind, arrival = CASES[name]
    with ScriptedEngine(kind) as server, engine_of(server, allow_dropped_audio=True) as engine:
        assert engine.proof(use_video=True).arrival == arrival


def test_a_model_without_audio_that_answers_differently_each_time_is_not_confirmed():
    said = iter(["OK"] * 6 + ["a dog", "two cats"])
    kind = replace(FRAMES, counts=False)
    with ScriptedEngine(kind, answer=lambda asked: next(said)) as server, engine_of(server) as engine:
        proof = engine.proof(use_video=True)
    assert proof.arrival == "sent, not confirmed"
    assert "clips that say lantern and pelican are answered 'a dog' and 'two cats'" in proof.why


def test_naming_both_words_is_no_proof():
    kind = replace(FRAMES, counts=False)
    answer = "lantern or pelican"
    with (
        ScriptedEngine(kind, answer=lambda asked: answer) as server,
        engine_of(server, allow_dropped_audio=True) as engine,
    ):
        assert engine.proof(use_video=True).arrival == "dropped"  # the same to two clips


@pytest.mark.slow
@pytest.mark.parametrize("takes_padding", [True, False])
def test_audio_within_an_mp4_is_proven_by_a_padded_one(takes_padding):
    def proof_of(kind):
        kind = replace(kind, takes_padding=takes_padding)
        with ScriptedEngine(kind) as server:
            model = server.model.replace("omni", "qwen3-omni-flash", 1) + "?dialect=dashscope"
            with Engine(read_engine_spec(model), EngineOptions(allow_dropped_audio=True)) as engine:
                return engine.proof(use_video=True)

    proof = proof_of(DASHSCOPE_FLASH)
    told = "count 25" if takes_padding else "got no answer, which leaves open whether bytes are counted"
    assert proof.arrival == "confirmed" and f"2 s in a file as large as that of 8 s {told}" in proof.why
    if takes_padding:
        assert proof_of(replace(DASHSCOPE_FLASH, counts_bytes=True, has_audio=False)).arrival == "dropped"


@pytest.mark.parametrize("is_apart", [True, False])
def test_tokens_that_follow_the_bytes_prove_no_clip_either(is_apart):
    """25 tokens for each 32,000 bytes, whatever is heard: of 2 s in 256,044 bytes as many as of 8 s."""
    said = iter(["OK"] * 6 + ["a dog", "two cats"])
    kind = replace(FRAMES, counts_bytes=True, details=is_apart)
    with ScriptedEngine(kind, answer=lambda asked: next(said)) as server, engine_of(server) as engine:
        proof = engine.proof(use_video=True)
    assert proof.arrival == "sent, not confirmed" and proof.counts_bytes
    assert "but 2 s in a file as large as that of 8 s count 200: bytes are counted" in proof.why


def test_a_file_that_is_refused_for_its_padding_says_so():
    with ScriptedEngine(replace(VLLM, takes_padding=False)) as server, engine_of(server) as engine:
        proof = engine.proof(use_video=True)
    assert proof.arrival == "confirmed" and proof.tokens_per_s == pytest.approx(12.5)
    assert proof.why.endswith("of 8 s got no answer, which leaves open whether bytes are counted")


def test_dropped_audio_ends_the_run_unless_it_is_allowed():
    with ScriptedEngine(replace(FRAMES, has_audio=False)) as server:
        with engine_of(server) as engine, pytest.raises(AudioDropped, match="--allow-dropped-audio"):
            engine.proof(use_video=True)
        with engine_of(server, allow_dropped_audio=True) as engine:
            assert engine.proof(use_video=True).arrival == "dropped"


def test_probes_show_video_as_real_requests_do():
    """An engine may lose audio beside video alone."""
    with ScriptedEngine(VLLM) as server, engine_of(server) as engine:
        engine.proof(use_video=True)
        assert [one.types for one in server.asked[1:]] == [("video_url", "text")] + 4 * [
            ("video_url", "input_audio", "text")
        ]
        assert [one.audio_s for one in server.asked] == [0, 0, 2, 4, 8, 2]  # the form of the video first
        sizes = [one.audio_bytes for one in server.asked[-3:]]
        assert sizes == [128_044, 256_044, 256_044]  # 32,000 bytes a second and a head of 44; the last is padded
        engine.proof(use_video=False)
        assert server.asked[-1].types == ("input_audio", "text")


def test_what_is_known_is_not_asked_again(tmp_path, monkeypatch):
    def proof_of(server, query="", **options):
        with engine_of(server, query=query, findings=tmp_path, **options) as engine:
            return engine.proof(use_video=True)

    with ScriptedEngine(LLAMA_CPP) as server:
        first = proof_of(server)
        num_asked = len(server.bodies)
        assert num_asked >= 6 and proof_of(server) == first and len(server.bodies) == num_asked
        proof_of(server, query="?fps=1")  # other settings
        assert len(server.bodies) == 2 * num_asked
        monkeypatch.setattr(findings_module, "KEPT_S", 0.0)
        proof_of(server)
        assert len(server.bodies) == 3 * num_asked


def test_audio_that_was_dropped_is_looked_for_again(tmp_path):
    with ScriptedEngine(replace(FRAMES, has_audio=False)) as server:
        with engine_of(server, findings=tmp_path) as engine, pytest.raises(AudioDropped):
            engine.proof(use_video=True)
        server.kind = FRAMES  # mended
        with engine_of(server, findings=tmp_path) as engine:
            assert engine.proof(use_video=True).arrival == "confirmed"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_each_engine_is_confirmed(kind):
    query = "" if kind.owned_by else f"?dialect={kind.name}"
    with ScriptedEngine(kind) as server, engine_of(server, query=query) as engine:
        proof = engine.proof(use_video=True)
    assert proof.arrival == "confirmed" and proof.tokens_per_s == pytest.approx(kind.audio_per_s)
    assert proof.tells_audio == kind.details


@pytest.mark.parametrize("word", WORDS)
def test_the_probe_clips_are_a_code_word_and_three_beeps(word):
    """As they were made: spoken by the world's voice, then three beeps of 880 Hz."""
    spoken_S = speak(f"The code word is {word}.", voice="en-us+f3", speed_wpm=150, pitch=50) * 0.6
    times_S = np.arange(2400) / 16000
    beep_S = 0.35 * np.sin(2 * np.pi * 880 * times_S) * np.minimum(1, np.minimum(times_S, times_S[::-1]) / 0.01)
    pause_S, silence_S = np.zeros(2400), np.zeros(3200)
    made_S = np.concatenate([silence_S, spoken_S, silence_S, *([beep_S, pause_S] * 3), silence_S])
    kept_S = probe_waveform(word)
    assert len(kept_S) == len(made_S) and np.abs(kept_S - made_S).max() < 1e-4
