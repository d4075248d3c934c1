"""`avcap evaluate --benchmark`: small made-up files in the forms of benchmarks, a real server, numbers by hand."""

import json
import re
from pathlib import Path

import pytest
from support.benchmark_files import CAPTIONS, FILES, answer, write_captions, write_data
from support.scripted_server import ScriptedServer, always
from support.yes_no_model import play

from avcap.judge.benchmarks.benchmark import PROMPT_GIVEN, RULES_THEIRS
from avcap.judge.benchmarks.registry import BENCHMARKS

EXPECTED: dict[str, dict[str, float]] = {
    # first: the dog and the bell of 4 events are told; second: none of 4. (2 + 4) / 8
    "testset-gpt": {"missing": 0.75, "incorrect": 0.0, "hallucination": 0.0, "total": 0.75},
    # Stock: both of its events are in the caption, both of the caption's in the reference; YouTube: 0 of 2, 0 of 1
    "dream-1k": {"recall": 0.5, "precision": 0.5, "f1": 0.5, "f1 Stock": 1.0, "f1 YouTube": 0.0},
    # first: 2 of 2 with 4 points; second: no rain, 0 of 1. Theirs leaves the second out
    "vdc": {"accuracy detailed": 0.5, "score detailed": 2.0, "official accuracy detailed": 1.0,
            "official score detailed": 4.0},
    # first: dog, bell; not the cat, hello, nor both at once. Nobody has music: theirs counts 0, we leave it out
    "avscapbench": {
        "recall visual": 0.25,
        "recall audio": 0.25,
        "recall speech": 0.0,
        "recall effects": 0.5,
        "recall synergy": 0.0,
        "recall total": 0.2,
        "official recall effects": 0.5,
        "official recall music": 0.0,
    },
    # first: dog and bell are right, rain is not given; second: the cat is wrong, the others not given
    "omni-cloze": {"accuracy": 2 / 6, "not given": 3 / 6, "wrong": 1 / 6, "score": 1 / 6, "accuracy visual": 1 / 4,
                   "accuracy audio": 1 / 2},
    # points 5 4 3 and 2 1 3, each times 20
    "ugc-videocap": {"visual": 70.0, "audio": 50.0, "details": 60.0, "average": 60.0},
    # first: the dog is B, nobody sings; second: the cat is wrong, nobody sings
    "daily-omni-caption-qa": {"accuracy": 1 / 4, "not said": 2 / 4, "accuracy Inference": 1 / 2,
                              "accuracy AV Event Alignment": 0.0},
    "worldsense-caption-qa": {"accuracy": 2 / 4, "not said": 1 / 4, "accuracy x": 1 / 2, "accuracy y": 1 / 2},
}  # fmt: skip


def evaluated(run, folder: Path, name: str, server: ScriptedServer, *more: object, out: str = "out"):
    # the ids of Daily-Omni are no names of files
    suffix = "" if name == "daily-omni-caption-qa" else ".mp4"
    data, captions = write_data(name, folder), write_captions(folder, suffix=suffix)
    judge = ("--judge", f"openai:m@{server.url}")
    return run("evaluate", captions, "--truth", data, "--benchmark", name, *judge, "--out", folder / out, *more)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_numbers_of_a_benchmark(tmp_path, run, name):
    with ScriptedServer(answer=answer) as server:
        code, out, err = evaluated(run, tmp_path, name, server)
    assert code == 0, err
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert {key: metrics[key]["value"] for key in EXPECTED[name]} == pytest.approx(EXPECTED[name])
    assert metrics["benchmark"] == f"{name}-1" and metrics["remark"] == RULES_THEIRS in out
    assert re.search(rf"{name}-1: 2 captions of 2 videos, 0 unscored; judge openai:m; protocol \S+", out)
    setting = json.loads((tmp_path / "out/evaluation.json").read_text())["setting"]
    assert setting["benchmark"] == f"{name}-1" and setting["protocol"] and setting["prompt_version"]
    assert RULES_THEIRS in (tmp_path / "out/report.html").read_text()
    row = json.loads((tmp_path / "out/shares.jsonl").read_text().splitlines()[0])
    told = (row["benchmark"], row["judge_protocol"], row["judge"], row["prompt_version"])
    assert told == (setting["benchmark"], setting["protocol"], "openai:m", setting["prompt_version"])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"scores.jsonl", "shares.jsonl", "unscored.jsonl", "setting.json"} <= names


