"""The selection of preference rounds: a model measured on held-out videos, and the rule that stops and picks.

greedy captions -> verdicts -> error rates          (held-out/)
the same captions -> words, distinct n-grams, perplexity under the model that the rounds began with
held-out questions -> accuracy by kind              (held-out/answers.jsonl)
-> RoundMetrics, one per round -> Decision
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from avcap import v0_1
from avcap.data.feature_cache import FeatureCache
from avcap.data.prompt import encode_chat
from avcap.data.qa_files import VideoQuestion
from avcap.data.request import Request
from avcap.errors import UserError
from avcap.evaluation.evaluate import evaluate
from avcap.infer.captioner import Captioner
from avcap.judge.inputs.ingest import Intake
from avcap.judge.metrics.error_rates import Metrics
from avcap.judge.types import Case, EventJudge
from avcap.records import Caption, CaptionError, Decoding, Sample, read_record
from avcap.stages.parts.collect import collect_captions
from avcap.stages.parts.questions import answer_questions
from avcap.stages.parts.run_folder import record
from avcap.train.compute import choose_device, choose_dtype
from avcap.train.packing import PairExample, pack, response_logprobs

ROUND_METRICS, HELD_OUT = "round_metrics.json", "held-out"
NGRAM = 4


@dataclass(frozen=True, kw_only=True)
class StopConfig:
    """When the rounds end, and which rounds may be the best: those that got better without getting strange."""

    patience: int = 2
    """Rounds in a row without a new best, after which the rounds end; 1 would be fooled by rounds that swing."""
    min_gain: float = 0.005
    """By how much total error must fall to be a new best."""
    max_more_hallucination: float = 0.02
    """All limits are against the model that the rounds began with."""
    max_more_repetition: float = 0.02
    max_more_truncated: float = 0.02
    min_words_ratio: float = 0.6
    max_words_ratio: float = 1.8
    min_distinct_ratio: float = 0.7
    """Distinct 4-grams of all captions together: text that gets the same everywhere loses them."""
    max_perplexity_ratio: float = 3.0
    """Perplexity of the captions under the model that the rounds began with: text that it would never write."""
    max_fewer_questions: float = 0.02
    """Questions: the share of held-out questions answered right may not fall by more."""


@dataclass(frozen=True, kw_only=True)
class RoundMetrics:
    """What the stop rule knows of a round: rates on held-out videos."""

    round_number: int
    total_error: float
    """Mean of global and local captions, where there are both."""
    global_error: float | None
    local_error: float | None
    missing: float
    hallucination: float
    repetition: float
    truncated: float
    words: float
    distinct: float | None = None
    """Share of distinct ones among all 4-grams of all captions."""
    perplexity: float | None = None
    """Per token, under the model that the rounds began with."""
    questions: float | None = None
    """Share of right answers; None: there are no questions."""
    questions_by_kind: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Decision:
    best: int
    reason: str
    refused: dict[int, str]
    """Rounds that could not be the best, and why."""
    stopped: bool
    """Whether no further round is worth its cost."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What all models of a run are measured on."""

    start: Path
    """The model that the rounds began with."""
    samples: Sequence[Sample]
    judge: EventJudge
    features: FeatureCache
    batch_size: int
    questions: Sequence[VideoQuestion] = ()
    device: str | None = None
    dtype: str | None = None

    def _open(self, model: Path) -> Captioner:
        device = choose_device(self.device)
        return Captioner(
            model,
            device=device,
            dtype=choose_dtype(self.dtype, device=device),
            batch_size=self.batch_size,
            feature_cache=self.features,
        )

    def measure(self, model: Path, *, round_number: int, folder: Path) -> RoundMetrics:
        """A model -> its round metrics, also in folder/round_metrics.json; goes on where a stopped run ended."""
        return record(
            folder / ROUND_METRICS, RoundMetrics, lambda: self._measure(model, round_number=round_number, folder=folder)
        )

    def _measure(self, model: Path, *, round_number: int, folder: Path) -> RoundMetrics:
        held_out = folder / HELD_OUT
        held_out.mkdir(parents=True, exist_ok=True)
        captioner = self._open(model)
        request = Request(decoding=Decoding(max_new_tokens=captioner.settings.max_new_tokens))
        captions = collect_captions(captioner, self.samples, request, path=held_out / "captions.jsonl")
        cases = [
            Case(caption_id=caption.caption_id, sample=sample, text=caption.text, finished=caption.finished)
            for sample, caption in zip(self.samples, captions, strict=True)
        ]
        evaluation = evaluate(
            Intake(cases=tuple(cases)), judge=self.judge, out_dir=held_out, captioner=f"round {round_number}"
        )
        right = self._answered(captioner, path=held_out / "answers.jsonl")
        return round_metrics_of(
            round_number,
            evaluation.metrics,
            distinct=distinct_ngrams([caption.text for caption in captions]),
            perplexity=self._perplexity(captions),
            right=right,
        )

    def _answered(self, captioner: Captioner, *, path: Path) -> list[tuple[str, bool]]:
        """-> kind of each held-out question, and whether the model answers it right."""
        answers = answer_questions(captioner, self.questions, path=path)
        return [(question.kind, right) for question, (_, right) in zip(self.questions, answers, strict=True)]

    def _perplexity(self, captions: Sequence[Caption]) -> float:
        """Captions -> exp of their mean -log p per token under the model that the rounds began with."""
        captioner = self._open(self.start)
        total, num_tokens = 0.0, 0
        for first in range(0, len(captions), self.batch_size):
            found = caption_logprobs(
                captioner, self.samples[first : first + self.batch_size], captions[first : first + self.batch_size]
            )
            total += sum(logprob for logprob, _ in found)
            num_tokens += sum(num for _, num in found)
        return math.exp(-total / num_tokens)


