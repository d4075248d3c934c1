"""Stage 3: audio-visual supervised fine-tuning on captions as real corpora have them.

The world's labels leave out, slip, invent, stop early and repeat themselves (world/describe.py says how often), so the
model learns their habits with the task: that is what preference rounds start from. The encoders stay frozen. At full
size only the aligners and a LoRA on the language model train (paper, section 3); the tiny model trains whole.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from avcap.model.captioning import CaptioningModel
from avcap.stages.base import freeze_encoders
from avcap.stages.teach import CorpusTeachConfig, TeachConfig, teach, teach_corpus


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    teach: TeachConfig | CorpusTeachConfig
    """Lessons from the world, or from a corpus."""
    seed: int = 0


def train_sft(
    model: CaptioningModel, tokenizer: PreTrainedTokenizerFast, *, config: SftConfig, tracks_dir: Path,
    out_dir: Path,
) -> None:  # fmt: skip
    """Fine-tunes `model` in place. `tracks_dir` is where lessons from the world come from."""
    freeze_encoders(model)
    if isinstance(config.teach, CorpusTeachConfig):
        for part in (model.sound_aligner.qformer, model.vision_aligner):
            part.requires_grad_(True)
        model.sound_aligner.query_tokens.requires_grad_(True)
        model.language_model.requires_grad_(False)
        teaching = replace(config.teach, seed=config.seed)
        teach_corpus(model, tokenizer, stage="sft", config=teaching, out_dir=out_dir)
    else:
        lessons = replace(config.teach, seed=config.seed)
        teach(model, tokenizer, stage="sft", config=lessons, tracks_dir=tracks_dir, out_dir=out_dir)
