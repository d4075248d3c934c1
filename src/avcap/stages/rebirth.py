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

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from avcap.data.feature_cache import FeatureCache
from avcap.data.request import Request
from avcap.errors import UserError
from avcap.files.write import write_json
from avcap.infer.captioner import Captioner
from avcap.judge.types import EventJudge
from avcap.model.captioning import CaptioningModel
from avcap.model.checkpoint.load import silence_progress_bars
from avcap.model.lora import LoraConfig
from avcap.preference.caption_filter import QualityConfig, keep_good
from avcap.preference.clauses import ReadClauses
from avcap.records import Caption, Decoding, Lineage, Sample, write_jsonl
from avcap.stages.parts.collect import collect_captions, encoded
from avcap.stages.parts.finetune import finetune, freeze_encoders
from avcap.stages.parts.questions import ask_as_it_can
from avcap.stages.parts.round_data import RoundData, WorldConfig
from avcap.stages.parts.run_folder import CHECKPOINT, TRAIN, checkpoint_title, code_commit, data_hash, save_checkpoint
from avcap.stages.parts.selection import RoundMetrics, Selection, describe
from avcap.train.answer_loss import answer_loss
from avcap.train.compute import choose_device, choose_dtype
from avcap.train.examples import AnswerBatch, Example, ExampleEncoder
from avcap.train.loop import LoopConfig, LossOutput
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


@dataclass(kw_only=True)
class RebirthExamples:
    """An ExampleSource (train.examples): kinds are drawn by their shares, and examples of a kind at random."""

    model: CaptioningModel
    tokenizer: PreTrainedTokenizerBase
    examples: Mapping[str, Sequence[Example]]
    mix: RebirthMix
    batch_size: int
    seed: int
    max_tokens: int | None = None

    def batches(self) -> Callable[[int], list[AnswerBatch]]:
        encoder = ExampleEncoder(model=self.model, tokenizer=self.tokenizer)
        return lambda step: encoder.batches(self.draw(step), max_tokens=self.max_tokens)

    def draw(self, step: int) -> list[Example]:
        """Step -> its examples, the same ones every time."""
        rng = random.Random(f"rebirth/{self.seed}/{step}")
        shares = {kind: getattr(self.mix, kind) for kind, found in self.examples.items() if found}
        kinds = rng.choices(list(shares), weights=list(shares.values()), k=self.batch_size)
        return [rng.choice(self.examples[kind]) for kind in kinds]

    def loss(self, batch: AnswerBatch) -> LossOutput:
        return answer_loss(self.model, batch)

    def held_out(self) -> dict[str, float]:
        """Nothing: the whole model is measured afterwards."""
        return {}

    def leave(self, folder: Path) -> None:
        """Nothing: what is learned stands in files of the run."""


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

    material.samples are the pool (events and reference captions are not read). `judge` None, or no held-out samples:
    nothing is measured. UserError where no caption is good enough, or where questions are wanted and there are none.
    """
    silence_progress_bars()
    if config.mix.questions and not round_data.questions:
        raise UserError(
            "got no questions with answers, expected some (--questions); to do without them: --set mix.questions=0"
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    features = FeatureCache(out_dir / "features", max_bytes=config.feature_bytes)
    pool = round_data.samples
    kept = _learned_captions(
        teacher, config=config, pool=pool, read=round_data.read_clauses, out_dir=out_dir, features=features, say=say
    )
    captioner = _open(student, config, features)
    examples = {"captions": _caption_examples(captioner, kept, pool, _request(captioner))}
    if config.mix.modalities:
        examples["modalities"] = _kept_modalities(captioner, pool, out_dir=out_dir)
    if config.mix.questions:
        examples["questions"] = _asked(captioner, round_data, config=config)
    if not (out_dir / CHECKPOINT).exists():
        _learn(captioner, examples, config=config, out_dir=out_dir)
        lineage = Lineage(
            stage="rebirth",
            parent=f"{checkpoint_title(student)} on captions of {checkpoint_title(teacher)}",
            recipe="rebirth",
            data_hash=data_hash(out_dir / KEPT),
            seed=config.seed,
            commit=code_commit(),
        )
        save_checkpoint(out_dir / CHECKPOINT, captioner.model, captioner.tokenizer, lineage=lineage, parent=student)
    if judge is not None and round_data.held_out:
        selection = Selection(
            start=student,
            samples=round_data.held_out,
            questions=round_data.held_out_questions,
            judge=judge,
            features=features,
            batch_size=config.caption_batch,
            device=config.loop.device,
            dtype=config.loop.dtype,
        )
        compare_models(selection, student, teacher, out_dir=out_dir, say=say)
    return out_dir / CHECKPOINT


def compare_models(
    selection: Selection, student: Path, teacher: Path, *, out_dir: Path, say: Callable[[str], None]
) -> list[RoundMetrics]:
    """Measures the three models and says how they stand."""
    all_metrics: list[RoundMetrics] = []
    for name, model in (("student", student), ("teacher", teacher), ("reborn", out_dir / CHECKPOINT)):
        round_metrics = selection.measure(model, round_number=len(all_metrics), folder=out_dir / name)
        say(describe(round_metrics).replace(f"round {round_metrics.round_number}", name))
        all_metrics.append(round_metrics)
    return all_metrics


# --- examples ---------------------------------------------------------------------------------------------------------


def _open(model: Path, config: RebirthConfig, features: FeatureCache) -> Captioner:
    """A captioner on the device and in the dtype of the run."""
    device = choose_device(config.loop.device)
    return Captioner(
        model,
        device=device,
        dtype=choose_dtype(config.loop.dtype, device=device),
        batch_size=config.caption_batch,
        feature_cache=features,
    )


def _learned_captions(
    teacher: Path,
    *,
    config: RebirthConfig,
    pool: Sequence[Sample],
    read: ReadClauses,
    out_dir: Path,
    features: FeatureCache,
    say: Callable[[str], None],
) -> Sequence[Caption]:
    """The teacher's good captions of the pool."""
    captioner = _open(teacher, config, features)
    captions = collect_captions(captioner, pool, _request(captioner), path=out_dir / POOL)
    kept = keep_good(captions, config.quality, read=read)
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
    by_video: dict[tuple[str, tuple[float, float] | None], list[tuple[Sample, str]]] = {}
    for one in ask_as_it_can(captioner, round_data.questions):
        by_video.setdefault((one.sample.video, one.sample.interval_s), []).append((one.sample, one.answer))
    request, examples = _request(captioner), []
    for found in by_video.values():
        for first in range(0, len(found), config.questions_per_example):
            some = found[first : first + config.questions_per_example]
            turns = tuple((sample.prompt, answer) for sample, answer in some)
            examples.append(_example(captioner, some[0][0], request, turns=turns))
    return examples


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
    source = RebirthExamples(
        model=model,
        tokenizer=captioner.tokenizer,
        examples=examples,
        mix=config.mix,
        batch_size=config.batch_size,
        seed=config.seed,
        max_tokens=config.loop.max_tokens,
    )
    learning = replace(config, lora=None) if config.full else config
    finetune(model, source, stage="rebirth", config=learning, out_dir=out_dir / TRAIN)
