"""Stage 1: a model that sees, hears and knows the grammar, from clean examples of single seconds and single modalities.

Encoders learn first (pretrain_encoders.py), then everything else learns to put what they give into words. It never
meets a clean caption of a whole audio-visual clip: in life nobody has those, and what comes later is to be learned from
less.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import ClassVar

import torch
from transformers import AutoModelForCausalLM

from avcap.curriculum.source import WorldFinetuneConfig
from avcap.files.write import replacing
from avcap.model.captioning import CaptioningModel
from avcap.model.checkpoint.load import silence_progress_bars
from avcap.processes import end_with_parent
from avcap.stages.parts.finetune import Run, finetune, freeze_encoders
from avcap.stages.pretrain_encoders import PretrainConfig, load_pretrained, pretrain_encoder
from avcap.train.compute import choose_device


@dataclass(frozen=True, kw_only=True)
class BaseConfig:
    vision: PretrainConfig
    audio: PretrainConfig
    finetune: WorldFinetuneConfig
    second_phase: WorldFinetuneConfig
    """Goes on from `finetune`: questions need far more examples of each kind than captions do."""
    seed: int = 0

    stage: ClassVar[str] = "base"


def train_base(run: Run, config: BaseConfig) -> None:
    """A fresh model -> tiny-base, in place, all of it in float32. Every part resumes where it was stopped."""
    model, out_dir = run.model, run.out_dir
    encoders = out_dir / "encoders"
    if not (encoders / "config.json").exists():
        train_encoders(model, config=config, out_dir=out_dir)
        with replacing(encoders) as aside:
            model.save_pretrained(aside)
    model.load_state_dict(type(model).from_pretrained(encoders).state_dict())
    model.to(choose_device(config.finetune.loop.device))
    freeze_encoders(model)
    for part, stage in (("finetune", config.finetune), ("second_phase", config.second_phase)):
        stage_config = replace(stage, seed=config.seed, feature_tracks=config.finetune.feature_tracks)
        source = stage_config.source(model, run.tokenizer, encoders=encoders, shared_dir=out_dir.parent)
        finetune(model, source, stage=part, config=stage_config, out_dir=out_dir / part)


def train_encoders(model: CaptioningModel, *, config: BaseConfig, out_dir: Path) -> None:
    """Both encoders of `model`, in place; they share nothing, so each learns in a process of its own."""
    start = out_dir / "start"
    model.save_pretrained(start)
    parts = {"vision": config.vision, "audio": config.audio}
    with ProcessPoolExecutor(len(parts), mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        jobs = [
            pool.submit(_pretrain_alone, start, part, replace(stage, seed=config.seed), out_dir / part)
            for part, stage in parts.items()
        ]
        for job in jobs:
            job.result()
    for part in parts:
        load_pretrained(model, part, out_dir=out_dir / part)


def _pretrain_alone(start: Path, part: str, config: PretrainConfig, out_dir: Path) -> None:
    torch.set_num_threads(1)
    silence_progress_bars()
    pretrain_encoder(AutoModelForCausalLM.from_pretrained(start), part, config=config, out_dir=out_dir)
