"""One preference round on pairs from a file: made elsewhere, imported, or chosen by a person.

pairs -> reference log-probs -> guided DPO on a fresh LoRA -> merged: OUT/checkpoint
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from avcap.data.feature_cache import FeatureCache
from avcap.data.request import Request
from avcap.errors import UserError
from avcap.evaluation.collect import ModelOpener, encoded
from avcap.model.checkpoint.load import silence_progress_bars
from avcap.preference.check_pairs import check_pairs
from avcap.records import Decoding, PreferencePair, Sample
from avcap.run_folder import CHECKPOINT, PAIRS, TRAIN, data_hash, lineage_of, records, save_checkpoint
from avcap.stages.dpo import dpo
from avcap.train.preference_steps import DpoConfig


@dataclass(frozen=True, kw_only=True)
class DpoFromFileConfig:
    seed: int = 0
    dpo: DpoConfig = field(default_factory=DpoConfig)
    """dpo.loss.guidance_weight is the weight of the cross-entropy on reference captions."""
    feature_bytes: int = 20 * 2**30
    """Room for encoded videos on disk."""
    device: str | None = None
    """cpu, cuda or cuda:N; None: a GPU if there is one."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Of the weights that do not learn, and of what is computed. None: bfloat16 on a GPU, float32 on a CPU."""


def run_dpo_from_file(
    parent: Path,
    pairs: Sequence[PreferencePair],
    *,
    config: DpoFromFileConfig,
    out_dir: Path,
    allow_others: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """A checkpoint and pairs (with paths that lead to their videos) -> OUT/checkpoint; stopped, it goes on.

    UserError for pairs that another model wrote, unless `allow_others`: they teach what that model does wrong.
    """
    silence_progress_bars()
    features = FeatureCache(out_dir / "features", max_bytes=config.feature_bytes)
    models = ModelOpener(features=features, device=config.device, dtype=config.dtype)
    captioner = models.open(parent)
    check_pairs(pairs, checkpoint=captioner.checkpoint, allow_others=allow_others)
    num_guided = sum(bool(pair.reference_caption) for pair in pairs)
    if num_guided < len(pairs) and config.dpo.loss.guidance_weight:
        say(f"{len(pairs) - num_guided} of {len(pairs)} pairs have no reference caption: no guidance from them")
    if records(out_dir / PAIRS, PreferencePair, lambda: pairs) != list(pairs):
        raise UserError(f"{out_dir / PAIRS}: got other pairs than this run was begun with; choose another --out")
    if not (out_dir / CHECKPOINT).exists():
        # a video may have several pairs: they are told apart by their place
        named = {str(index): replace(pair, sample_id=str(index)) for index, pair in enumerate(pairs)}
        request = Request(decoding=Decoding(max_new_tokens=1))
        dpo(
            captioner.model,
            captioner.tokenizer,
            pairs=list(named.values()),
            seed=config.seed,
            out_dir=out_dir / TRAIN,
            media_of=lambda index: encoded(captioner, _sample(named[index]), request),
            config=config.dpo,
        )
        learned = data_hash(out_dir / PAIRS)
        lineage = lineage_of("dpo", parent=captioner.checkpoint, data_hash=learned, seed=config.seed)
        save_checkpoint(out_dir / CHECKPOINT, captioner.model, captioner.tokenizer, lineage=lineage, parent=parent)
    return out_dir / CHECKPOINT


def _sample(pair: PreferencePair) -> Sample:
    return Sample(sample_id=pair.sample_id, video=pair.video, prompt=pair.prompt, interval_s=pair.interval_s)
