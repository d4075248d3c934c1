"""Rebirth: the model from before the rounds is fine-tuned on captions of the final one, so that the rest is kept.

    teacher (the final model) -> captions of a pool of videos           OUT/pool.jsonl
    -> those that are good enough, told without their truth             OUT/kept.jsonl, quality.json
    student (the model before the rounds): what it says of video or audio alone, to be kept as it is
                                                                        OUT/visual.jsonl, audio.jsonl
    captions + questions with their answers + one modality -> fine-tuning    OUT/train/, OUT/checkpoint/
    -> student, teacher and reborn model measured on held-out videos    OUT/student|teacher|reborn/round_metrics.json

Paper (arXiv 2410.06682), section 3.4: rebirth tuning; the pool's captions need no human label. It is the question data
beside the captions that keep the answers: without them the reborn model forgets by itself (docs/results.md).
Stopped at any moment and run again, it ends with the same weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from avcap.data.feature_cache import FeatureCache
from avcap.data.request import Request
from avcap.errors import UserError
from avcap.evaluation.collect import ModelOpener, collect_captions, encoded
from avcap.evaluation.held_out import HeldOut
from avcap.evaluation.questions import ask_as_it_can, ask_together
from avcap.files.write import write_json
from avcap.infer.captioner import Captioner
from avcap.judge.types import EventJudge
from avcap.model.checkpoint.load import silence_progress_bars
from avcap.model.lora import LoraConfig
from avcap.preference.caption_filter import QualityConfig, keep_good
from avcap.preference.round_data import RoundData, WorldConfig
from avcap.records import Caption, Decoding, Sample, write_jsonl
from avcap.run_folder import CHECKPOINT, TRAIN, checkpoint_title, data_hash, lineage_of, save_checkpoint
from avcap.stages.parts.finetune import finetune, freeze_encoders
from avcap.train.examples import Example
from avcap.train.loop import LoopConfig
from avcap.train.mixture import Mixture
from avcap.train.optim import OptimConfig

POOL, KEPT, QUALITY = "pool.jsonl", "kept.jsonl", "quality.json"


@dataclass(frozen=True, kw_only=True)
class RebirthMix:
    """Share of each kind of example; they are normalised over the kinds that there are."""

    captions: float = 0.65
    questions: float = 0.25
    modalities: float = 0.1
    """What the student says of picture or sound alone."""


@dataclass(frozen=True, kw_only=True)
class RebirthConfig:
    seed: int = 0
    world: WorldConfig | None = None
    """Where videos come from when none are given; None: they have to be."""
    mix: RebirthMix = field(default_factory=RebirthMix)
    quality: QualityConfig = field(default_factory=QualityConfig)
    lora: LoraConfig | None = field(default_factory=LoraConfig)
    full: bool = False
    """All of the language model and the aligners learn, and no LoRA."""
    batch_size: int = 32
    """Examples a step."""
    questions_per_example: int = 4
    """Questions about one video, each asked as if it were the only one."""
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(num_steps=150, num_workers=0))
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=2e-5, muon_lr=None, warmup_steps=10))
    caption_batch: int = 16
    """Videos captioned side by side."""
    feature_bytes: int = 20 * 2**30
    """Room for encoded videos on disk."""


def rebirth(
    student: Path,
    teacher: Path,
    *,
    config: RebirthConfig,
    round_data: RoundData,
    judge: EventJudge | None,
    out_dir: Path,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """The model before the rounds and the final one -> the reborn checkpoint.

    round_data.samples are the pool (events and reference captions are not read). `judge` None, or no held-out samples:
    nothing is measured. UserError where no caption is good enough, or where questions are wanted and there are none.
    """
    silence_progress_bars()
    if config.mix.questions and not round_data.questions:
        raise UserError(
            "got no questions with answers, expected some (--questions); to do without them: --set mix.questions=0"
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    loop = config.loop
    features = FeatureCache(out_dir / "features", max_bytes=config.feature_bytes)
    models = ModelOpener(features=features, batch_size=config.caption_batch, device=loop.device, dtype=loop.dtype)
    kept = _learned_captions(models.open(teacher), round_data, config=config, out_dir=out_dir, say=say)
    captioner = models.open(student)
    examples = {"captions": _caption_examples(captioner, kept, round_data.samples, _request(captioner))}
    if config.mix.modalities:
        examples["modalities"] = _kept_modalities(captioner, round_data.samples, out_dir=out_dir)
    if config.mix.questions:
        examples["questions"] = _asked(captioner, round_data, config=config)
    if not (out_dir / CHECKPOINT).exists():
        _learn(captioner, examples, config=config, out_dir=out_dir)
        lineage = lineage_of(
            "rebirth",
            parent=f"{checkpoint_title(student)} on captions of {checkpoint_title(teacher)}",
            data_hash=data_hash(out_dir / KEPT),
            seed=config.seed,
        )
        save_checkpoint(out_dir / CHECKPOINT, captioner.model, captioner.tokenizer, lineage=lineage, parent=student)
    if judge is not None and round_data.held_out:
        held_out = HeldOut(
            start=student,
            samples=round_data.held_out,
            questions=round_data.held_out_questions,
            judge=judge,
            models=models,
        )
        compared = {"student": student, "teacher": teacher, "reborn": out_dir / CHECKPOINT}
        held_out.compare(compared, out_dir=out_dir, say=say)
    return out_dir / CHECKPOINT


# --- examples ---------------------------------------------------------------------------------------------------------


def _learned_captions(
    captioner: Captioner, round_data: RoundData, *, config: RebirthConfig, out_dir: Path, say: Callable[[str], None]
) -> Sequence[Caption]:
    """The teacher's good captions of the pool."""
    captions = collect_captions(captioner, round_data.samples, _request(captioner), path=out_dir / POOL)
    kept = keep_good(captions, config.quality, read=round_data.read_clauses)
    write_jsonl(out_dir / KEPT, kept.captions)
    write_json(out_dir / QUALITY, {"asked": kept.num_asked, "kept": len(kept.captions), "dropped": kept.dropped})
    say(f"captions of the pool: {len(kept.captions)} of {kept.num_asked} are good enough; dropped: {kept.dropped}")
    return kept.captions


