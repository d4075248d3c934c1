"""The benchmarks by name: what each reads, asks and reports.

Numbers named `official ...` follow a rule of the published script that is kept for comparison and explained in
docs/evaluation.md; the number without that word follows ours.
"""

from typing import Any

import numpy as np

from avcap.errors import UserError
from avcap.judge.benchmarks import forms
from avcap.judge.benchmarks.benchmark import AskedBy, Benchmark, Numbers, Shares, unchanged
from avcap.judge.metrics.bootstrap import Floats, divide
from avcap.judge.protocols.caption_qa import NOT_SAID, CaptionQa, CaptionQaCase, CaptionQaScore
from avcap.judge.protocols.dream1k import Dream1k, DreamCase, DreamScore
from avcap.judge.protocols.omni_cloze import ClozeCase, ClozeScore, OmniCloze
from avcap.judge.protocols.protocol import CaptionProtocol
from avcap.judge.protocols.registry import AVCAP_1, AVCAP_YESNO_1, judge_protocol
from avcap.judge.protocols.testset_gpt import GptTestset, RunCounts, SevenRuns
from avcap.judge.protocols.ugc_videocap import ASPECTS, UgcCase, UgcScore, UgcVideoCap
from avcap.judge.protocols.vdc import Vdc, VdcCase, VdcScore
from avcap.judge.types import Case
from avcap.records import Verdict

# --- testset-gpt ------------------------------------------------------------------------------------------------------

TESTSET_RATES = ("missing", "incorrect", "hallucination", "total")


def _tally_testset(score: SevenRuns) -> Shares:
    shares: dict[str, tuple[float, float]] = {}
    for run, counts in enumerate(score.runs):
        if isinstance(counts, RunCounts):
            errors = (
                counts.missed,
                counts.incorrect,
                counts.incorrect + counts.hallucination,  # as in the paper
                counts.missed + counts.incorrect + counts.hallucination,
            )
            shares |= {
                f"{n} {run}": (float(e), float(score.num_events)) for n, e in zip(TESTSET_RATES, errors, strict=True)
            }
    return shares


def _median_run(numbers: Numbers) -> Numbers:
    """The rates of each run -> those of the run with the median total (of two in the middle, the lower)."""
    runs = sorted({int(name.split()[-1]) for name in numbers})
    if not runs:
        return {}
    total_QN = np.stack([numbers[f"total {run}"] for run in runs], axis=-1)
    order_QN = np.argsort(np.where(np.isnan(total_QN), np.inf, total_QN), axis=-1, kind="stable")
    middle_Q = (np.maximum((~np.isnan(total_QN)).sum(axis=-1), 1) - 1) // 2
    chosen_Q1 = np.take_along_axis(order_QN, middle_Q[..., None], axis=-1)

    def of_median(name: str) -> Floats:
        values_QN = np.stack([numbers[f"{name} {run}"] for run in runs], axis=-1)
        return np.take_along_axis(values_QN, chosen_Q1, axis=-1)[..., 0]

    return {name: of_median(name) for name in TESTSET_RATES}


# --- dream-1k ---------------------------------------------------------------------------------------------------------


def _dream_case(case: Case, about: Any) -> DreamCase:
    source, events = about
    return DreamCase(
        caption_id=case.caption_id,
        source=source,
        caption=case.text,
        reference_caption=case.sample.reference_caption or "",
        reference_caption_events=events,
    )


def _tally_dream(score: DreamScore) -> Shares:
    return {f"recall {score.source}": (score.recall, 1.0), f"precision {score.source}": (score.precision, 1.0)}


def _means_over_sources(numbers: Numbers) -> Numbers:
    """Precision and recall of each source -> F1, recall and precision as means over sources, and F1 of each."""
    sources = [name.removeprefix("recall ") for name in numbers if name.startswith("recall ")]
    if not sources:
        return {}

    def mean(kind: str) -> Floats:
        values = np.stack([numbers[f"{kind} {source}"] for source in sources], axis=-1)
        # a draw of videos may leave out a source
        return divide(np.nansum(values, axis=-1), (~np.isnan(values)).sum(axis=-1).astype(float))

    recall, precision = mean("recall"), mean("precision")
    means = {"f1": _f1(recall, precision), "recall": recall, "precision": precision}
    return means | {f"f1 {s}": _f1(numbers[f"recall {s}"], numbers[f"precision {s}"]) for s in sources}


