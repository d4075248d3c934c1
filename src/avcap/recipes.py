"""Functions that return a whole configuration: `avcap train NAME` runs the one of that name.

tiny_base -> tiny_align -> tiny_sft make the embedded model from nothing. A variant is a recipe with fields replaced, by
`dataclasses.replace` here or by `--set` and `--config` on the command line.
"""

from avcap.stages.align import AlignConfig
from avcap.stages.base import BaseConfig
from avcap.stages.perceive import PerceiveConfig
from avcap.stages.sft import SftConfig
from avcap.stages.teach import Phase, TeachConfig
from avcap.train.lessons import LessonMix
from avcap.train.loop import LoopConfig
from avcap.train.optim import OptimConfig

SLOTS = LessonMix(slots=1.0)
MIX = LessonMix(slots=0.3, seen=0.12, heard=0.12, interval=0.2, questions=0.26)
IMPERFECT = LessonMix(captions=0.5, imperfect_intervals=0.15, questions=0.25, seen=0.05, heard=0.05)


def tiny_base() -> BaseConfig:
    """Encoders from rendered seconds, then grammar, prompts and questions from clean lessons of seconds and modalities."""
    return BaseConfig(
        eyes=PerceiveConfig(
            loop=LoopConfig(num_steps=1500, evaluate_every=250, num_workers=0), optim=OptimConfig(lr=2e-3, muon_lr=0.01)
        ),
        ears=PerceiveConfig(
            loop=LoopConfig(num_steps=1600, evaluate_every=200, num_workers=0), optim=OptimConfig(lr=3e-3, muon_lr=0.01)
        ),
        teach=TeachConfig(
            phases=(Phase(until_step=400, mix=SLOTS), Phase(until_step=1000, mix=MIX)),
            loop=LoopConfig(num_steps=1000, evaluate_every=100, num_workers=0),
            optim=OptimConfig(lr=3e-3, muon_lr=0.01),
        ),
    )


def tiny_align() -> AlignConfig:
    """The sound branch against a frozen language model: Q-Former and projection learn from sound alone."""
    return AlignConfig(
        teach=TeachConfig(
            phases=(Phase(until_step=150, mix=LessonMix(heard=1.0)),),
            loop=LoopConfig(num_steps=150, evaluate_every=50, num_workers=0),
            optim=OptimConfig(lr=5e-4, muon_lr=None),
        )
    )


def tiny_sft() -> SftConfig:
    """Audio-visual fine-tuning on imperfect labels, with questions, intervals and some clean single modalities."""
    return SftConfig(
        teach=TeachConfig(
            phases=(Phase(until_step=250, mix=IMPERFECT),),
            alignment_weight=0.0,
            loop=LoopConfig(num_steps=250, evaluate_every=50, num_workers=0),
            optim=OptimConfig(lr=1e-3, muon_lr=0.003),
        )
    )
