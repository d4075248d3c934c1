"""What teaches the two encoders to see and hear before any language: rendered seconds with their attributes.

B seconds or frames  T frames  C cells of the stage  M mel bins  F mel frames  D width of features
A released model takes its encoders from large public ones instead; a model from scratch has to grow its own.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avcap.media.mel import log_mel
from avcap.model.captioning import CaptioningModel
from avcap.train.compute import device_of
from avcap.train.loop import LossOutput
from avcap.world.render import render_frames
from avcap.world.scene import (
    COLOURS,
    COUNTED_SOUNDS,
    MAX_COUNT,
    PLACES,
    PLAIN_SOUNDS,
    SHAPES,
    SIZES,
    WORDS,
    Scene,
    SoundAtom,
    make_scene,
    stage_at,
)
from avcap.world.sounds import render_audio

HELD_OUT = 1  # stream of scenes that no step of training draws
NUM_HELD_OUT_BATCHES = 6
IGNORE = -100
SOUND_KINDS = ("silence", *PLAIN_SOUNDS, *COUNTED_SOUNDS, "voice")
VISUAL_ATTRIBUTES = {"present": 2, "colour": len(COLOURS), "shape": len(SHAPES), "size": len(SIZES)}
AUDIO_ATTRIBUTES = {"kind": len(SOUND_KINDS), "count": MAX_COUNT, "word_1": len(WORDS), "word_2": len(WORDS)}

# Worlds that are made for tests take seeds from 1e9 on (world/make.py): no training clip is ever among them.
NUM_TRAINING_SEEDS = 10**9


def training_seed(seed: int, *parts: int) -> int:
    """Run seed and counters -> a scene seed for training. A hash, so streams of two runs do not overlap in order."""
    value = 0xCBF29CE484222325
    for part in (seed, *parts):
        value = ((value ^ (part + 1)) * 0x100000001B3 + 0x9E3779B9) % 2**64
        value ^= value >> 29
    return value % NUM_TRAINING_SEEDS


@dataclass(frozen=True, kw_only=True)
class AttributeBatch:
    """Encoder input with, per attribute, the class of each item (IGNORE where it has none)."""

    inputs: Tensor  # pictures: uint8 (T, 3, H, W); sound: log-mel (B, M, F)
    targets: dict[str, Tensor]  # pictures: (T, C); sound: (B,)

    def to(self, device: torch.device) -> "AttributeBatch":
        targets = {name: target.to(device) for name, target in self.targets.items()}
        return AttributeBatch(inputs=self.inputs.to(device), targets=targets)


@dataclass(frozen=True, kw_only=True)
class FrameBatches:
    """Step -> frames of rendered clips, a few per clip, with what stands in each of their cells."""

    seed: int
    image_size: int
    clips_per_step: int = 12
    frames_per_clip: int = 5
    stream: int = 0

    def __call__(self, step: int) -> list[AttributeBatch]:
        frames, stages = [], []
        for index in range(self.clips_per_step):
            scene = make_scene(training_seed(self.seed, 1, self.stream, step, index), visual_rate=0.9, seconds=(12, 12))
            rng = np.random.default_rng(scene.seed)
            times = rng.choice(np.arange(2, scene.duration_s), size=self.frames_per_clip, replace=False)
            frames.append(render_frames(scene, [float(second) for second in times], size=self.image_size))
            stages += [stage_at(scene, int(second)) for second in times]
        frames_TCHW = torch.from_numpy(np.concatenate(frames)).permute(0, 3, 1, 2).contiguous()
        return [AttributeBatch(inputs=frames_TCHW, targets=visual_targets(stages))]


def visual_targets(stages: list[dict]) -> dict[str, Tensor]:
    """Stages of T frames -> attribute -> (T, C) classes; an empty cell has no colour, shape or size."""
    rows: dict[str, list[list[int]]] = {name: [] for name in VISUAL_ATTRIBUTES}
    for stage in stages:
        things = [stage.get(place) for place in PLACES]
        rows["present"].append([int(thing is not None) for thing in things])
        rows["colour"].append([COLOURS.index(thing.colour) if thing else IGNORE for thing in things])
        rows["shape"].append([SHAPES.index(thing.shape) if thing else IGNORE for thing in things])
        rows["size"].append([thing.size if thing else IGNORE for thing in things])
    return {name: torch.tensor(values) for name, values in rows.items()}


@dataclass(frozen=True, kw_only=True)
class AudioBatches:
    """Step -> log-mels of single seconds of rendered clips, most with a sound, with what is heard in each."""

    seed: int
    num_mel_bins: int
    clips_per_step: int = 8
    seconds_per_clip: int = 10
    sound_rate: float = 0.95
    say_share: float = 0.65
    domain: str = "default"
    stream: int = 0

    def __call__(self, step: int) -> list[AttributeBatch]:
        seconds = (self.seconds_per_clip, self.seconds_per_clip)
        scenes = [
            make_scene(
                training_seed(self.seed, 2, self.stream, step, index),
                sound_rate=self.sound_rate,
                say_share=self.say_share,
                seconds=seconds,
                domain=self.domain,
            )
            for index in range(self.clips_per_step)
        ]
        waveform_BS = torch.from_numpy(np.stack([render_audio(scene) for scene in scenes])).reshape(-1, 16_000)
        atoms = [atom for scene in scenes for atom in atoms_by_second(scene)]
        mel_BMF = log_mel(waveform_BS, num_mel_bins=self.num_mel_bins)
        return [AttributeBatch(inputs=mel_BMF, targets=audio_targets(atoms))]


def atoms_by_second(scene: Scene) -> list[SoundAtom | None]:
    """Scene -> the (first) sound of each second, None where there is none."""
    first = {atom.second: atom for atom in reversed(scene.sounds)}
    return [first.get(second) for second in range(scene.duration_s)]


def audio_targets(atoms: list[SoundAtom | None]) -> dict[str, Tensor]:
    """Sounds of B seconds -> attribute -> (B,) classes; only counted sounds have a count, only voices have words."""
    kinds = ["silence" if atom is None else atom.name or "voice" for atom in atoms]
    words = [atom.words if atom else None for atom in atoms]
    return {
        "kind": torch.tensor([SOUND_KINDS.index(kind) for kind in kinds]),
        "count": torch.tensor([atom.count - 1 if atom and atom.count else IGNORE for atom in atoms]),
        "word_1": torch.tensor([WORDS.index(pair[0]) if pair else IGNORE for pair in words]),
        "word_2": torch.tensor([WORDS.index(pair[1]) if pair else IGNORE for pair in words]),
    }


class AttributeHeads(nn.Module):
    """(..., D) features -> attribute -> (..., classes) logits. Used to train an encoder, then thrown away."""

    def __init__(self, width: int, attributes: dict[str, int]):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, classes) for name, classes in attributes.items()})

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        features = self.norm(features)
        return {name: head(features) for name, head in self.heads.items()}


def attribute_loss(logits: dict[str, Tensor], targets: dict[str, Tensor]) -> LossOutput:
    """Sum over attributes of the mean cross-entropy, with each attribute's accuracy (nan: none in the batch)."""
    terms = []
    metrics = {}
    for name, logits_of in logits.items():
        logits_NC, target_N = logits_of.flatten(0, -2), targets[name].flatten()
        kept = target_N != IGNORE
        # The sum over kept items, not a mean over none: a batch without any gives 0 and no nan.
        total = F.cross_entropy(logits_NC, target_N, ignore_index=IGNORE, reduction="sum")
        terms.append(total / kept.sum().clamp(min=1))
        metrics[name] = (logits_NC.argmax(-1)[kept] == target_N[kept]).float().mean().item()
    return LossOutput(loss=sum(terms[1:], terms[0]), metrics=metrics, num_tokens=next(iter(targets.values())).numel())