def _f1(recall: Floats, precision: Floats) -> Floats:
    total = recall + precision
    return np.where(total == 0, 0.0, 2 * divide(recall * precision, total))


# --- vdc --------------------------------------------------------------------------------------------------------------


def _vdc_case(case: Case, about: Any) -> VdcCase:
    aspect, questions = about
    return VdcCase(caption_id=case.caption_id, aspect=aspect, caption=case.text, questions=questions)


def _tally_vdc(score: VdcScore) -> Shares:
    counts = float(bool(score.accuracy and score.score))
    return {
        f"accuracy {score.aspect}": (score.accuracy, 1.0),
        f"score {score.aspect}": (score.score, 1.0),
        f"official accuracy {score.aspect}": (score.accuracy * counts, counts),
        f"official score {score.aspect}": (score.score * counts, counts),
    }


# --- avscapbench ------------------------------------------------------------------------------------------------------


def _tally_avscap(verdict: Verdict) -> Shares:
    """A verdict -> the recall of each class in this video, and 0 where theirs counts a class without events so."""
    hits: dict[str, list[bool]] = {name: [] for name in forms.AVSCAP_CLASSES}
    for event in verdict.events:
        hits[event.event_id.rpartition("-")[0]].append(event.label == "correct")
    groups = {
        "visual": hits["visual"],
        "audio": [*hits["speech"], *hits["music"], *hits["effects"]],
        "speech": hits["speech"],
        "music": hits["music"],
        "effects": hits["effects"],
        "synergy": hits["synergy"],
    }
    groups["total"] = [hit for name in ("visual", "audio", "synergy") for hit in groups[name]]
    recalls = {name: sum(some) / len(some) if some else 0.0 for name, some in groups.items()}
    shares = {f"recall {name}": (recalls[name], float(bool(some))) for name, some in groups.items()}
    return shares | {f"official recall {name}": (recall, 1.0) for name, recall in recalls.items()}


def _avscap_protocol(asked: AskedBy) -> CaptionProtocol[Any, Any, Any]:
    return judge_protocol(asked.judge_protocol or AVCAP_1, thresholds=asked.thresholds, wordings=asked.wordings)


# --- omni-cloze -------------------------------------------------------------------------------------------------------


def _cloze_case(case: Case, about: Any) -> ClozeCase:
    passage, blanks = about
    return ClozeCase(caption_id=case.caption_id, caption=case.text, passage=passage, blanks=blanks)


def _tally_cloze(score: ClozeScore) -> Shares:
    outcomes = [blank.outcome for blank in score.blanks]
    num, right, wrong = float(len(outcomes)), float(outcomes.count("right")), float(outcomes.count("wrong"))
    shares = {
        "accuracy": (right, num),
        "not given": (num - right - wrong, num),
        "wrong": (wrong, num),
        "score": (right - wrong, num),
    }
    for modality in dict.fromkeys(blank.modality for blank in score.blanks if blank.modality):
        of_it = [blank.outcome == "right" for blank in score.blanks if blank.modality == modality]
        shares[f"accuracy {modality}"] = (float(sum(of_it)), float(len(of_it)))
    return shares


# --- ugc-videocap and questions ---------------------------------------------------------------------------------------


def _ugc_case(case: Case, about: Any) -> UgcCase:
    return UgcCase(caption_id=case.caption_id, caption=case.text, reference_caption=case.sample.reference_caption or "")


def _tally_ugc(score: UgcScore) -> Shares:
    return {"average": (score.average, 1.0), **{name: (score.percent(name), 1.0) for name in ASPECTS}}


