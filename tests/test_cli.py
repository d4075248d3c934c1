"""The command line as a user has it: real files, exit codes, one line for what is wrong.

`avcap` starts Python, for what only a whole process can show: everything on its streams, pipes, what is imported. That
costs seconds of imports. Where signals and real streams are enough, `forks` starts a process that has loaded torch; all
else goes by `run`: the same entry point in this process.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import yaml

from avcap.cli.app import command_line
from avcap.cli.model_help import ANY_MODEL, WEIGHTS
from avcap.infer.caption_file import read_rows
from avcap.records import Caption, CaptionError

SOURCE = Path(__file__).parent.parent / "src"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(SOURCE), "COLUMNS": "200", "NO_COLOR": "1"}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "avcap", *map(str, arguments)]


def avcap(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, env=ENVIRONMENT, cwd=cwd)


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    """Lines are not broken, for `run` as in ENVIRONMENT."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def caption_args(random_checkpoint):
    return ("caption", "--model", random_checkpoint)


def rows_of(path: Path) -> dict[str, Caption | CaptionError]:
    rows = list(read_rows(path))
    assert len({row.sample_id for row in rows}) == len(rows), "a sample stands twice"
    return {Path(row.video).name: row for row in rows}


# --- captions ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_captions_are_printed_as_text(caption_args, videos):
    done = avcap(*caption_args, videos / "a.mp4", videos / "silent.mp4")
    assert done.returncode == 0, done.stderr
    header, caption, gap, silent_header, silent_caption = done.stdout.splitlines()
    assert header == "a.mp4  3.0 s: 3 frames, 3.0 s of sound"
    assert silent_header == "silent.mp4  2.0 s: 2 frames, no sound track"
    assert gap == "" and caption and silent_caption
    assert done.stderr == ""


def test_an_interval_without_audio(caption_args, videos, run):
    _, out, err = run(*caption_args, videos / "c.mp4", "--start", 1, "--no-audio", "--prompt", "Zeppelin?")
    assert out.splitlines()[0] == "c.mp4  1 to 4 s of 4.0 s: 3 frames, sound left out"
    assert "avcap: the prompt has words that" in err and "'Zeppelin'" in err


def test_a_bad_file_is_an_error_row_and_the_others_are_captioned(caption_args, videos, tmp_path, run):
    (tmp_path / "broken.mp4").write_text("no video")
    (tmp_path / "list.txt").write_text(f"# two of them\n{videos / 'b.mp4'}\n\n{tmp_path / 'broken.mp4'}\n")
    out = tmp_path / "out.jsonl"
    inputs = (str(videos / "[ac].mp4"), tmp_path / "list.txt", tmp_path / "gone.mp4")
    code, printed, err = run(*caption_args, *inputs, "--out", out)
    assert code == 1
    rows = rows_of(out)
    assert {name for name, row in rows.items() if isinstance(row, Caption)} == {"a.mp4", "b.mp4", "c.mp4"}
    assert {name for name, row in rows.items() if isinstance(row, CaptionError)} == {"broken.mp4", "gone.mp4"}
    assert "3 captions written, 2 errors, 0 captions were there already" in err
    assert printed == "" and "Traceback" not in err

    # again: the captions are there, the errors are tried once more, and one of them is mended by now
    (tmp_path / "broken.mp4").write_bytes((videos / "a.mp4").read_bytes())
    before = {name: row for name, row in rows.items() if isinstance(row, Caption)}
    code, _, err = run(*caption_args, *inputs, "--out", out)
    assert code == 1
    assert "1 captions written, 1 errors, 3 captions were there already" in err
    rows = rows_of(out)
    assert {name: row for name, row in rows.items() if name in before} == before
    assert isinstance(rows["broken.mp4"], Caption) and isinstance(rows["gone.mp4"], CaptionError)

    # with another prompt it would be another experiment
    code, _, err = run(*caption_args, *inputs, "--out", out, "--seed", 1)
    assert code == 2
    assert "got captions of decoding" in err and err.count("\n") == 1


def test_a_folder_is_searched_and_what_is_skipped_is_told(caption_args, videos, tmp_path, run):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "A.MP4").write_bytes((videos / "a.mp4").read_bytes())
    (tmp_path / "in" / "notes.json").write_text("{}")
    (tmp_path / "in" / ".hidden.mp4").write_text("")
    code, out, err = run(*caption_args, tmp_path / "in")
    assert code == 0
    assert err == "avcap: 2 files were not taken: 1 .json, 1 hidden\n"
    assert out.startswith("A.MP4  3.0 s")


