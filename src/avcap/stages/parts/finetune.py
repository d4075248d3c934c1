"""What the language stages share: a model learns from a source of examples, with a LoRA or without."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from avcap.model.captioning import CaptioningModel
from avcap.model.lora import attach_lora, merge_lora
from avcap.train.compute import checkpoint_activations, keep_trained_in_float32, round_trained
from avcap.train.examples import ExampleSource, FinetuneConfig
from avcap.train.loop import run_loop


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a stage is given: a model to train in place, and the run's folder."""

    model: CaptioningModel
    tokenizer: PreTrainedTokenizerFast
    out_dir: Path
    parent: Path | None = None
    """The checkpoint folder that the model comes from; None: it is new."""


def finetune(
    model: CaptioningModel, source: ExampleSource, *, stage: str, config: FinetuneConfig, out_dir: Path
) -> None:
    """Trains in place what of `model` requires a gradient, and a LoRA if configured, which is merged at the end."""
    dtype = model.dtype
    torch.manual_seed(config.seed)  # the LoRA's A
    if config.lora:
        attach_lora(model, config.lora)
    keep_trained_in_float32(model)
    model.train()
    if config.loop.checkpoint_activations:
        checkpoint_activations(model)
    run_loop(
        model,
        make_batch=source.batches(),
        loss_fn=source.loss,
        evaluate=source.held_out,
        optim=config.optim,
        # examples are encoded as they are drawn, with this very model: another process would need a copy of it
        config=replace(config.loop, num_workers=0),
        out_dir=out_dir,
        title=stage,
        notes={"stage": stage, "seed": config.seed, "num_steps": config.loop.num_steps},
    )
    if config.lora:
        merge_lora(model)
    round_trained(model, dtype=dtype)
    source.leave(out_dir)


def freeze_encoders(model: CaptioningModel) -> None:
    """What `pretrain_encoders` trained stays as it is: tower, sound encoder, Q-Former."""
    model.requires_grad_(True)
    for part in (model.vision_tower, model.audio_encoder, model.audio_aligner.qformer):
        part.requires_grad_(False)
    model.audio_aligner.query_tokens.requires_grad_(False)
