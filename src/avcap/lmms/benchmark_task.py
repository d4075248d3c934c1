"""Tasks `avcap_NAME` of lmms-eval for the benchmarks of captions that it lacks. lmms-eval is not needed here.

A doc is an item of the benchmark as text: {"text": {"id": ..., "video": ...}}. Captions are judged by a language model
as `avcap evaluate --benchmark` asks it, through the same cache of replies; a caption that cannot be scored is in no
number, counted and told on stderr. Every number is made from the shares of all captions.
"""

import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from avcap.errors import UserError
from avcap.files.claim import refuse_external
from avcap.files.write import write_text
from avcap.judge.benchmarks.benchmark import RULES_THEIRS, AskedBy, Benchmark, CaptionShares, benchmark_values
from avcap.judge.benchmarks.registry import find_benchmark
from avcap.judge.types import Case
from avcap.llm.cache import ReplyCache
from avcap.llm.chat import open_chat
from avcap.llm.dialogue import converse
from avcap.llm.types import Chat
from avcap.records import Unscored

logger = logging.getLogger("avcap")
PROMPT = "Describe everything that is seen and heard in the video in detail."
CACHE, DOCS, FUNCTIONS = "replies.sqlite", "docs.txt", "benchmark_functions"

# lmms-eval's loader has a tag of its own, !function, which names a function of a Python file beside the YAML file.
_TASK = """\
task: {name}
dataset_path: text
dataset_kwargs:
  data_files:
    test: {docs}
test_split: test
output_type: generate_until
doc_to_messages: !function {functions}.doc_to_messages
doc_to_text: !function {functions}.doc_to_text
doc_to_visual: !function {functions}.doc_to_visual
doc_to_target: !function {functions}.doc_to_target
process_results: !function {functions}.process_results
generation_kwargs:
  max_new_tokens: 2048
  temperature: 0.0
  do_sample: false
metric_list:
{metrics}
metadata:
  version: {version}.0
  remark: {remark}
"""
_METRIC = """\
  - metric: {name}
    aggregation: !function {functions}.aggregate_{index}
    higher_is_better: {higher}"""
_FUNCTIONS = """\
from pathlib import Path

from avcap.lmms.benchmark_task import BenchmarkTask

_task = BenchmarkTask(
    {benchmark!r}, data=Path({data!r}), videos=Path({videos!r}), judge={judge!r}, folder=Path({folder!r})
)
doc_to_messages = _task.doc_to_messages
doc_to_text = _task.doc_to_text
doc_to_visual = _task.doc_to_visual
doc_to_target = _task.doc_to_target
process_results = _task.process_results
"""
NUMBERS = {
    "testset-gpt": ("missing", "hallucination", "total"),
    "dream-1k": ("f1", "recall", "precision"),
    "avscapbench": tuple(
        f"recall {name}" for name in ("visual", "audio", "speech", "music", "effects", "synergy", "total")
    ),
    "omni-cloze": ("accuracy", "not given", "wrong", "score"),
    "ugc-videocap": ("average", "visual", "audio", "details"),
    "daily-omni-caption-qa": ("accuracy", "not said"),
    "worldsense-caption-qa": ("accuracy", "not said"),
}
"""Benchmark -> the numbers that its task reports; those of vdc are named by the aspect of the file."""
LOWER_IS_BETTER = {"missing", "hallucination", "total", "wrong"}


def write_benchmark_task(name: str, *, data: Path, videos: Path, judge: str, folder: Path) -> Path:
    """A benchmark's task for `lmms-eval --include_path`.

    Args:
        name: The benchmark.
        data: Its file.
        videos: Folder of its videos.
        judge: openai:MODEL@URL.
        folder: Where the task is written.

    Returns:
        The YAML file.

    Raises:
        UserError: The file is not of the benchmark, or the folder holds what this did not write.
    """
    benchmark = find_benchmark(name)
    docs = [json.dumps({"id": item.sample.sample_id, "video": item.sample.video}) for item in benchmark.read(data)]
    task_name = f"avcap_{benchmark.name.replace('-', '_')}"
    numbers = numbers_of(benchmark, data)
    metrics = "\n".join(
        _METRIC.format(
            name=json.dumps(number.replace(" ", "_")),
            functions=FUNCTIONS,
            index=index,
            higher=str(number not in LOWER_IS_BETTER).lower(),
        )
        for index, number in enumerate(numbers)
    )
    path = folder / f"{task_name}.yaml"
    task = _TASK.format(
        name=task_name,
        docs=json.dumps(str((folder / DOCS).resolve())),  # a JSON string is a YAML string, whatever is in it
        functions=FUNCTIONS,
        metrics=metrics,
        version=benchmark.version,
        remark=json.dumps(RULES_THEIRS),
    )
    code = _FUNCTIONS.format(
        benchmark=benchmark.name,
        data=str(data.resolve()),
        videos=str(videos.resolve()),
        judge=judge,
        folder=str(folder.resolve()),
    )
    for index, number in enumerate(numbers):
        code += f"aggregate_{index} = _task.aggregation({number!r})\n"
    files = {path: task, folder / f"{FUNCTIONS}.py": code, folder / DOCS: "".join(f"{doc}\n" for doc in docs)}
    for file, content in files.items():
        is_ours = partial(_begins_with, start=content.encode().partition(b"\n")[0])
        refuse_external(file, is_ours=is_ours, expected="a file of python -m avcap.lmms")
    for file, content in files.items():
        write_text(file, content)
    return path


