"""Model folders with something wrong in them: each is one line that names the file, nothing wrong is loaded."""

import copy
import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from avcap.errors import UserError
from avcap.infer.captioner import Captioner
from avcap.infer.world_check import CHECK_FILE

WEIGHTS, INDEX, SHARD = "model.safetensors", "model.safetensors.index.json", "model-00001-of-00002.safetensors"
Damage = Callable[[Path], None]


@pytest.fixture
def folder(random_checkpoint, tmp_path) -> Path:
    """A whole checkpoint folder that may be damaged."""
    return Path(shutil.copytree(random_checkpoint, tmp_path / "m"))


def assert_refused(folder: Path, *named: str) -> None:
    with pytest.raises(UserError) as caught:
        Captioner(folder)
    text = str(caught.value)
    assert str(folder) in text and "\n" not in text and any(name in text for name in named), text


# --- files ------------------------------------------------------------------------------------------------------------


def _replaced(path: Path, make: Callable[[Path], Any]) -> None:
    path.unlink(missing_ok=True)
    make(path)


TEXTS = {
    "null": b"null",
    "empty": b"",
    "list": b"[]",
    "number": b"3",
    "text": b'"x"',
    "bytes": bytes(range(256)),
    "deep": b"[" * 100_000,
    "cut": b'{"model_type": "avc',
    "NaN": b'{"a": NaN}',
}
ODD: dict[str, Damage] = {
    "folder": lambda path: _replaced(path, Path.mkdir),
    "link to itself": lambda path: _replaced(path, lambda path: path.symlink_to(path.name)),
    "device": lambda path: _replaced(path, lambda path: path.symlink_to("/dev/zero")),
    "pipe": lambda path: _replaced(path, os.mkfifo),
}
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "avcap.json", WEIGHTS, CHECK_FILE)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("text", TEXTS)
def test_a_file_with_something_else_in_it_is_named(folder, file, text):
    (folder / file).write_bytes(TEXTS[text])
    assert_refused(folder, file)


@pytest.mark.parametrize("file", [*FILES, "generation_config.json"])
@pytest.mark.parametrize("odd", ODD)
def test_what_is_no_file_is_named_at_once(folder, file, odd):
    ODD[odd](folder / file)
    assert_refused(folder, file)


@pytest.mark.parametrize("file", ["config.json", "avcap.json", "tokenizer_config.json"])
def test_a_byte_order_mark_hides_no_file_of_ours(folder, file):
    text = (folder / file).read_bytes()
    (folder / file).write_bytes(b"\xef\xbb\xbf" + text)
    try:
        captioner = Captioner(folder)
    except UserError as error:
        assert file in str(error) or file == "tokenizer_config.json"  # libraries read some of them again
    else:
        assert captioner.settings.name == "random"


# --- config -----------------------------------------------------------------------------------------------------------

WRONG = (None, "x", -1, 0, 10**12, [], {}, 1.5, True)
NO_MEANING = {"id2label", "label2id", "architectures", "_name_or_path", "dtype"}


def _places(fields: dict[str, Any], place: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, value in fields.items():
        if name not in NO_MEANING:
            found.append((*place, name))
            found += _places(value, (*place, name)) if isinstance(value, dict) else []
    return found


def _with(fields: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(fields)
    inner = changed
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    return changed


IMPOSSIBLE = [
    ("model_type", "llama"),
    ("model_type", 3),
    ("text_config.num_hidden_layers", 10**9),
    ("text_config.num_hidden_layers", 10**12),
    ("audio_config.encoder_layers", 10**8),
    ("vision_config.num_hidden_layers", 10**7),
    ("text_config.hidden_size", 10**12),
    ("text_config.hidden_size", -1),
    ("text_config.num_attention_heads", 0),
    ("text_config.num_attention_heads", -1),
    ("text_config.head_dim", 31),
    ("text_config.hidden_act", "x"),
    ("text_config.vocab_size", 3),
    ("text_config.vocab_size", "many"),
    ("text_config", None),
    ("text_config", []),
    ("text_config", "x"),
    ("text_config.model_type", "llama"),
    ("audio_config", 3),
    ("audio_config.d_model", 0),
    ("audio_config.encoder_attention_heads", 0),
    ("vision_config.patch_size", 0),
    ("vision_config.image_size", 10**12),
    ("qformer_config.num_attention_heads", 0),
    ("qformer_config.cross_attention_frequency", 0),
    ("num_queries", -1),
    ("num_queries", {}),
    ("pool_stride", 0),
    ("pool_mode", "x"),
    ("projector", []),
    ("window_s", -1),
    ("window_s", "x"),
    ("window_stride_s", 0),
    ("frame_difference", "x"),
    ("vision_layers_dropped", "x"),
    ("chat", []),
    ("chat", 3),
    ("chat.user_prefix", None),
    ("chat.answer_suffix", ""),
    ("chat.answer_suffix", 3),
    ("time_token_ids", "x"),
    ("text_config.rope_parameters.rope_theta", "x"),
    ("text_config.rope_parameters.rope_type", "x"),
]


@pytest.mark.parametrize(("place", "value"), IMPOSSIBLE, ids=str)
def test_impossible_configurations_are_one_line(folder, place, value):
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(_with(fields, tuple(place.split(".")), value)))
    assert_refused(folder, "config.json", "tokenizer", "component configs")


@pytest.mark.slow
def test_any_field_with_any_wrong_value_is_one_line_or_captions(folder, videos):
    """A sample of all fields times all wrong values; what is not refused has to write a caption."""
    fields = json.loads((folder / "config.json").read_text())
    rng = random.Random(20)
    num_refused = 0
    for place in rng.sample(_places(fields), 60):
        (folder / "config.json").write_text(json.dumps(_with(fields, place, rng.choice(WRONG))))
        try:
            Captioner(folder).caption(videos / "b.mp4", max_new_tokens=2)
        except UserError as error:
            assert str(folder) in str(error) or "not finite" in str(error) or "tokens" in str(error), (place, error)
            num_refused += 1
    assert num_refused >= 20


# --- weights ----------------------------------------------------------------------------------------------------------


def _weights(change: Callable[[dict[str, torch.Tensor], str], Any]) -> Damage:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors, next(name for name, tensor in tensors.items() if tensor.dim() == 2))
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return damage


