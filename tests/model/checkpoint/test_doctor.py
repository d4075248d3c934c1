"""Every layout has its name, and every bad folder one line that says which file and what to do."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.released_layouts import SIZES_TINY, plus_shapes, random_tensors, write_plus, write_qwen, write_whisper

from avcap.errors import UserError
from avcap.model.checkpoint.doctor import examine
from avcap.model.checkpoint.load import load
from avcap.model.salmonn2_plus.keys import new_name


@pytest.fixture
def plus_folder(released_folder, tmp_path) -> Path:
    return write_plus(tmp_path / "plus", SIZES_TINY, tokenizer_from=released_folder)


@pytest.fixture
def v1_folder(released_folder, tmp_path) -> Path:
    return Path(shutil.copytree(released_folder, tmp_path / "v1"))


def finding(folder: Path, what: str, **options) -> str:
    return dict(examine(folder, **options).lines)[what]


def change(file: Path, **fields) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def shard(folder: Path) -> list[Path]:
    """One weight file becomes two, with an index."""
    tensors = load_file(folder / "model.safetensors")
    names, weight_map = sorted(tensors), {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "model.safetensors").unlink()
    return sorted(folder.glob("model-*.safetensors"))


# --- layouts ----------------------------------------------------------------------------------------------------------


def test_layouts_that_run_are_named_and_whole(run, v1_folder, plus_folder):
    code, out, err = run("doctor", v1_folder)
    assert (code, err) == (0, "")
    assert "released video-SALMONN 2 folder" in out and " 169 of 169 weights have a value\n" in out
    assert finding(plus_folder, "layout") == "released video-SALMONN 2+ folder, old key names"
    assert finding(plus_folder, "keys") == "151 of 151 weights have a value"
    assert examine(plus_folder).problems == []
    stored = load_file(plus_folder / "model.safetensors")
    save_file({new_name(name): tensor for name, tensor in stored.items()}, plus_folder / "model.safetensors")
    assert finding(plus_folder, "layout") == "released video-SALMONN 2+ folder, new key names"
    shard(plus_folder)
    assert "2 shards: BF16" in finding(plus_folder, "weights")


def test_own_folder_and_tied_head(released_folder, tmp_path):
    folder = write_plus(tmp_path / "tied", SIZES_TINY | {"tied": True}, tokenizer_from=released_folder)
    assert finding(folder, "head") == "tied to the embedding, not in the files"
    model, tokenizer = load(folder)
    model.save_pretrained(tmp_path / "own")
    tokenizer.save_pretrained(tmp_path / "own")
    report = examine(tmp_path / "own")
    assert dict(report.lines)["layout"] == "avcap model folder" and report.problems == []


def test_layouts_that_do_not_run_say_what_makes_them(released_folder, tmp_path):
    qwen = write_qwen(tmp_path / "qwen", SIZES_TINY, tokenizer_from=released_folder)
    whisper = write_whisper(tmp_path / "whisper", SIZES_TINY)
    assert finding(qwen, "layout") == "plain Qwen2.5-VL, without a sound branch, old key names"
    assert finding(qwen, "to run it") == f"add a sound branch: avcap init-audio {qwen} WHISPER DST"
    assert finding(whisper, "layout") == "plain Whisper"
    torch.save({"module.weight": torch.zeros(1)}, tmp_path / "checkpoint-10.bin")
    assert "training checkpoint" in finding(tmp_path / "checkpoint-10.bin", "layout")
    for folder in (qwen, whisper):
        with pytest.raises(UserError, match="avcap init-audio"):
            load(folder)


def test_adapter_is_checked_against_a_base(plus_folder, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    shapes = {f"{module}.lora_A.weight": (4, 64), f"{module}.lora_B.weight": (64, 4)}
    save_file(random_tensors(shapes), adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    assert finding(adapter, "adapter") == "LoRA of rank 4, alpha 8, on 1 matrices"
    assert "audio.q_tokens" in finding(adapter, "lacks")
    assert finding(adapter, "base", base=plus_folder) == f"{plus_folder} fits, and holds q_tokens"
    save_file(random_tensors(shapes | {f"{module}.lora_A.weight": (4, 80)}), adapter / "adapter_model.safetensors")
    assert "it is of another base" in examine(adapter, base=plus_folder).problems[0]


# --- bad input --------------------------------------------------------------------------------------------------------


def test_keys_that_do_not_fit_are_counted_and_named(run, plus_folder):
    tensors = load_file(plus_folder / "model.safetensors")
    del tensors["audio.audio_proj.bias"]
    tensors |= {"beats.weight": torch.zeros(1), "model.norm.weight": torch.zeros(7)}
    save_file(tensors, plus_folder / "model.safetensors")
    code, out, err = run("doctor", plus_folder)
    assert code == 1 and len(err.splitlines()) == 1
    assert "missing 1: audio_aligner.proj.bias" in out
    assert "unexpected 1: beats.weight" in out and "of another shape 1: model.norm.weight" in out


def no_config(folder):
    (folder / "config.json").unlink()


def other_backbone(folder):
    change(folder / "config.json", model_type="llama")


def names_code(folder):
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["mine.Tokenizer", None]})


def lost_shard(folder):
    shard(folder)[1].unlink()


def cut_shard(folder):
    file = shard(folder)[1]
    file.write_bytes(file.read_bytes()[:-100])


def cut_header(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:500])


def lost_index(folder):
    shard(folder)
    (folder / "model.safetensors.index.json").unlink()


def escaping_index(folder):
    index = folder / "model.safetensors.index.json"
    shard(folder)
    index.write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))


def lfs_pointer(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def web_page(folder):
    (folder / "model.safetensors").write_text("<!doctype html><title>404</title>" + " " * 100)


def pickle(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"weight": torch.zeros(1)}, folder / "pytorch_model.bin")


def disguised_pickle(folder):
    torch.save({"weight": torch.zeros(1)}, folder / "model.safetensors")


def config_is_a_list(folder):
    (folder / "config.json").write_text("[]")


def wrong_header(folder):
    text = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}'
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_config, "config.json: is missing beside the weights"),
        (other_backbone, "config.json: got model_type 'llama', expected one of avcap_*, video_salmonn_2"),
        (names_code, "tokenizer_config.json: auto_map names code to run"),
        (lost_shard, "model-00002-of-00002.safetensors: is missing, but model.safetensors.index.json names it"),
        (cut_shard, "model-00002-of-00002.safetensors: got"),
        (cut_header, "model.safetensors: cut off within its header, at 500 bytes; download it again"),
        (lost_index, "without model.safetensors.index.json; download that file too"),
        (escaping_index, "names '../elsewhere.safetensors'; expected names of files beside it"),
        (lfs_pointer, "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"),
        (web_page, "a web page, not weights; download it again"),
        (pickle, "pytorch_model.bin: pickled weights, expected safetensors"),
        (disguised_pickle, "model.safetensors: a pickle under a safetensors name"),
        (config_is_a_list, "config.json: got a JSON list, expected an object"),
        (wrong_header, "model.safetensors: a: 4 bytes for F32 [2]"),
    ],
)
def test_bad_folder_is_one_line_that_names_the_file(run, v1_folder, damage, message):
    damage(v1_folder)
    code, out, err = run("doctor", v1_folder)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert message in err and str(v1_folder) in err
    with pytest.raises(UserError):
        load(v1_folder)


@pytest.mark.parametrize(
    ("lost", "message"),
    [(("merges.txt",), "merges.txt: is missing"), (("vocab.json", "merges.txt"), "tokenizer.json: is missing")],
)
def test_missing_tokenizer_file_is_named(v1_folder, lost, message):
    for name in lost:
        (v1_folder / name).unlink()
    assert message in examine(v1_folder).problems[0]
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        load(v1_folder)


def test_wrong_shape_names_file_tensor_and_both_shapes(plus_folder):
    shapes = plus_shapes(SIZES_TINY) | {"visual.merger.ln_q.weight": (33,)}
    save_file(random_tensors(shapes), plus_folder / "model.safetensors")
    with pytest.raises(
        UserError, match=r"model\.safetensors: visual\.merger\.ln_q\.weight is \(33,\), expected \(32,\)"
    ):
        load(plus_folder)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--quantize", "8bit"], "which needs bitsandbytes; pip install bitsandbytes"),
        (["--device", "cuda:0"], "torch sees no GPU here"),
        (["--device", "abacus"], "expected cpu, cuda or cuda:N"),
        (["--device-map", "everywhere"], "device_map: got 'everywhere', expected auto"),
    ],
)
def test_what_the_machine_cannot_do_is_one_line(run, random_checkpoint, videos, monkeypatch, words, message):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, _, err = run("caption", videos / "a.mp4", "--model", random_checkpoint, *words)
    assert code == 2 and message in err and len(err.splitlines()) == 1


def test_weights_larger_than_the_memory_are_refused_before_they_are_read(v1_folder, monkeypatch):
    monkeypatch.setattr("avcap.model.checkpoint.load.available_bytes", lambda placement: 1_000_000)
    with pytest.raises(UserError, match=r"its weights need 1\.3 MB, expected at most the 1\.0 MB that are free"):
        load(v1_folder)
    assert load(v1_folder, dtype=torch.bfloat16)[0].dtype == torch.bfloat16
