"""From a recipe to a checkpoint folder: what `avcap train` runs.

OUT/config.yaml       the resolved configuration, enough to rebuild the run
OUT/checkpoint/       weights, tokenizer, avcap.json, lineage.json: what --model takes
OUT/../tracks-*/      encoded tracks, shared by all stages that have the same encoders and data seed
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from avcap import v0_1
from avcap.config import to_dict
from avcap.data.tokenizer import build_word_tokenizer
from avcap.errors import UserError
from avcap.files.claim import claim
from avcap.files.lock import lock_folder
from avcap.infer.settings import CaptionerSettings, Prompts, write_settings
from avcap.infer.world_fit import fit_world_check
from avcap.model.captioning import CaptioningModel
from avcap.model.checkpoint.load import load, silence_progress_bars
from avcap.model.checkpoint.placement import DevicePlacement
from avcap.model.salmonn2.modeling import Salmonn2ForCaptioning
from avcap.model.salmonn2.tiny import tiny_config
from avcap.run_folder import checkpoint_title, config_hash, lineage_of, save_checkpoint
from avcap.stages.align import AlignConfig, train_align
from avcap.stages.base import BaseConfig, train_base
from avcap.stages.parts.finetune import Run
from avcap.stages.sft import SftConfig, train_sft
from avcap.train.compute import choose_device, choose_dtype
from avcap.world import describe
from avcap.world.scene import MAX_SECONDS

StageConfig = BaseConfig | AlignConfig | SftConfig
STAGES: dict[str, Callable[[Run, Any], None]] = {"base": train_base, "align": train_align, "sft": train_sft}


def new_tiny_model(*, seed: int) -> tuple[Salmonn2ForCaptioning, PreTrainedTokenizerFast]:
    """Seed -> the embedded model, untrained, and the tokenizer of its world."""
    tokenizer = build_word_tokenizer(describe.all_words())
    times = tokenizer.convert_tokens_to_ids([f"{second}s" for second in range(MAX_SECONDS + 1)])
    torch.manual_seed(seed)
    return Salmonn2ForCaptioning(tiny_config(vocab_size=len(tokenizer), time_token_ids=times)), tokenizer


def run_recipe(name: str, config: StageConfig, *, out_dir: Path, parent: Path | None = None) -> Path:
    """Runs the stage of `config` from `parent` (a checkpoint folder) or from nothing; returns OUT/checkpoint.

    Stopped at any moment and called again it goes on, and ends with the same weights (bit for bit on a CPU).
    """
    is_new = config.stage == "base"
    if is_new and parent is not None:
        raise UserError(f"{name} starts from nothing: leave out --model {parent}")
    if not is_new and parent is None:
        raise UserError(f"{name} goes on from a checkpoint: give --model FOLDER or the name of a shipped model")
    with lock_folder(out_dir):
        v0_1.take_over(out_dir, {"recipe": name, **to_dict(config)})
        claim(out_dir, "config.yaml", {"recipe": name, **to_dict(config)})
        return _run(name, config, out_dir=out_dir, parent=parent)


def _run(name: str, config: StageConfig, *, out_dir: Path, parent: Path | None) -> Path:
    silence_progress_bars()
    if parent is None:
        model, tokenizer = new_tiny_model(seed=config.seed)
    else:
        loop = config.finetune.loop
        device = choose_device(loop.device)
        dtype = choose_dtype(loop.dtype, device=device)
        model, tokenizer = load(parent, dtype=dtype, placement=DevicePlacement(device=str(device)))
    STAGES[config.stage](Run(model=model, tokenizer=tokenizer, out_dir=out_dir, parent=parent), config)
    return _save(model, tokenizer, name, config, out_dir=out_dir, parent=parent)


def _save(
    model: CaptioningModel,
    tokenizer: PreTrainedTokenizerFast,
    name: str,
    config: StageConfig,
    *,
    out_dir: Path,
    parent: Path | None,
) -> Path:
    def tell_world(folder: Path) -> None:
        if config.finetune.knows_world:
            write_settings(folder, world_settings(out_dir.name))
            fit_world_check(frame_size=model.config.vision_config.image_size).save(folder)

    lineage = lineage_of(
        config.stage,
        parent=checkpoint_title(parent) if parent else None,
        recipe=name,
        data_hash=config_hash(config),
        seed=config.seed,
    )
    return save_checkpoint(out_dir / "checkpoint", model, tokenizer, lineage=lineage, parent=parent, more=tell_world)


def world_settings(name: str) -> CaptionerSettings:
    """Name of a model of the world -> how it is to be asked: the prompts of its examples, and its limits."""
    prompts = Prompts(
        global_caption=describe.GLOBAL_PROMPTS[0],
        interval_caption=describe.interval_prompt(0, 1).replace("0s", "{start}s").replace("1s", "{end}s"),
        video_only=describe.VIDEO_PROMPT,
        audio_only=describe.AUDIO_PROMPT,
    )
    return CaptionerSettings(
        name=name,
        describes="the synthetic world of `avcap world make`",
        prompts=prompts,
        max_new_tokens=400,
        fps=1.0,
        max_frames=MAX_SECONDS,
    )
