"""The captioning task for lmms-eval, without lmms-eval: its folder as it is read, its figures, its errors."""

from pathlib import Path

import pytest
from support.task_folder import load_task

from avcap.errors import UserError
from avcap.lmms.__main__ import main
from avcap.lmms.requests import sample_of
from avcap.lmms.world_task import METRICS, WorldTask, sum_over_sum, write_task

EXAMPLES = Path(__file__).parents[2] / "examples"
DOCS = [{"text": line} for line in (EXAMPLES / "truth.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_folder_that_is_written_is_a_task(tmp_path):
    task = load_task(write_task(EXAMPLES, tmp_path / "odd 'name: folder"))
    (line, *_) = Path(task["dataset_kwargs"]["data_files"]["test"]).read_text(encoding="utf-8").splitlines()
    assert task["dataset_path"] == "text" and {"text": line} == DOCS[0]
    (message,) = task["doc_to_messages"](DOCS[0])
    sample = sample_of([message], sample_id="s")
    assert Path(sample.video).is_file() and sample.prompt == "Describe the video in detail."
    assert (task["doc_to_visual"](DOCS[0]), task["doc_to_text"](DOCS[0])) == ([sample.video], sample.prompt)
    caption = task["doc_to_target"](DOCS[0])
    assert {metric["metric"] for metric in task["metric_list"]} == set(METRICS)
    results = task["process_results"](DOCS[0], [caption])
    for metric in task["metric_list"]:
        assert metric["aggregation"]([results[metric["metric"]]]) == 0.0 and metric["higher_is_better"] is False


def test_errors_are_summed_before_they_are_divided():
    task = WorldTask(EXAMPLES)
    truth, empty = task.doc_to_target(DOCS[0]), ""
    payloads = [task.process_results(DOCS[0], [truth]), task.process_results(DOCS[1], [empty])]
    events = [payload["missing_rate"][1] for payload in payloads]
    # nothing is missed of the first, all of the second
    assert [payload["missing_rate"] for payload in payloads] == [(0, events[0]), (events[1], events[1])]
    missing = sum_over_sum([payload["missing_rate"] for payload in payloads])
    assert missing == events[1] / sum(events)
    invented = task.process_results(DOCS[0], [f"{truth} At 0s a brown dog barks."])
    assert invented["hallucination_rate"] == (1, events[0]) == invented["total_error_rate"]


def test_what_is_no_world_is_an_error(tmp_path, capsys):
    with pytest.raises(UserError, match="without truth"):
        write_task(tmp_path, tmp_path / "out")
    assert main([str(tmp_path), str(tmp_path / "out")]) == 2
    assert "expected a world" in capsys.readouterr().err
    assert main([]) == 2
    assert main([str(EXAMPLES), str(tmp_path / "out")]) == 0
    assert f"--include_path {tmp_path / 'out'} --tasks avcap_world" in capsys.readouterr().out
