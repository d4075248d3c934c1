"""Benchmarks as tasks for lmms-eval, without lmms-eval: the folder as it is read, and the numbers of a real server."""

import json

import pytest
from support.benchmark_files import CAPTIONS, answer, write_data
from support.scripted_server import ScriptedServer
from support.task_folder import load_task

from avcap.judge.benchmarks.benchmark import RULES_THEIRS
from avcap.judge.benchmarks.registry import BENCHMARKS
from avcap.lmms.__main__ import main
from avcap.lmms.requests import sample_of


def run_task(task: dict, docs: list[dict], captions: list[str]) -> dict[str, float]:
    """As lmms-eval does: each caption's results, then for each metric its aggregation of all."""
    results = [task["process_results"](doc, [text]) for doc, text in zip(docs, captions, strict=True)]
    return {
        metric["metric"]: metric["aggregation"]([one[metric["metric"]] for one in results])
        for metric in task["metric_list"]
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("avscapbench", {"recall_visual": 0.25, "recall_effects": 0.5, "recall_total": 0.2}),
        ("omni-cloze", {"accuracy": 2 / 6, "score": 1 / 6}),
        ("dream-1k", {"f1": 0.5, "recall": 0.5}),
        ("vdc", {"accuracy_detailed": 0.5, "official_accuracy_detailed": 1.0}),
    ],
)
def test_a_benchmark_is_a_task(tmp_path, capsys, name, expected):
    data, folder = write_data(name, tmp_path), tmp_path / "odd 'name: folder"
    with ScriptedServer(answer=answer) as server:
        assert main([name, str(data), str(tmp_path), f"openai:m@{server.url}", str(folder)]) == 0
        task_name = f"avcap_{name.replace('-', '_')}"
        assert f"--tasks {task_name}" in capsys.readouterr().out
        task = load_task(folder / f"{task_name}.yaml")
        assert task["metadata"]["remark"] == RULES_THEIRS
        lines = (folder / "docs.txt").read_text().splitlines()
        docs = [{"text": line} for line in lines]
        (message,) = task["doc_to_messages"](docs[0])
        assert sample_of([message], sample_id="s").video == str(tmp_path / json.loads(lines[0])["video"])
        found = run_task(task, docs, CAPTIONS)
        assert {key: found[key] for key in expected} == pytest.approx(expected)
        num_calls = len(server.calls)
        assert run_task(task, docs, CAPTIONS) == pytest.approx(found, nan_ok=True)
        assert len(server.calls) == num_calls  # replies are cached beside the task


def test_a_caption_without_a_score_is_in_no_number(tmp_path, caplog):
    data = write_data("ugc-videocap", tmp_path)
    with ScriptedServer(answer=lambda body: "no") as server:
        main(["ugc-videocap", str(data), str(tmp_path), f"openai:m@{server.url}", str(tmp_path / "t")])
        task = load_task(tmp_path / "t/avcap_ugc_videocap.yaml")
        docs = [{"text": line} for line in (tmp_path / "t/docs.txt").read_text().splitlines()]
        found = run_task(task, docs, ["A dog.", ""])  # nobody is asked about the empty one: 1 of 5 points
    assert found["average"] == pytest.approx(20.0) and "no score" in caplog.text


def test_what_is_no_benchmark_is_an_error(tmp_path, capsys):
    assert main(["mine", "a", "b", "openai:m@http://127.0.0.1:9", str(tmp_path)]) == 2
    assert "expected one of testset-gpt" in capsys.readouterr().err
    assert set(BENCHMARKS) >= {"vdc", "omni-cloze"} and main(["one"]) == 2
