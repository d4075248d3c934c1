import pytest
import torch
from safetensors.torch import load_file
from support.released_layouts import SIZES_TINY, write_qwen, write_whisper

from avcap.errors import UserError
from avcap.model.checkpoint.convert import write_conversion
from avcap.model.checkpoint.init_audio import plan_init_audio
from avcap.model.checkpoint.load import load

QFORMER = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}


@pytest.fixture
def parts(released_folder, tmp_path):
    qwen = write_qwen(tmp_path / "qwen", SIZES_TINY, tokenizer_from=released_folder)
    return qwen, write_whisper(tmp_path / "whisper", SIZES_TINY)


def make(parts, folder, *, seed=0) -> dict[str, torch.Tensor]:
    plan, tokenizer = plan_init_audio(*parts, seed=seed, qformer=QFORMER)
    write_conversion(plan, folder)
    tokenizer.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def test_a_plain_backbone_gets_an_audio_branch(parts, tmp_path):
    made = make(parts, tmp_path / "made")
    vision, audio = (load_file(folder / "model.safetensors") for folder in parts)
    assert torch.equal(made["language_model.model.norm.weight"], vision["model.norm.weight"])
    assert torch.equal(made["vision_aligner.mlp.2.bias"], vision["visual.merger.mlp.2.bias"])
    assert torch.equal(made["audio_encoder.layers.1.fc1.weight"], audio["model.encoder.layers.1.fc1.weight"].bfloat16())
    model, tokenizer = load(tmp_path / "made")
    assert {tensor.dtype for tensor in made.values()} == {torch.bfloat16}
    assert model.config.audio_token_id == tokenizer.convert_tokens_to_ids("<|audio_pad|>") < 320
    assert "must be trained before it is of use" in (tmp_path / "made" / "README.md").read_text()


def test_what_is_drawn_depends_on_the_seed_alone(parts, tmp_path):
    first, again, other = (make(parts, tmp_path / str(n), seed=seed) for n, seed in enumerate((0, 0, 1)))
    assert all(torch.equal(first[name], again[name]) for name in first)
    changed = {name for name in first if not torch.equal(first[name], other[name])}
    assert "audio_aligner.query_tokens" in changed and all(name.startswith("audio_aligner.") for name in changed)
    assert first["audio_aligner.query_tokens"].float().std() == pytest.approx(0.02, rel=0.4)
    assert first["audio_aligner.proj.weight"].float().std() == pytest.approx(0.02, rel=0.1)
    assert first["audio_aligner.proj.bias"].eq(0).all() and first["audio_aligner.qformer.layernorm.weight"].eq(1).all()


def test_the_wrong_parts_are_refused(parts):
    with pytest.raises(UserError, match=r"a plain Whisper, expected a plain Qwen2\.5-VL"):
        plan_init_audio(parts[1], parts[0])
