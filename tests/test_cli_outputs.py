"""What commands write: one process at a time on an --out, and nothing over a file that is somebody else's."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from support import ASSETS

from avcap.infer.find_checkpoint import find_checkpoint
from avcap.records import Caption, PreferencePair, Sample, WorldTruth, read_jsonl, write_jsonl

EXAMPLES = Path(__file__).parents[1] / "examples"
RELEASED = ASSETS
MINE = "my own notes\n"


# --- two processes ----------------------------------------------------------------------------------------------------


def test_two_processes_on_one_file_give_every_caption_once(random_checkpoint, videos, tmp_path, forks):
    for index in range(10):
        (tmp_path / f"{index}.mp4").hardlink_to(videos / "b.mp4")
    out = tmp_path / "out.jsonl"
    words = ("caption", tmp_path / "*.mp4", "--model", random_checkpoint, "--out", out, "--batch-size", 1)
    both = [forks.begin(*words), forks.begin(*words)]
    told = [process.communicate()[1] for process in both]
    codes = [process.returncode for process in both]
    # one wrote them all; the other was refused, or came when all was done
    assert sorted(codes) in ([0, 2], [0, 0]), told
    for code, process, text in zip(codes, both, told, strict=True):
        if code == 2:
            other = next(one for one in both if one is not process)
            assert f"out.jsonl: process {other.pid} on " in text and "is writing it; wait for it to end" in text
    rows = list(read_jsonl(out, Caption))
    assert sorted(Path(row.video).name for row in rows) == [f"{index}.mp4" for index in range(10)]


@pytest.mark.slow
def test_a_second_process_is_refused_while_the_first_writes_and_not_after_its_death(
    random_checkpoint, videos, tmp_path, forks
):
    for index in range(30):
        (tmp_path / f"{index:02}.mp4").hardlink_to(videos / "b.mp4")
    out = tmp_path / "out.jsonl"
    words = ("caption", tmp_path / "*.mp4", "--model", random_checkpoint, "--out", out, "--batch-size", 1)
    first = forks.begin(*words)
    while not out.exists() or not out.stat().st_size:
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)  # it neither ends nor writes while the second one tries
    second = forks.begin(*words)
    assert f"process {first.pid} on" in second.communicate()[1] and second.returncode == 2
    first.kill()
    first.wait()
    third = forks.begin(*words)
    assert third.communicate()[1].count("Traceback") == 0 and third.returncode == 0
    assert len({row.video for row in read_jsonl(out, Caption)}) == len(list(read_jsonl(out, Caption))) == 30
    assert not list(tmp_path.glob("*.lock"))


def test_two_processes_on_one_folder(tmp_path, forks):
    words = ("world", "make", "--clips", 6, "--difficulty", "easy", "--workers", 1, "--out", tmp_path / "w")
    first = forks.begin(*words)
    while not list(tmp_path.glob("w/clips/*.mp4")):
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)  # it cannot end before the second one has tried
    second = forks.begin(*words)
    assert f"w: process {first.pid} on" in second.communicate()[1] and second.returncode == 2
    first.send_signal(signal.SIGCONT)
    assert first.communicate() and first.returncode == 0
    assert len(list(read_jsonl(tmp_path / "w" / "truth.jsonl", WorldTruth))) == 6


# --- other people's files ---------------------------------------------------------------------------------------------


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    """A folder with input for every command, and files and folders of somebody who has other things in them."""
    monkeypatch.chdir(tmp_path)
    for name in ("notes.jsonl", "notes.json", "notes.png"):
        (tmp_path / name).write_text(MINE)
    for name in ("thesis", "results"):
        (tmp_path / name).mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text(MINE)
    for name in ("comparison.json", "avcap_world.yaml", "dataset.json"):
        (tmp_path / "results" / name).write_text(MINE)
    pair = PreferencePair(
        sample_id="a", video="a.mp4", prompt="Describe.", chosen="A dog.", rejected="A cat.", reference_caption="A dog."
    )
    write_jsonl(tmp_path / "pairs.jsonl", [pair])
    rows = [{"prompt": "<video>Describe.", "chosen": "A dog.", "rejected": "A cat.", "videos": ["a.mp4"]}]
    (tmp_path / "trl.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_jsonl(tmp_path / "samples.jsonl", [Sample(sample_id="a", video="a.mp4", prompt="", reference_caption="A.")])
    return tmp_path


TRUTH = str(EXAMPLES / "truth.jsonl")
VIDEO = str(next(EXAMPLES.glob("*.mp4")))
EXTERNAL = [
    ["caption", VIDEO, "--out", "notes.jsonl"],
    ["world", "make", "--clips", "1", "--out", "thesis"],
    ["evaluate", "captions.json", "--truth", TRUTH, "--out", "thesis"],
    ["evaluate", "--model", "tiny", "--truth", TRUTH, "--out", "thesis"],
    ["compare", "one", "two", "--out", "results"],
    ["evaluate-qa", "--data", TRUTH, "--out", "thesis"],
    ["audit-audio", "--data", str(EXAMPLES), "--out", "thesis", "--clips", "2"],
    ["judge", "calibrate", "--judge", "oracle", "--videos", "1", "--out", "notes.json"],
    ["events", "extract", "samples.jsonl", "--judge", "openai:m@http://localhost:1", "--out", "notes.jsonl"],
    ["events", "extract", "samples.jsonl", "--judge", "openai:m@http://localhost:1", "--out", "samples.jsonl"],
    ["events", "check", "samples.jsonl", "--edited", "samples.jsonl", "--corrections", "notes.jsonl"],
    ["pairs", "build", "captions.jsonl", "--truth", TRUTH, "--out", "notes.jsonl"],
    ["pairs", "import", "exported.jsonl", "--from", "ms-swift", "--out", "notes.jsonl"],
    ["pairs", "export", "pairs.jsonl", "--to", "ms-swift", "--out", "notes.jsonl"],
    ["pairs", "export", "pairs.jsonl", "--to", "ms-swift", "--out", "trl.jsonl"],
    ["train", "tiny_sft", "--model", "tiny-base", "--out", "thesis"],
    ["rounds", "tiny_rounds", "--data", "learn.jsonl", "--held-out", "measure.jsonl", "--out", "thesis"],
    ["rebirth", "tiny_rebirth", "--teacher", "tiny-base", "--data", TRUTH, "--out", "thesis"],
    ["dpo", "tiny_dpo", "--pairs", "pairs.jsonl", "--out", "thesis"],
    ["average", "tiny-base", "tiny-sft", "--out", "thesis"],
    ["convert", str(find_checkpoint("tiny")), "thesis"],
    ["rounds", "status", "rounds", "--plot", "notes.png"],
    ["audit-official", VIDEO, "--model", str(RELEASED / "v1_av_31s"), "--out", "notes.png"],
    ["caption", VIDEO, "--format", "ltx", "--out", "results"],
]


@pytest.mark.parametrize("words", EXTERNAL, ids=[" ".join(map(os.path.basename, words)) for words in EXTERNAL])
def test_nothing_is_written_over_what_is_somebody_elses(words, work, run):
    truths = list(read_jsonl(TRUTH, WorldTruth))
    write_jsonl(work / "learn.jsonl", truths[:3])
    write_jsonl(work / "measure.jsonl", truths[3:])
    texts = [{"video": truth.video, "pred": truth.reference_caption} for truth in truths]
    (work / "captions.json").write_text(json.dumps(texts))
    if words[0] == "compare":
        for name in ("one", "two"):
            assert run("evaluate", "captions.json", "--truth", TRUTH, "--out", name)[0] == 0
    if "exported.jsonl" in words:
        assert run("pairs", "export", "pairs.jsonl", "--to", "ms-swift", "--out", "exported.jsonl")[0] == 0
    before = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
    code, out, err = run(*words)
    assert code == 2 and not out and err.startswith("avcap: ") and len(err.splitlines()) == 1, err
    name = words[-1] if words[-1] != "2" else "thesis"
    assert name in err and any(said in err for said in ("choose", "expected", "cannot be written")), err
    assert {path: path.read_bytes() for path in work.rglob("*") if path.is_file()} == before


def test_a_data_set_of_somebody_else_keeps_its_name(work, run):
    entry = {"pairs_out": {"file_name": "mine.json"}, "other": {"file_name": "other.json"}}
    (work / "dataset_info.json").write_text(json.dumps(entry))
    words = ("pairs", "export", "pairs.jsonl", "--to", "llama-factory", "--out")
    code, _, err = run(*words, "pairs_out.json")
    assert code == 2 and "has another data set called 'pairs_out'" in err
    assert json.loads((work / "dataset_info.json").read_text()) == entry and not (work / "pairs_out.json").exists()
    assert run(*words, "new.json")[0] == 0
    assert json.loads((work / "dataset_info.json").read_text()).keys() == {"pairs_out", "other", "new"}


@pytest.mark.slow
def test_files_of_the_same_command_are_written_anew(work, run):
    for words in (
        ("judge", "calibrate", "--judge", "oracle", "--videos", "2", "--out", "judge.json"),
        ("pairs", "export", "pairs.jsonl", "--to", "ms-swift", "--out", "swift.jsonl"),
        ("pairs", "import", "swift.jsonl", "--from", "ms-swift", "--out", "ours.jsonl"),
        ("audit-official", VIDEO, "--model", RELEASED / "v1_av_31s", "--out", "audit.png"),
        ("audit-official", VIDEO, "--model", RELEASED / "v1_av_31s", "--out", "audit.svg"),
    ):
        for _ in range(2):
            code, _, err = run(*words)
            assert code == 0, err
    assert (work / "audit.png").read_bytes().startswith(b"\x89PNG")
