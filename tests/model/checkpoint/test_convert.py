"""Any released checkpoint -> one clean folder: the same numbers, in bounded memory, also when killed on the way."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.released_layouts import (
    SIZES_72B,
    SIZES_TINY,
    plus_config,
    plus_shapes,
    random_tensors,
    write_hollow,
    write_plus,
)

from avcap.errors import UserError
from avcap.model.checkpoint.convert import STATE_FILE, plan_conversion, training_scale, write_conversion
from avcap.model.checkpoint.load import load, open_source
from avcap.model.checkpoint.weight_files import read_tensors
from avcap.model.salmonn2_plus.keys import new_name

SHARD_BYTES = 200_000


@pytest.fixture
def plus_folder(released_folder, tmp_path) -> Path:
    """A tiny random checkpoint in the layout of a 2+ release."""
    return write_plus(tmp_path / "plus_full", SIZES_TINY, tokenizer_from=released_folder)


def convert(source: Path, folder: Path, *, shard_bytes=SHARD_BYTES, on_bytes=lambda count: None, **options) -> int:
    workspace = folder.with_name(folder.name + ".unpickled")
    workspace.mkdir(exist_ok=True)
    plan = plan_conversion(source, workspace=workspace, **options)
    return write_conversion(plan, folder, shard_bytes=shard_bytes, on_bytes=on_bytes)


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    model, _ = load(folder, dtype=torch.bfloat16)
    return dict(model.named_parameters())


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert set(ours) == set(theirs)
    assert not [name for name in ours if not torch.equal(ours[name], theirs[name])]


@pytest.mark.parametrize("family", ["v1", "plus"])
def test_clean_folder_has_the_same_weights(family, released_folder, plus_folder, tmp_path):
    source = released_folder if family == "v1" else plus_folder
    convert(source, tmp_path / "clean")
    assert_equal(parameters(tmp_path / "clean"), parameters(source))
    assert len(list((tmp_path / "clean").glob("model-*.safetensors"))) > 2
    assert "avcap caption" in (tmp_path / "clean" / "README.md").read_text()


def test_copied_tensors_are_the_same_bytes(plus_folder, tmp_path):
    convert(plus_folder, tmp_path / "clean", shard_bytes=10**9)
    stored = load_file(plus_folder / "model.safetensors")
    clean = load_file(tmp_path / "clean" / "model.safetensors")
    assert torch.equal(clean["audio_aligner.query_tokens"], stored["audio.q_tokens"])
    for name in ("layers.1.mlp.up_proj.weight", "norm.weight"):
        assert torch.equal(clean[f"language_model.model.{name}"], stored[f"model.{name}"])
    assert {tensor.dtype for tensor in clean.values()} == {torch.bfloat16}


def test_new_key_names_give_the_same_folder(plus_folder, tmp_path):
    stored = load_file(plus_folder / "model.safetensors")
    convert(plus_folder, tmp_path / "old")
    save_file({new_name(name): tensor for name, tensor in stored.items()}, plus_folder / "model.safetensors")
    convert(plus_folder, tmp_path / "new")
    assert_equal(parameters(tmp_path / "old"), parameters(tmp_path / "new"))


def test_killed_and_run_again_gives_the_same_bytes(plus_folder, tmp_path):
    convert(plus_folder, tmp_path / "whole")
    told: list[int] = []

    def die_late(count: int) -> None:
        told.append(count)
        if sum(told) > 0.7 * (plus_folder / "model.safetensors").stat().st_size:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(plus_folder, tmp_path / "killed", on_bytes=die_late)
    finished = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("model-*.safetensors")}
    assert len(finished) >= 2 and not list((tmp_path / "killed").glob("*.partial"))
    assert convert(plus_folder, tmp_path / "killed") == len(finished)
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "whole")
    for name, written_ns in finished.items():
        assert (tmp_path / "killed" / name).stat().st_mtime_ns == written_ns


def test_a_folder_of_something_else_is_not_touched(plus_folder, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(UserError, match=r"holds 'thesis.tex' and was not begun by this command"):
        convert(plus_folder, tmp_path / "mine")
    convert(plus_folder, tmp_path / "clean")
    os.utime(plus_folder / "model.safetensors", ns=(1, 1))
    with pytest.raises(UserError, match="was begun with another configuration; sha256: got"):
        convert(plus_folder, tmp_path / "clean")
    assert (tmp_path / "clean" / STATE_FILE).exists()


@pytest.fixture
def adapter(tmp_path) -> Path:
    """A LoRA of rank 4, alpha 8 on q, k, v, with the modules that the released training saved whole."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    shapes = plus_shapes(SIZES_TINY)
    parts = {}
    for name, shape in shapes.items():
        if name.startswith("model.") and name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            module = name.removesuffix(".weight")
            parts[f"base_model.model.{module}.lora_A.weight"] = (4, shape[1])
            parts[f"base_model.model.{module}.lora_B.weight"] = (shape[0], 4)
        elif name.startswith(("visual.merger.", "audio.qformer.", "audio.audio_proj.")):
            parts[f"base_model.model.{name}"] = shape
    save_file(random_tensors(parts, seed=1), folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "k_proj", "v_proj"],
        "modules_to_save": ["visual.merger", "audio.qformer", "audio.q_tokens", "audio.audio_proj"],
        "base_model_name_or_path": "output/audio_align/checkpoint-30510",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_adapter_is_merged_in_float32(plus_folder, adapter, tmp_path):
    convert(adapter, tmp_path / "merged", base=plus_folder)
    base, merged = parameters(plus_folder), parameters(tmp_path / "merged")
    parts = load_file(adapter / "adapter_model.safetensors")
    place = "language_model.model.layers.1.self_attn.k_proj"
    module = "base_model.model.model.layers.1.self_attn.k_proj"
    a, b = (parts[f"{module}.lora_{side}.weight"].float() for side in "AB")
    expected = (base[f"{place}.weight"].float() + 8 / 4 * (b @ a)).to(torch.bfloat16)
    assert torch.equal(merged[f"{place}.weight"], expected) and not torch.equal(expected, base[f"{place}.weight"])
    assert torch.equal(merged["vision_aligner.ln_q.weight"], parts["base_model.model.visual.merger.ln_q.weight"])
    assert torch.equal(merged["audio_aligner.query_tokens"], base["audio_aligner.query_tokens"])
    assert torch.equal(merged["vision_tower.blocks.0.norm1.weight"], base["vision_tower.blocks.0.norm1.weight"])


