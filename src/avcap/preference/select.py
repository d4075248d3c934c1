"""Judged captions of one model become preference pairs, and a report of what was dropped and why. No torch.

    captions, verdicts, samples --> for each prompt, its captions two by two --rules--> the best pair --caps--> pairs

    total error = (missing + incorrect + invented) / events          margin = that of the rejected - that of the chosen

A *minimal pair* differs in little but its errors: the chosen caption misses, invents and repeats no more than the
rejected one, and most of the clauses that differ are errors fixed. Best against worst alone teaches to sharpen and
shorten: samples get better, greedy captions do not.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean, median
from typing import Literal

from avcap.errors import UserError
from avcap.judge.calibration.calibrate import NoiseMargin
from avcap.judge.metrics.error_counts import count_errors
from avcap.judge.metrics.error_rates import MODALITY_NAMES, Column, Scored, count_captions
from avcap.judge.metrics.words import WordCounts, count_words
from avcap.judge.types import Case
from avcap.preference.clauses import Clauses, ReadClauses, compare_clauses, read_clauses
from avcap.records import Caption, ErrorCounts, PreferencePair, Sample, Unscored, Verdict

Rule = Literal["minimal", "best_vs_worst"]
ALL_EQUAL, TOO_FEW = "all captions equal", "fewer than two judged captions"
_EPSILON = 1e-9  # 0.4 - 0.3 is a gap of 0.1


@dataclass(frozen=True, kw_only=True)
class PairConfig:
    """Which two captions of a prompt make a pair. None: no such limit."""

    rule: Rule = "minimal"
    """"minimal": the largest margin x share of fixes among minimal pairs. "best_vs_worst": the largest margin."""
    min_gap: float = 0.1
    """Smallest margin."""
    noise_margin: float = 0.0
    """Margins up to this may be the judge's noise, and make no pair; `above_noise` sets it from a calibration."""
    min_fixed_share: float = 0.8
    """Minimal pairs: (errors fixed, less errors made) / (clauses that differ)."""
    max_chosen_error: float | None = None
    """Largest total error of the chosen caption; below it, smallest of the rejected one."""
    min_rejected_error: float | None = None
    min_gap_visual: float | None = None
    """Smallest margin counted over what is seen alone, then heard, then both; 0: not worse, -0.1: hardly worse."""
    min_gap_audio: float | None = None
    min_gap_both: float | None = None
    max_repetition: float | None = None
    """Largest share of repeated words in the chosen caption."""
    min_length_ratio: float = 0.6
    """Words of the chosen caption / words of the rejected one; else length is what is learnt."""
    max_length_ratio: float = 1.8
    repetition_weight: float = 0.0
    """How many errors one repeated claim counts in the margin."""
    max_per_video: int | None = None
    """Pairs of one video; those that fix most errors stay."""
    max_pairs: int | None = None
    """Pairs in all; which ones stay depends on the names of their samples alone."""


@dataclass(frozen=True, kw_only=True)
class SelectionReport:
    """All captions, verdicts and prompts that came in, and where each of them went."""

    rule: Rule
    num_captions: int
    num_videos: int
    captions_dropped: dict[str, int]
    """Why -> captions that could be in no pair."""
    num_unfinished: int
    """Captions that ran into the token limit: never chosen, but perhaps rejected."""
    num_spare_verdicts: int
    """Verdicts about captions that were not given."""
    num_prompts: int
    prompts_dropped: dict[str, int]
    """Why -> prompts without a pair: the rule that the last of their possible pairs did not pass."""
    num_pairs: int
    num_local: int
    """Pairs about an interval; all others are about the whole video."""
    margins: tuple[float, float, float]
    """Smallest, median, largest."""
    errors_fixed: dict[str, float]
    """Missing, hallucinated, repeated: mean of the rejected less the chosen."""
    extra_words: float
    """Mean words of the chosen less those of the rejected: what a model could learn about length alone."""
    chosen_is_longer: float
    """Share of the pairs; below, share of those of equal length."""
    is_as_long: float


@dataclass(frozen=True, kw_only=True)
class Selection:
    pairs: tuple[PreferencePair, ...]
    report: SelectionReport


