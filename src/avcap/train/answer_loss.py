"""Cross-entropy of answers: sum(weight * CE) / sum(weight) over the target tokens of a whole step.

T target tokens  D width
"""

from torch import Tensor

from avcap.model.captioning import CaptioningModel
from avcap.train.examples import AnswerBatch
from avcap.train.loop import LossOutput
from avcap.train.packing import Blocks, PackedBatch, SplitConcat, Varlen, attention_for, target_states, token_logprobs


def answer_loss(model: CaptioningModel, batch: AnswerBatch) -> LossOutput:
    """A microbatch -> its share of the step's weighted cross-entropy."""
    states_TD = target_states(
        model, batch.packed, model.align_batch(batch.media), attention=row_attention(model, batch.packed)
    )
    return weighted(token_logprobs(model.language_model.lm_head, states_TD, batch.packed.target_T), batch)


def weighted(logprobs_T: Tensor, batch: AnswerBatch) -> LossOutput:
    """Log-probs of the targets of a microbatch -> its share of the step's loss."""
    weight_T = batch.packed.weight_T
    total = -(logprobs_T * weight_T).sum()
    weight = weight_T.sum().item()
    return LossOutput(
        loss=total / batch.step_weight,
        metrics={"answer_loss": total.item() / weight},
        weight=weight,
        num_tokens=batch.packed.num_tokens,
    )


def row_attention(model: CaptioningModel, packed: PackedBatch) -> type[SplitConcat] | type[Varlen] | type[Blocks]:
    """How a row of answers is computed: as preference pairs are, but short examples in one call and not branch by
    branch."""
    attention = attention_for(dtype=model.dtype, device=model.device)
    return Blocks if attention is SplitConcat and Blocks.fits(packed.groups) else attention
