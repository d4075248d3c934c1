"""The model for lmms-eval: requests as lmms-eval makes them, and, where lmms-eval is installed, the model in it."""

import importlib.metadata
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest

from avcap import Captioner
from avcap.errors import UserError
from avcap.lmms import manifest
from avcap.lmms.requests import cut_at_stops, request_of, sample_of

ROOT = Path(__file__).parents[2]


@dataclass
class Instance:
    """A request as lmms-eval's tasks make it for chat models."""

    args: tuple = field(default_factory=tuple)


@pytest.fixture
def lmms_eval(monkeypatch):
    """lmms-eval itself, or the one class of it that the model is built on: a base that holds the docs of tasks."""
    try:
        import lmms_eval.api.model  # noqa: F401
    except ImportError:
        base = type("lmms", (), {"is_simple": True, "__init__": lambda self: setattr(self, "task_dict", {})})
        for name in ("lmms_eval", "lmms_eval.api", "lmms_eval.api.model"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        sys.modules["lmms_eval.api.model"].lmms = base
        monkeypatch.delitem(sys.modules, "avcap.lmms.model", raising=False)


def message(*parts: dict) -> list[dict]:
    return [{"role": "user", "content": list(parts)}]


def doc_to_messages(doc: dict) -> list[dict]:
    return message({"type": "video", "url": doc["path"]}, {"type": "text", "text": doc["question"]})


def test_the_model_answers_requests_in_order(lmms_eval, random_checkpoint, videos):
    from avcap.lmms.model import AvcapLmms

    model = AvcapLmms(str(random_checkpoint), batch_size="2")
    assert model.is_simple is False
    question = "Describe the video in detail."
    names = ["a.mp4", "gone.mp4", "silent.mp4", "b.mp4"]
    model.task_dict = {"t": {"test": {n: {"path": str(videos / x), "question": question} for n, x in enumerate(names)}}}
    kwargs = [{"max_new_tokens": 12}, {"max_new_tokens": 12}, {"max_new_tokens": 12}, {"max_new_tokens": 5}]
    requests = [Instance(("ctx", doc_to_messages, kw, n, "t", "test")) for n, kw in enumerate(kwargs)]
    captioner = Captioner(random_checkpoint)

    def alone(name: str, tokens: int) -> str:
        return captioner.caption(videos / name, prompt=question, max_new_tokens=tokens).text

    replies = model.generate_until(requests)
    assert replies == [alone("a.mp4", 12), "", alone("silent.mp4", 12), alone("b.mp4", 5)]
    assert model.num_failed == 1
    with pytest.raises(NotImplementedError, match="generate_until"):
        model.loglikelihood(requests)


def test_messages_become_samples():
    sample = sample_of(
        message(
            {"type": "video", "url": "v.mp4", "start_time": 1, "end_time": 3.5},
            {"type": "text", "text": "What?"},
            {"type": "text", "text": "A. x"},
        ),
        sample_id="s",
    )
    assert (sample.video, sample.interval_s, sample.prompt) == ("v.mp4", (1.0, 3.5), "What?\nA. x")


@pytest.mark.parametrize(
    ("parts", "got"),
    [
        ([{"type": "text", "text": "?"}], r"got \[\]"),
        ([{"type": "video", "url": "a"}, {"type": "video", "url": "b"}], "'video str', 'video str'"),
        ([{"type": "image", "url": object()}], "'image object'"),
        ([{"type": "video", "url": [1]}], "'video list'"),
    ],
)
def test_what_cannot_be_asked_is_said(parts, got):
    with pytest.raises(UserError, match=got):
        sample_of(message(*parts), sample_id="s")


def test_generation_kwargs():
    kwargs = {"max_new_tokens": 16, "temperature": 0.7, "do_sample": False}
    greedy = request_of(kwargs, use_audio=True, use_video=True)
    assert (greedy.decoding.max_new_tokens, greedy.decoding.temperature) == (16, 0.0)
    drawn = request_of({"temperature": 0.7, "top_p": None}, use_audio=False, use_video=True)
    assert (drawn.decoding.temperature, drawn.decoding.top_p, drawn.use_audio) == (0.7, 1.0, False)
    assert drawn.decoding.max_new_tokens == 1024
    assert cut_at_stops("A. yes\nQ: more", {"until": ["\n", "Q"]}) == "A. yes"
    assert cut_at_stops("A. yes", {"until": "es"}) == "A. y" and cut_at_stops("A. yes", {}) == "A. yes"


def test_the_entry_point_names_what_is_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (target,) = project["entry-points"]["lmms_eval.models"].values()
    entry = importlib.metadata.EntryPoint(name="avcap", value=target, group="lmms_eval.models")
    assert entry.load() is manifest.model_manifest
    module, _, name = manifest.CLASS_PATH.rpartition(".")
    source = (ROOT / "src" / Path(*module.split("."))).with_suffix(".py").read_text(encoding="utf-8")
    assert f"class {name}(lmms):" in source


def test_the_real_registry_takes_the_manifest():
    registry = pytest.importorskip("lmms_eval.models.registry_v2", reason="lmms-eval is not installed")
    models = registry.ModelRegistryV2()
    models.register_manifest(manifest.model_manifest())
    assert models.get_model_class("avcap").__name__ == "AvcapLmms"
