import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from avcap.data.tokenizer import build_word_tokenizer
from avcap.errors import UserError
from avcap.model.checkpoint.load import load
from avcap.model.salmonn2.released import our_name

CONFIG_FILES = ("config.json", "siglip_config.json", "whisper_config.json", "qformer_config.json")
TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


@pytest.fixture
def copied(released_folder, tmp_path) -> Path:
    """A checkpoint folder in the released layout that may be damaged."""
    for name in (*CONFIG_FILES, *TOKENIZER_FILES, "model.safetensors"):
        shutil.copy(released_folder / name, tmp_path / name)
    return tmp_path


def change_weights(folder: Path, *, drop: str = "", add: dict[str, torch.Tensor] | None = None) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(drop, None)
    save_file(tensors | (add or {}), folder / "model.safetensors")


def change_config(folder: Path, **fields) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


def test_released_folder_is_read_whole(released_folder):
    model, tokenizer = load(released_folder)
    stored = load_file(released_folder / "model.safetensors")
    ours = dict(model.named_parameters())
    places = {our_name(name): tensor for name, tensor in stored.items() if our_name(name)}
    assert set(places) == set(ours)
    assert all(torch.equal(ours[name], tensor.float()) for name, tensor in places.items())
    assert model.dtype == torch.float32 and not model.training
    assert model.config.sync == "true_time"
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == 272


def test_weight_file_names_its_folder(released_folder):
    model, _ = load(released_folder / "model.safetensors", config_fields={"sync": "official"}, dtype=torch.bfloat16)
    assert model.config.sync == "official"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    # positions must stay exact: the rotary table is no weight
    assert model.language_model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_sharded_weights_are_the_same(copied):
    single, _ = load(copied)
    tensors = load_file(copied / "model.safetensors")
    names = sorted(tensors)
    weight_map = {}
    for shard, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-{shard:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, copied / file)
        weight_map |= dict.fromkeys(part, file)
    (copied / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (copied / "model.safetensors").unlink()
    sharded, _ = load(copied)
    assert all(torch.equal(a, b) for a, b in zip(single.parameters(), sharded.parameters(), strict=True))


def test_tied_head_is_not_in_the_file(copied):
    change_config(copied, tie_word_embeddings=True)
    change_weights(copied, drop="lm_head.weight")
    model, _ = load(copied)
    assert model.language_model.lm_head.weight is model.get_input_embeddings().weight


def test_missing_key_is_named(copied):
    change_weights(copied, drop="speech_llama_proj.bias")
    with pytest.raises(UserError, match=r"1 without a value \(audio_aligner.proj.bias\)"):
        load(copied)


def test_unknown_key_is_named(copied):
    change_weights(copied, add={"speech_beats.weight": torch.zeros(1)})
    with pytest.raises(UserError, match=r"1 keys without a place \(speech_beats.weight\)"):
        load(copied)


def test_wrong_shape_is_named(copied):
    change_weights(copied, add={"ln_speech.bias": torch.zeros(7)})
    with pytest.raises(UserError, match=r"ln_speech.bias is \(7,\), expected \(32,\)"):
        load(copied)


def test_truncated_file_is_an_error(copied):
    whole = (copied / "model.safetensors").read_bytes()
    (copied / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="its header promises 674272; download it again"):
        load(copied)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "llava"}, "got model_type 'llava'"),
        ({"mm_newline_position": "one_token"}, "mm_newline_position is 'one_token'"),
        ({"mm_spatial_pool_mode": "bilinear"}, "pool_mode: got 'bilinear'"),
        ({"model_args": {"window_level_Qformer": False}}, "window_level_Qformer is False"),
    ],
)
def test_what_cannot_be_run_is_refused(copied, fields, message):
    change_config(copied, **fields)
    with pytest.raises(UserError, match=message):
        load(copied)


def test_folder_that_is_no_checkpoint_is_an_error(tmp_path):
    with pytest.raises(UserError, match="expected a checkpoint folder"):
        load(tmp_path)


def test_folder_without_weights_is_an_error(copied):
    (copied / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"neither model\.safetensors nor"):
        load(copied)


def test_own_folder_comes_back_with_its_tokenizer(released_folder, tmp_path):
    model, tokenizer = load(released_folder)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, same_tokenizer = load(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    text = "Describe <|im_end|>\n\nthe video at 10.0 s"
    assert same_tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_own_word_tokenizer_is_not_mistaken_for_that_of_the_language_model(model, tmp_path):
    words = build_word_tokenizer(["a", "cat", "runs", "."])
    model.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    _, tokenizer = load(tmp_path)
    text = "<|user|> a cat runs. <|im_end|>"
    assert tokenizer(text)["input_ids"] == words(text)["input_ids"] == [2, 5, 6, 7, 8, 1]
    assert tokenizer.decode([5, 6, 7, 8]) == "a cat runs."
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 0)


def test_own_folder_with_a_missing_weight_is_an_error(model, tmp_path):
    model.save_pretrained(tmp_path)
    change_weights(tmp_path, drop="vision_aligner.newline")
    with pytest.raises(UserError, match=r"vision_aligner\.newline"):
        load(tmp_path)