def _qa_case(case: Case, about: Any) -> CaptionQaCase:
    return CaptionQaCase(caption_id=case.caption_id, caption=case.text, questions=about)


def _tally_qa(score: CaptionQaScore) -> Shares:
    answers = [answer for answer in score.answers if not answer.failed]
    num = float(len(answers))
    shares = {
        "accuracy": (float(sum(answer.is_right for answer in answers)), num),
        "not said": (float(sum(answer.letter == NOT_SAID for answer in answers)), num),
    }
    for kind in dict.fromkeys(answer.kind for answer in answers if answer.kind):
        of_it = [answer.is_right for answer in answers if answer.kind == kind]
        shares[f"accuracy {kind}"] = (float(sum(of_it)), float(len(of_it)))
    return shares


def _same_case(case: Case, about: Any) -> Case:
    return case


def _qa(name: str, read: Any) -> Benchmark:
    return Benchmark(
        name=name,
        version=1,
        about="accuracy of answers to questions, from the caption alone",
        read=read,
        protocol=lambda asked: CaptionQa(wordings=asked.wordings),
        make_case=_qa_case,
        tally=_tally_qa,
        rates=unchanged,
        prompts=("answer",),
    )


_ALL = (
    Benchmark(
        name="testset-gpt",
        version=1,
        about="missing, incorrect, hallucination and total of the median of seven runs (video-SALMONN 2 test set)",
        read=forms.read_testset,
        protocol=lambda asked: GptTestset(wordings=asked.wordings),
        make_case=_same_case,
        tally=_tally_testset,
        rates=_median_run,
        prompts=("lists", "counts"),
        needs_events=True,
    ),
    Benchmark(
        name="dream-1k",
        version=1,
        about="F1, recall and precision of events (AutoDQ)",
        read=forms.read_dream,
        protocol=lambda asked: Dream1k(wordings=asked.wordings),
        make_case=_dream_case,
        tally=_tally_dream,
        rates=_means_over_sources,
        prompts=("relation", "events"),
    ),
    Benchmark(
        name="vdc",
        version=1,
        about="accuracy and score of answers to questions about the caption (VDCscore)",
        read=forms.read_vdc,
        protocol=lambda asked: Vdc(wordings=asked.wordings),
        make_case=_vdc_case,
        tally=_tally_vdc,
        rates=unchanged,
        prompts=("score", "answer"),
    ),
    Benchmark(
        name="avscapbench",
        version=1,
        about="recall of visual, speech, music, effects and synergy events",
        read=forms.read_avscapbench,
        protocol=_avscap_protocol,
        make_case=_same_case,
        tally=_tally_avscap,
        rates=unchanged,
        prompts=("judge",),
        judge_protocols=(AVCAP_1, AVCAP_YESNO_1),
    ),
    Benchmark(
        name="omni-cloze",
        version=1,
        about="blanks of a passage filled in from the caption",
        read=forms.read_omni_cloze,
        protocol=lambda asked: OmniCloze(wordings=asked.wordings),
        make_case=_cloze_case,
        tally=_tally_cloze,
        rates=unchanged,
        prompts=("cloze",),
    ),
    Benchmark(
        name="ugc-videocap",
        version=1,
        about="points for what is seen, heard and for details, 0 to 100",
        read=forms.read_ugc,
        protocol=lambda asked: UgcVideoCap(wordings=asked.wordings),
        make_case=_ugc_case,
        tally=_tally_ugc,
        rates=unchanged,
        prompts=("scores",),
    ),
    _qa("daily-omni-caption-qa", forms.read_daily_omni),
    _qa("worldsense-caption-qa", forms.read_worldsense),
)
BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _ALL}


def find_benchmark(name: str) -> Benchmark:
    """--benchmark, with its version or without -> the benchmark. UserError for a name that is none."""
    for benchmark in _ALL:
        if name in (benchmark.name, benchmark.title):
            return benchmark
    raise UserError(f"got --benchmark {name}, expected one of {', '.join(BENCHMARKS)}")
