"""Stage 3: audio-visual supervised fine-tuning on captions as real corpora have them.

The world's labels leave out, slip, invent, stop early and repeat themselves (world/describe.py says how often), so the
model learns their habits with the task: that is what preference rounds start from. The encoders stay frozen. At full
size only the aligners and a LoRA on the language model train (paper, section 3); the tiny model trains whole.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from avcap.curriculum.source import WorldFinetuneConfig
from avcap.errors import UserError
from avcap.model.captioning import CaptioningModel
from avcap.stages.parts.finetune import Run, finetune, freeze_encoders
from avcap.train.corpus import CorpusFinetuneConfig


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    finetune: WorldFinetuneConfig | CorpusFinetuneConfig
    """Examples from the world, or from a corpus."""
    seed: int = 0
    full: bool = False
    """All but the encoders learns, and no LoRA; else the Q-Former, its query, the vision aligner and the LoRA."""

    stage: ClassVar[str] = "sft"

    def __post_init__(self) -> None:
        if self.full and self.finetune.lora:
            raise UserError("got full=true and a LoRA, expected one of them: --set finetune.lora=null")


def train_sft(run: Run, config: SftConfig) -> None:
    """Fine-tunes the run's model in place."""
    assert run.parent is not None, "fine-tuning goes on from a checkpoint"
    model, stage_config = run.model, replace(config.finetune, seed=config.seed)
    freeze_encoders(model)
    if not config.full:
        _freeze_language(model)
    source = stage_config.source(model, run.tokenizer, encoders=run.parent, shared_dir=run.out_dir.parent)
    finetune(model, source, stage=config.stage, config=stage_config, out_dir=run.out_dir)


def _freeze_language(model: CaptioningModel) -> None:
    """What turns features into tokens learns; the language model does not, but for a LoRA."""
    for part in (model.audio_aligner.qformer, model.vision_aligner):
        part.requires_grad_(True)
    model.audio_aligner.query_tokens.requires_grad_(True)
    model.language_model.requires_grad_(False)