def test_adapter_without_q_tokens_is_told_of_loudly(run, plus_folder, adapter, tmp_path):
    code, _, err = run("convert", adapter, tmp_path / "merged", "--base", plus_folder)
    assert code == 0 and "WARNING" in err and "holds no audio q_tokens" in err and "--q-tokens FOLDER" in err
    assert "Beware" in (tmp_path / "merged" / "README.md").read_text()
    giver = tmp_path / "giver"
    shutil.copytree(plus_folder, giver)
    tensors = load_file(giver / "model.safetensors")
    tensors["audio.q_tokens"] += 1
    save_file(tensors, giver / "model.safetensors")
    code, _, err = run("convert", adapter, tmp_path / "cured", "--base", plus_folder, "--q-tokens", giver)
    assert (code, "WARNING" in err) == (0, False)
    assert torch.equal(parameters(tmp_path / "cured")["audio_aligner.query_tokens"], tensors["audio.q_tokens"])


def test_adapter_without_its_base_says_which_it_was(run, adapter, plus_folder, tmp_path):
    code, _, err = run("convert", adapter, tmp_path / "merged")
    assert code == 2 and "--base FOLDER" in err and "output/audio_align/checkpoint-30510" in err
    assert not (tmp_path / "merged").exists()


def test_adapter_of_another_base_is_refused(adapter, plus_folder, tmp_path):
    larger = SIZES_TINY | {"hidden": 80, "heads": 5, "kv_heads": 5}
    (plus_folder / "config.json").write_text(json.dumps(plus_config(larger)))
    save_file(random_tensors(plus_shapes(larger)), plus_folder / "model.safetensors")
    with pytest.raises(UserError, match="it is of another base"):
        convert(adapter, tmp_path / "merged", base=plus_folder)


@pytest.mark.parametrize(("field", "value"), [("peft_type", "IA3"), ("use_dora", True), ("r", None)])
def test_adapter_that_is_no_plain_lora_is_refused(adapter, plus_folder, tmp_path, field, value):
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {field: value}))
    with pytest.raises(UserError, match=r"adapter_config\.json"):
        convert(adapter, tmp_path / "merged", base=plus_folder)


