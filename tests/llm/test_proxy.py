"""Proxies of the environment: never for this computer, and one that cannot be used is named."""

import pytest
from support.scripted_server import ScriptedServer

from avcap.errors import UserError
from avcap.llm.chat import open_chat
from avcap.llm.proxy import proxy_of
from avcap.llm.types import ChatRequest, Message, Reply

PROXY = "http://proxy.example:3128"


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000/v1",
        "http://127.0.0.1:8000/v1",
        "http://127.9.9.9/v1",
        "http://[::1]:8000/v1",
        "http://judge.localhost/v1",
        "http://LOCALHOST/v1",
        "http://0.0.0.0:8000/v1",
    ],
)
def test_this_computer_is_asked_directly(url: str):
    assert proxy_of(url, environ={"ALL_PROXY": "socks5://127.0.0.1:1", "http_proxy": "::::"}) is None


@pytest.mark.parametrize(
    ("no_proxy", "is_direct"),
    [
        ("*", True),
        ("judge.example", True),
        (".example", True),
        ("*.example", True),
        ("other,judge.example", True),
        ("judge.example:8000", True),
        ("judge.example:9", False),
        ("udge.example", False),
        ("", False),
    ],
)
def test_exceptions(no_proxy: str, is_direct: bool):
    found = proxy_of("http://judge.example:8000/v1", environ={"HTTP_PROXY": PROXY, "NO_PROXY": no_proxy})
    assert found == (None if is_direct else PROXY)


def test_networks_are_exceptions_too():
    environ = {"ALL_PROXY": PROXY, "no_proxy": "192.168.0.0/16"}
    assert proxy_of("http://192.168.3.4/v1", environ=environ) is None
    assert proxy_of("http://10.0.0.1/v1", environ=environ) == PROXY


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALL_PROXY", "socks4://user:secret@host:1"),
        ("https_proxy", "http://"),
        ("HTTPS_PROXY", "http://host:port"),
        ("ALL_PROXY", "socks5://user:secret@host:1"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_one_line_that_names_the_variable(variable, value, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "socksio" else found(name, *a))
    with pytest.raises(UserError, match=variable) as raised:
        proxy_of("https://api.example/v1", environ={variable: value})
    assert "secret" not in str(raised.value) and "\n" not in str(raised.value)


def test_a_judge_on_this_computer_works_behind_any_proxy(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    asked = ChatRequest(messages=(Message(role="user", content="q"),), max_tokens=5)
    with ScriptedServer() as server, open_chat(f"openai:tester@{server.url}", timeout_s=20) as chat:
        assert isinstance(next(chat.ask([asked])), Reply)
