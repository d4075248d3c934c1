"""`avcap evaluate` and `avcap compare` as a user runs them."""

import json
from pathlib import Path

import pytest
from support.scripted_server import ScriptedServer

from avcap.records import write_jsonl
from avcap.world.make import clip_truth
from avcap.world.scene import make_scene

SEEDS = range(10**9, 10**9 + 6)
TRUTHS = [clip_truth(make_scene(seed), clip_id=f"w{seed}", video=f"clips/w{seed}.mp4") for seed in SEEDS]
NUM_EVENTS = sum(len(truth.events) for truth in TRUTHS)


@pytest.fixture
def world(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "truth.jsonl", TRUTHS)
    return tmp_path


def write_captions(path: Path, texts: list[str | None]) -> Path:
    rows = [{"video": truth.video, "pred": text} for truth, text in zip(TRUTHS, texts, strict=True)]
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def reference_captions() -> list[str | None]:
    return [truth.reference_caption for truth in TRUTHS]


def first_sentences() -> list[str | None]:
    return [truth.reference_caption.partition(". ")[0] + "." for truth in TRUTHS]


def test_the_table_of_true_captions(world, run):
    captions = write_captions(world / "captions.json", reference_captions())
    code, out, err = run("evaluate", captions, "--truth", world, "--out", world / "report")
    lines = out.splitlines()
    assert code == 0 and not err
    assert lines[0] == "            missing        hallucination   total error     repetition"
    assert lines[1].startswith("global      0.000 ±0.000   0.000 ±0.000    0.000 ±0.000    0.")
    assert lines[-1] == f"6 videos, {NUM_EVENTS} events, 0 unscored; judge oracle; protocol avcap-1"
    names = {path.name for path in (world / "report").iterdir()}
    assert {"metrics.json", "report.html", "evaluation.json", "verdicts.jsonl", "unscored.jsonl"} <= names


def test_unscored_captions_decide_the_exit_code_and_problems_are_named(world, run):
    captions = write_captions(world / "captions.json", [None, "", *reference_captions()[2:]])
    command = ("evaluate", captions, "--truth", world / "truth.jsonl", "--out", world / "report")
    code, out, err = run(*command)
    assert code == 1
    assert "1 of 6 captions are unscored" in err and "got null for the caption" in err
    assert f"empty caption: 1 (w{SEEDS[1]})" in err
    assert ", 1 unscored; judge oracle" in out
    assert run(*command, "--max-unscored", "0.2")[0] == 0  # 1 / 6 = 0.17


def test_tables_for_papers(world, run):
    captions = write_captions(world / "captions.json", reference_captions())
    command = ("evaluate", captions, "--truth", world, "--out", world / "report", "--table")
    assert r"\begin{tabular}" in run(*command, "latex")[1]
    assert "| global | 0.000" in run(*command, "markdown")[1]


def test_one_modality(world, run):
    captions = write_captions(world / "captions.json", reference_captions())
    code, out, _ = run("evaluate", captions, "--truth", world, "--out", world / "r", "--modality", "audio")
    num_audio_events = sum(event.modality == "audio" for truth in TRUTHS for event in truth.events)
    assert code == 0 and f"6 videos, {num_audio_events} events, 0 unscored" in out
    assert " visual" not in out and " audio" in out


def test_compare(world, run):
    for name, texts in (("a", reference_captions()), ("b", first_sentences())):
        captions = write_captions(world / f"{name}.json", texts)
        assert run("evaluate", captions, "--truth", world, "--out", world / name)[0] == 0
    missing = json.loads((world / "b/metrics.json").read_text())["global"]["missing_rate"]["value"]
    code, out, err = run("compare", world / "a", world / "b", "--out", world / "both")
    assert code == 0, err
    # a misses nothing, so the difference is what b misses; b loses every video
    row = next(line for line in out.splitlines() if line.startswith("global"))
    assert row.split()[1] == f"{missing:+.3f}" and row.split()[3] == "*"
    assert row.split()[-3:] == ["0%", "0%", "100%"]
    labels = [line.split("  ")[0] for line in out.splitlines()]
    assert labels[2:6] == ["global", " visual", " audio", " both"]
    assert "6 captions of both" in out
    assert json.loads((world / "both/comparison.json").read_text())["pairs"][0]["num_paired"] == 6
    assert (world / "both/comparison.png").read_bytes().startswith(b"\x89PNG")


