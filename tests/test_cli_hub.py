"""Commands that are given a model by its name on the hub: what they fetch, what they keep of it, what wins over it."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from support import ASSETS
from support.fake_hub import FakeHub
from support.released_layouts import SIZES_TINY, plus_shapes, random_tensors, write_plus, write_qwen, write_whisper

from avcap import Captioner
from avcap.infer.caption_file import read_rows
from avcap.infer.find_checkpoint import MODELS_FOLDER, find_checkpoint

SOURCE = Path(__file__).parent.parent / "src"
TOKENIZER = ASSETS / "plus_av_10s"


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")


def checkpoints(path: Path) -> set[str]:
    return {row.checkpoint for row in read_rows(path)}


def weights_asked(hub: FakeHub) -> list[str]:
    return [file for file in hub.fetched() if file.endswith(".safetensors") and file != "world_check.safetensors"]


def test_a_caption_by_name_says_its_commit_and_keeps_it(hub, random_checkpoint, videos, run, tmp_path):
    commit = hub.publish("org/random", random_checkpoint)
    out = tmp_path / "captions.jsonl"
    code, printed, err = run("caption", videos / "a.mp4", "--model", "org/random", "--out", out)
    assert (code, printed) == (0, ""), err
    lines = list(dict.fromkeys(err.splitlines()))  # every `run` in this process adds one more writer of such lines
    assert lines[0] == f"avcap: org/random: commit {commit}"
    assert lines[1].startswith("avcap: org/random@") and ": 1 file to fetch, " in lines[1]
    assert checkpoints(out) == {f"org/random@{commit}"}
    (row,) = read_rows(out)
    assert row.text == Captioner(random_checkpoint).caption(videos / "a.mp4").text
    assert Captioner(f"org/random@{commit}").checkpoint == f"org/random@{commit}"


def test_a_file_of_captions_is_of_one_commit(hub, random_checkpoint, videos, run, tmp_path):
    old = hub.publish("org/random", random_checkpoint)
    out = tmp_path / "captions.jsonl"
    assert run("caption", videos / "a.mp4", "--model", "org/random", "--out", out)[0] == 0
    new = hub.publish("org/random", random_checkpoint, LICENSE=b"another one")
    with hub.watch():
        code, _, err = run("caption", videos / "a.mp4", videos / "b.mp4", "--model", "org/random", "--out", out)
        assert code == 2 and f"'org/random@{old}'" in err and f"'org/random@{new}' now" in err
        assert weights_asked(hub) == [], "what was fetched would have been for nothing"
    code, _, err = run("caption", videos / "a.mp4", videos / "b.mp4", "--model", f"org/random@{old}", "--out", out)
    assert code == 0, err
    assert len(list(read_rows(out))) == 2 and checkpoints(out) == {f"org/random@{old}"}


def test_where_nothing_is_to_be_done_no_weights_are_fetched(hub, random_checkpoint, videos, run, tmp_path):
    hub.publish("org/random", random_checkpoint)
    words = ("caption", videos / "a.mp4", "--model", "org/random", "--out", tmp_path / "captions.jsonl")
    assert run(*words)[0] == 0
    shutil.rmtree(tmp_path / "cache")
    with hub.watch():
        code, _, err = run(*words)
        assert code == 0 and "1 captions were there already" in err
        assert weights_asked(hub) == []


def test_commands_that_read_no_weights_fetch_none(hub, run, tmp_path, videos):
    folder = write_plus(tmp_path / "plus", SIZES_TINY, tokenizer_from=TOKENIZER)
    hub.publish("org/plus", folder)
    for words in (
        ("doctor", "org/plus"),
        ("plan", "--model", "org/plus", "--video", "5s"),
        ("audit-official", videos / "a.mp4", "--model", "org/plus"),
    ):
        code, by_name, err = run(*words)
        assert code == 0, err
        here = [folder if word == "org/plus" else word for word in words]
        figures = [line for line in by_name.splitlines() if "free here" not in line and "time " not in line]
        for line in run(*here)[1].replace(str(folder), "org/plus").splitlines():
            assert "free here" in line or "time " in line or line in figures
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_doctor_calls_an_adapter_by_its_name(hub, run, tmp_path):
    hub.publish("org/adapter", adapter(tmp_path / "adapter"))
    hub.publish("org/base", write_plus(tmp_path / "plus", SIZES_TINY, tokenizer_from=TOKENIZER))
    code, out, err = run("doctor", "org/adapter", "--base", "org/base")
    assert code == 0, err
    assert "org/base fits, and holds q_tokens" in out
    assert "avcap convert org/adapter DST --base FOLDER" in out
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def adapter(folder: Path) -> Path:
    """A LoRA of rank 4 on all v_proj."""
    folder.mkdir()
    modules = [name.removesuffix(".weight") for name in plus_shapes(SIZES_TINY) if name.endswith("v_proj.weight")]
    shapes = plus_shapes(SIZES_TINY)
    parts = {}
    for module in (name for name in modules if name.startswith("model.")):
        rows, columns = shapes[f"{module}.weight"]
        parts[f"base_model.model.{module}.lora_A.weight"] = (4, columns)
        parts[f"base_model.model.{module}.lora_B.weight"] = (rows, 4)
    save_file(random_tensors(parts, seed=1), folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": "output/base"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_an_adapter_and_its_base_are_converted_by_name(hub, run, tmp_path):
    local = adapter(tmp_path / "adapter")
    base = write_plus(tmp_path / "plus", SIZES_TINY, tokenizer_from=TOKENIZER)
    commit, of_base = hub.publish("org/adapter", local), hub.publish("org/base", base)
    code, _, err = run("convert", "org/adapter", tmp_path / "merged")
    assert code == 2 and "avcap convert org/adapter DST --base FOLDER" in err and weights_asked(hub) == []
    code, _, err = run("convert", "org/adapter", tmp_path / "merged", "--base", "org/base")
    assert code == 0, err
    card = (tmp_path / "merged" / "README.md").read_text()
    assert f"org/adapter@{commit}, merged in float32 into org/base@{of_base}" in card
    assert run("convert", local, tmp_path / "same", "--base", base)[0] == 0
    by_name, by_folder = (load_file(tmp_path / name / "model.safetensors") for name in ("merged", "same"))
    assert by_name.keys() == by_folder.keys()
    assert all(by_name[name].equal(by_folder[name]) for name in by_name)


def test_a_path_is_never_asked_for_on_the_hub(hub, run, tmp_path, monkeypatch):
    """`./org/name` and `org/name/` are paths: without such a folder they are one line, and the hub hears nothing."""
    hub.publish("org/plus", write_plus(tmp_path / "plus", SIZES_TINY, tokenizer_from=TOKENIZER))
    hub.publish("org/adapter", adapter(tmp_path / "adapter"))
    monkeypatch.chdir(tmp_path)
    for name in ("./org/plus", "org/plus/", str(tmp_path / "org/plus")):
        for words in (
            ("doctor", name),
            ("doctor", "adapter", "--base", name),
            ("convert", name, "new"),
            ("convert", "adapter", "new", "--base", name),
            ("convert", "plus", "new", "--q-tokens", name),
            ("init-audio", name, "plus", "new"),
            ("init-audio", "plus", name, "new"),
            ("plan", "--model", name, "--video", "5s"),
            ("caption", "a.mp4", "--model", name),
            ("audit-official", "a.mp4", "--model", name),
            ("average", name, "plus", "--out", "new"),
            ("train", "tiny_sft", "--model", name, "--dry-run"),
        ):
            with hub.watch():
                code, out, err = run(*words)
            assert hub.asked == [], words
            assert code in (1, 2) and "org/plus" in out + err, (words, out, err)


def test_parts_of_an_audio_branch_are_looked_at_before_they_are_fetched(hub, run, tmp_path):
    sizes = SIZES_TINY | {"vocab": 320}
    hub.publish("org/qwen", write_qwen(tmp_path / "qwen", sizes, tokenizer_from=TOKENIZER))
    hub.publish("org/whisper", write_whisper(tmp_path / "whisper", sizes))
    code, _, err = run("init-audio", "org/whisper", "org/qwen", tmp_path / "new")
    assert code == 2 and "org/whisper: a plain Whisper, expected a plain Qwen2.5-VL" in err and weights_asked(hub) == []


def test_what_is_here_wins_and_hf_does_not_look_here(hub, random_checkpoint, tmp_path, monkeypatch, run):
    commit = hub.publish("org/random", random_checkpoint)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(random_checkpoint, tmp_path / "org" / "random")
    assert find_checkpoint("org/random") == Path("org/random") and hub.asked == []
    assert find_checkpoint("hf:org/random").name == commit
    assert find_checkpoint("tiny") == MODELS_FOLDER / "tiny"
    (tmp_path / "tiny").mkdir()  # no checkpoint: an output, perhaps
    assert find_checkpoint("tiny") == MODELS_FOLDER / "tiny"
    shutil.copytree(random_checkpoint, tmp_path / "tiny", dirs_exist_ok=True)
    assert find_checkpoint("tiny") == Path("tiny")
    code, _, err = run("caption", "x.mp4", "--model", "nothing")
    assert code == 2 and "org/name or org/name@revision on the hub" in err
    code, _, err = run("caption", "x.mp4", "--model", "hf:nothing")
    assert code == 2 and "expected hf:org/name or hf:org/name@revision" in err


@pytest.mark.slow
def test_with_a_commit_in_the_cache_a_whole_run_asks_nothing(
    hub, random_checkpoint, videos, tmp_path, run, monkeypatch
):
    """What is asked is in a process of its own, as users set it up; transformers asks nothing either."""
    commit = hub.publish("org/random", random_checkpoint)
    monkeypatch.setenv("HF_TOKEN", "hf_nobodys")
    code, out, err = run("caption", videos / "a.mp4", "--model", "org/random")
    assert code == 0 and f"org/random: commit {commit}" in err
    environment = os.environ | {
        "PYTHONPATH": str(SOURCE),
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path),
        "HF_HUB_CACHE": str(tmp_path / "cache"),
    }
    words = [sys.executable, "-m", "avcap", "caption", str(videos / "a.mp4"), "--model", f"org/random@{commit}"]
    with hub.watch() as asked:
        done = subprocess.run(words, capture_output=True, text=True, env=environment)
        assert (done.returncode, done.stdout, done.stderr, asked) == (0, out, "", [])
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert kept and not [path for path in kept if b"hf_nobodys" in path.read_bytes()]


def test_a_model_that_is_here_does_not_load_what_speaks_to_the_hub():
    code = textwrap.dedent("""
        import sys
        import avcap.cli
        from avcap.infer.find_checkpoint import find_checkpoint
        find_checkpoint("tiny")
        print([name for name in ("torch", "huggingface_hub", "tqdm", "avcap.model") if name in sys.modules])
    """)
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_a_run_of_another_commit_is_refused_before_its_weights_are_fetched(hub, random_checkpoint, run, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("")
    old = hub.publish("org/random", random_checkpoint)
    words = ("dpo", "tiny_dpo", "--pairs", pairs, "--model", "org/random", "--out", tmp_path / "run")
    _, _, err = run(*words)  # there are no pairs, but the folder is claimed
    assert (tmp_path / "run" / "config.yaml").exists(), err
    assert f"model: org/random@{old}" in (tmp_path / "run" / "config.yaml").read_text()
    hub.publish("org/random", random_checkpoint, LICENSE=b"another one")
    with hub.watch():
        code, _, err = run(*words)
        assert code == 2 and "another configuration" in err and old in err and weights_asked(hub) == []
        assert run("train", "tiny_sft", "--model", "org/random", "--dry-run")[0] == 0 and weights_asked(hub) == []