def select_pairs(
    captions: Iterable[Caption],
    *,
    verdicts: Iterable[Verdict | Unscored],
    samples: Iterable[Sample],
    config: PairConfig,
    read: ReadClauses = read_clauses,
) -> Selection:
    """Captions of one model, several for each sample, and what one judge says of them -> at most one pair per prompt.

    `read`: how a caption is read as clauses. Raises UserError if captions are of several models, verdicts of several
    judges, or no pair is left.
    """
    captions = list(captions)
    judged = _judged(captions, verdicts=list(verdicts), samples=samples, read=read)
    chosen: list[_Candidate] = []
    prompts_dropped: Counter[str] = Counter()
    checks = _checks(config)
    for answers in judged.by_prompt:
        best = _best_candidate(answers, checks=checks, config=config)
        if isinstance(best, _Candidate):
            chosen.append(best)
        else:
            prompts_dropped[best] += 1
    kept = _at_most(_per_video(chosen, config.max_per_video), config.max_pairs)
    prompts_dropped += Counter({"above max_per_video or max_pairs": len(chosen) - len(kept)})
    if not kept:
        raise UserError(_nothing_left(judged, prompts_dropped))
    report = _report(kept, config=config, captions=captions, judged=judged, prompts_dropped=prompts_dropped)
    return Selection(pairs=tuple(candidate.pair for candidate in kept), report=report)


def above_noise(config: PairConfig, noise: NoiseMargin) -> PairConfig:
    """The same, with the judge's measured noise as the margin to exceed. UserError if it could not be measured."""
    if noise.margin is None:
        raise UserError(
            f"got a noise margin from {noise.num_retest_pairs} captions judged twice and {noise.num_equal_pairs} pairs "
            "of equally good ones, expected at least 20 of each; calibrate the judge on more videos"
        )
    return replace(config, noise_margin=noise.margin)


def check_model(pairs: Iterable[PreferencePair], *, checkpoint: str) -> None:
    """UserError if a pair is known to come from another model: preferences are learnt from one's own captions."""
    others = Counter(pair.checkpoint for pair in pairs if pair.checkpoint not in ("", checkpoint))
    if others:
        raise UserError(
            f"got {others.total()} pairs of captions by {', '.join(sorted(others))}, expected pairs by {checkpoint}; "
            "caption, judge and pair with this model"
        )


# --- judged captions --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """A caption with all that is counted in it. `error_of`: total error in "", the whole, and in each modality."""

    caption: Caption
    sample: Sample
    judge: str
    errors: ErrorCounts
    error_of: Mapping[str, float]
    words: WordCounts
    clauses: Clauses


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """Different judged captions, prompt by prompt in the order they came in; and why others are not among them."""

    by_prompt: tuple[tuple[_Answer, ...] | str, ...]
    """A word instead of answers: why the prompt has no two of them."""
    captions_dropped: Counter[str]
    num_spare_verdicts: int


def _judged(
    captions: Sequence[Caption],
    *,
    verdicts: Sequence[Verdict | Unscored],
    samples: Iterable[Sample],
    read: ReadClauses,
) -> _Judged:
    _check_one(captions, verdicts)
    verdict_of = {verdict.caption_id: verdict for verdict in verdicts}
    sample_of = {sample.sample_id: sample for sample in samples}
    dropped: Counter[str] = Counter()
    by_prompt: dict[tuple[str, str], list[_Answer]] = defaultdict(list)
    num_equal: Counter[tuple[str, str]] = Counter()
    for caption in captions:
        prompt = caption.sample_id, caption.prompt
        answers = by_prompt[prompt]
        verdict, sample = verdict_of.get(caption.caption_id), sample_of.get(caption.sample_id)
        if sample is None:
            dropped["its sample is not known"] += 1
        elif verdict is None:
            dropped["nobody judged it"] += 1
        elif isinstance(verdict, Unscored):
            dropped["the judge gave no verdict"] += 1
        elif not caption.text.strip():
            dropped["it is empty"] += 1
        elif any(caption.text == answer.caption.text for answer in answers):
            dropped["equal to another caption of its prompt"] += 1
            num_equal[prompt] += 1
        else:
            answers.append(_answer(caption, sample=sample, verdict=verdict, read=read))
    return _Judged(
        by_prompt=tuple(
            tuple(answers) if len(answers) > 1 else ALL_EQUAL if num_equal[prompt] else TOO_FEW
            for prompt, answers in by_prompt.items()
        ),
        captions_dropped=dropped,
        num_spare_verdicts=len(verdict_of.keys() - {caption.caption_id for caption in captions}),
    )