def test_compare_refuses_to_mix(world, run):
    captions = write_captions(world / "captions.json", reference_captions())
    for modality in ("both", "visual"):
        run("evaluate", captions, "--truth", world, "--out", world / modality, "--modality", modality)
    code, _, err = run("compare", world / "both", world / "visual")
    assert code == 2 and "modality is 'both' in" in err
    code, out, _ = run("compare", world / "both", world / "visual", "--allow-mixed")
    assert code == 0 and "MIXED" in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "got captions and --model, or neither"),
        (["c.json", "--model", "tiny"], "got captions and --model, or neither"),
        (["c.json", "--modality", "smell"], "expected one of visual, audio, both"),
        (["c.json", "--table", "excel"], "expected one of terminal, markdown, latex"),
        (["c.json", "--max-unscored", "2"], "expected a share from 0 to 1"),
        (["c.json", "--judge", "mother"], "expected oracle, noisy:SHARE, openai:"),
        (["c.json", "--judge", "openai:m@ftp://x"], "expected openai:MODEL"),
        (["nothing.json"], "cannot be read"),
    ],
)
def test_bad_command_lines_are_one_line(world, run, monkeypatch, words, expected):
    monkeypatch.chdir(world)
    write_captions(world / "c.json", reference_captions())
    code, out, err = run("evaluate", *words, "--truth", "truth.jsonl", "--out", "r")
    assert (code, out) == (2, "")
    assert expected in err and err.count("\n") == 1
    assert not (world / "r/verdicts.jsonl").exists()


def test_a_model_captions_the_samples_first_and_only_once(tmp_path, run, videos, random_checkpoint):
    events = [{"text": "a dog barks", "modality": "audio", "event_id": "e1", "start_s": 1.0, "end_s": 2.0}]
    samples = [
        {"sample_id": "a", "video": str(videos / "a.mp4"), "prompt": "", "events": events},
        {"sample_id": "part", "video": str(videos / "a.mp4"), "prompt": "", "interval_s": [0.0, 2.0], "events": events},
        {"sample_id": "bad", "video": "nothing.mp4", "prompt": "", "events": events},
    ]
    (tmp_path / "truth.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples), encoding="utf-8")
    answer = {
        "events": [{"id": 1, "label": "missing", "quote": ""}],
        "invented": [],
        "counts": {"correct": 0, "missing": 1, "incorrect": 0, "invented": 0},
    }
    with ScriptedServer(answer=lambda body: json.dumps(answer)) as server:
        command = (
            "evaluate",
            "--model",
            random_checkpoint,
            "--truth",
            tmp_path / "truth.jsonl",
            "--out",
            tmp_path / "r",
            "--judge",
            f"openai:scripted@{server.url}",
        )
        code, out, err = run(*command)
        assert code == 1 and "1 of 3 captions are unscored" in err and "nothing.mp4" in err
        assert "global      1.000" in out and "local       1.000" in out
        assert "judge openai:scripted; protocol avcap-1" in out
        num_calls = len(server.calls)
        before = (tmp_path / "r/captions.jsonl").read_text().splitlines()[:2]
        assert "2 captions were there already" in run(*command)[2]
        assert len(server.calls) == num_calls == 2  # the verdicts are kept, and nobody is asked about no caption
    assert (tmp_path / "r/captions.jsonl").read_text().splitlines()[:2] == before


def test_what_a_judge_would_cost_is_said_before_it_is_asked(world, run):
    captions = write_captions(world / "captions.json", reference_captions())
    with ScriptedServer() as server:
        command = ("evaluate", captions, "--truth", world, "--out", world / "r", "--dry-run", "--judge")
        code, out, _ = run(*command, f"openai:gpt-4.1@{server.url}")
        assert code == 0 and out.startswith("6 captions to judge: 6 calls to gpt-4.1") and "$" in out
        assert not server.calls and not (world / "r").exists()
        assert "the oracle costs nothing" in run(*command, "oracle")[1]
