"""Whatever stands on the command line, in names and in captions: one line, and nothing that steers a terminal."""

import json
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.scripted_server import ScriptedServer

from avcap.cli.app import command_line
from avcap.errors import visible, visible_line

LONG = "x" * 5000
NUMBERS = ("inf", "-inf", "nan", "1e300", "-1", "9" * 30, "@x")
TEXTS = ("", LONG, "a/" * 2500, "\x1b]0;pwn\x07", "a\nb", "\udcff", "‮gpj.exe", "@x", "NaN")
ASSIGNMENTS = ("seed=@x", "a=[", "seed='", "=", "seed", "", "seed=\x1b", "seed={", LONG)


def commands(group, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """The command line -> all its commands, with the words that call them."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name), command


COMMANDS = dict(commands(command_line()))


def words_for(command, words: tuple[str, ...], *, param, value: str, folder: Path) -> list[str]:
    """A command line in which one parameter has this value, and the other required ones name what is not there."""
    line = list(words)
    for other in command.params:
        is_needed = other.required or (words == ("serve",) and other.name == "model")  # or it would serve for ever
        if other is not param and not is_needed:
            continue
        given = value if other is param else str(folder / "absent*")
        line += [given] if type(other).__name__ == "TyperArgument" else [other.opts[0], given]
    return line


# these load a model for many values, before they find that there is nothing to show it
LOADING = {("sample",), ("audit-audio",)}
CASES = [pytest.param(words, marks=[pytest.mark.slow] * (words in LOADING), id=" ".join(words)) for words in COMMANDS]


@pytest.mark.parametrize("words", CASES)
def test_every_parameter_of_every_command_takes_a_hostile_value_in_one_line(words, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for param in COMMANDS[words].params:
        if getattr(param, "is_flag", False) or param.name == "help":
            continue
        values = ASSIGNMENTS if param.name in ("assignments", "set_") else NUMBERS + TEXTS
        values = TEXTS if param.name == "inputs" else values  # each is looked at by a model
        for value in values:
            line = words_for(COMMANDS[words], words, param=param, value=value, folder=tmp_path)
            code, out, err = run(*line)  # a traceback would come out of here as an exception
            # a video that is not there is an error row, and may be counted at the end
            is_row = code == 1 and (param.name == "inputs" or words == ("sample",))
            assert code == 2 or is_row, (line, code, out, err)
            assert err.startswith("avcap: ") and err.count("\n") <= 1 + is_row and len(err) < 4000, (line, err)
            assert visible(err) == err, (line, err)


@pytest.mark.parametrize("value", ["inf", "nan", "1e300", "-1", "0"])
def test_a_deadline_is_a_finite_time(value, run, videos):
    code, _, err = run("caption", videos / "a.mp4", "--deadline", value)
    assert code == 2 and err.count("\n") == 1


def test_names_and_captions_steer_no_terminal(run, tmp_path, videos, random_checkpoint):
    name = "e\x1b]0;pwn\x07‮a.mp4"
    (tmp_path / name).write_bytes((videos / "a.mp4").read_bytes())
    code, out, err = run("caption", tmp_path / name, "--model", random_checkpoint)
    assert code == 0 and visible_line(name) in out and visible(out) == out
    (tmp_path / "broken\x1b[31m.mp4").write_bytes(b"no video")
    code, out, err = run("caption", tmp_path / "broken\x1b[31m.mp4", "--model", random_checkpoint)
    assert code == 1 and r"broken\x1b[31m.mp4" in err and visible(err) == err


def test_what_is_shown_of_text():
    assert visible("a\x1b[1m\u202eb\x9b\u2066\ud800") == r"a\x1b[1m\u202eb\x9b\u2066\ud800"
    assert visible("é漢\U0001f600\u200d\n\t") == "é漢\U0001f600\u200d\n\t"
    assert visible_line("a\nb") == r"a\nb"


@pytest.fixture
def judged(tmp_path: Path) -> tuple[Path, Path]:
    """A truth with a hostile id, and a caption of it."""
    video = "v\x1b]0;pwn\x07"
    truth, captions = tmp_path / "truth.json", tmp_path / "captions.json"
    truth.write_text(json.dumps([{"video": video, "events": ["a dog barks"]}]))
    captions.write_text(json.dumps([{"video": video, "caption": "<think>hm</think>A dog."}]))
    return truth, captions


def test_a_server_s_message_steers_no_terminal_and_the_files_are_private(run, judged, tmp_path, monkeypatch):
    truth, captions = judged
    monkeypatch.setenv("OPENAI_API_KEY", "sk-proj-0123456789abcdef")
    from support.scripted_server import always, status

    out_dir = tmp_path / "out"
    with ScriptedServer(script=always(status(413, "\x1b[31mno sk-proj-01234567 \u202e"))) as server:
        code, out, err = run(
            "evaluate",
            captions,
            "--truth",
            truth,
            "--judge",
            f"openai:m@{server.url}",
            "--out",
            out_dir,
            "--timeout",
            "5",
        )
    assert code == 1 and r"\x1b[31mno [key]" in err and visible(err) == err and visible(out) == out
    assert "caption with thoughts: 1" in err
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in out_dir.iterdir()}
    assert set(modes.values()) == {0o600} and {"replies.sqlite", "report.html", "unscored.jsonl"} <= set(modes)


def test_a_call_has_a_time_out_of_the_user_s(run, judged, tmp_path):
    truth, captions = judged
    for value in ("0", "-1", "nan"):
        words = ("--truth", truth, "--judge", "openai:m@http://localhost:9", "--out", tmp_path / "out")
        code, _, err = run("evaluate", captions, *words, "--timeout", value)
        assert code == 2 and "timeout" in err


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_ends_it_with_one_line(number, expected, judged, tmp_path):
    from support.scripted_server import always, hang

    truth, captions = judged
    with ScriptedServer(script=always(hang)) as server:
        words = ["evaluate", captions, "--truth", truth, "--judge", f"openai:m@{server.url}", "--out", tmp_path / "out"]
        running = subprocess.Popen(
            [sys.executable, "-m", "avcap", *map(str, words), "--timeout", "2"],
            stderr=subprocess.PIPE,
            text=True,
        )
        until = time.monotonic() + 60
        while server.most_at_once == 0 and time.monotonic() < until:
            time.sleep(0.05)
        running.send_signal(number)
        _, err = running.communicate(timeout=60)
    assert running.returncode == expected, err
    assert err.count("\n") == 1 and err.startswith("avcap: ")


@pytest.mark.parametrize("after_s", [0.05, 0.1, 0.15, 0.2, 0.3])
def test_ctrl_c_while_it_starts_is_no_traceback(after_s, tmp_path):
    """The clock starts once the package is being loaded: before that no code of ours runs."""
    code = (
        "import os, signal, threading\n"
        f"threading.Timer({after_s}, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "import sys; sys.argv = ['avcap', 'models']\n"
        "from avcap.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in (0, 130)
