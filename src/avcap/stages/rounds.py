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

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from avcap.data.feature_cache import FeatureCache
from avcap.data.request import Request
from avcap.errors import UserError
from avcap.files.write import write_json, write_text
from avcap.infer.captioner import Captioner
from avcap.judge.types import EventJudge
from avcap.model.average import average_checkpoints
from avcap.model.captioning import CaptioningModel
from avcap.model.checkpoint.load import load, silence_progress_bars
from avcap.model.lora import write_adapter
from avcap.preference.select import PairConfig, report_text, select_pairs
from avcap.records import (
    Caption,
    Decoding,
    Lineage,
    PreferencePair,
    Sample,
    Unscored,
    Verdict,
)
from avcap.stages.dpo import ADAPTER, dpo
from avcap.stages.parts.collect import collect_captions, collect_verdicts, encoded
from avcap.stages.parts.dpo_examples import ReplayItem
from avcap.stages.parts.dpo_steps import DpoConfig, with_guidance
from avcap.stages.parts.questions import answer_questions, ask_as_it_can
from avcap.stages.parts.round_data import RoundData, WorldConfig
from avcap.stages.parts.run_folder import (
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
    code_commit,
    data_hash,
    measured_model,
    records,
    save_checkpoint,
)
from avcap.stages.parts.sampler import Sampler, check_same_weights
from avcap.stages.parts.selection import Selection, StopConfig, decide, describe
from avcap.train.compute import choose_device, choose_dtype


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """What the model is asked for in a round."""

    num_prompts: int = 400
    """Prompts of a round, drawn anew for each."""
    local_share: float = 0.25
    """Share of them that ask about an interval."""
    captions_per_prompt: int = 8
    temperature: float = 0.7
    top_p: float = 1.0
    num_questions: tuple[int, ...] = (0,)
    """Questions to learn by preference, round by round; the last number holds for all rounds after it."""


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

    def questions_of(self, round_number: int) -> int:
        """Round, from 1 -> how many questions it learns by preference."""
        counts = self.sampling.num_questions
        return counts[min(round_number, len(counts)) - 1]


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
    _check_round_data(round_data, config=config, say=say)
    features = FeatureCache(out_dir / "features", max_bytes=config.feature_bytes)
    selection = Selection(
        start=parent,
        samples=round_data.held_out,
        questions=round_data.held_out_questions,
        judge=judge,
        features=features,
        batch_size=config.batch_size,
        device=config.device,
        dtype=config.dtype,
    )
    models, all_metrics = [parent], [selection.measure(parent, round_number=0, folder=out_dir / "round-0")]
    say(describe(all_metrics[0]))
    for round_number in range(1, config.num_rounds + 1):
        folder = out_dir / f"round-{round_number}"
        one = _Round(
            round_number=round_number,
            start=parent,
            before=models[-1],
            folder=folder,
            config=config,
            round_data=round_data,
            judge=judge,
            features=features,
            say=say,
            sampler=sampler,
        )
        one.run()
        models.append(folder / CHECKPOINT)
        all_metrics.append(selection.measure(one.measured, round_number=round_number, folder=folder))
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
    features: FeatureCache
    say: Callable[[str], None]
    sampler: Sampler | None = None

    @property
    def measured(self) -> Path:
        return measured_model(self.folder)

    def run(self) -> None:
        if (self.folder / DONE).exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        device = choose_device(self.config.device)
        captioner = Captioner(
            self.before,
            device=device,
            dtype=choose_dtype(self.config.dtype, device=device),
            batch_size=self.config.batch_size,
            feature_cache=self.features,
        )
        prompts = draw_prompts(self.round_data.samples, config=self.config, round_number=self.round_number)
        captions = self._sample(captioner, prompts)
        verdicts = collect_verdicts(
            captions, prompts, judge=self.judge, path=self.folder / VERDICTS, max_unscored=self.config.max_unscored
        )
        pairs = records(
            self.folder / PAIRS, PreferencePair, lambda: self._choose_pairs(captioner, captions, verdicts, prompts)
        )
        self.say(f"round {self.round_number}: {len(captions)} captions of {len(prompts)} prompts, {len(pairs)} pairs")
        if not (self.folder / CHECKPOINT).exists():
            self._learn(captioner, pairs)
        self._keep_adapter(captioner)
        if self.config.average and not (self.folder / AVERAGE).exists():
            average_checkpoints([self.before, self.folder / CHECKPOINT], out=self.folder / AVERAGE)
        write_json(
            self.folder / DONE, {"round": self.round_number, "num_captions": len(captions), "num_pairs": len(pairs)}
        )

    def _sample(self, captioner: Captioner, prompts: Sequence[Sample]) -> list[Caption]:
        """Prompts -> captions of each, by this model, or by an engine that serves it."""
        path, request = self.folder / CAPTIONS, self._request(captioner)
        round_number = self.config.sampling.captions_per_prompt
        if self.sampler is None or (self.folder / PAIRS).exists():
            return collect_captions(captioner, prompts, request, path=path, num_answers=round_number)
        with self.sampler(captioner.settings) as engine:
            probes = check_same_weights(engine, captioner, prompts, folder=str(self.before))
            self.say(f"round {self.round_number}: {engine.checkpoint} serves {self.before} ({len(probes)} probes)")
            return collect_captions(engine, prompts, request, path=path, num_answers=round_number)

    def _keep_adapter(self, captioner: Captioner) -> None:
        """The round's LoRA, unmerged, in PEFT's layout, for an engine that serves the model with it."""
        trained = self.folder / TRAIN / ADAPTER
        if not trained.exists() or (self.folder / PEFT_FOLDER).exists():
            return
        base = self.start if not self.config.reset_lora else self.before
        if self.config.dpo.train_aligners:
            self.say(f"round {self.round_number}: no adapter is kept, as the aligners learn, too; serve {CHECKPOINT}")
            return
        write_adapter(self.folder / PEFT_FOLDER, trained, config=self.config.dpo.lora, base=base)

    def _request(self, captioner: Captioner) -> Request:
        sampling = self.config.sampling
        seed = (
            self.config.seed * 1000 + self.round_number
        ) * sampling.captions_per_prompt  # answer k draws from seed + k
        return Request(
            decoding=Decoding(
                max_new_tokens=captioner.settings.max_new_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seed=seed,
            )
        )

    def _choose_pairs(
        self,
        captioner: Captioner,
        captions: Sequence[Caption],
        verdicts: Sequence[Verdict | Unscored],
        prompts: Sequence[Sample],
    ) -> list[PreferencePair]:
        pairs: list[PreferencePair] = []
        if prompts:
            selection = select_pairs(
                captions,
                verdicts=verdicts,
                samples=prompts,
                config=self.config.pairs,
                read=self.round_data.read_clauses,
            )
            write_text(self.folder / SELECTION, report_text(selection.report) + "\n")
            pairs += selection.pairs
        return pairs + self._question_pairs(captioner)

    def _question_pairs(self, captioner: Captioner) -> list[PreferencePair]:
        """Questions that the model answers wrong at least once: a right answer against its most frequent wrong one."""
        rng = random.Random(f"questions/{self.config.seed}/{self.round_number}")
        num_questions = min(self.config.questions_of(self.round_number), len(self.round_data.questions))
        asked = ask_as_it_can(captioner, rng.sample(list(self.round_data.questions), num_questions))
        num_answers = self.config.sampling.captions_per_prompt
        answers = iter(
            answer_questions(
                captioner,
                [one.question for one in asked],
                path=self.folder / ANSWERS,
                request=self._request(captioner),
                num_answers=num_answers,
            )
        )
        pairs = []
        for one in asked:
            found = [next(answers) for _ in range(num_answers)]
            wrong = Counter(text for text, right in found if not right and text)
            if wrong:
                right_text = next((text for text, right in found if right), one.answer)
                pairs.append(
                    PreferencePair(
                        sample_id=one.sample.sample_id,
                        video=one.sample.video,
                        prompt=one.sample.prompt,
                        chosen=right_text,
                        rejected=wrong.most_common(1)[0][0],
                        interval_s=one.sample.interval_s,
                        checkpoint=captioner.checkpoint,
                    )
                )
        return pairs

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
        lineage = Lineage(
            stage="rounds",
            round=self.round_number,
            parent=captioner.checkpoint,
            recipe="rounds",
            data_hash=data_hash(self.folder / PAIRS),
            seed=self.config.seed,
            commit=code_commit(),
        )
        save_checkpoint(self.folder / CHECKPOINT, model, captioner.tokenizer, lineage=lineage, parent=self.before)


