"""A model measured on held-out videos, as each round of a run is.

greedy captions -> verdicts -> error rates          (held-out/)
the same captions -> words, distinct n-grams, perplexity under the model that the run began with
held-out questions -> accuracy by kind              (held-out/answers.jsonl)
-> RoundMetrics
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from avcap import v0_1
from avcap.data.prompt import encode_chat
from avcap.data.qa_files import VideoQuestion
from avcap.data.request import Request
from avcap.errors import UserError
from avcap.evaluation.collect import ModelOpener, collect_captions
from avcap.evaluation.evaluate import evaluate
from avcap.evaluation.questions import answer_questions
from avcap.infer.captioner import Captioner
from avcap.judge.inputs.ingest import Intake
from avcap.judge.metrics.error_rates import Metrics
from avcap.judge.types import Case, EventJudge
from avcap.records import Caption, CaptionError, Decoding, Sample, read_record
from avcap.run_folder import record
from avcap.train.packing import AnswerLogprobs, PairExample, pack, response_logprobs

ROUND_METRICS, HELD_OUT = "round_metrics.json", "held-out"
NGRAM = 4


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
class HeldOut:
    """What all models of a run are measured on."""

    start: Path
    """The model that the rounds began with."""
    samples: Sequence[Sample]
    judge: EventJudge
    models: ModelOpener
    questions: Sequence[VideoQuestion] = ()

    def measure(self, model: Path, *, round_number: int, folder: Path) -> RoundMetrics:
        """A model -> its round metrics, also in folder/round_metrics.json; goes on where a stopped run ended."""
        return record(
            folder / ROUND_METRICS, RoundMetrics, lambda: self._measure(model, round_number=round_number, folder=folder)
        )

    def compare(self, models: Mapping[str, Path], *, out_dir: Path, say: Callable[[str], None]) -> list[RoundMetrics]:
        """Models by name -> the metrics of each, in OUT/name, which are said."""
        all_metrics: list[RoundMetrics] = []
        for name, model in models.items():
            all_metrics.append(self.measure(model, round_number=len(all_metrics), folder=out_dir / name))
            say(describe(all_metrics[-1], title=name))
        return all_metrics

    def _measure(self, model: Path, *, round_number: int, folder: Path) -> RoundMetrics:
        held_out = folder / HELD_OUT
        held_out.mkdir(parents=True, exist_ok=True)
        captioner = self.models.open(model)
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
        answered = answer_questions(captioner, self.questions, path=path)
        return [(one.asked.question.kind, reply.is_right) for one in answered for reply in one.replies]

    def _perplexity(self, captions: Sequence[Caption]) -> float:
        """Captions -> exp of their mean -log p per token under the model that the rounds began with."""
        captioner = self.models.open(self.start)
        total, num_tokens = 0.0, 0
        for first in range(0, len(captions), self.models.batch_size):
            part = slice(first, first + self.models.batch_size)
            found = caption_logprobs(captioner, self.samples[part], captions[part])
            total += sum(one.total.item() for one in found)
            num_tokens += sum(one.num_tokens for one in found)
        return math.exp(-total / num_tokens)


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
) -> list[AnswerLogprobs]:
    """Samples and captions of them -> log-prob of each caption, over its tokens with the closing one."""
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
    return [one.target for one in scored if one.target]


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
        known = [float(value) for value in values if value is not None]
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


def describe(round_metrics: RoundMetrics, *, title: str = "") -> str:
    """Round metrics -> one line. `title`: instead of the number of the round."""
    parts = [
        f"{title or f'round {round_metrics.round_number}'}: total error {round_metrics.total_error:.3f} (missing "
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
