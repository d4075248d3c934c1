"""A plain Qwen2.5-VL and a Whisper -> the start of a video-SALMONN 2+: their weights, and a drawn sound aligner.

As the released gen_audio_model.py did it: matrices and query tokens from N(0, 0.02^2), biases zero, norms one.
"""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from avcap.errors import UserError
from avcap.files.hub_names import folder_title
from avcap.model.checkpoint.convert import Conversion
from avcap.model.checkpoint.layouts import CONFIG, WHISPER, Checkpoint, check_tokenizer_files, identify
from avcap.model.checkpoint.load import Source, skeleton
from avcap.model.checkpoint.weight_files import TensorInfo
from avcap.model.checkpoint.weight_writer import Cast, Copied, Drawn, Value
from avcap.model.family import family_of
from avcap.model.salmonn2_plus.configuration import PLUS_QFORMER
from avcap.model.salmonn2_plus.released import BACKBONE, our_plus_name, plus_config

AUDIO_TOKEN = "<|audio_pad|>"
STD = 0.02
WHISPER_FIELDS = (
    "num_mel_bins",
    "d_model",
    "encoder_layers",
    "encoder_attention_heads",
    "encoder_ffn_dim",
    "max_source_positions",
    "scale_embedding",
    "activation_function",
)
WHISPER_PREFIXES = ("model.encoder.", "encoder.")
DRAWN_PREFIX = "audio_aligner."


def plan_init_audio(
    backbone: Path, whisper: Path, *, seed: int = 0, qformer: dict[str, Any] | None = None
) -> tuple[Conversion, PreTrainedTokenizerBase]:
    """Folders of both, nothing loaded -> what the new folder will hold, and its tokenizer. `qformer`: other sizes."""
    vision, audio = identify(backbone), identify(whisper)
    for checkpoint, expected in ((vision, BACKBONE), (audio, WHISPER)):
        if checkpoint.layout is not expected:
            raise UserError(f"{checkpoint.path / CONFIG}: {checkpoint.layout.one}, expected {expected.one}")
    check_tokenizer_files(vision.path)
    tokenizer, audio_id = _with_audio_token(vision)
    fields = vision.fields | {"audio_token_id": audio_id, "audio_config": _audio_config(audio, qformer or PLUS_QFORMER)}
    config = plus_config(vision.path, fields)
    tensors = _our_tensors(vision, audio)
    source = Source(checkpoint=vision, family=family_of(config), config=config, tensors=tensors)
    values = _values(source, seed=seed)
    inputs = tuple(sorted({tensor.file for tensor in tensors.values()}))
    names = f"{folder_title(vision.path)} and {folder_title(audio.path)}"
    conversion = Conversion(
        values=values,
        config=config,
        companions=vision.path,
        inputs=inputs,
        headline=f"{names}, with a sound aligner drawn from seed {seed}: it must be trained before it is of use",
        warnings=(
            f"the sound aligner, q_tokens among it, is random (seed {seed}); train it, and keep this folder: adapters "
            "that are trained on it do not hold the q_tokens",
        ),
    )
    return conversion, tokenizer


def _with_audio_token(vision: Checkpoint) -> tuple[PreTrainedTokenizerBase, int]:
    """-> tokenizer that knows the audio token, and its id, which must have a row in the embedding already."""
    tokenizer = AutoTokenizer.from_pretrained(vision.path)
    tokenizer.add_special_tokens({"additional_special_tokens": [AUDIO_TOKEN]}, replace_extra_special_tokens=False)
    audio_id = int(tokenizer.convert_tokens_to_ids(AUDIO_TOKEN))
    rows = (vision.fields.get("text_config") or vision.fields).get("vocab_size", 0)
    if audio_id >= rows:
        raise UserError(f"{vision.path}: {AUDIO_TOKEN} would be token {audio_id}, but its embedding has {rows} rows")
    return tokenizer, audio_id


def _audio_config(audio: Checkpoint, qformer: dict[str, Any]) -> dict[str, Any]:
    renamed = {name: value for name, value in qformer.items() if name != "cross_attention_frequency"}
    return {
        **{name: audio.fields[name] for name in WHISPER_FIELDS if name in audio.fields},
        "second_per_window": 0.5,
        "second_stride": 0.5,
        "qformer_config": renamed | {"query_length": 1, "cross_attention_freq": 1},
    }


def _our_tensors(vision: Checkpoint, audio: Checkpoint) -> dict[str, TensorInfo]:
    named = {our_plus_name(name): tensor for name, tensor in vision.tensors.items()}
    for name, tensor in audio.tensors.items():
        for prefix in WHISPER_PREFIXES:
            if name.startswith(prefix):
                named[f"audio_encoder.{name.removeprefix(prefix)}"] = tensor
    return {name: tensor for name, tensor in named.items() if name is not None}


def _values(source: Source, *, seed: int) -> dict[str, Value]:
    """Source without a sound aligner -> all weights; UserError where anything else is missing or does not fit."""
    model = skeleton(source)
    expected = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    dtype = next(tensor.dtype for name, tensor in source.tensors.items() if name.startswith("language_model."))
    for name, tensor in source.tensors.items():
        if expected.get(name) != tensor.shape:
            place = expected.get(name, "no weight of that name")
            raise UserError(f"{tensor.file}: {tensor.name} is {tensor.shape}, expected {place}")
    values: dict[str, Value] = {}
    for name, shape in expected.items():
        if name in source.tensors:
            info = source.tensors[name]
            values[name] = Copied(info=info) if info.dtype == dtype else Cast(info=info, dtype=dtype)
        elif name.startswith(DRAWN_PREFIX):
            is_norm = "norm" in name.lower()
            fill = None if len(shape) > 1 else float(is_norm and name.endswith("weight"))
            values[name] = Drawn(name=name, shape=shape, dtype=dtype, seed=seed, std=STD, fill=fill)
        else:
            raise UserError(f"{source.checkpoint.path}: {name} is missing; is it downloaded completely?")
    return values
