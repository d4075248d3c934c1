"""Fixtures of several rooms: a tiny captioner with random weights, and small real mp4 files for it."""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from support.fake_hub import FakeHub
from support.forked import Forks
from support.videos import write_video

from avcap.cli import main

os.environ.setdefault("OMP_NUM_THREADS", "1")  # models this small lose more to a second thread's start than it gives
# A busy machine may stall any single example; how long one takes says nothing about the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_configure() -> None:
    """A job in the background ignores Ctrl-C and hang-ups, and so would the processes that tests start and signal."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: two processes then end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


TINY_PROMPTS = {
    "global_caption": "Describe the video in detail.",
    "interval_caption": "Describe what happens from {start}s to {end}s.",
    "video_only": "Describe only what is seen.",
    "audio_only": "Describe only what is heard.",
}


class _NoDeprecations(logging.Handler):
    """transformers tells some deprecations to its logger alone, where pytest's filters do not see them."""

    def emit(self, record: logging.LogRecord) -> None:
        if "deprecated" in record.getMessage():
            raise DeprecationWarning(record.getMessage())


@pytest.fixture(scope="session", autouse=True)
def deprecations_in_logs_are_errors(request: pytest.FixtureRequest) -> Iterator[None]:
    """For the whole run, unless warnings were asked to be shown only (`make test-newest`)."""
    if any(option.startswith("default::") for option in request.config.getoption("pythonwarnings") or []):
        yield
        return
    handler = _NoDeprecations()
    logging.getLogger("transformers").addHandler(handler)
    yield
    logging.getLogger("transformers").removeHandler(handler)


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder of the embedded model with random weights: it writes words, others for other videos."""
    import torch

    from avcap.infer.settings import CaptionerSettings, Prompts, write_settings
    from avcap.runs.recipe import new_tiny_model

    folder = tmp_path_factory.mktemp("model") / "random"
    model, tokenizer = new_tiny_model(seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(4)  # as initialised, the words hardly depend on the media
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = CaptionerSettings(name="random", prompts=Prompts(**TINY_PROMPTS), max_new_tokens=12, max_frames=20)
    write_settings(folder, settings)
    return folder


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos: a, b, c of 3, 2 and 4 s with sound, silent (2 s), short_audio (4 s, sound for 1 s), audio.m4a."""
    folder = tmp_path_factory.mktemp("videos")
    for seed, (name, seconds) in enumerate({"a": 3, "b": 2, "c": 4}.items()):
        write_video(folder / f"{name}.mp4", seconds=seconds, seed=seed)
    write_video(folder / "silent.mp4", seconds=2, audio_s=0, seed=3)
    write_video(folder / "short_audio.mp4", seconds=4, audio_s=1, seed=4)
    write_video(folder / "audio.m4a", seconds=2, video=False, seed=5)
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A hub on this machine that the library takes for the hub, with a cache of its own and no token."""
    import huggingface_hub
    from huggingface_hub import constants

    with FakeHub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        address = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "127.0.0.1,localhost")
        huggingface_hub.close_session()
        yield hub


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Runs `avcap` in processes of their own that have loaded torch already."""
    with Forks() as forks:
        yield forks


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs `avcap WORDS` -> (exit code, stdout, stderr)."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["avcap", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return stopped.value.code, out, err

    return run
