"""Multi-round preference optimisation, top to bottom (arXiv 2410.06682, section 3).

    model -> several captions of each video -> verdicts -> pairs -> guided DPO on a fresh LoRA -> merged: the next model

    OUT/config.yaml
    OUT/round-0/held-out/      the model that the rounds begin with, measured as each round's is (parts/selection.py)
    OUT/round-1/captions.jsonl verdicts.jsonl pairs.jsonl selection.txt
                answers.jsonl  where questions are learned by preference, too
                train/         reference log-probs, metrics.jsonl, state
                adapter/       its LoRA, unmerged, as PEFT stores it
                checkpoint/    the merged model
                average/       its mean with the model before it, if that is what is measured
                held-out/      greedy captions of other videos, judged; answers to other questions
                round_metrics.json  what the stop rule reads
                done.json      the round is whole
    OUT/decision.json          which round is best, and why the rounds ended
    OUT/set-aside/             rounds that --from-round took back

Every file is whole or is gone on with: stopped at any moment and run again, the rounds end with the same weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from avcap.data.feature_cache import FeatureCache
from avcap.data.request import Request
from avcap.errors import UserError
from avcap.evaluation.collect import ModelOpener, collect_captions, collect_verdicts, encoded
from avcap.evaluation.held_out import HeldOut, describe
from avcap.evaluation.questions import answer_questions, ask_as_it_can
from avcap.evaluation.same_weights import Sampler, check_same_weights
from avcap.files.write import write_json, write_text
from avcap.infer.captioner import Captioner
from avcap.judge.types import EventJudge
from avcap.model.average import average_checkpoints
from avcap.model.captioning import CaptioningModel
from avcap.model.checkpoint.load import load, silence_progress_bars
from avcap.model.lora import write_adapter
from avcap.preference.from_questions import pair_from_replies
from avcap.preference.round_data import RoundData, WorldConfig
from avcap.preference.select import PairConfig, report_text, select_pairs
from avcap.records import Caption, PreferencePair, Sample, Unscored, Verdict
from avcap.run_folder import (
    ANSWERS,
    AVERAGE,
    CAPTIONS,
    CHECKPOINT,
    DECISION,
    DONE,
    PAIRS,
    PEFT_FOLDER,
    SELECTION,
    TRAIN,
    VERDICTS,
    data_hash,
    lineage_of,
    measured_model,
    records,
    save_checkpoint,
)
from avcap.stages.dpo import ADAPTER, dpo
from avcap.stages.parts.drawing import SamplingConfig
from avcap.stages.parts.selection import StopConfig, decide
from avcap.train.pair_examples import ReplayItem
from avcap.train.preference_steps import DpoConfig, with_guidance


@dataclass(frozen=True, kw_only=True)
class RoundsConfig:
    num_rounds: int = 6
    seed: int = 0
    world: WorldConfig | None = None
    """Where videos come from when none are given; None: they have to be."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    pairs: PairConfig = field(default_factory=PairConfig)
    dpo: DpoConfig = field(default_factory=DpoConfig)
    guidance: tuple[float, ...] = (0.1,)
    """Weight of the cross-entropy on reference captions, round by round; the last one holds for all rounds after it."""
    reset_lora: bool = True
    """A new LoRA each round, against the model merged so far; false: one LoRA goes on, against the first model."""
    average: bool = False
    """A round's model is measured as its mean with the one before it; the next round begins from it alone."""
    stop: StopConfig = field(default_factory=StopConfig)
    max_unscored: float = 0.1
    """Share of captions without a verdict above which a round does not go on."""
    batch_size: int = 16
    """Videos captioned side by side."""
    feature_bytes: int = 20 * 2**30
    """Room for encoded videos on disk, shared by all rounds."""
    device: str | None = None
    """cpu, cuda or cuda:N; None: a GPU if there is one."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Of the weights that do not learn, and of what is computed. None: bfloat16 on a GPU, float32 on a CPU."""

    def __post_init__(self) -> None:
        for name, numbers in (("guidance", self.guidance), ("sampling.num_questions", self.sampling.num_questions)):
            if not numbers:
                raise UserError(f"{name}: got an empty list, expected a number for each round, the last for all others")

    def guidance_of(self, round_number: int) -> float:
        """Round, from 1 -> its guidance weight."""
        return self.guidance[min(round_number, len(self.guidance)) - 1]