def test_every_benchmark_is_tested():
    assert set(FILES) == set(EXPECTED) == set(BENCHMARKS)


def test_the_captions_of_omni_cloze_stand_in_its_own_file(tmp_path, run):
    data = write_data("omni-cloze", tmp_path)
    with ScriptedServer(answer=answer) as server:
        words = ("--truth", data, "--benchmark", "omni-cloze", "--judge", f"openai:m@{server.url}")
        code, _, err = run("evaluate", data, *words, "--out", tmp_path / "out")
    assert code == 0, err
    assert json.loads((tmp_path / "out/metrics.json").read_text())["accuracy"]["value"] == pytest.approx(2 / 6)


def test_a_benchmark_of_events_can_be_asked_by_yes_or_no(tmp_path, run):
    def doubt(question: str) -> float:
        told = re.search(r"The event: (?:\([^)]*\) )?(.*)\n", question)
        return -3.0 if told and told[1].lower() in question.lower().partition("the event:")[0] else 3.0

    with ScriptedServer(script=always(play(doubt))) as server:
        code, out, err = evaluated(run, tmp_path, "avscapbench", server, "--judge-protocol", "avcap-yesno-1")
    assert code == 0, err
    assert "protocol avcap-yesno-1" in out
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["recall effects"]["value"] == 0.5 and metrics["recall visual"]["value"] == 0.25
    verdict = json.loads((tmp_path / "out/scores.jsonl").read_text().splitlines()[0])
    assert (verdict["benchmark"], verdict["judge_protocol"]) == ("avscapbench-1", "avcap-yesno-1")


def test_their_own_prompt_takes_the_place_of_ours(tmp_path, run):
    prompt = tmp_path / "theirs.txt"
    prompt.write_text("You give points.\n---\nPredicted: {caption}\nTrue: {reference_caption}\nReply {'visual': int}")
    reply = "{'visual': 5, 'audio': 4, 'details': 3}"  # as their prompt asks for it
    with ScriptedServer(answer=lambda body: reply) as server:
        code, out, err = evaluated(run, tmp_path, "ugc-videocap", server, "--prompt-file", prompt)
        assert code == 0, err
        rules, question = (message["content"] for message in server.calls[0].body["messages"])
    assert rules == "You give points." and question.startswith("Predicted: The caption:\n<caption-")
    assert "Reply {'visual': int}" in question and PROMPT_GIVEN in out and RULES_THEIRS not in out
    plain = BENCHMARKS["ugc-videocap"].protocol
    setting = json.loads((tmp_path / "out/setting.json").read_text())
    from avcap.judge.benchmarks.benchmark import AskedBy

    assert setting["prompt_version"] != plain(AskedBy(wordings={})).card.prompt_version


def test_runs_of_one_benchmark_are_compared_and_others_are_not_mixed(tmp_path, run):
    with ScriptedServer(answer=answer) as server:
        assert evaluated(run, tmp_path, "avscapbench", server, out="a")[0] == 0
        better = write_captions(tmp_path, texts=["A dog runs. A cat sleeps. A bell rings.", *CAPTIONS[1:]])
        words = ("--truth", tmp_path / "OmniCaption.json", "--benchmark", "avscapbench")
        assert run("evaluate", better, *words, "--judge", f"openai:m@{server.url}", "--out", tmp_path / "b")[0] == 0
        assert evaluated(run, tmp_path, "omni-cloze", server, out="c")[0] == 0
    code, out, err = run("compare", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "both")
    assert code == 0, err
    # one more of the two visual events of one of two videos: 0.5 / 2
    assert re.search(r"^recall visual\s+\+0\.250", out, flags=re.MULTILINE)
    assert json.loads((tmp_path / "both/comparison.json").read_text())["benchmark"] == "avscapbench-1"
    code, _, err = run("compare", tmp_path / "a", tmp_path / "c")
    assert code == 2 and "benchmark is 'avscapbench-1' in" in err
    code, _, err = evaluated(run, tmp_path, "dream-1k", server, out="a")
    assert code == 2 and "another configuration" in err