def test_a_file_is_captioned_once_whatever_it_is_called(caption_args, videos, tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "b.mp4").write_bytes((videos / "b.mp4").read_bytes())
    (tmp_path / "link").symlink_to("x")
    for spelling, told in (
        ("x", "1 captions written"),
        ("./x", "0 captions written"),
        ("link", "0 captions written"),
        (tmp_path / "x" / "b.mp4", "0 captions written"),
    ):
        code, _, err = run(*caption_args, spelling, "--out", "o.jsonl")
        assert code == 0 and told in err
    assert [row.video for row in read_rows(tmp_path / "o.jsonl")] == ["x/b.mp4"]


def test_captions_of_one_name_are_printed_with_their_folders(caption_args, videos, tmp_path, run):
    for name, video in (("ytb", "a"), ("nsr", "b")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "001.mp4").write_bytes((videos / f"{video}.mp4").read_bytes())
    _, out, _ = run(*caption_args, tmp_path)
    heads = [line for line in out.splitlines() if "frames" in line]
    assert [head.split("  ")[0] for head in heads] == ["nsr/001.mp4", "ytb/001.mp4"]


def test_names_that_are_no_text_are_captioned_and_found_again(caption_args, videos, tmp_path, run, forks):
    rejection_reason = (
        tmp_path / "\udcff :x: [b].mp4"
    )  # a byte that no UTF-8 begins with, and what rich would make pictures of
    rejection_reason.write_bytes((videos / "b.mp4").read_bytes())
    broken = tmp_path / "\udcff [red]x.mp4"
    broken.write_text("no video")
    out = tmp_path / "out.jsonl"
    first = forks.run(*caption_args, tmp_path, "--out", out)  # a process: its streams take what no test's stream would
    assert first.returncode == 1 and f"{tmp_path}/\\udcff [red]x.mp4: got a file that cannot" in first.stderr
    assert {row.video for row in rows_of(out).values()} == {str(rejection_reason), str(broken)}
    code, _, err = run(*caption_args, rejection_reason, "--out", out)
    assert (code, "1 captions were there already" in err) == (0, True)
    printed = forks.run(*caption_args, rejection_reason)
    assert printed.stdout.startswith("\\udcff :x: [b].mp4  2.0 s: 2 frames")


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on(caption_args, videos, tmp_path, forks):
    for index in range(40):
        (tmp_path / f"{index:02}.mp4").write_bytes((videos / "b.mp4").read_bytes())
    out = tmp_path / "out.jsonl"
    arguments = (*caption_args, tmp_path / "*.mp4", "--out", out, "--batch-size", 1)
    process = forks.begin(*arguments)
    while not out.exists() or out.read_bytes().count(b"\n") < 3:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = out.read_text().splitlines(keepends=True)
    assert 3 <= len(kept) < 40
    with open(out, "a") as handle:
        handle.write('{"caption_id": "0123", "sam')  # what a kill in the middle of a write leaves
    done = forks.run(*arguments)
    assert done.returncode == 0, done.stderr
    assert out.read_text().splitlines(keepends=True)[: len(kept)] == kept
    assert sorted(rows_of(out)) == [f"{index:02}.mp4" for index in range(40)]


