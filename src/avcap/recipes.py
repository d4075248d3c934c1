"""Functions that return a whole configuration: `avcap train NAME` runs the one of that name.

tiny_base -> tiny_align -> tiny_sft make the embedded model from nothing. A variant is a recipe with fields replaced, by
`dataclasses.replace` here or by `--set` and `--config` on the command line.
"""

from avcap.curriculum.examples import ExampleMix, QuestionMix
from avcap.curriculum.source import WorldFinetuneConfig
from avcap.model.lora import BLOCK_OF, LoraConfig
from avcap.preference.round_data import WorldConfig
from avcap.runs.dpo_from_file import DpoFromFileConfig
from avcap.stages.align import AlignConfig
from avcap.stages.base import BaseConfig
from avcap.stages.pretrain_encoders import PretrainConfig
from avcap.stages.rebirth import RebirthConfig, RebirthMix
from avcap.stages.rounds import RoundsConfig, SamplingConfig
from avcap.stages.sft import SftConfig
from avcap.train.corpus import CorpusConfig, CorpusFinetuneConfig
from avcap.train.loop import LoopConfig
from avcap.train.optim import OptimConfig
from avcap.train.preference_steps import DpoConfig

MIX = ExampleMix(seconds=0.22, visual=0.14, audio=0.1, interval=0.2, questions=0.34)
SECOND_PHASE = ExampleMix(seconds=0.15, visual=0.05, audio=0.05, interval=0.1, questions=0.65)
HARD_QUESTIONS = QuestionMix(heard=3.0, recolour=3.0, objects=4.0, there=5.0, during=5.0)
IMPERFECT = ExampleMix(captions=0.5, imperfect_intervals=0.15, questions=0.25, visual=0.05, audio=0.05)


def tiny_base() -> BaseConfig:
    """Encoders from rendered seconds, then language from clean examples of seconds and modalities."""
    return BaseConfig(
        vision=PretrainConfig(
            loop=LoopConfig(num_steps=1200, evaluate_every=200, num_workers=0), optim=OptimConfig(lr=2e-3, muon_lr=0.01)
        ),
        audio=PretrainConfig(
            loop=LoopConfig(num_steps=1200, evaluate_every=200, num_workers=0), optim=OptimConfig(lr=3e-3, muon_lr=0.01)
        ),
        finetune=WorldFinetuneConfig(
            mix=MIX,
            second_steps=250,
            loop=LoopConfig(num_steps=1000, evaluate_every=250, num_workers=0),
            optim=OptimConfig(lr=3e-3, muon_lr=0.01),
        ),
        second_phase=WorldFinetuneConfig(
            mix=SECOND_PHASE,
            question_mix=HARD_QUESTIONS,
            loop=LoopConfig(num_steps=1000, evaluate_every=250, num_workers=0),
            optim=OptimConfig(lr=2e-3, muon_lr=0.006, decay_fraction=0.5),
        ),
    )


def tiny_align() -> AlignConfig:
    """The sound branch against a frozen language model: Q-Former and projection learn from sound alone."""
    return AlignConfig(
        finetune=WorldFinetuneConfig(
            mix=ExampleMix(audio=1.0),
            loop=LoopConfig(num_steps=150, evaluate_every=50, num_workers=0),
            optim=OptimConfig(lr=5e-4, muon_lr=None),
        )
    )


def tiny_sft() -> SftConfig:
    """Audio-visual fine-tuning on imperfect labels, with questions, intervals and some clean single modalities."""
    return SftConfig(
        full=True,
        finetune=WorldFinetuneConfig(
            mix=IMPERFECT,
            alignment_weight=0.0,
            loop=LoopConfig(num_steps=250, evaluate_every=50, num_workers=0),
            optim=OptimConfig(lr=1e-3, muon_lr=0.003),
        ),
    )


def salmonn2_7b_align() -> AlignConfig:
    """Audio alignment of a released-size backbone on sound with transcripts or captions (values of the 2+ code)."""
    return AlignConfig(
        finetune=CorpusFinetuneConfig(
            corpus=CorpusConfig(use_video=False),
            batch_size=16,
            loop=LoopConfig(num_steps=30_000, checkpoint_every=500),
            optim=OptimConfig(lr=2e-5, muon_lr=None, warmup_steps=900, decay_fraction=0.97),
        )
    )


def salmonn2_7b_sft() -> SftConfig:
    """Audio-visual fine-tuning of a released-size backbone: aligners and a LoRA (released values)."""
    return SftConfig(
        finetune=CorpusFinetuneConfig(
            lora=LoraConfig(),
            batch_size=8,
            loop=LoopConfig(num_steps=8_000, checkpoint_every=200),
            optim=OptimConfig(lr=2e-5, muon_lr=None, warmup_steps=240, decay_fraction=0.97),
        )
    )


def tiny_rounds() -> RoundsConfig:
    """Preference rounds of the embedded model, in a world whose labels are imperfect and whose judge is exact."""
    return RoundsConfig(
        num_rounds=4,
        world=WorldConfig(),
        guidance=(0.1,),
        dpo=DpoConfig(
            lora=LoraConfig(rank=16, alpha=32, dropout=0.0, targets=tuple(BLOCK_OF)),
            optim=OptimConfig(lr=3e-4, muon_lr=None, warmup_steps=3, decay_fraction=1.0),
        ),
    )


def tiny_dpo() -> DpoFromFileConfig:
    """One preference round of the embedded model on pairs from a file."""
    return DpoFromFileConfig(dpo=tiny_rounds().dpo)


def salmonn2_7b_dpo() -> DpoFromFileConfig:
    """One preference round of a released-size model on pairs from a file."""
    return DpoFromFileConfig(dpo=salmonn2_7b_rounds().dpo)


def tiny_rebirth() -> RebirthConfig:
    """The embedded model from before the rounds, on captions of the final one, with questions and single modalities."""
    return RebirthConfig(
        world=WorldConfig(num_clips=500, seed=200),
        full=True,
        mix=RebirthMix(captions=0.45, questions=0.45, modalities=0.1),
        loop=LoopConfig(num_steps=250, num_workers=0),
        optim=OptimConfig(lr=5e-4, muon_lr=0.0015, decay_fraction=1.0),
    )


def salmonn2_7b_rebirth() -> RebirthConfig:
    """Rebirth of a released-size model on videos of your own: a LoRA, at the rate of its fine-tuning."""
    return RebirthConfig(
        loop=LoopConfig(num_steps=8_000, checkpoint_every=200, num_workers=0),
        batch_size=8,
        caption_batch=4,
        optim=OptimConfig(lr=2e-5, muon_lr=None, warmup_steps=240, decay_fraction=0.97),
    )


def salmonn2_7b_rounds() -> RoundsConfig:
    """Preference rounds of a released-size model on videos of your own (values of the paper and of the released code).

    Guidance hurts in the first round and helps from the second on (the paper's ablation).
    """
    return RoundsConfig(
        sampling=SamplingConfig(num_prompts=2_000, captions_per_prompt=8),
        guidance=(0.0, 0.1),
        dpo=DpoConfig(optim=OptimConfig(lr=2e-5, muon_lr=None, warmup_steps=30, decay_fraction=1.0), epochs=1),
        batch_size=4,
    )


RECIPES = {
    recipe.__name__: recipe
    for recipe in (
        tiny_base,
        tiny_align,
        tiny_sft,
        tiny_rounds,
        tiny_dpo,
        tiny_rebirth,
        salmonn2_7b_align,
        salmonn2_7b_sft,
        salmonn2_7b_rounds,
        salmonn2_7b_dpo,
        salmonn2_7b_rebirth,
    )
}