def _kept_modalities(captioner: Captioner, pool: Sequence[Sample], *, out_dir: Path) -> list[Example]:
    """What the student says of the pictures alone, and of the sound alone, of whole videos that have both."""
    examples: list[Example] = []
    whole = [sample for sample in pool if sample.interval_s is None]
    for name, shown in (("visual", {"use_audio": False}), ("audio", {"use_video": False})):
        request = _request(captioner, **shown)
        asked = whole[::2] if name == "visual" else whole[1::2]
        captions = collect_captions(captioner, asked, request, path=out_dir / f"{name}.jsonl")
        finished = [caption for caption in captions if caption.finished]
        examples += _caption_examples(captioner, finished, asked, request)
    return examples


def _caption_examples(
    captioner: Captioner, captions: Sequence[Caption], samples: Sequence[Sample], request: Request
) -> list[Example]:
    sample_of = {sample.sample_id: sample for sample in samples}
    return [
        _example(captioner, sample_of[caption.sample_id], request, turns=((caption.prompt, caption.text),))
        for caption in captions
    ]


def _example(captioner: Captioner, sample: Sample, request: Request, *, turns: tuple[tuple[str, str], ...]) -> Example:
    """A sample, which part of its video is shown and what is said of it -> an example whose video is read later."""
    # off the device until its microbatch is read: features of a whole step may be larger than its memory
    return Example(media=lambda: encoded(captioner, sample, request).to("cpu"), turns=turns, name=sample.sample_id)


def _asked(captioner: Captioner, round_data: RoundData, *, config: RebirthConfig) -> list[Example]:
    """Questions, some about one video together, each with its right answer."""
    request, asked = _request(captioner), ask_as_it_can(captioner, round_data.questions)
    together = ask_together(asked, most=config.questions_per_example)
    return [_example(captioner, one.sample, request, turns=one.turns) for one in together]


def _request(captioner: Captioner, *, use_audio: bool = True, use_video: bool = True) -> Request:
    decoding = Decoding(max_new_tokens=captioner.settings.max_new_tokens)
    return Request(decoding=decoding, use_audio=use_audio, use_video=use_video)


# --- learning ---------------------------------------------------------------------------------------------------------


def _learn(captioner: Captioner, examples: dict[str, list[Example]], *, config: RebirthConfig, out_dir: Path) -> None:
    """Fine-tunes the captioner's model in place on examples of all kinds."""
    model = captioner.model
    if config.full:
        freeze_encoders(model)
    else:
        model.requires_grad_(False)
    source = Mixture(
        model=model,
        tokenizer=captioner.tokenizer,
        examples=examples,
        shares=asdict(config.mix),
        batch_size=config.batch_size,
        seed=config.seed,
        max_tokens=config.loop.max_tokens,
    )
    learning = replace(config, lora=None) if config.full else config
    finetune(model, source, stage="rebirth", config=learning, out_dir=out_dir / TRAIN)