@pytest.mark.slow
def test_ctrl_c_and_a_closed_pipe_end_it_quietly(caption_args, videos, tmp_path, forks):
    for index in range(60):  # too many to end in the time that a signal takes
        (tmp_path / f"{index:02}.mp4").write_bytes((videos / "b.mp4").read_bytes())
    out = tmp_path / "out.jsonl"
    arguments = (*caption_args, tmp_path / "*.mp4", "--batch-size", 1)
    process = forks.begin(*arguments, "--out", out)
    while not out.exists() or not out.read_bytes():
        assert process.poll() is None, "it ended before it could be interrupted"
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.wait() == 130 and "Traceback" not in errors
    assert errors.endswith("avcap: interrupted; with --out, the same command goes on from here\n")
    assert 1 <= out.read_text().count("\n") < 60
    piped = subprocess.run(
        ["sh", "-c", '"$@" | head -c 1', "sh", *command(*arguments)], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert "Traceback" not in piped.stderr and "Exception" not in piped.stderr


def test_a_full_disk_is_said(caption_args, videos, forks):
    done = forks.run(*caption_args, videos / "b.mp4", "--out", "/dev/full")
    assert done.returncode == 2
    assert done.stderr == (
        "avcap: /dev/full: cannot be written (No space left on device); make room and run it again: what is written "
        "is kept\n"
    )


# --- bad input --------------------------------------------------------------------------------------------------------

BAD_INPUT = [
    (["caption", "x.mp4", "--model", "gpt-17"], "model 'gpt-17': no model of that name"),
    (["caption", "x.mp4", "--model", "."], "no config.json but"),
    (["caption", "x.mp4", "--start", "5", "--end", "2"], "got the interval 5 to 2 s, expected a start of 0 or more"),
    (["caption", "x.mp4", "--start", "-1"], "got the interval -1 to inf s"),
    (["caption", "x.mp4", "--start", "soon"], "got '--start soon'; see avcap caption --help"),
    (["caption", "x.mp4", "--no-audio", "--no-video"], "got neither picture nor sound"),
    (["caption", "x.mp4", "--temperature", "-1"], "got temperature=-1"),
    (["caption", "x.mp4", "--top-p", "2"], "got top_p=2"),
    (["caption", "x.mp4", "--max-new-tokens", "0"], "got max_new_tokens=0"),
    (["caption", "x.mp4", "--batch-size", "0"], "got batch_size=0"),
    (["caption", "x.mp4", "--prompt", ""], "got an empty prompt"),
    (["caption", "x.mp4", "--colour", "red"], "No such option: --colour"),
    (["caption", "*.webm"], "*.webm: got a pattern that no file matches"),
    (["caption", "."], ".: got a folder without media files"),
    (["caption", "empty.txt"], "empty.txt: got a list without a path"),
    (["caption", "binary.txt"], "binary.txt: got a list that cannot be read"),
    (["caption", "x.mp4", "--out", "no/such/folder/x.jsonl"], "no/such/folder/x.jsonl: cannot be written"),
    (["caption", "x.mp4", "--out", "x.parquet"], "take --out FOLDER/ --format parquet"),
    (["caption", "x.mp4", "--out", "binary.txt/"], "binary.txt/: got a file, expected a folder"),
    (["caption", "x.mp4", "--out", "binary.txt", "--format", "ltx"], "binary.txt: got a file and --format ltx"),
    (["caption", "x.mp4", "--out", "o/", "--format", "gif"], "got --format gif, expected one of txt, ltx"),
    (["caption", "x.mp4", "--out", "o/", "--format", "ltx", "--trigger", "sks"], "--lora-trigger sks"),
    (["caption", "x.mp4", "--out", "o/", "--shard", "3/2"], "got --shard 3/2, expected I/N"),
    (["caption", "x.mp4", "--out", "o/", "--sample", "0"], "got --sample 0, expected at least 1"),
    (["caption", "x.mp4", "--out", "o/", "--every", "3"], "got --every without subtitles"),
    (["caption", "x.mp4", "--out", "o/", "--format", "srt", "--every", "0"], "got --every 0, expected 0.5 to 600"),
    (["caption", "x.mp4", "--out", "o/", "--format", "srt", "--no-audio"], "got --no-audio and subtitles"),
    (["caption", "x.mp4", "--out", "o/", "--relative-to", "nowhere"], "nowhere: got no folder for --relative-to"),
    (["caption", "x.mp4", "--format", "srt"], "got --format without a folder to write to"),
    (["caption", "x.mp4", "--out", "o.jsonl", "--trigger", "sks"], "got --trigger without a folder to write to"),
    (["merge", "o.jsonl", "gone.jsonl"], "gone.jsonl: got no such file"),
    (["filter", "gone.jsonl", "--where", "finished"], "gone.jsonl: got no such file"),
    (["filter", "external.jsonl", "--where", "repetition<"], "got --where 'repetition<' with its end"),
    (["caption", "x.mp4", "--out", "external.jsonl"], "external.jsonl, line 1: got no row of captions"),
    (["caption", "x.mp4", "--out", "binary.txt"], "binary.txt, line 1: got no row of captions"),
    (["sing"], "No such command 'sing'"),
    (["world", "make", "--clips", "0", "--out", "w"], "got 0 clips, expected 1"),
    (["world", "make", "--clips", "1", "--out", "w", "--domain", "moon"], "domain 'moon' is not known"),
    (["world", "make", "--clips", "1"], "Missing option '--out'"),
    (["train", "tiny_base", "--set", "seed"], "--set seed: expected NAME=VALUE"),
    (["train", "tiny_base", "--config", "no.yaml"], "no.yaml: cannot be read (No such file"),
    (["train", "tiny_sft", "--model", "nobody"], "model 'nobody': no model of that name"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_INPUT, ids=[" ".join(arguments) for arguments, _ in BAD_INPUT])
def test_bad_input_is_one_line(arguments, message, tmp_path, random_checkpoint, run, monkeypatch):
    arguments, before = prepare_bad_input(arguments, tmp_path, random_checkpoint)
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert_one_line(err, message)
    assert contents(tmp_path) == before


# One for each way to an error: the parser of the command line, a check before torch is loaded, a checkpoint refused.
@pytest.mark.parametrize(
    "words",
    [
        "caption x.mp4 --colour red",
        "caption empty.txt",
        "caption x.mp4 --model .",
    ],
)
def test_a_process_with_bad_input_says_nothing_else(words, tmp_path, random_checkpoint, forks):
    ((arguments, message),) = [case for case in BAD_INPUT if " ".join(case[0]) == words]
    arguments, before = prepare_bad_input(arguments, tmp_path, random_checkpoint)
    start = forks.run if "--model ." in words else avcap  # the last one has to load torch
    done = start(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert_one_line(done.stderr, message)
    assert contents(tmp_path) == before


def prepare_bad_input(arguments: list[str], folder: Path, checkpoint: Path) -> tuple[list[str], dict[str, bytes]]:
    """-> the arguments with a model, and what is in the folder."""
    (folder / "empty.txt").write_text("# nothing\n")
    (folder / "binary.txt").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\n")
    (folder / "external.jsonl").write_text('{"question": "is this a caption?"}')
    if arguments[0] == "caption" and "--model" not in arguments:
        arguments = [*arguments, "--model", str(checkpoint)]
    return arguments, contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_one_line(err: str, message: str) -> None:
    assert err.startswith("avcap: ") and message in err
    assert err.count("\n") == 1 and "Traceback" not in err


# --- the other commands -----------------------------------------------------------------------------------------------


def test_version_help_and_models_need_no_torch():
    """One after the other in one process, so that none can hide behind another."""
    code = textwrap.dedent("""
        import sys
        from avcap.cli import main
        for words in ("--version", "--help", "caption --help", "train --help", "models"):
            sys.argv = ["avcap", *words.split()]
            try:
                main()
            except SystemExit as stopped:
                print(words, stopped.code, "torch" in sys.modules, file=sys.stderr)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0 and done.stderr.splitlines() == [
        "--version 0 False",
        "--help 0 False",
        "caption --help 0 False",
        "train --help 0 False",
        "models 0 False",
    ]


def test_a_world_is_made(tmp_path, run):
    words = ("--clips", 1, "--seed", 5, "--difficulty", "easy", "--out", tmp_path / "w", "--workers", 1)
    code, out, err = run("world", "make", *words)
    assert code == 0, err
    assert out.strip() == str(tmp_path / "w" / "truth.jsonl")
    (truth,) = (json.loads(line) for line in (tmp_path / "w" / "truth.jsonl").read_text().splitlines())
    assert (tmp_path / "w" / truth["video"]).is_file()


def test_a_dry_run_prints_a_configuration_that_gives_itself_again(tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("train", "tiny_sft", "--dry-run", "--seed", 3, "--set", "finetune.optim.lr=5e-4")
    assert run(*words, "--model", tmp_path)[:2] == (2, "")  # the folder is no checkpoint
    code, first, err = run(*words)
    assert code == 0, err
    config = yaml.safe_load(first)
    assert (config["recipe"], config["seed"], config["finetune"]["optim"]["lr"]) == ("tiny_sft", 3, 5e-4)
    assert "# Would train into out/tiny_sft, from nothing" in first
    (tmp_path / "my.yaml").write_text(first)
    _, second, _ = run("train", "tiny_sft", "--dry-run", "--config", "my.yaml")
    assert second == first
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "giant"], "got the recipe 'giant', expected one of tiny_base, tiny_align, tiny_sft"),
        (["train", "tiny_sft", "--set", "finetune.optim.lrr=1"], "nearest is 'finetune.optim.lr'"),
        (["train", "tiny_sft"], "--model"),
    ],
)
def test_a_wrong_recipe_or_field_is_said_before_anything_is_written(arguments, message, tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*arguments)
    assert code == 2 and message in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


# --- help -------------------------------------------------------------------------------------------------------------


def test_help_names_every_form_of_a_model():
    """Whoever reads the help of one command knows what --model takes, and in which the weights are needed."""
    root = command_line()
    found = {}

    def look(group, words):
        for name, one in sorted(group.commands.items()):
            if hasattr(one, "commands"):
                look(one, (*words, name))
            for parameter in getattr(one, "params", ()):
                if parameter.name in ("model", "models", "teacher"):
                    found[" ".join((*words, name)), parameter.name] = parameter.help

    look(root, ())
    needs_weights = {
        ("audit-official", "model"),
        ("average", "models"),
        ("dpo", "model"),
        ("rebirth", "model"),
        ("rebirth", "teacher"),
        ("rounds run", "model"),
        ("serve", "model"),
        ("train", "model"),
    }
    assert len(found) == 16 and needs_weights < found.keys()
    for key, text in found.items():
        assert (WEIGHTS if key in needs_weights else ANY_MODEL) in text, key
        assert ("openai:" in text) == (key not in needs_weights), key


def test_a_process_that_runs_commands_one_after_the_other_says_a_warning_once(run, capsys):
    for _ in range(3):
        assert run("--version")[0] == 0
    logging.getLogger("avcap").warning("said once")
    assert capsys.readouterr().err.count("said once") == 1