def test_reference_captions_without_events_work_in_one_command(tmp_path, run):
    rows = [{"video": f"{n}.mp4", "caption": "A dog runs. A bell rings."} for n in range(2)]
    (tmp_path / "truth.json").write_text(json.dumps(rows))
    events = [
        {"text": text, "modality": "visual", "start_s": None, "end_s": None} for text in ("a dog runs", "a bell rings")
    ]

    def reply(body):
        extracting = "take apart" in body["messages"][0]["content"]
        return json.dumps({"events": events}) if extracting else answer(body)

    with ScriptedServer(answer=reply) as server:
        words = (
            "--truth",
            tmp_path / "truth.json",
            "--judge",
            f"openai:m@{server.url}",
            "--out",
            tmp_path / "out",
        )
        code, _, err = run("evaluate", write_captions(tmp_path), *words)
        assert code == 0, err
        assert "4 events were taken from 2 reference captions, such as: a dog runs; a bell rings" in err
        assert len((tmp_path / "out/events.jsonl").read_text().splitlines()) == 2
        num_calls = len(server.calls)
        assert run("evaluate", write_captions(tmp_path), *words)[0] == 0
        assert len(server.calls) == num_calls  # the events are cached, and so are the verdicts
    assert json.loads((tmp_path / "out/metrics.json").read_text())["global"]["missing_rate"]["value"] == 0.5


def test_what_a_judge_does_not_answer_is_unscored_and_told(tmp_path, run):
    def reply(body):
        return answer(body) if "A dog runs" in body["messages"][-1]["content"].partition("passage")[0] else "I cannot."

    with ScriptedServer(answer=reply) as server:
        code, out, err = evaluated(run, tmp_path, "omni-cloze", server)
    assert code == 1 and "1 of 2 captions are unscored" in err and "1 captions of 1 videos, 1 unscored" in out
    assert len((tmp_path / "out/unscored.jsonl").read_text().splitlines()) == 1


def test_what_it_would_cost_is_told_before_anybody_is_asked(tmp_path, run):
    with ScriptedServer(answer=answer) as server:
        code, out, _ = evaluated(run, tmp_path, "daily-omni-caption-qa", server, "--dry-run")
        assert code == 0 and "2 captions to judge" in out and "4 calls" in out and not server.calls


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--benchmark", "mine", "--judge", "openai:m@http://127.0.0.1:9/v1"), "expected one of testset-gpt, dream-1k"),
        (("--benchmark", "vdc"), "expected a language model"),
        (("--benchmark", "vdc", "--judge", "openai:m@http://127.0.0.1:9/v1", "--judge-protocol", "avcap-yesno-1"),
         "asks its judge in a way of its own"),
        (("--benchmark", "vdc", "--judge", "openai:m@http://127.0.0.1:9/v1", "--prompt-file", "x=y"),
         "of score, answer"),
        (("--benchmark", "vdc", "--modality", "audio"), "belong to events of one's own"),
        (("--benchmark", "omni-cloze", "--judge", "openai:m@http://127.0.0.1:9/v1"), "expected cloze:"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(tmp_path, run, words, expected):
    data, captions = write_data("ugc-videocap", tmp_path), write_captions(tmp_path)
    code, out, err = run("evaluate", captions, "--truth", data, *words, "--out", tmp_path / "out")
    assert (code, out) == (2, "") and expected in err and err.count("\n") == 1
