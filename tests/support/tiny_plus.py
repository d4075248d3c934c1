"""A checkpoint folder of the salmonn2_plus family with tiny random weights, made by our own classes."""

import shutil
from pathlib import Path

import torch

from avcap.infer.settings import CaptionerSettings, Prompts, write_settings
from avcap.model.salmonn2_plus.configuration import Salmonn2PlusConfig
from avcap.model.salmonn2_plus.modeling import Salmonn2PlusForCaptioning
from support import ASSETS

TOKENIZER_FOLDER = ASSETS / "plus_av_10s"
TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json", "added_tokens.json")
TOKEN_IDS = {
    "vision_start_token_id": 286,
    "vision_end_token_id": 287,
    "image_token_id": 289,
    "video_token_id": 290,
    "audio_token_id": 291,
}

VISION = {
    "model_type": "qwen2_5_vl_vision",
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "out_hidden_size": 64,
    "fullatt_block_indexes": [1],
    "tokens_per_second": 2,
}
TEXT = {
    "model_type": "qwen2_5_vl_text",
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "eos_token_id": 283,
    "bos_token_id": 284,
    "pad_token_id": 284,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
}
QWEN3_VISION = {
    "model_type": "qwen3_vl_vision",
    "depth": 3,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "out_hidden_size": 64,
    "num_position_embeddings": 64,
    "deepstack_visual_indexes": [0, 1],
    "patch_size": 16,
}
QWEN3_TEXT = TEXT | {
    "model_type": "qwen3_vl_text",
    "num_hidden_layers": 3,
    "head_dim": 16,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1e6,
        "mrope_section": [2, 3, 3],
        "mrope_interleaved": True,
    },
}
QWEN3 = {"vision_config": QWEN3_VISION, "text_config": QWEN3_TEXT}
"""Dials of a model on a Qwen3-VL, which looks at patches of 16 pixels."""
# chunks of one second, so that little silence is padded
AUDIO = {
    "num_mel_bins": 80,
    "d_model": 32,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "max_source_positions": 50,
}
QFORMER = {
    "hidden_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "cross_attention_frequency": 1,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
PROMPT = "Describe the video."
SETTINGS = CaptionerSettings(
    name="tiny-plus",
    prompts=Prompts(global_caption=PROMPT, video_only=PROMPT),
    max_new_tokens=12,
    fps=4.0,
    max_frames=24,
)


def tiny_plus_config(**fields) -> Salmonn2PlusConfig:
    """-> config of a model with 100,000 weights that looks at frames of at most 56 x 56 pixels."""
    parts = {"vision_config": VISION, "text_config": TEXT, "audio_config": AUDIO, "qformer_config": QFORMER}
    sizes = {"max_frame_pixels": 56 * 56, "budget_frames": 1}
    return Salmonn2PlusConfig(**(parts | sizes | TOKEN_IDS | fields))


def tiny_plus_model(*, seed: int = 0, **fields) -> Salmonn2PlusForCaptioning:
    torch.manual_seed(seed)
    model = Salmonn2PlusForCaptioning(tiny_plus_config(**fields))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(6)  # as initialised, the words hardly depend on the media
    return model.eval()


def write_tiny_plus(folder: Path, *, seed: int = 0, **fields) -> Path:
    """-> a folder that --model takes; its tokenizer is that of the recorded case."""
    tiny_plus_model(seed=seed, **fields).save_pretrained(folder)
    for name in TOKENIZER_FILES:
        shutil.copy(TOKENIZER_FOLDER / name, folder / name)
    write_settings(folder, SETTINGS)
    return folder