def run_rounds(
    parent: Path,
    *,
    config: RoundsConfig,
    round_data: RoundData,
    judge: EventJudge,
    out_dir: Path,
    say: Callable[[str], None] = lambda line: None,
    sampler: Sampler | None = None,
) -> Path:
    """The SFT checkpoint and videos -> the best round's checkpoint.

    `sampler`: an engine that samples the captions of each round; it has to serve the model that the round begins with.

    Samples without reference captions are learned from pairs alone, which is said. UserError where a round cannot go
    on (no pairs, judge down); what is there stays, and the same call goes on from it.
    """
    silence_progress_bars()
    round_data.check()
    if any(config.guidance) and (unguided := round_data.describe_unguided()):
        say(unguided)
    features = FeatureCache(out_dir / "features", max_bytes=config.feature_bytes)
    models = ModelOpener(features=features, batch_size=config.batch_size, device=config.device, dtype=config.dtype)
    held_out = HeldOut(
        start=parent, samples=round_data.held_out, questions=round_data.held_out_questions, judge=judge, models=models
    )
    before, all_metrics = parent, [held_out.measure(parent, round_number=0, folder=out_dir / "round-0")]
    say(describe(all_metrics[0]))
    for round_number in range(1, config.num_rounds + 1):
        one = _Round(
            round_number=round_number,
            start=parent,
            before=before,
            folder=out_dir / f"round-{round_number}",
            config=config,
            round_data=round_data,
            judge=judge,
            models=models,
            say=say,
            sampler=sampler,
        )
        one.run()
        before = one.folder / CHECKPOINT
        all_metrics.append(held_out.measure(one.measured, round_number=round_number, folder=one.folder))
        say(describe(all_metrics[-1]))
        decision = decide(all_metrics, config.stop)
        write_json(out_dir / DECISION, asdict(decision))
        if decision.stopped:
            break
    decision = decide(all_metrics, config.stop)
    say(f"best: round {decision.best}; {decision.reason}")
    return parent if decision.best == 0 else measured_model(out_dir / f"round-{decision.best}")


