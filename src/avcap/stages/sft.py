"""Stage 3: audio-visual supervised fine-tuning on captions as real corpora have them.

The labels leave out, slip, invent, stop early and repeat themselves (world/describe.py says how often), so the model
learns their habits with the task: that is what preference rounds start from. The encoders stay frozen; at full size
only the aligners and a LoRA on the language model train (paper, section 3), the tiny model trains whole.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from avcap.model.salmonn2 import Salmonn2ForCaptioning
from avcap.stages.base import freeze_encoders
from avcap.stages.teach import TeachConfig, teach


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    teach: TeachConfig
    seed: int = 0


def train_sft(
    model: Salmonn2ForCaptioning, tokenizer: PreTrainedTokenizerFast, *, config: SftConfig,
    tracks_dir: Path, tracks_seed: int, out_dir: Path,
) -> None:  # fmt: skip
    """Fine-tunes everything but the encoders of `model` in place."""
    freeze_encoders(model)
    teach(
        model, tokenizer, stage="sft", config=replace(config.teach, seed=config.seed),
        tracks_dir=tracks_dir, tracks_seed=tracks_seed, out_dir=out_dir,
    )  # fmt: skip
