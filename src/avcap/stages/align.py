"""Stage 2: audio modality alignment. The language model, the picture branch and the sound encoder are frozen; only what
turns sound into tokens (Q-Former, query, projection, norm) learns, from sound alone. (Paper, section 3; released code:
the Q-Former, its query and the projection.)
"""

from dataclasses import dataclass, replace
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from avcap.model.captioning import CaptioningModel
from avcap.stages.teach import CorpusTeachConfig, TeachConfig, teach, teach_corpus


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    teach: TeachConfig | CorpusTeachConfig
    """Lessons from the world, or from a corpus."""
    seed: int = 0
    train_query: bool = True
    """Also train the query token; the released 2+ models left it at its random start, because their tool could not."""


def train_align(
    model: CaptioningModel, tokenizer: PreTrainedTokenizerFast, *, config: AlignConfig, tracks_dir: Path,
    out_dir: Path,
) -> None:  # fmt: skip
    """Trains the sound branch of `model` in place. `tracks_dir` is where lessons from the world come from."""
    model.requires_grad_(False)
    model.sound_aligner.requires_grad_(True)
    model.sound_aligner.query_tokens.requires_grad_(config.train_query)
    if isinstance(config.teach, CorpusTeachConfig):
        teaching = replace(config.teach, seed=config.seed)
        teach_corpus(model, tokenizer, stage="align", config=teaching, out_dir=out_dir)
    else:
        lessons = replace(config.teach, seed=config.seed)
        teach(model, tokenizer, stage="align", config=lessons, tracks_dir=tracks_dir, out_dir=out_dir)
