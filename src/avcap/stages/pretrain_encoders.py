"""Stage 0, only for a model from scratch: the two encoders learn to see and hear from attributes of rendered seconds.

Frames -> tower -> what stands in each cell; sound -> encoder and Q-Former -> what is heard in each second. Afterwards
both are frozen: every later stage learns how to talk about what they give.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file

from avcap.curriculum.perception import PERCEPTION, accuracy, held_out_batches
from avcap.model.captioning import CaptioningModel
from avcap.train.checkpoint import latest_state
from avcap.train.compute import choose_device
from avcap.train.loop import LoopConfig, run_loop
from avcap.train.optim import OptimConfig


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    seed: int = 0
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(num_steps=3000))
    optim: OptimConfig = field(default_factory=OptimConfig)


def pretrain_encoder(model: CaptioningModel, part: str, *, config: PretrainConfig, out_dir: Path) -> None:
    """Trains one encoder of `model` in place: "vision", or "audio" with the Q-Former."""
    torch.manual_seed(config.seed)
    model.to(choose_device(config.loop.device)).train()
    trained = PERCEPTION[part](model).to(model.device)
    batches = trained.batches(seed=config.seed)
    held_out = held_out_batches(batches)
    run_loop(
        trained,
        make_batch=batches,
        loss_fn=trained.loss,
        config=config.loop,
        optim=config.optim,
        out_dir=out_dir,
        title=part,
        notes={"stage": part, "seed": config.seed, "num_steps": config.loop.num_steps},
        evaluate=lambda: accuracy(trained, held_out),
    )


def load_pretrained(model: CaptioningModel, part: str, *, out_dir: Path) -> None:
    """Puts what `pretrain_encoder` last wrote to `out_dir` into `model`; its heads are thrown away."""
    state = latest_state(out_dir / "checkpoints")
    assert state is not None, f"{out_dir}: nothing trained there"
    PERCEPTION[part](model).load_state_dict(load_file(state / "model.safetensors"))