class VisionPerception(nn.Module):
    """The vision tower with heads that name colour, shape and size of what stands in each cell."""

    def __init__(self, model: CaptioningModel):
        super().__init__()
        self.tower = model.vision_tower
        self.heads = AttributeHeads(model.config.vision_config.hidden_size, VISUAL_ATTRIBUTES)
        self._model = [model]  # in a list: not a submodule, so that only the tower trains

    def batches(self, *, seed: int) -> "FrameBatches":
        """-> what it learns from."""
        return FrameBatches(seed=seed, image_size=self._model[0].config.vision_config.image_size)

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

    def batches(self, *, seed: int) -> "AudioBatches":
        """-> what it learns from."""
        return AudioBatches(seed=seed, num_mel_bins=self._model[0].config.audio_config.num_mel_bins)

    def loss(self, batch: AttributeBatch) -> LossOutput:
        model = self._model[0]
        queries_UQ = model.qform_audio(model.encode_audio(batch.inputs, with_grad=True))
        chunks_KD = queries_UQ.unflatten(0, (-1, self.tokens_per_chunk)).flatten(1)
        return attribute_loss(self.heads(chunks_KD), batch.targets)


PERCEPTION: dict[str, type[VisionPerception] | type[AudioPerception]] = {
    "vision": VisionPerception,
    "audio": AudioPerception,
}


def held_out_batches(batches: FrameBatches | AudioBatches) -> dict[str, list[AttributeBatch]]:
    """Scenes never trained on; for audio also voices and pitches never trained on."""
    streams = {"held_out": replace(batches, stream=HELD_OUT)}
    if isinstance(batches, AudioBatches):
        streams["unseen_voices"] = replace(batches, stream=HELD_OUT, domain="unseen")
    steps = range(NUM_HELD_OUT_BATCHES)
    return {name: [batch for step in steps for batch in stream(step)] for name, stream in streams.items()}


@torch.no_grad()
def accuracy(
    trained: VisionPerception | AudioPerception, held_out: dict[str, list[AttributeBatch]]
) -> dict[str, float]:
    """An encoder with its heads and batches by name -> its figures on them."""
    trained.eval()
    result: dict[str, float] = {}
    for name, batches in held_out.items():
        outputs = [trained.loss(batch.to(device_of(trained))).metrics for batch in batches]
        result |= {f"{name}/{key}": sum(out[key] for out in outputs) / len(outputs) for key in outputs[0]}
    trained.train()
    return result
