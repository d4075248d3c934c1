"""Whatever a user gives as text goes through the door: what it does, every reader does."""

import ast
import json
from pathlib import Path

import pytest

from avcap.cli.judges import read_calibration
from avcap.cli.outputs import check_records
from avcap.config import load_yaml
from avcap.data.corpus import read_corpus
from avcap.data.qa_files import read_questions
from avcap.errors import UserError
from avcap.infer.inputs import find_media
from avcap.infer.settings import read_settings
from avcap.judge.inputs.ingest import read_captions, read_truth
from avcap.llm.budget import read_prices
from avcap.model.checkpoint.weight_files import read_json
from avcap.preference.formats import import_pairs
from avcap.records import CaptionError, Sample, read_jsonl, to_json

SAMPLES = [
    Sample(sample_id=name, video=f"{name}.mp4", prompt="?", reference_caption="A tree.") for name in ("é1", "é2")
]
LINES = "".join(to_json(sample) + "\n" for sample in SAMPLES)
PAIRS = [{"prompt": "?", "chosen": "é", "rejected": "b", "video": "a.mp4"}] * 2
QUESTIONS = [{"video": "é.mp4", "question": "é?", "candidates": ["é", "b"], "answer": "é"}]

READERS = {
    "list": ("list.txt", "é.mp4\nb.mp4\n", lambda path: find_media([str(path)]).paths),
    "records": ("r.jsonl", LINES, lambda path: list(read_jsonl(path, Sample))),
    "truth": ("t.jsonl", LINES, lambda path: read_truth(path).samples),
    "captions, JSONL": ("c.jsonl", '{"video": "é", "text": "a"}\n' * 2, lambda path: _captions(path)),
    "captions, JSON": ("c.json", '{"é":\n "a"}\n', lambda path: _captions(path)),
    "captions, CSV": ("c.csv", "video;text\né;a\n", lambda path: _captions(path)),
    "pairs": ("p.json", json.dumps(PAIRS), lambda path: import_pairs(path, flavour="trl").pairs),
    "questions": ("q.json", json.dumps(QUESTIONS), lambda path: read_questions(path, format="mvbench").problems),
    "questions, CSV": (
        "q.csv",
        "video,qid,type,question,a0,a1,a2,a3,a4,answer\né,1,x,?,a,b,c,d,e,0\n",
        lambda path: read_questions(path, format="nextqa").problems,
    ),
    "corpus": (
        "c.json",
        json.dumps([{"video": "é", "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "é"}]}]),
        lambda path: read_corpus(path),
    ),
    "config": ("c.yaml", "optim:\n  name: é\n", load_yaml),
    "prices": ("p.yaml", "é: {input: 1, output: 2}\n", read_prices),
    "settings": ("avcap.json", '{"name": "é"}', lambda path: read_settings(path.parent)),
    "checkpoint": ("config.json", '{"model_type": "é"}', read_json),
}


def _captions(path: Path) -> list:
    return [(caption.names, caption.text) for caption in read_captions([path])]


@pytest.mark.parametrize("name", READERS)
def test_every_reader_takes_what_any_editor_writes(name, tmp_path):
    file, text, reader = READERS[name]
    path = tmp_path / file
    path.write_text(text)
    expected = reader(path)
    assert "é" in repr(expected)
    for data in (
        b"\xef\xbb\xbf" + text.encode(),
        text.replace("\n", "\r\n").encode(),
        b"\xff\xfe" + text.encode("utf-16-le"),
        b"\xfe\xff" + text.replace("\n", "\r\n").encode("utf-16-be"),
    ):
        path.write_bytes(data)
        assert reader(path) == expected


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("data", [b"\x89PNG\0\0\0\n", None, b"caf\xe9: [\xe9\n"], ids=["binary", "device", "latin-1"])
def test_every_reader_refuses_what_is_no_text_in_one_line(name, data, tmp_path):
    path = tmp_path / READERS[name][0]
    if data is None:
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        READERS[name][2](path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name, (file, _, _) in READERS.items() if file.endswith((".json", ".jsonl"))])
@pytest.mark.parametrize("wrong", ['{"a": NaN}', '{"a": 1, "a": 2}', "[" * 100_000, '{"a": 1e400}'])
def test_every_reader_of_json_refuses_what_others_do(name, wrong, tmp_path):
    path = tmp_path / READERS[name][0]
    path.write_text(wrong)
    with pytest.raises(UserError, match=r"NaN is no|stands twice|nested too deeply|larger than any number") as caught:
        READERS[name][2](path)
    assert str(path) in str(caught.value)


def test_a_calibration_and_what_would_be_written_over_are_read_so_too(tmp_path):
    (tmp_path / "c.json").write_text('{"a": NaN}')
    with pytest.raises(UserError, match=r"c\.json, line 1: cannot be read as JSON \(NaN is no"):
        read_calibration(tmp_path / "c.json", judge=None)
    row = CaptionError(sample_id="a", video="a", error="x")
    (tmp_path / "r.jsonl").write_bytes(b"\xef\xbb\xbf" + to_json(row).encode() + b"\r\n")
    check_records(tmp_path / "r.jsonl", CaptionError)


# File -> why it reads text without the door.
OWN_TEXT = {
    "files/claim.py": "what avcap wrote: the claim of a run's folder",
    "evaluation/evaluate.py": "what avcap wrote: lines of an evaluation",
    "evaluation/evaluate_qa.py": "what avcap wrote: a line of answers",
    "web/tracking.py": "what avcap wrote, and read by the door: it may hold NaN",
    "infer/caption_file.py": "what avcap wrote: a line of captions",
    "infer/video_encoder.py": "weights",
    "train/log.py": "what avcap wrote: the log of a run",
    "train/checkpoint.py": "what avcap wrote: the state of a run",
    "data/feature_cache.py": "what avcap wrote: the cache",
    "model/checkpoint/weight_files.py": "the header of weights, of a known length",
    "model/checkpoint/placement.py": "the system's own files",
    "media/worker.py": "what the parent process says",
    "engines/findings.py": "what avcap wrote: what an engine was found to take",
    "engines/proof.py": "probe clips of the package",
    "model/checkpoint/hub_client.py": "bytes of files to be hashed, and which commit the cache has",
    "v0_1.py": "what avcap 0.1 wrote: the claim and the state of a run",
    "world/soundfont.py": "a file of the package",
    "world/speech.py": "files of a package",
    "web/report.py": "a file of the package",
    "web/server/app.py": "a file of the package",
    "preference/formats.py": "a record turned into fields",
    "cli/judge.py": "a record turned into fields",
    "cli/rounds.py": "what avcap wrote: the decision of rounds",
    "cli/outputs.py": "whether a sign of avcap is in a file of any kind",
    "lmms/world_task.py": "whether a file begins as avcap's do",
    "lmms/benchmark_task.py": "the same, and a doc that avcap wrote",
}


READING = ("json.load", "json.loads", "yaml.load", "yaml.safe_load", "csv.reader", "csv.DictReader")


def test_nobody_reads_text_past_the_door():
    package = Path(__file__).parents[2] / "src" / "avcap"
    past = set()
    for file in package.rglob("*.py"):
        name = file.relative_to(package).as_posix()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                call = ast.unparse(node.func)
                if call in READING or node.func.attr in ("read_text", "read_bytes"):
                    past.add(name)
    # a model's or a server's reply is no file of a user's: the rooms llm has other doors for it
    outside = {name for name in past if not name.startswith(("texts/", "llm/"))}
    assert outside == set(OWN_TEXT)