@dataclass(frozen=True, kw_only=True)
class _Round:
    """One round, from the model before it to folder/checkpoint."""

    round_number: int
    start: Path
    """The model that the first round began with."""
    before: Path
    """The model that the round before left."""
    folder: Path
    config: RoundsConfig
    round_data: RoundData
    judge: EventJudge
    models: ModelOpener
    say: Callable[[str], None]
    sampler: Sampler | None = None

    @property
    def measured(self) -> Path:
        return measured_model(self.folder)

    def run(self) -> None:
        if (self.folder / DONE).exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        config, folder = self.config, self.folder
        captioner = self.models.open(self.before)
        prompts = config.sampling.draw_prompts(
            self.round_data.samples, seed=config.seed, round_number=self.round_number
        )
        captions = self._sample(captioner, prompts)
        verdicts = collect_verdicts(
            captions, prompts, judge=self.judge, path=folder / VERDICTS, max_unscored=config.max_unscored
        )
        pairs = records(
            folder / PAIRS,
            PreferencePair,
            lambda: self._choose_pairs(captions, verdicts, prompts) + self._question_pairs(captioner),
        )
        self.say(f"round {self.round_number}: {len(captions)} captions of {len(prompts)} prompts, {len(pairs)} pairs")
        if not (folder / CHECKPOINT).exists():
            self._learn(captioner, pairs)
        self._keep_adapter()
        if config.average and not (folder / AVERAGE).exists():
            average_checkpoints([self.before, folder / CHECKPOINT], out=folder / AVERAGE)
        write_json(folder / DONE, {"round": self.round_number, "num_captions": len(captions), "num_pairs": len(pairs)})

    def _sample(self, captioner: Captioner, prompts: Sequence[Sample]) -> list[Caption]:
        """Prompts -> captions of each, by this model, or by an engine that serves it."""
        path, request = self.folder / CAPTIONS, self._request(captioner)
        num_answers = self.config.sampling.captions_per_prompt
        if self.sampler is None or (self.folder / PAIRS).exists():
            return collect_captions(captioner, prompts, request, path=path, num_answers=num_answers)
        with self.sampler(captioner.settings) as engine:
            probes = check_same_weights(engine, captioner, prompts, folder=str(self.before))
            self.say(f"round {self.round_number}: {engine.checkpoint} serves {self.before} ({len(probes)} probes)")
            return collect_captions(engine, prompts, request, path=path, num_answers=num_answers)

    def _keep_adapter(self) -> None:
        """The round's LoRA, unmerged, in PEFT's layout, for an engine that serves the model with it."""
        trained = self.folder / TRAIN / ADAPTER
        if not trained.exists() or (self.folder / PEFT_FOLDER).exists():
            return
        if self.config.dpo.train_aligners:
            self.say(f"round {self.round_number}: no adapter is kept, as the aligners learn, too; serve {CHECKPOINT}")
            return
        base = self.before if self.config.reset_lora else self.start
        write_adapter(self.folder / PEFT_FOLDER, trained, config=self.config.dpo.lora, base=base)

    def _request(self, captioner: Captioner) -> Request:
        num_new = captioner.settings.max_new_tokens
        sampling, seed = self.config.sampling, self.config.seed
        return sampling.request(max_new_tokens=num_new, seed=seed, round_number=self.round_number)

    def _choose_pairs(
        self, captions: Sequence[Caption], verdicts: Sequence[Verdict | Unscored], prompts: Sequence[Sample]
    ) -> list[PreferencePair]:
        """Captions and their verdicts -> pairs; what was not taken, and why, is in selection.txt."""
        if not prompts:
            return []
        read = self.round_data.read_clauses
        found = select_pairs(captions, verdicts=verdicts, samples=prompts, config=self.config.pairs, read=read)
        write_text(self.folder / SELECTION, report_text(found.report) + "\n")
        return list(found.pairs)

    def _question_pairs(self, captioner: Captioner) -> list[PreferencePair]:
        """Questions that the model answers wrong at least once -> pairs of replies."""
        sampling, seed = self.config.sampling, self.config.seed
        questions = sampling.draw_questions(self.round_data.questions, seed=seed, round_number=self.round_number)
        answered = answer_questions(
            captioner,
            questions,
            path=self.folder / ANSWERS,
            request=self._request(captioner),
            num_answers=sampling.captions_per_prompt,
        )
        found = (
            pair_from_replies(
                one.asked.sample, answer=one.asked.answer, replies=one.replies, checkpoint=captioner.checkpoint
            )
            for one in answered
        )
        return [pair for pair in found if pair is not None]

    def _learn(self, captioner: Captioner, pairs: Sequence[PreferencePair]) -> None:
        """Pairs -> folder/checkpoint. A kept LoRA goes on from the first model, a fresh one from the model before."""
        config, adapter = self.config, None
        model = captioner.model
        if not config.reset_lora and self.round_number > 1:
            model, _ = load(self.start, dtype=model.dtype)
            model.to(captioner.device)
            adapter = self.folder.parent / f"round-{self.round_number - 1}" / TRAIN / ADAPTER
        asked = ask_as_it_can(captioner, self.round_data.questions)
        replay = [
            ReplayItem(sample_id=one.sample.sample_id, prompt=one.sample.prompt, answer=one.answer) for one in asked
        ]
        by_id = {sample.sample_id: sample for sample in (*self.round_data.samples, *(one.sample for one in asked))}
        request = self._request(captioner)
        try:
            dpo(
                model,
                captioner.tokenizer,
                pairs=pairs,
                replay=replay,
                adapter=adapter,
                media_of=lambda sample_id: encoded(captioner, by_id[sample_id], request),
                config=with_guidance(config.dpo, config.guidance_of(self.round_number)),
                seed=config.seed * 1000 + self.round_number,
                out_dir=self.folder / TRAIN,
                title=f"round {self.round_number}",
            )
        except FloatingPointError as error:
            raise UserError(
                f"round {self.round_number}: {error}; rounds before it are kept: set a lower dpo.optim.lr and go on "
                f"with --from-round {self.round_number}"
            ) from None
        self._save(captioner, model)

    def _save(self, captioner: Captioner, model: CaptioningModel) -> None:
        lineage = lineage_of(
            "rounds",
            round=self.round_number,
            parent=captioner.checkpoint,
            data_hash=data_hash(self.folder / PAIRS),
            seed=self.config.seed,
        )
        save_checkpoint(self.folder / CHECKPOINT, model, captioner.tokenizer, lineage=lineage, parent=self.before)