def _check_one(captions: Sequence[Caption], verdicts: Sequence[Verdict | Unscored]) -> None:
    """Raises UserError unless there is one model, one judge, and one verdict for each caption."""
    twice = [name for name, count in Counter(caption.caption_id for caption in captions).items() if count > 1]
    twice += [name for name, count in Counter(verdict.caption_id for verdict in verdicts).items() if count > 1]
    if twice:
        raise UserError(f"caption {twice[0]!r} stands or is judged twice, expected each once; leave one file out")
    models = sorted({caption.checkpoint for caption in captions})
    if len(models) > 1:
        raise UserError(
            f"got captions of {len(models)} models ({', '.join(models)}), expected one; pair each by itself"
        )
    judges = sorted({f"{v.judge} {v.prompt_version}".strip() for v in verdicts if isinstance(v, Verdict)})
    if len(judges) > 1:
        raise UserError(f"got verdicts of {len(judges)} judges ({', '.join(judges)}), expected one; judge all alike")


def _answer(caption: Caption, *, sample: Sample, verdict: Verdict, read: ReadClauses) -> _Answer:
    case = Case(caption_id=caption.caption_id, sample=sample, text=caption.text, finished=caption.finished)
    counts = count_captions([Scored(case=case, verdict=verdict)])
    wrong = [Column.MISSING, Column.INCORRECT, Column.INVENTED]
    error_of = {
        group.part: float(counts_C[wrong].sum() / max(counts_C[Column.EVENTS], 1))
        for (group, _), counts_C in counts.items()
    }
    clauses = read(caption.text)
    errors = count_errors(verdict)
    # Not every judge looks for repetition.
    errors = replace(errors, repeated=max(errors.repeated, clauses.num_repeated))
    return _Answer(
        caption=caption,
        sample=sample,
        judge=verdict.judge,
        errors=errors,
        error_of=error_of,
        words=count_words(caption.text),
        clauses=clauses,
    )


# --- candidates -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """Two captions of one prompt that may become a pair."""

    chosen: _Answer
    rejected: _Answer
    margin: float

    def gap(self, part: str) -> float:
        """Part ("seen", ...) -> the margin counted in it alone."""
        return self.rejected.error_of.get(part, 0.0) - self.chosen.error_of.get(part, 0.0)

    @property
    def fixed(self) -> dict[str, int]:
        """Kind of error -> how many fewer the chosen caption has."""
        chosen, rejected = self.chosen.errors, self.rejected.errors
        return {
            "missing": rejected.missing - chosen.missing,
            "hallucinated": rejected.incorrect + rejected.invented - chosen.incorrect - chosen.invented,
            "repeated": rejected.repeated - chosen.repeated,
        }

    @cached_property
    def fixed_share(self) -> float:
        """Errors fixed, less errors made, for each clause that differs; 0 where none differs, so that it is noise."""
        num_changed = compare_clauses(self.chosen.clauses, self.rejected.clauses).num_changed
        return sum(self.fixed.values()) / num_changed if num_changed else 0.0

    @property
    def length_ratio(self) -> float:
        return self.chosen.words.num_words / max(self.rejected.words.num_words, 1)

    @property
    def extra_words(self) -> int:
        return self.chosen.words.num_words - self.rejected.words.num_words

    @property
    def pair(self) -> PreferencePair:
        chosen, rejected, sample = self.chosen.caption, self.rejected.caption, self.chosen.sample
        return PreferencePair(
            sample_id=sample.sample_id,
            video=chosen.video,
            prompt=chosen.prompt,
            chosen=chosen.text,
            rejected=rejected.text,
            interval_s=sample.interval_s,
            reference_caption=sample.reference_caption,
            margin=round(self.margin, 6),
            chosen_errors=self.chosen.errors,
            rejected_errors=self.rejected.errors,
            chosen_id=chosen.caption_id,
            rejected_id=rejected.caption_id,
            checkpoint=chosen.checkpoint,
            judge=self.chosen.judge,
        )


