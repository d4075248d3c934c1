"""The commands with a model behind an engine, as a user has them: what is printed, written, refused."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.scripted_engine import FRAMES, OLLAMA, VLLM, ScriptedEngine

from avcap.cli.rounds import sampler_name
from avcap.errors import UserError
from avcap.infer.caption_file import read_rows
from avcap.records import Caption, CaptionError

EXAMPLES = Path(__file__).parent.parent / "examples"
KEY = "sk-this-is-the-key-of-the-engine"


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("AVCAP_ENGINE_KEY", KEY)
    monkeypatch.setattr("avcap.llm.chat.FIRST_PAUSE_S", 0.01)


@pytest.fixture
def engine():
    with ScriptedEngine(VLLM) as server:
        yield server


def test_a_caption_is_printed_with_what_was_seen(engine, videos, run):
    code, out, err = run("caption", videos / "a.mp4", videos / "silent.mp4", "--model", engine.model)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "a.mp4  3.0 s: 6 frames, 3.0 s of sound (confirmed)",
        "A video of 6 frames with 3.0 s of audio.",
        "",
        "silent.mp4  2.0 s: 4 frames, no sound track",
        "A video of 4 frames with 0.0 s of audio.",
    ]
    assert {headers["Authorization"] for headers in engine.headers} == {f"Bearer {KEY}"}


def test_a_file_of_captions_is_gone_on_with(engine, videos, tmp_path, run):
    out = tmp_path / "captions.jsonl"
    words = (
        "caption",
        videos / "a.mp4",
        videos / "b.mp4",
        tmp_path / "gone.mp4",
        "--model",
        engine.model,
        "--out",
        out,
    )
    code, _, err = run(*words)
    assert code == 1 and "2 captions written, 1 errors, 0 captions were there already" in err
    rows = list(read_rows(out))
    assert [type(row) for row in rows] == [Caption, Caption, CaptionError]
    first = json.loads(out.read_text().splitlines()[0])
    assert first["checkpoint"] == engine.model and first["seen"]["audio"] == "confirmed"
    asked = len(engine.bodies)
    code, _, err = run(*words)
    assert code == 1 and "0 captions written, 1 errors, 2 captions were there already" in err
    assert len(engine.bodies) == asked  # nothing of what is known is asked again
    assert KEY not in "".join(path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file())
    code, _, err = run(*words[:4], "--model", f"{engine.model}?fps=1", "--out", out)
    assert code == 2 and "got captions of model" in err and "choose another --out" in err


def test_interval_prompt_and_sampling_reach_the_engine(engine, videos, run):
    code, out, _ = run(
        "caption",
        videos / "c.mp4",
        "--model",
        engine.model,
        "--start",
        1,
        "--end",
        3,
        "--prompt",
        "What is heard?",
        "--temperature",
        0.5,
        "--top-p",
        0.9,
        "--seed",
        7,
        "--max-new-tokens",
        99,
    )
    assert code == 0 and out.startswith("c.mp4  1 to 3 s of 4.0 s: 4 frames, 2.0 s of sound (confirmed)")
    (asked,) = engine.captions
    expected = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "max_tokens": 99}
    assert asked.text == "What is heard?" and expected.items() <= asked.body.items()


def test_dropped_audio_ends_the_run(videos, run, tmp_path):
    with ScriptedEngine(replace(FRAMES, has_audio=False)) as server:
        words = ("caption", videos / "a.mp4", "--model", server.model)
        code, out, err = run(*words, "--out", tmp_path / "captions.jsonl")
        assert code == 2 and out == "" and err.count("\n") == 1
        said = "audio does not reach the model: 2, 4 and 8 s of audio count 0, 0, 0"
        assert err.startswith(f"avcap: {server.model}: {said}")
        assert list(read_rows(tmp_path / "captions.jsonl")) == [] and server.captions == []
        code, out, err = run(*words, "--allow-dropped-audio")
        assert code == 0 and "a.mp4  3.0 s: 3 frames, its sound was dropped" in out and "does not reach" in err
        code, out, _ = run(*words, "--no-audio")
        assert code == 0 and "3 frames, sound left out" in out


def test_a_server_that_is_not_there_is_one_line(videos, run):
    code, _, err = run("caption", videos / "a.mp4", "--model", "openai:omni@http://127.0.0.1:9/v1")
    assert code == 2 and err.count("\n") == 1 and "engine openai:omni: cannot connect" in err


@pytest.mark.parametrize("option", [("--device", "cuda"), ("--quantize", "8bit"), ("--official",)])
def test_options_of_weights_are_refused(option, engine, videos, run):
    code, _, err = run("caption", videos / "a.mp4", "--model", engine.model, *option)
    assert code == 2 and f"got {' '.join(option)} and a model behind an engine" in err


def test_doctor_tells_what_an_engine_takes(engine, run):
    code, out, err = run("doctor", engine.model)
    assert (code, err) == (0, "")
    assert [line.split(maxsplit=1) for line in out.splitlines()[1:]] == [
        ["dialect", "vllm (vLLM): its models are owned by 'vllm'"],
        ["video", "video_url: taken"],
        [
            "audio",
            "input_audio: confirmed; 2, 4 and 8 s of audio count 25, 50, 100 tokens: 12.5 a second; a part of "
            "no known type with as many bytes is refused; 2 s in a file as large as that of 8 s count 25",
        ],
        ["n", "2 answers to one request"],
        ["log-probs", "of each token, with the 4 likeliest"],
        ["left", "out    nothing"],
        ["limits", "128 frames, 2 a second, of 409,920 pixels, 32,768 tokens of prompt and answer"],
        ["problems", "none"],
    ]


def test_doctor_of_an_engine_that_loses_audio(run):
    with ScriptedEngine(replace(OLLAMA, has_audio=False)) as server:
        code, out, err = run("doctor", server.model)
    assert code == 1 and "audio does not reach the model" in err
    assert "input_audio: dropped" in out and "one answer to a request" in out and "none: questions are answered" in out


def test_doctor_of_an_engine_that_only_hears(run):
    with ScriptedEngine(replace(FRAMES, takes=("text", "input_audio"))) as server:
        code, out, err = run("doctor", server.model)
    assert code == 1 and "use a model that sees" in err
    assert "video       refused" in out and "audio       input_audio: confirmed" in out


def test_doctor_asks_anew(engine, run, tmp_path):
    run("doctor", engine.model)
    num_asked = len(engine.bodies)
    run("doctor", engine.model)
    assert len(engine.bodies) == 2 * num_asked


@pytest.mark.slow
def test_the_tiny_model_loads_nothing_of_engines(videos):
    code = (
        "import sys; sys.argv = ['avcap', 'caption', sys.argv[1]]\n"
        "from avcap.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "loaded = [name for name in sys.modules if name.startswith('avcap.engines.')]\n"
        "assert loaded == ['avcap.engines.spec'], loaded"
    )
    done = subprocess.run([sys.executable, "-c", code, str(videos / "b.mp4")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_folder(videos: Path, engine, run):
    code, out, _ = run("caption", videos, "--model", engine.model)
    assert code == 0 and out.count("A video of") == 6


def test_a_sampler_may_be_a_url_alone(engine):
    assert sampler_name(engine.url) == engine.model
    assert sampler_name(f"{engine.url}?fps=1") == f"{engine.model}?fps=1"
    assert sampler_name(engine.model) == engine.model
    with ScriptedEngine(FRAMES) as silent, pytest.raises(UserError, match="no model is listed there"):
        sampler_name(silent.url)


def test_plan_tells_tokens_and_money(engine, videos, tmp_path, run):
    """a, b and c have 3, 2 and 4 s; known to be vLLM with 12.5 tokens of audio a second, after one caption."""
    prices = tmp_path / "prices.yaml"
    prices.write_text("omni: {input: 1.0, output: 2.0}\n")
    paths = [videos / f"{name}.mp4" for name in "abc"]
    _, out, _ = run("plan", *paths, "--model", engine.model, "--prices", prices)
    assert "its dialect is not known yet, and frames were counted" in out and engine.bodies == []
    run("caption", paths[0], "--model", engine.model)
    asked = len(engine.bodies)
    code, out, err = run("plan", *paths, "--model", engine.model, "--prices", prices)
    assert (code, err) == (0, "") and len(engine.bodies) == asked
    assert "assumed" not in out and "of 18 frames" in out  # 2 a second
    audio = int(out.split(" frames, ")[1].split(" of audio")[0])
    assert audio == pytest.approx(12.5 * 9, abs=2)
    assert "up to 3,072 written" in out  # 3 * 1024, of $2 a million: 0.6 cents and what is read
    assert "about $0.01" in out


def test_plan_expects_files_or_a_length(engine, videos, run):
    code, _, err = run("plan", "--model", engine.model)
    assert code == 2 and "got files and --video, or neither" in err
    code, _, err = run("plan", videos, "--model", "tiny", "--train")
    assert code == 2 and "got files and --train" in err
    code, out, _ = run("plan", "--video", "10s", "--model", f"{engine.model}?dialect=gemini")
    assert code == 0 and "2,650 of 10 frames, 320 of audio" in out  # 265 a frame, 32 a second


@pytest.mark.parametrize(
    "words", [("evaluate", "--out", "report"), ("pairs", "build", "--out", "pairs.jsonl", "-n", 2)], ids=str
)
def test_replies_are_kept_and_paid_for_once_where_captions_are_made_on_the_way(words, run, tmp_path, monkeypatch):
    """4 samples; what they cost is known by --prices. Without the captions' file, the second run asks for none."""
    monkeypatch.chdir(tmp_path)
    Path("prices.yaml").write_text("omni: {input: 1.0, output: 2.0}\n")
    truth = tmp_path / "world"
    truth.mkdir()
    for path in (*EXAMPLES.glob("*.mp4"), EXAMPLES / "truth.jsonl"):
        (truth / path.name).symlink_to(path)
    with ScriptedEngine(VLLM, delay_s=0.1) as server:
        words = (*words, "--truth", truth, "--model", server.model, "--cache", "mine.sqlite", "--prices", "prices.yaml")
        code, _, err = run(*words, "--budget", 0.0001)
        assert code == 2 and "budget" in err and server.captions == [], err
        assert run(*words, "--budget", 10, "--concurrency", 2)[0] == 0
        num_asked = len(server.captions)
        assert num_asked >= 4 and server.most_at_once == 2 and Path("mine.sqlite").is_file()
        for path in tmp_path.rglob("*captions.jsonl"):
            path.unlink()
        assert run(*words, "--budget", 10, "--timeout", 30)[0] == 0
        assert len(server.captions) == num_asked
        for path in tmp_path.rglob("*captions.jsonl"):
            path.unlink()
        code, _, err = run(*words, "--timeout", 0)
        assert code == 2 and "engine: got timeout 0.0, expected" in err