def draw_prompts(samples: Sequence[Sample], *, config: RoundsConfig, round_number: int) -> list[Sample]:
    """All samples -> those of a round: other ones in each round, about `local_share` of them intervals."""
    rng = random.Random(f"prompts/{config.seed}/{round_number}")
    by_kind = {
        local: [sample for sample in samples if (sample.interval_s is not None) == local] for local in (False, True)
    }
    num_local = min(round(config.sampling.num_prompts * config.sampling.local_share), len(by_kind[True]))
    num_global = min(config.sampling.num_prompts - num_local, len(by_kind[False]))
    return rng.sample(by_kind[False], num_global) + rng.sample(by_kind[True], num_local)


def _check_round_data(round_data: RoundData, *, config: RoundsConfig, say: Callable[[str], None]) -> None:
    """UserError for samples that cannot be judged, or that are learned and measured on both."""
    samples, held_out = round_data.samples, round_data.held_out
    if not samples or not held_out:
        raise UserError(f"got {len(samples)} samples to learn on, {len(held_out)} to measure on, expected some of each")
    without = [sample.sample_id for sample in (*samples, *held_out) if not sample.events]
    if without:
        raise UserError(f"{len(without)} samples have no events, the first is {without[0]}; see avcap events extract")
    learned = {sample.video for sample in samples} | {question.video for question in round_data.questions}
    measured = {sample.video for sample in held_out} | {question.video for question in round_data.held_out_questions}
    if both := learned & measured:
        raise UserError(f"{len(both)} videos are learned and measured on, the first is {min(both)}; keep them apart")
    num_guided = sum(bool(sample.reference_caption) for sample in samples)
    if num_guided < len(samples) and any(config.guidance):
        say(f"{len(samples) - num_guided} of {len(samples)} samples have no reference caption: no guidance from them")
