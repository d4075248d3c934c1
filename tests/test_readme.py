"""The README tells the truth: its commands run, its tree is the one on disk, its links lead somewhere."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.forked import Forks

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

# Commands that are not run here -> why not.
NOT_RUN = {
    "make demo": "calls pip; the command behind it, avcap caption examples/*.mp4, is run",
    "make test": "would run this test within itself",
    "make train": "takes more than an hour; its commands are checked below without training",
    "avcap rounds tiny_rounds --out out/rounds": "takes more than an hour; tests/stages/test_rounds.py runs rounds",
    "avcap rounds status out/rounds": "needs what the line above makes",
    "pip install -c constraints.txt -e .": "calls pip",
    "pip install -e '.[world]'": "calls pip",
    "avcap caption talk.mp4 --model checkpoints/video-SALMONN-2": "needs the released weights, many gigabytes",
    "avcap caption talk.mp4 --model tsinghua-ee/video-SALMONN-2_plus_7B_full": "likewise: tests/test_cli_hub.py",
}


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """Lines of a shell block, without comments and empty ones."""
    lines = (re.sub(r"(^|\s+)#.*", "", line).strip() for line in text.splitlines())
    return [line for line in lines if line]


COMMANDS = [command for block in blocks("sh") for command in commands(block)]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> tuple[Path, dict[str, str]]:
    """A folder that looks like a checkout, in which commands may write, and the environment to run them in."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("bench", "docs", "src", "tests", "pyproject.toml", "constraints.txt", "Makefile", "runs"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "examples", folder / "examples")
    programs = tmp_path_factory.mktemp("bin")
    forks.program(programs)  # each `avcap` is a process that has loaded torch already
    (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (programs / "python").chmod(0o755)
    paths = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src")}
    return folder, os.environ | paths | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def avcap(request):
    """The fixture `run` of all tests, whose name is taken here."""
    return request.getfixturevalue("run")


def run(command: list[str], place: tuple[Path, dict[str, str]]) -> subprocess.CompletedProcess[str]:
    folder, environment = place
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.timeout(900)  # 20 CPU seconds; much longer on a busy machine
def test_every_command_runs(checkout):
    """In the order of the page, in one folder, as a reader would type them."""
    ran = [command for command in COMMANDS if command not in NOT_RUN]
    assert len(ran) >= 8
    for command in ran:
        done = run(["bash", "-c", command], checkout)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def test_every_python_block_runs(checkout, monkeypatch, capsys):
    """Each with names of its own, in this process: what each would import takes seconds."""
    found = blocks("python")
    assert len(found) >= 2
    monkeypatch.chdir(checkout[0])
    for block in found:
        exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})
        assert capsys.readouterr().out.strip()


def test_what_is_not_run_is_in_the_readme():
    assert set(NOT_RUN) <= set(COMMANDS)


def test_the_two_commands_come_first():
    assert commands(blocks("sh")[0]) == ["make demo", "make test"]


def test_make_demo_is_the_plain_commands(checkout):
    shown = commands(blocks("sh")[1])
    printed = run(["make", "--dry-run", "--always-make", "demo"], checkout).stdout
    lines = printed.replace(".venv/bin/", "").splitlines()
    assert [line for line in lines if line in shown] == shown


@pytest.mark.slow
def test_make_demo_prints_captions_and_nothing_else(checkout):
    folder, environment = checkout
    python = (folder, environment | {"PYTHON": sys.executable})  # with all that Python says when it starts
    done = run(["bash", "-c", '"$PYTHON" -m avcap caption examples/*.mp4'], python)
    assert (done.returncode, done.stderr) == (0, "")
    videos = sorted(path.name for path in (ROOT / "examples").glob("*.mp4"))
    blocks_shown = done.stdout.rstrip("\n").split("\n\n")
    for name, shown in zip(videos, blocks_shown, strict=True):
        head, caption = shown.split("\n")
        assert re.fullmatch(rf"{name}  10\.0 s: 10 frames, 10\.0 s of \w+", head)
        assert re.fullmatch(r"At \d+s [^\n]+\.", caption)


@pytest.mark.slow
def test_make_test_prints_dots_and_a_closing_line(checkout):
    """With the project's settings, on one file: a warning would be listed between the two."""
    done = run([sys.executable, "-m", "pytest", "tests/test_records.py", "-p", "no:cacheprovider"], checkout)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"([.\s\[\]%\d]|bringing up nodes\.\.\.)+passed in [\d.]+s\n", done.stdout)


def test_ci_runs_the_test_command_of_the_readme():
    script = commands((ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    assert script[-2:] == ["make static", "exec make test"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_commands_of_make_train_would_run(avcap, tmp_path, monkeypatch):
    """Each with --dry-run, without the parent that the line before it would have trained."""
    monkeypatch.chdir(tmp_path)
    script = commands((ROOT / "runs" / "train_tiny.sh").read_text(encoding="utf-8"))
    lines = [line for line in script if line.startswith("avcap train")]
    assert [line.split()[2] for line in lines] == ["tiny_base", "tiny_align", "tiny_sft"]
    made = [line.split("--out ")[1].split()[0] + "/checkpoint" for line in lines]
    for line, parent in zip(lines, [None, *made], strict=False):
        assert parent is None or f"--model {parent} " in line
        words = shlex.split(line.replace(f"--model {parent} ", ""))
        code, _, err = avcap(*words[1:], "--dry-run")
        assert code == 0, err


# --- the tree and the links -------------------------------------------------------------------------------------------


def tree() -> dict[str, str]:
    """Path -> phrase, from the tree in the README; a deeper line belongs to the folder above it."""
    (text,) = blocks("text")
    paths: dict[str, str] = {}
    folder = ""
    for line in text.splitlines():
        name, phrase = re.split(r"\s{2,}", line.strip(), maxsplit=1)
        if line.startswith("  "):
            paths[folder + name] = phrase
        else:
            paths[name] = phrase
            folder = name
    return paths


def kept_files() -> list[str]:
    """Files of the repository, committed or not, without what .gitignore names."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip("no git checkout: what belongs to the repository cannot be told")
    return [name for name in done.stdout.splitlines() if (ROOT / name).exists()]


def test_the_tree_is_the_one_on_disk():
    """Whatever lies at the top, and whatever lies in src/avcap, has its line, and no line is without its file."""
    found = set()
    for name in kept_files():
        parts = name.split("/")
        depth = {"src": 3, ".ci": 2}.get(parts[0], 1)
        found.add("/".join(parts[:depth]) + ("/" if len(parts) > depth else ""))
        if parts[0] == "src":
            found.add("src/avcap/")
    assert set(tree()) == found
    assert all(tree().values())


def documents() -> list[str]:
    return [name for name in kept_files() if name.endswith(".md") and not name.startswith(("tests/", "src/"))]


def test_links_lead_to_files():
    for document in documents():
        text = (ROOT / document).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            if "://" not in target:
                assert ((ROOT / document).parent / target).exists(), f"{document}: no {target}"


def test_paths_named_in_the_documents_exist():
    """Paths in backticks, from the top of the repository or from src/avcap."""
    for document in documents():
        text = (ROOT / document).read_text(encoding="utf-8")
        for path in re.findall(r"`([\w./-]+/[\w./-]*\w\.(?:py|sh|md|mp4|jsonl))`", text):
            places = (ROOT / path, ROOT / "src" / "avcap" / path)
            written_by_avcap = path.startswith(("out/", "OUT/", "clips/"))
            assert written_by_avcap or any(place.exists() for place in places), f"{document}: no {path}"