def test_samples_are_whole_and_gone_on_with(engine, videos, tmp_path, run):
    out = tmp_path / "some.jsonl"
    words = ("sample", videos / "a.mp4", videos / "b.mp4", tmp_path / "gone.mp4", "--model", engine.model, "--out", out)
    code, _, err = run(*words, "-n", 3)
    assert code == 1 and "3 captions of 2 samples each, 1 errors, 0 samples were there already" in err
    lines = out.read_text().splitlines()
    assert len(lines) == 7
    out.write_text("\n".join(lines[:5]) + "\n")  # b has two of three
    asked = len(engine.captions)
    code, _, err = run(*words, "-n", 3)
    assert "3 captions of 1 samples each, 1 errors, 1 samples were there already" in err
    assert [one.frames for one in engine.captions[asked:]] == [4]  # b alone
    rows = [row for row in read_rows(out) if isinstance(row, Caption)]
    assert len(rows) == len({row.caption_id for row in rows}) == 6
    code, _, err = run(*words, "-n", 2)
    assert code == 2 and "got 3 captions of" in err
    code, _, err = run(*words, "-n", 3, "--temperature", 0)
    assert code == 2 and "at temperature 0, expected at least 1, and more than 0" in err


def test_questions_are_answered_by_letters(engine, run, tmp_path):
    """The likeliest first token is B, then A: every question is answered with its second option."""
    code, _, err = run(
        "evaluate-qa", "--data", EXAMPLES, "--model", engine.model, "--out", tmp_path / "qa", "--method", "logprobs"
    )
    assert code == 0, err
    answers = [json.loads(line) for line in (tmp_path / "qa/answers.jsonl").read_text().splitlines()]
    assert {answer["choice"] for answer in answers} == {1}
    assert {tuple(answer["scores"][:2]) for answer in answers} == {(-2.0, -1.0)}
    run_json = json.loads((tmp_path / "qa/run.json").read_text())
    assert run_json["model"] == engine.model


def test_an_engine_that_fails_at_one_question_answers_the_others(run, tmp_path):
    def refuse(asked):
        return (400, "too much") if "say at" in asked.text else None

    with ScriptedEngine(OLLAMA, script=refuse) as server:
        code, out, err = run("evaluate-qa", "--data", EXAMPLES, "--model", server.model, "--out", tmp_path / "qa")
    assert "the engine gives no log-probabilities; questions are answered in words alone" in err
    assert code == 1 and "32 questions about 4 videos, 4 unanswered" in out  # one such question of each
    assert err.count("gave no answer: status 400: too much") == 4