def _begins_with(path: Path, *, start: bytes) -> bool:
    return path.read_bytes().startswith(start)


def numbers_of(benchmark: Benchmark, data: Path) -> tuple[str, ...]:
    """A benchmark and its file -> the numbers that the task reports."""
    if benchmark.name in NUMBERS:
        return NUMBERS[benchmark.name]
    aspect = data.stem.replace("_", " ")
    return tuple(f"{kind} {aspect}" for kind in ("accuracy", "score", "official accuracy", "official score"))


class BenchmarkTask:
    """The functions that the YAML file names, for one benchmark. The judge is opened when the first caption comes."""

    def __init__(self, name: str, *, data: Path, videos: Path, judge: str, folder: Path, chat: Chat | None = None):
        self.benchmark = find_benchmark(name)
        self._items = {item.sample.sample_id: item for item in self.benchmark.read(data)}
        self._protocol = self.benchmark.protocol(AskedBy(wordings={}))
        self._numbers = numbers_of(self.benchmark, data)
        self._videos, self._judge, self._folder, self._chat = videos, judge, folder, chat

    def doc_to_messages(self, doc: Mapping[str, Any], lmms_eval_specific_kwargs: Any = None) -> list[dict[str, Any]]:
        """A doc -> the chat message that asks for a caption of its video."""
        (path,) = self.doc_to_visual(doc)
        parts = [{"type": "video", "url": path}, {"type": "text", "text": self.doc_to_text(doc)}]
        return [{"role": "user", "content": parts}]

    def doc_to_visual(self, doc: Mapping[str, Any], lmms_eval_specific_kwargs: Any = None) -> list[str]:
        """A doc -> [path of its video], for models that take no chat messages."""
        return [str(self._videos / _told(doc)["video"])]

    def doc_to_text(self, doc: Mapping[str, Any], lmms_eval_specific_kwargs: Any = None) -> str:
        return PROMPT

    def doc_to_target(self, doc: Mapping[str, Any]) -> str:
        return self._items[_told(doc)["id"]].sample.reference_caption or ""

    def process_results(self, doc: Mapping[str, Any], results: list[str]) -> dict[str, dict[str, Any]]:
        """A doc and [caption] -> its shares, under the name of each number; nothing of a caption without a score."""
        item = self._items[_told(doc)["id"]]
        sample_id = item.sample.sample_id
        case = self.benchmark.make_case(Case(caption_id=sample_id, sample=item.sample, text=results[0]), item.about)
        (score,) = converse([self._protocol.dialogue(case)], chat=self._open())
        if isinstance(score, Unscored):
            logger.warning(f"{sample_id}: no score: {score.reason}")
        shares = {} if isinstance(score, Unscored) else dict(self.benchmark.tally(score))
        payload = {"id": sample_id, "video": item.sample.video, "shares": shares}
        return {name.replace(" ", "_"): payload for name in self._numbers}

    def aggregation(self, number: str) -> Callable[[Iterable[Mapping[str, Any]]], float]:
        """A number -> what makes it of all payloads; nan where no caption has a score."""

        def aggregate(payloads: Iterable[Mapping[str, Any]]) -> float:
            captions = [
                CaptionShares(caption_id=one["id"], sample_id=one["id"], video=one["video"], shares=one["shares"])
                for one in payloads
                if one["shares"]
            ]
            return benchmark_values(self.benchmark, captions).get(number, float("nan"))

        return aggregate

    def _open(self) -> Chat:
        if self._chat is None:
            if not self._judge.startswith("openai:"):
                raise UserError(f"got the judge {self._judge!r}, expected openai:MODEL@URL")
            self._chat = open_chat(
                self._judge, api_key=os.environ.get("OPENAI_API_KEY"), cache=ReplyCache(self._folder / CACHE)
            )
        return self._chat


def _told(doc: Mapping[str, Any]) -> dict[str, Any]:
    return dict(json.loads(doc["text"]))
