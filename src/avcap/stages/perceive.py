"""Stage 0, only for a model from scratch: the two encoders learn to see and hear from attributes of rendered seconds.

Frames -> tower -> what stands in each cell; sound -> encoder and Q-Former -> what is heard in each second. Afterwards
both are frozen: every later stage learns how to talk about what they give.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from avcap.curriculum.perception import (
    AUDIO_ATTRIBUTES,
    VISUAL_ATTRIBUTES,
    AttributeBatch,
    AttributeHeads,
    AudioBatches,
    FrameBatches,
    attribute_loss,
)
from avcap.model.captioning import CaptioningModel
from avcap.train.checkpoint import latest_state
from avcap.train.compute import choose_device, device_of
from avcap.train.loop import LoopConfig, LossOutput, run_loop
from avcap.train.optim import OptimConfig

HELD_OUT = 1  # stream of scenes that no step of training draws
NUM_HELD_OUT_BATCHES = 6


@dataclass(frozen=True, kw_only=True)
class PerceiveConfig:
    seed: int = 0
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(num_steps=3000))
    optim: OptimConfig = field(default_factory=OptimConfig)


class VisionPerception(nn.Module):
    """The vision tower with heads that name colour, shape and size of what stands in each cell."""

    def __init__(self, model: CaptioningModel):
        super().__init__()
        self.tower = model.vision_tower
        self.heads = AttributeHeads(model.config.vision_config.hidden_size, VISUAL_ATTRIBUTES)
        self._model = [model]  # in a list: not a submodule, so that only the tower trains

    def loss(self, batch: AttributeBatch) -> LossOutput:
        features_TNV = self._model[0].encode_video(batch.inputs, with_grad=True)
        return attribute_loss(self.heads(features_TNV), batch.targets)


class AudioPerception(nn.Module):
    """The sound encoder and the Q-Former with heads that name the sound, its count and the two words of each second."""

    def __init__(self, model: CaptioningModel):
        super().__init__()
        config = model.config
        self.encoder = model.audio_encoder
        self.aligner = nn.ModuleList([model.audio_aligner.input_norm, model.audio_aligner.qformer])
        self.queries = nn.ParameterList([model.audio_aligner.query_tokens])
        self.tokens_per_chunk = config.audio_tokens_per_chunk
        self.heads = AttributeHeads(self.tokens_per_chunk * config.qformer_config.hidden_size, AUDIO_ATTRIBUTES)
        self._model = [model]

    def loss(self, batch: AttributeBatch) -> LossOutput:
        model = self._model[0]
        queries_UQ = model.qform_audio(model.encode_audio(batch.inputs, with_grad=True))
        chunks_KD = queries_UQ.unflatten(0, (-1, self.tokens_per_chunk)).flatten(1)
        return attribute_loss(self.heads(chunks_KD), batch.targets)


PARTS: dict[str, type[VisionPerception] | type[AudioPerception]] = {
    "vision": VisionPerception,
    "audio": AudioPerception,
}


def perceive(model: CaptioningModel, part: str, *, config: PerceiveConfig, out_dir: Path) -> None:
    """Trains the "eyes" or the "ears" of `model` in place."""
    torch.manual_seed(config.seed)
    model.to(choose_device(config.loop.device)).train()
    trained = PARTS[part](model).to(model.device)
    batches: FrameBatches | AudioBatches
    if part == "vision":
        batches = FrameBatches(seed=config.seed, image_size=model.config.vision_config.image_size)
    else:
        batches = AudioBatches(seed=config.seed, num_mel_bins=model.config.audio_config.num_mel_bins)
    held_out = _held_out_batches(batches)
    run_loop(
        trained,
        make_batch=batches,
        loss_fn=trained.loss,
        config=config.loop,
        optim=config.optim,
        out_dir=out_dir,
        title=part,
        notes={"stage": part, "seed": config.seed, "num_steps": config.loop.num_steps},
        evaluate=lambda: _accuracy(trained, held_out),
    )


def load_perceived(model: CaptioningModel, part: str, *, out_dir: Path) -> None:
    """Puts what `perceive` last wrote to `out_dir` into `model`; its heads are thrown away."""
    state = latest_state(out_dir / "checkpoints")
    assert state is not None, f"{out_dir}: nothing trained there"
    PARTS[part](model).load_state_dict(load_file(state / "model.safetensors"))


def _held_out_batches(batches: FrameBatches | AudioBatches) -> dict[str, list[AttributeBatch]]:
    """Scenes never trained on; for sound also voices and pitches never trained on."""
    streams = {"held_out": replace(batches, stream=HELD_OUT)}
    if isinstance(batches, AudioBatches):
        streams["unseen_voices"] = replace(batches, stream=HELD_OUT, domain="unseen")
    steps = range(NUM_HELD_OUT_BATCHES)
    return {name: [batch for step in steps for batch in stream(step)] for name, stream in streams.items()}


@torch.no_grad()
def _accuracy(
    trained: VisionPerception | AudioPerception, held_out: dict[str, list[AttributeBatch]]
) -> dict[str, float]:
    trained.eval()
    result: dict[str, float] = {}
    for name, batches in held_out.items():
        outputs = [trained.loss(batch.to(device_of(trained))).metrics for batch in batches]
        result |= {f"{name}/{key}": sum(out[key] for out in outputs) / len(outputs) for key in outputs[0]}
    trained.train()
    return result