@dataclass(frozen=True, kw_only=True)
class _Check:
    """What a pair must pass, and the words for those that do not."""

    failure: str
    passes: Callable[[_Candidate], bool]


def _checks(config: PairConfig) -> list[_Check]:
    """Config -> its checks, those of the errors first, the costly one last."""
    checks = [
        _Check(failure="no caption has fewer errors than another", passes=lambda c: c.margin > _EPSILON),
        _Check(failure="only unfinished captions are better", passes=lambda c: c.chosen.caption.finished),
        _at_least("margin below min_gap", config.min_gap, lambda c: c.margin),
        _Check(failure="margin within the judge's noise", passes=lambda c: c.margin > config.noise_margin + _EPSILON),
        _at_least("margin below min_gap_visual", config.min_gap_visual, lambda c: c.gap(MODALITY_NAMES["visual"])),
        _at_least("margin below min_gap_audio", config.min_gap_audio, lambda c: c.gap(MODALITY_NAMES["audio"])),
        _at_least("margin below min_gap_both", config.min_gap_both, lambda c: c.gap(MODALITY_NAMES["both"])),
        _no_more("total error above max_chosen_error", config.max_chosen_error, lambda c: c.chosen.error_of[""]),
        _at_least("total error below min_rejected_error", config.min_rejected_error, lambda c: c.rejected.error_of[""]),
        _no_more("repetition above max_repetition", config.max_repetition, lambda c: c.chosen.words.repetition_rate),
        _at_least("length ratio below min_length_ratio", config.min_length_ratio, lambda c: c.length_ratio),
        _no_more("length ratio above max_length_ratio", config.max_length_ratio, lambda c: c.length_ratio),
    ]
    if config.rule == "minimal":
        checks += [
            _Check(
                failure="better in one kind of error, worse in another", passes=lambda c: min(c.fixed.values()) >= 0
            ),
            _at_least("share of fixes below min_fixed_share", config.min_fixed_share, lambda c: c.fixed_share),
        ]
    return checks


def _at_least(failure: str, least: float | None, value: Callable[[_Candidate], float]) -> _Check:
    return _Check(failure=failure, passes=lambda c: least is None or value(c) >= least - _EPSILON)


def _no_more(failure: str, most: float | None, value: Callable[[_Candidate], float]) -> _Check:
    return _Check(failure=failure, passes=lambda c: most is None or value(c) <= most + _EPSILON)


def _best_candidate(
    answers: Sequence[_Answer] | str, *, checks: Sequence[_Check], config: PairConfig
) -> _Candidate | str:
    """The captions of a prompt -> their best pair, or why there is none."""
    if isinstance(answers, str):
        return answers
    candidates = [
        _Candidate(chosen=chosen, rejected=rejected, margin=_margin(chosen, rejected, config.repetition_weight))
        for chosen in answers
        for rejected in answers
        if chosen is not rejected
    ]
    for check in checks:
        candidates = [candidate for candidate in candidates if check.passes(candidate)]
        if not candidates:
            return check.failure

    def rank(candidate: _Candidate) -> tuple[float, int, str, str]:
        share = candidate.fixed_share if config.rule == "minimal" else 1.0
        ids = candidate.chosen.caption.caption_id, candidate.rejected.caption.caption_id
        return -round(candidate.margin * share, 9), abs(candidate.extra_words), *ids

    return min(candidates, key=rank)


def _margin(chosen: _Answer, rejected: _Answer, repetition_weight: float) -> float:
    extra = rejected.errors.repeated - chosen.errors.repeated
    return rejected.error_of[""] - chosen.error_of[""] + repetition_weight * extra / max(chosen.errors.num_events, 1)


# --- caps -------------------------------------------------------------------------------------------------------------


def _per_video(candidates: Sequence[_Candidate], most: int | None) -> list[_Candidate]:
    """Pairs in order -> the same, of each video only those that fix most errors."""
    if most is None:
        return list(candidates)
    by_video: dict[str, list[_Candidate]] = defaultdict(list)
    # Not those of the largest margin: intervals have few events, so one error is a large margin there.
    for candidate in sorted(candidates, key=lambda c: -sum(c.fixed.values())):
        by_video[candidate.chosen.caption.video].append(candidate)
    kept = {id(candidate) for group in by_video.values() for candidate in group[:most]}
    return [candidate for candidate in candidates if id(candidate) in kept]