# --- signs ------------------------------------------------------------------------------------------------------------


def distinct_ngrams(texts: Sequence[str], *, length: int = NGRAM) -> float:
    """Texts -> distinct n-grams of words / all of them (Li et al. 2016, "distinct-n"); 1 where there are none."""
    counts = Counter(
        tuple(words[first : first + length])
        for words in (text.lower().split() for text in texts)
        for first in range(len(words) - length + 1)
    )
    return len(counts) / counts.total() if counts else 1.0


@torch.no_grad()
def caption_logprobs(
    captioner: Captioner, samples: Sequence[Sample], captions: Sequence[Caption]
) -> list[tuple[float, int]]:
    """Samples and captions of them -> log-prob of each caption, and its number of tokens with the closing one."""
    examples, media = [], []
    request = Request(decoding=Decoding(max_new_tokens=1))
    videos = captioner.encode(list(samples), request)
    for video, caption in zip(videos, captions, strict=True):
        if isinstance(video, CaptionError):
            raise UserError(video.error)
        turn = (caption.prompt, caption.text)
        found = encode_chat(captioner.tokenizer, [turn], video.outline.ids, captioner.prompter.chat)
        examples.append(
            PairExample(sample_id=caption.sample_id, prompt_ids=found.prompt_ids, target_ids=found.answer_ids)
        )
        media.append(video.encoded.media)
    scored = response_logprobs(captioner.model, pack(examples), captioner.model.align_batch(media))
    return [(one.target.total.item(), one.target.num_tokens) for one in scored if one.target]


# --- the rule ---------------------------------------------------------------------------------------------------------


def round_metrics_of(
    round_number: int,
    metrics: Metrics,
    *,
    distinct: float | None = None,
    perplexity: float | None = None,
    right: Sequence[tuple[str, bool]] = (),
) -> RoundMetrics:
    """Metrics of held-out captions -> what the stop rule reads. Words, repetition and the like are the global ones."""
    groups = [group for group in (metrics.global_, metrics.local) if group is not None]
    main = groups[0]

    def mean(name: str) -> float:
        values = [getattr(group, name).value for group in groups]
        known = [value for value in values if value is not None]
        return sum(known) / len(known)

    kinds = {kind: [hit for of, hit in right if of == kind] for kind in sorted({kind for kind, _ in right})}
    return RoundMetrics(
        round_number=round_number,
        total_error=mean("total_error_rate"),
        global_error=metrics.global_.total_error_rate.value if metrics.global_ else None,
        local_error=metrics.local.total_error_rate.value if metrics.local else None,
        missing=mean("missing_rate"),
        hallucination=mean("hallucination_rate"),
        repetition=main.repetition_rate.value or 0.0,
        truncated=main.truncated_rate.value or 0.0,
        words=main.words_per_caption.value or 0.0,
        distinct=distinct,
        perplexity=perplexity,
        questions=sum(hit for _, hit in right) / len(right) if right else None,
        questions_by_kind={kind: sum(hits) / len(hits) for kind, hits in kinds.items()},
    )