def _one(value: float) -> Callable[[dict[str, torch.Tensor], str], None]:
    def change(tensors: dict[str, torch.Tensor], name: str) -> None:
        tensors[name].view(-1)[7] = value

    return change


def _header(change: Callable[[dict[str, Any], str], Any]) -> Damage:
    def damage(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        entries = json.loads(data[8 : 8 + length])
        change(entries, next(name for name, entry in entries.items() if len(entry.get("shape", ())) == 2))
        header = json.dumps(entries).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header + data[8 + length :])

    return damage


def _bytes(change: Callable[[bytes], bytes]) -> Damage:
    return lambda folder: (folder / WEIGHTS).write_bytes(change((folder / WEIGHTS).read_bytes())) and None


DAMAGED: dict[str, Damage] = {
    "one NaN": _weights(_one(float("nan"))),
    "one infinite": _weights(_one(-float("inf"))),
    "all NaN": _weights(lambda tensors, _: [tensor.fill_(float("nan")) for tensor in tensors.values()]),
    "missing": _weights(lambda tensors, name: tensors.pop(name)),
    "one too many": _weights(lambda tensors, _: tensors.update(zzz=torch.zeros(3))),
    "turned": _weights(lambda tensors, name: tensors.update({name: tensors[name].T.contiguous()})),
    "none": _weights(lambda tensors, _: tensors.clear()),
    "cut off": _bytes(lambda data: data[:-10]),
    "longer": _bytes(lambda data: data + b"xxxx"),
    "cut in the header": _bytes(lambda data: data[:100]),
    "header of 2**63": _bytes(lambda data: struct.pack("<Q", 2**63) + data[8:]),
    "dtype": _header(lambda entries, name: entries[name].update(dtype="F99")),
    "dtype list": _header(lambda entries, name: entries[name].update(dtype=["F32"])),
    "shape of 10**24": _header(lambda entries, name: entries[name].update(shape=[10**12, 10**12])),
    "shape negative": _header(lambda entries, name: entries[name].update(shape=[-1, -4])),
    "shape text": _header(lambda entries, name: entries[name].update(shape="12")),
    "offsets negative": _header(lambda entries, name: entries[name].update(data_offsets=[-4, 0])),
    "three offsets": _header(lambda entries, name: entries[name].update(data_offsets=[0, 1, 2])),
    "offsets far": _header(lambda entries, name: entries[name].update(data_offsets=[10**15, 10**15 + 8])),
    "entry list": _header(lambda entries, name: entries.update({name: []})),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_weights_are_one_line(folder, damage):
    DAMAGED[damage](folder)
    assert_refused(folder, WEIGHTS, "keys without a place", "the 0 weights")


def test_shards_and_what_an_index_may_not_name(folder):
    names = list(load_file(folder / WEIGHTS))
    os.rename(folder / WEIGHTS, folder / SHARD)
    whole: dict[str, Any] = dict.fromkeys(names, SHARD)
    (folder / INDEX).write_text(json.dumps({"weight_map": whole}))
    assert Captioner(folder).model.num_parameters() > 0
    (folder.parent / "x.safetensors").write_bytes((folder / SHARD).read_bytes())
    for file in (
        "../x.safetensors",
        "/etc/passwd",
        "..",
        ".",
        "",
        "a\0b",
        "a" * 5000,
        3,
        None,
        "config.json",
        "model-00002-of-00002.safetensors",
        str(folder.parent / "x.safetensors"),
    ):
        (folder / INDEX).write_text(json.dumps({"weight_map": whole | {names[0]: file}}))
        assert_refused(folder, INDEX, "model-", "config.json", str(file)[:20] or INDEX)
    for text in ("null", "{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": 3}', ""):
        (folder / INDEX).write_text(text)
        assert_refused(folder, INDEX, "0 keys", "the 0 weights")
    for others in ({**whole, "zzz": SHARD}, {name: SHARD for name in names[1:]}):
        (folder / INDEX).write_text(json.dumps({"weight_map": others}))
        assert_refused(folder, SHARD, names[0], "1 without a value")


# --- tokenizer --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", None),
        ("model", {}),
        ("model", []),
        ("model", 3),
        ("added_tokens", 3),
        ("added_tokens", [{}]),
        ("pre_tokenizer", "x"),
        ("version", 3),
        ("decoder", 3),
    ],
)
def test_tokenizers_that_are_none_are_one_line(folder, field, value):
    fields = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(fields | {field: value}))
    assert_refused(folder, "tokenizer")


@pytest.mark.parametrize("shift", [10**6, -(10**6)])
def test_a_tokenizer_of_other_words_is_refused(folder, shift):
    fields = json.loads((folder / "tokenizer.json").read_text())
    fields["model"]["vocab"] = {word: number + shift for word, number in fields["model"]["vocab"].items()}
    (folder / "tokenizer.json").write_text(json.dumps(fields))
    assert_refused(folder, "tokenizer")
