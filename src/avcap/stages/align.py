"""Stage 2: audio modality alignment. The language model, the picture branch and the sound encoder are frozen; only what
turns sound into tokens (Q-Former, query, projection, norm) learns, from sound alone. (Paper, section 3; released code:
the Q-Former, its query and the projection.)
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from avcap.curriculum.source import WorldFinetuneConfig
from avcap.stages.parts.finetune import Run, finetune
from avcap.train.corpus import CorpusFinetuneConfig


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    finetune: WorldFinetuneConfig | CorpusFinetuneConfig
    """Examples from the world, or from a corpus."""
    seed: int = 0
    train_query: bool = True
    """Also train the query token; the released 2+ models left it at its random start, because their tool could not."""

    stage: ClassVar[str] = "align"


def train_align(run: Run, config: AlignConfig) -> None:
    """Trains the sound branch of the run's model in place."""
    assert run.parent is not None, "alignment goes on from a checkpoint"
    model, stage_config = run.model, replace(config.finetune, seed=config.seed)
    model.requires_grad_(False)
    model.audio_aligner.requires_grad_(True)
    model.audio_aligner.query_tokens.requires_grad_(config.train_query)
    source = stage_config.source(model, run.tokenizer, encoders=run.parent, shared_dir=run.out_dir.parent)
    finetune(model, source, stage=config.stage, config=stage_config, out_dir=run.out_dir)