def decide(all_metrics: Sequence[RoundMetrics], config: StopConfig) -> Decision:
    """Metrics of rounds 0, 1, ... -> the best so far, and whether to stop.

    A round is a new best if its total error is lower by min_gain than the best before it, and nothing that error rates
    do not see has gone wrong. Rounds that swing are no reason to stop before `patience` of them in a row are no better.
    """
    start, best = all_metrics[0], all_metrics[0]
    refused: dict[int, str] = {}
    for round_metrics in all_metrics[1:]:
        if why := rejection_reason(round_metrics, start=start, config=config):
            refused[round_metrics.round_number] = why
        elif round_metrics.total_error <= best.total_error - config.min_gain:
            best = round_metrics
    since = all_metrics[-1].round_number - best.round_number
    stopped = since >= config.patience
    reason = f"total error {best.total_error:.3f}, {best.total_error - start.total_error:+.3f} against the start" + (
        f"; {since} rounds since without a better one" if since else ""
    )
    return Decision(best=best.round_number, reason=reason, refused=refused, stopped=stopped)


def rejection_reason(round_metrics: RoundMetrics, *, start: RoundMetrics, config: StopConfig) -> str:
    """A round -> why it may not be the best although its total error may be low, or ""."""
    limits = (
        ("hallucination", round_metrics.hallucination - start.hallucination, config.max_more_hallucination),
        ("repetition", round_metrics.repetition - start.repetition, config.max_more_repetition),
        ("captions that never end", round_metrics.truncated - start.truncated, config.max_more_truncated),
    )
    for name, more, limit in limits:
        if more > limit:
            return f"{name} {more:+.3f} against the start, above {limit:+.3f}"
    ratios = (
        ("words of a caption", round_metrics.words, start.words, config.min_words_ratio, config.max_words_ratio),
        ("distinct 4-grams", round_metrics.distinct, start.distinct, config.min_distinct_ratio, math.inf),
        ("perplexity", round_metrics.perplexity, start.perplexity, 0.0, config.max_perplexity_ratio),
    )
    for name, now, before, least, most in ratios:
        if now is not None and before and not least <= now / before <= most:
            return f"{name}: {now / before:.2f} times as at the start, outside {least:g} to {most:g}"
    if round_metrics.questions is not None and start.questions is not None:
        fewer = start.questions - round_metrics.questions
        if fewer > config.max_fewer_questions:
            return f"questions answered right {-fewer:+.3f} against the start, below {-config.max_fewer_questions:+.3f}"
    return ""


def describe(round_metrics: RoundMetrics) -> str:
    """Round metrics -> one line."""
    parts = [
        f"round {round_metrics.round_number}: total error {round_metrics.total_error:.3f} (missing "
        f"{round_metrics.missing:.3f}, hallucination {round_metrics.hallucination:.3f})",
        f"repetition {round_metrics.repetition:.3f}",
        f"{round_metrics.words:.0f} words",
    ]
    if round_metrics.questions is not None:
        parts.append(f"questions {round_metrics.questions:.3f}")
    if round_metrics.perplexity is not None:
        parts.append(f"perplexity {round_metrics.perplexity:.2f}")
    return ", ".join(parts)


def read_round_metrics(out_dir: Path) -> list[RoundMetrics]:
    """Folder of rounds -> the round metrics of those that have been measured, in order."""
    all_metrics = []
    for folder in sorted(out_dir.glob("round-*"), key=lambda path: int(path.name.removeprefix("round-"))):
        file = v0_1.round_metrics_file(folder)
        if file.exists():
            all_metrics.append(read_record(file, RoundMetrics))
    if not all_metrics:
        raise UserError(f"{out_dir}: got no measured round, expected a folder of avcap rounds run")
    return all_metrics
