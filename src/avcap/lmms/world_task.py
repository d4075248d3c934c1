"""The task `avcap_world` of lmms-eval: captions of a world's clips, judged by its oracle. lmms-eval is not needed.

lmms-eval reads a task from a folder with a YAML file, and loads functions from Python files beside it. As a world may
be anywhere, the folder is written for it. A doc is a line of truth.jsonl as text: {"text": LINE}.
"""

import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from avcap.errors import UserError
from avcap.files.claim import refuse_external
from avcap.files.write import write_text
from avcap.judge.metrics.error_counts import count_errors
from avcap.judge.oracle import OracleJudge
from avcap.judge.types import Case
from avcap.records import ErrorCounts, Sample, Unscored, WorldTruth, from_json
from avcap.world import describe

TASK_NAME = "avcap_world"
METRICS = ("missing_rate", "hallucination_rate", "total_error_rate")

# lmms-eval's loader has a tag of its own, !function, which names a function of a Python file beside the YAML file.
_TASK = """\
task: {name}
dataset_path: text
dataset_kwargs:
  data_files:
    test: {truth}
test_split: test
output_type: generate_until
doc_to_messages: !function world_functions.doc_to_messages
doc_to_text: !function world_functions.doc_to_text
doc_to_visual: !function world_functions.doc_to_visual
doc_to_target: !function world_functions.doc_to_target
process_results: !function world_functions.process_results
generation_kwargs:
  max_new_tokens: 400
  temperature: 0.0
  do_sample: false
metric_list:
{metrics}
metadata:
  version: 1.0
"""
_METRIC = """\
  - metric: {name}
    aggregation: !function world_functions.sum_over_sum
    higher_is_better: false"""
_FUNCTIONS = """\
from pathlib import Path

from avcap.lmms.world_task import WorldTask, sum_over_sum

_task = WorldTask(Path({world!r}))
doc_to_messages = _task.doc_to_messages
doc_to_text = _task.doc_to_text
doc_to_visual = _task.doc_to_visual
doc_to_target = _task.doc_to_target
process_results = _task.process_results
"""


def write_task(world: Path, folder: Path) -> Path:
    """A world folder -> a folder for `lmms-eval --include_path`, with the YAML file that is returned."""
    truth = world / "truth.jsonl"
    if not truth.is_file():
        raise UserError(f"{world}: got a folder without truth.jsonl, expected a world (avcap world make)")
    path = folder / f"{TASK_NAME}.yaml"
    metrics = "\n".join(_METRIC.format(name=name) for name in METRICS)
    # a JSON string is a YAML string, whatever is in it
    text = _TASK.format(name=TASK_NAME, truth=json.dumps(str(truth.resolve())), metrics=metrics)
    files = {path: text, folder / "world_functions.py": _FUNCTIONS.format(world=str(world.resolve()))}
    for file, content in files.items():
        first_line = content.encode().partition(b"\n")[0]
        is_ours = partial(_begins_with, start=first_line)
        refuse_external(file, is_ours=is_ours, expected="a file of python -m avcap.lmms")
    for file, content in files.items():
        write_text(file, content)
    return path


def _begins_with(path: Path, *, start: bytes) -> bool:
    return path.read_bytes().startswith(start)


def sum_over_sum(payloads: Iterable[tuple[int, int]]) -> float:
    """(errors, events) of captions -> errors of all / events of all; nan without events."""
    errors, events = (sum(column) for column in zip(*payloads, strict=True))
    return errors / events if events else float("nan")


class WorldTask:
    """The functions that the YAML file names, for one world."""

    def __init__(self, world: Path):
        self.world = world

    def doc_to_messages(self, doc: Mapping[str, Any], lmms_eval_specific_kwargs: Any = None) -> list[dict[str, Any]]:
        """A doc -> the chat message that asks for a caption of its video."""
        (path,) = self.doc_to_visual(doc)
        parts = [{"type": "video", "url": path}, {"type": "text", "text": self.doc_to_text(doc)}]
        return [{"role": "user", "content": parts}]

    def doc_to_visual(self, doc: Mapping[str, Any], lmms_eval_specific_kwargs: Any = None) -> list[str]:
        """A doc -> [path of its video], for models that take no chat messages."""
        return [str(self.world / _truth(doc).video)]

    def doc_to_text(self, doc: Mapping[str, Any], lmms_eval_specific_kwargs: Any = None) -> str:
        return describe.GLOBAL_PROMPTS[0]

    def doc_to_target(self, doc: Mapping[str, Any]) -> str:
        return _truth(doc).reference_caption

    def process_results(self, doc: Mapping[str, Any], results: list[str]) -> dict[str, tuple[int, int]]:
        """A doc and [caption] -> for each metric (errors, events), to be summed over all docs before dividing."""
        truth = _truth(doc)
        sample = Sample(sample_id=truth.clip_id, video=truth.video, prompt="", events=truth.events)
        case = Case(caption_id=truth.clip_id, sample=sample, text=results[0])
        (verdict,) = OracleJudge([truth]).judge([case])
        if isinstance(verdict, Unscored):
            raise UserError(f"{truth.clip_id}: {verdict.reason}")
        counts = count_errors(verdict)
        return {name: (errors, counts.num_events) for name, errors in zip(METRICS, _errors(counts), strict=True)}


def _errors(counts: ErrorCounts) -> tuple[int, int, int]:
    hallucinated = counts.incorrect + counts.invented
    return counts.missing, hallucinated, counts.missing + hallucinated


def _truth(doc: Mapping[str, Any]) -> WorldTruth:
    return from_json(doc["text"], WorldTruth)
