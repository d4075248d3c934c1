"""docs/models.md, engine by command: every cell is run here, against a server that behaves as the engine does."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.scripted_engine import KINDS, ScriptedEngine

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs/models.md").read_text(encoding="utf-8")
KIND_OF = {kind.name: kind for kind in KINDS}


def table() -> dict[tuple[str, str], str]:
    """-> what the table says of an engine and a command."""
    lines = re.search(r"### What works with which\n.*?\n\n(\| \| .*?\n)(?:\n|\Z)", TEXT, re.DOTALL)[1].splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {(row[0], name.replace("`", "")): cell for row in rows for name, cell in zip(head[1:], row[1:], strict=True)}


CELLS = table()
RUN = sorted(key for key, cell in CELLS.items() if cell != "not shown" and not key[1].startswith("rounds"))


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Two of the examples with their truth."""
    folder = tmp_path_factory.mktemp("world")
    lines = (ROOT / "examples/truth.jsonl").read_text().splitlines()[:2]
    (folder / "truth.jsonl").write_text("\n".join(lines) + "\n")
    for line in lines:
        name = json.loads(line)["video"]
        shutil.copy(ROOT / "examples" / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, ScriptedEngine]]:
    """One server of each kind for all its cells."""
    with ExitStack() as stack:
        yield {kind.name: stack.enter_context(ScriptedEngine(kind)) for kind in KINDS}


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> Path:
    """Where it is kept what was found out about an engine: the cells of one, as a user's commands, find it out once."""
    return tmp_path_factory.mktemp("found")


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path, monkeypatch, found):
    monkeypatch.setenv("XDG_CACHE_HOME", str(found))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-key-of-some-length")
    monkeypatch.chdir(tmp_path)


def test_every_engine_has_a_row_and_every_cell_a_known_word():
    assert {engine for engine, _ in CELLS} == set(KIND_OF)
    assert set(CELLS.values()) <= {"works", "no log-probs", "needs weights", "not shown"}


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "command"), RUN)
def test_a_cell_is_true(engine, command, world, run, servers):
    kind, cell = KIND_OF[engine], CELLS[engine, command]
    if cell == "needs weights":
        return _check_needs_weights(engine, run)
    server = servers[engine]
    before = len(server.captions)
    model = server.model + ("" if kind.owned_by else f"?dialect={engine}")
    code, out, err = run(*_words(command, model, world))
    if cell == "no log-probs":
        assert code == 2 and "got --method logprobs of an engine without them" in err
        return None
    assert code == (1 if command == "audit-audio" else 0), err  # a model that says the same of each clip
    expected = EXPECTED[command]
    assert expected in out + err, out + err
    assert (len(server.captions) > before) == (command not in ("doctor", "plan"))
    return None


EXPECTED = {
    "caption": "s of sound (confirmed)",
    "doctor": "confirmed; 2, 4 and 8 s of audio count",
    "plan": "2 videos of 20.0 s together",
    "evaluate": "2 videos, 29 events, 0 unscored",
    "evaluate-qa, words": "15 questions about 2 videos, 0 unanswered",
    "evaluate-qa, letters": "logprobs: answered / right: A 0.00",
    "audit-audio": "(2 clips, 0 could not be used)",
    "sample": "3 captions of 2 samples each, 0 errors",
    "pairs build": "captions   18 of 2 videos",
}


def _words(command: str, model: str, world: Path) -> list[object]:
    """A column of the table -> the command line."""
    videos = sorted(world.glob("*.mp4"))
    qa = ["evaluate-qa", "--data", world, "--out", "qa", "--model", model, "--method"]
    return {
        "caption": ["caption", *videos, "--model", model],
        "doctor": ["doctor", model],
        "plan": ["plan", world, "--model", model],
        "evaluate": ["evaluate", "--truth", world, "--out", "report", "--model", model],
        "evaluate-qa, words": [*qa, "generate"],
        "evaluate-qa, letters": [*qa, "logprobs"],
        "audit-audio": ["audit-audio", "--data", world, "--out", "audit", "--model", model],
        "sample": ["sample", *videos, "--out", "some.jsonl", "-n", 3, "--model", model],
        "pairs build": ["pairs", "build", "--truth", world, "--out", "pairs.jsonl", "-n", 3, "--model", model],
    }[command]


def _check_needs_weights(engine: str, run) -> None:
    model = f"openai:omni@http://127.0.0.1:9/v1?dialect={engine}"
    for words in (
        ["train", "tiny_sft", "--model", model],
        ["dpo", "tiny_dpo", "--pairs", "gone.jsonl", "--out", "out", "--model", model],
        ["rebirth", "tiny_rebirth", "--model", "tiny-sft", "--teacher", model],
        ["rounds", "tiny_rounds", "--model", model],
    ):
        code, _, err = run(*words)
        assert code == 2 and "a model behind an engine, where weights are needed" in err, (words, err)