def _at_most(candidates: Sequence[_Candidate], most: int | None) -> list[_Candidate]:
    """Pairs in order -> the same, at most so many, drawn by the hash of their names: a draw that favours no kind."""

    def draw(candidate: _Candidate) -> str:
        caption = candidate.chosen.caption
        return hashlib.sha256(f"{caption.sample_id}\n{caption.prompt}".encode("utf-8", "surrogatepass")).hexdigest()

    kept = {id(candidate) for candidate in sorted(candidates, key=draw)[:most]}
    return [candidate for candidate in candidates if id(candidate) in kept]


# --- report -----------------------------------------------------------------------------------------------------------


def _nothing_left(judged: _Judged, prompts_dropped: Mapping[str, int]) -> str:
    """Why there is no pair at all, in one line."""
    if set(prompts_dropped) == {ALL_EQUAL}:
        return (
            f"all captions of each of the {prompts_dropped[ALL_EQUAL]} prompts are equal, expected different ones; "
            "sample them with temperature 0.7 or more, and with different seeds"
        )
    prompts = "; ".join(_counted(prompts_dropped)) or "none was given"
    captions = "; ".join(_counted(judged.captions_dropped)) or "none"
    return (
        f"no pair is left of {len(judged.by_prompt)} prompts ({prompts}; captions dropped: {captions}); sample more "
        "captions per prompt, or loosen the rule that drops most"
    )


def _report(
    kept: Sequence[_Candidate],
    *,
    config: PairConfig,
    captions: Sequence[Caption],
    judged: _Judged,
    prompts_dropped: Mapping[str, int],
) -> SelectionReport:
    assert len(judged.by_prompt) == len(kept) + sum(prompts_dropped.values()), "a prompt is nowhere"
    margins = sorted(candidate.margin for candidate in kept)
    extra_words = [candidate.extra_words for candidate in kept]
    return SelectionReport(
        rule=config.rule,
        num_captions=len(captions),
        num_videos=len({caption.video for caption in captions}),
        captions_dropped=dict(judged.captions_dropped),
        num_unfinished=sum(not caption.finished for caption in captions),
        num_spare_verdicts=judged.num_spare_verdicts,
        num_prompts=len(judged.by_prompt),
        prompts_dropped=dict(prompts_dropped),
        num_pairs=len(kept),
        num_local=sum(candidate.chosen.sample.interval_s is not None for candidate in kept),
        margins=(margins[0], median(margins), margins[-1]),
        errors_fixed={kind: fmean(c.fixed[kind] for c in kept) for kind in kept[0].fixed},
        extra_words=fmean(extra_words),
        chosen_is_longer=fmean(extra > 0 for extra in extra_words),
        is_as_long=fmean(extra == 0 for extra in extra_words),
    )


def report_text(report: SelectionReport) -> str:
    """A report -> lines for a terminal."""
    smallest, middle, largest = report.margins
    lines = [
        f"captions   {report.num_captions} of {report.num_videos} videos; {report.num_unfinished} unfinished, "
        "never chosen",
        *(f"           - {line}" for line in _counted(report.captions_dropped)),
        f"prompts    {report.num_prompts}; {report.num_prompts - report.num_pairs} without a pair",
        *(f"           - {line}" for line in _counted(report.prompts_dropped)),
        f"pairs      {report.num_pairs} ({report.rule}); {report.num_pairs - report.num_local} global, "
        f"{report.num_local} local",
        f"margin     {smallest:.3f} to {largest:.3f}, median {middle:.3f}",
        "fixed      " + ", ".join(f"{count:.2f} {kind}" for kind, count in report.errors_fixed.items()) + " per pair",
        f"length     chosen - rejected {report.extra_words:+.1f} words on average; chosen longer in "
        f"{report.chosen_is_longer:.0%}, as long in {report.is_as_long:.0%}",
    ]
    if report.num_spare_verdicts:
        lines.append(f"verdicts   {report.num_spare_verdicts} are about captions that were not given")
    return "\n".join(lines)


def _counted(reasons: Mapping[str, int]) -> list[str]:
    """Reason -> how many, the most frequent first: "12 margin below min_gap"."""
    return [f"{count} {reason}" for reason, count in sorted(reasons.items(), key=lambda item: -item[1])]
