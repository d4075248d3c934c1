"""What is found out about engines is kept in a folder of each test's own; pauses between tries are short."""

import pytest

from avcap.llm import chat as chat_module


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("OPENAI_API_KEY", "AVCAP_ENGINE_KEY", "DASHSCOPE_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(chat_module, "FIRST_PAUSE_S", 0.01)
