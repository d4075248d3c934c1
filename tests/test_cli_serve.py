"""`avcap serve` as a process: it says where it is, answers, and ends as it is told; and what it refuses to begin."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from support.served_checkpoint import media

from avcap.cli.serve import check_reach, host_names, is_loopback
from avcap.errors import UserError

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_server_answers_and_ends_as_it_is_told(end, random_checkpoint, videos, tmp_path):
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "src"),
        "AVCAP_SERVER_KEY": "sk-1234567890",
        "TMPDIR": str(tmp_path),
    }
    words = [sys.executable, "-m", "avcap", "serve", "--model", str(random_checkpoint), "--port", "0"]
    process = subprocess.Popen(
        [*words, "--allow-dir", str(videos)], env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        line = process.stderr.readline()
        said = re.fullmatch(r"avcap: random@\w{8} is served as 'random' at (http://127\.0\.0\.1:\d+)/ .*\n", line)
        assert said, line + process.stderr.read()
        client = httpx2.Client(base_url=said[1], trust_env=False, timeout=60)
        content = [media("video_url", f"file://{videos}/a.mp4")]
        body = {"messages": [{"role": "user", "content": content}]}
        assert client.post("/v1/chat/completions", json=body).status_code == 401
        reply = client.post("/v1/chat/completions", json=body, headers={"Authorization": "Bearer sk-1234567890"})
        assert reply.json()["avcap"]["seen"]["frames"] == 3
        client.close()
    finally:
        process.send_signal(end)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "avcap: ended; 1 requests were answered\n")
    assert not list(tmp_path.glob("avcap-serve-*"))


def test_other_machines_need_a_key_or_the_word():
    for host in ("0.0.0.0", "::", "192.168.1.2", "some.example"):
        with pytest.raises(UserError, match="no key; expected one in AVCAP_SERVER_KEY"):
            check_reach(host, has_key=False, allow_anyone=False)
        check_reach(host, has_key=True, allow_anyone=False)
        check_reach(host, has_key=False, allow_anyone=True)
        assert not is_loopback(host) and host_names(host, is_open=True) == frozenset()
    for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        check_reach(host, has_key=False, allow_anyone=False)
        assert "localhost" in host_names(host, is_open=False)
        assert host_names(host, is_open=True) == frozenset()  # a proxy before it may go by any name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--host", "0.0.0.0"], "got --host 0.0.0.0, which other machines reach, and no key"),
        (["--model", "openai:x@http://127.0.0.1:1/v1"], "an engine is a server already"),
        (["--model", "nowhere-at-all"], "nowhere-at-all"),
        (["--allow-dir", "/no/such/folder"], "--allow-dir /no/such/folder: not a folder"),
        (["--max-seconds", "0"], "got --max-seconds 0, expected more than 0"),
        (["--port", "99999999"], "--port 99999999: cannot be used"),
    ],
)
def test_what_is_wrong_is_told_in_one_line_before_a_model_is_loaded(words, message, run, monkeypatch):
    monkeypatch.delenv("AVCAP_SERVER_KEY", raising=False)
    monkeypatch.setattr("avcap.cli.serve.start_captioner", lambda *args, **options: pytest.fail("a model was loaded"))
    code, out, err = run("serve", *words)
    assert code == 2 and not out and message in err and err.count("\n") == 1


def test_a_key_never_shows(run, monkeypatch):
    monkeypatch.setenv("AVCAP_SERVER_KEY", "sk-never-shown")
    _, out, err = run("serve", "--allow-dir", "/no/such/folder")
    assert "sk-never-shown" not in out + err