@pytest.mark.slow
def test_training_checkpoint_is_put_into_its_base(released_folder, tmp_path):
    """`checkpoint-N.bin` of the first family: what trained, under the names of DeepSpeed and PEFT."""
    stored = load_file(released_folder / "model.safetensors")
    target = "model.layers.0.self_attn.q_proj"
    rows, columns = stored[f"{target}.weight"].shape
    trained = random_tensors(
        {
            f"{target}.lora_A.default.weight": (4, columns),
            f"{target}.lora_B.default.weight": (rows, 4),
            "model.mm_projector.0.bias": stored["model.mm_projector.0.bias"].shape,
            "speech_query_tokens": stored["speech_query_tokens"].shape,
        }
    )
    file = tmp_path / "checkpoint-30.bin"
    torch.save({f"module.base_model.model.{name}": tensor for name, tensor in trained.items()}, file)
    silent = tmp_path / "silent"
    shutil.copytree(released_folder, silent)
    config = json.loads((silent / "config.json").read_text())
    (silent / "config.json").write_text(json.dumps(config | {"model_args": {}}))
    with pytest.raises(UserError, match="give --lora-alpha"):
        training_scale(open_source(silent), None)(4)
    convert(file, tmp_path / "merged", base=released_folder, lora_alpha=8)
    base, merged = parameters(released_folder), parameters(tmp_path / "merged")
    place = "language_model.model.layers.0.self_attn.q_proj.weight"
    a, b = (trained[f"{target}.lora_{side}.default.weight"].float() for side in "AB")
    assert torch.equal(merged[place], (base[place].float() + 2 * (b @ a)).to(torch.bfloat16))
    assert torch.equal(merged["vision_aligner.projector.0.bias"], trained["model.mm_projector.0.bias"])
    assert torch.equal(merged["audio_aligner.query_tokens"], trained["speech_query_tokens"])
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    assert changed == {place, "vision_aligner.projector.0.bias", "audio_aligner.query_tokens"}


class _Bomb:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.slow
def test_a_pickle_that_runs_code_is_not_loaded(released_folder, tmp_path):
    file = tmp_path / "checkpoint-1.bin"
    torch.save({"weight": torch.zeros(1), "bomb": _Bomb(tmp_path / "exploded")}, file)
    with pytest.raises(UserError, match=r"cannot be read as a pickle of tensors alone.*write it anew"):
        convert(file, tmp_path / "merged", base=released_folder)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_72_billion_weights_pass_through_little_memory(plus_folder, tmp_path):
    """A checkpoint that no machine here could load: 147 GB, all holes but 200 MB, and neither disk nor memory fills."""
    for file in plus_folder.glob("model*"):
        file.unlink()
    (plus_folder / "config.json").write_text(json.dumps(plus_config(SIZES_72B)))
    total = write_hollow(plus_folder, plus_shapes(SIZES_72B), shard_bytes=5 * 10**9)
    assert total > 145e9
    embedding = read_tensors(plus_folder)["model.embed_tokens.weight"]
    real = os.urandom(2**20) * 200
    with open(embedding.file, "r+b") as out:
        out.seek(embedding.offset + 12345)
        out.write(real)
    peak = _peak_bytes_of_converting(plus_folder, tmp_path / "clean")
    assert peak < 1e9  # torch and transformers are half of it
    written = read_tensors(tmp_path / "clean")
    assert sum(tensor.num_bytes for tensor in written.values()) == total
    assert len(list((tmp_path / "clean").glob("*.safetensors"))) >= 29
    assert sum(path.stat().st_blocks * 512 for path in (tmp_path / "clean").iterdir()) < 250e6
    copy = written["language_model.model.embed_tokens.weight"]
    with open(copy.file, "rb") as handle:
        handle.seek(copy.offset + 12345)
        assert handle.read(len(real)) == real


def _peak_bytes_of_converting(source: Path, folder: Path) -> int:
    code = (
        "from pathlib import Path; from avcap.model.checkpoint.convert import *\n"
        f"plan = plan_conversion(Path({str(source)!r}), workspace=Path({str(folder.parent)!r}))\n"
        f"write_conversion(plan, Path({str(folder)!r}))\n"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout) * 1024
