"""The loss that teaches the language model to read media tokens, and how well it does, kind of word by kind of word.

The caption loss alone is a trap: a model that knows only the grammar brings it down nicely. So content words weigh
more, media tokens are pulled towards the words of what they show (alignment.py), and accuracy is told per kind of word.
T target tokens  D width  V vocabulary
"""

from collections import defaultdict
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from avcap.curriculum.alignment import alignment_losses
from avcap.curriculum.examples import CONTENT_KINDS, WorldExampleBatch
from avcap.model.captioning import CaptioningModel
from avcap.model.features import MediaTokens
from avcap.train.answer_loss import row_attention, weighted
from avcap.train.loop import LossOutput
from avcap.train.packing import target_states


def example_loss(
    model: CaptioningModel, batch: WorldExampleBatch, *, tokenizer: PreTrainedTokenizerBase, alignment_weight: float
) -> LossOutput:
    """Weighted cross-entropy on the answers + alignment_weight x bag-of-words loss on the media tokens."""
    media_tokens = model.align_batch(batch.answers.media)
    logits_TV = answer_logits(model, batch, media_tokens)
    logprobs_T = -F.cross_entropy(logits_TV, batch.answers.packed.target_T, reduction="none")
    output = weighted(logprobs_T, batch.answers)
    metrics = output.metrics | kind_accuracy(batch, logits_TV)
    loss = output.loss
    if alignment_weight:
        losses = alignment_losses(model, media_tokens, batch.scenes, tokenizer=tokenizer)
        if len(losses):
            metrics["alignment_loss"] = losses.mean().item()
            loss = loss + alignment_weight * (losses.sum() / batch.num_step_words)
    return replace(output, loss=loss, metrics=metrics)


def answer_logits(model: CaptioningModel, batch: WorldExampleBatch, media_tokens: list[MediaTokens]) -> Tensor:
    """A microbatch and its media -> float32 logits of all its targets (T, V): the vocabulary of a world is small."""
    packed = batch.answers.packed
    states_TD = target_states(model, packed, media_tokens, attention=row_attention(model, packed))
    return model.language_model.lm_head(states_TD).float()


def right_answers(model: CaptioningModel, batch: WorldExampleBatch) -> float:
    """Share of the answers of a microbatch of which every token is right, under teacher forcing."""
    packed = batch.answers.packed
    logits_TV = answer_logits(model, batch, model.align_batch(batch.answers.media))
    wrong_T = (logits_TV.argmax(-1) != packed.target_T).to(torch.int64)
    wrong_A = wrong_T.new_zeros(int(packed.branch_T.max()) + 1)
    return (wrong_A.index_add(0, packed.branch_T, wrong_T) == 0).double().mean().item()


def kind_accuracy(batch: WorldExampleBatch, logits_TV: Tensor) -> dict[str, float]:
    """Teacher-forced accuracy by kind of word, and "content" over all content kinds together."""
    right: dict[str, list[bool]] = defaultdict(list)
    hits = (logits_TV.argmax(-1) == batch.answers.packed.target_T).tolist()
    for kind, hit in zip(batch.kinds_T, hits, strict=True):
        if kind:
            right[kind].append(hit)
            if kind in CONTENT_KINDS:
                right["content"].append(hit)
    return {f"accuracy/{kind}": sum(hits) / len(hits) for kind, hits in sorted(right.items())}
