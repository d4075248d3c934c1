"""Captions judged on a benchmark: its data, its rules, a language model as its judge. No torch.

    OUT/scores.jsonl      what the judge gave each caption, in the form of the protocol
    OUT/shares.jsonl      what each caption adds to the numbers; avcap compare reads it
    OUT/unscored.jsonl    captions without a score, and why
    OUT/setting.json      benchmark, judge, how it was asked, prompt version: a folder holds one kind of evaluation
    OUT/metrics.json      every number with its interval
    OUT/evaluation.json   how it was made, what it may be compared with, and all that could not be used

Stopped and run again it goes on with the replies that were cached.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avcap.errors import UserError
from avcap.evaluation.evaluate import EVALUATION, METRICS, UNSCORED, claim_evaluation, setting_to_dict, with_events
from avcap.files.hashes import hash_file
from avcap.files.lock import lock_folder
from avcap.files.write import write_json
from avcap.judge.benchmarks.benchmark import (
    PROMPT_GIVEN,
    RULES_THEIRS,
    AskedBy,
    Benchmark,
    BenchmarkItem,
    CaptionShares,
    benchmark_rates,
)
from avcap.judge.inputs.ingest import Intake, Problem, Truth, WrittenCaption, match
from avcap.judge.metrics.bootstrap import Rate
from avcap.judge.metrics.compare import Setting
from avcap.judge.types import Case
from avcap.llm.dialogue import converse
from avcap.llm.types import Chat
from avcap.records import Unscored, Verdict, from_data, read_jsonl, write_jsonl
from avcap.texts.json_text import read_json

SCORES, SHARES = "scores.jsonl", "shares.jsonl"
Watch = Callable[[Iterator[Any], int], Iterable[Any]]


@dataclass(frozen=True, kw_only=True)
class BenchmarkEvaluation:
    """What evaluation.json holds, and the numbers."""

    setting: Setting
    remark: str
    """What the numbers may be compared with."""
    captioner: str
    num_videos: int
    num_captions: int
    num_unscored: int
    files: dict[str, str]
    """File that went in -> sha256."""
    problems: tuple[Problem, ...]
    rates: dict[str, Rate]
    unscored: tuple[Unscored, ...]


def benchmark_truth(items: Sequence[BenchmarkItem], *, folder: Path) -> Truth:
    """Items -> what captions are matched with, or videos captioned for; a second item of one id is a problem."""
    samples = {item.sample.sample_id: item.sample for item in reversed(items)}
    num = Counter(item.sample.sample_id for item in items)
    twice = [Problem(kind="duplicate item", name=name) for name, count in num.items() if count > 1]
    kept = tuple(samples[name] for name in dict.fromkeys(item.sample.sample_id for item in items))
    return Truth(samples=kept, folder=folder, problems=tuple(twice))


def benchmark_setting(benchmark: Benchmark, *, chat: Chat, asked: AskedBy) -> Setting:
    """What a folder of this benchmark is made by."""
    card = benchmark.protocol(asked).card
    return Setting(
        protocol=card.name if benchmark.judge_protocols else f"{card.name}-{card.version}",
        judge=chat.name,
        prompt_version=card.prompt_version,
        modality="both",
        benchmark=benchmark.title,
    )


def evaluate_benchmark(
    benchmark: Benchmark,
    *,
    items: Sequence[BenchmarkItem],
    captions: Iterable[WrittenCaption],
    chat: Chat,
    asked: AskedBy,
    out_dir: Path,
    folder: Path,
    captioner: str = "",
    files: Iterable[Path] = (),
    watch: Watch = lambda answers, _: answers,
) -> BenchmarkEvaluation:
    """Captions of a benchmark's videos -> their numbers, also written to `out_dir`.

    Args:
        benchmark: Data and rules.
        items: What its `read` gave.
        captions: Files of captions as they were read.
        chat: The language model that judges.
        asked: How it is asked.
        out_dir: Folder of the results.
        folder: Where the data lies.
        captioner: Who wrote the captions, for the record.
        files: Files that went in.
        watch: Wraps the scores, with their number, for a progress bar.

    Returns:
        The numbers with intervals over videos, and what has none.

    Raises:
        UserError: No caption is of a video of the benchmark, or the folder is another evaluation's.
    """
    setting = benchmark_setting(benchmark, chat=chat, asked=asked)
    intake = _intake(benchmark, captions, benchmark_truth(items, folder=folder), chat=chat)
    about = {item.sample.sample_id: item.about for item in items}
    with lock_folder(out_dir):
        claim_evaluation(out_dir, setting)
        cases = [benchmark.make_case(case, about.get(case.sample.sample_id)) for case in intake.cases]
        answers = watch(converse(map(benchmark.protocol(asked).dialogue, cases), chat=chat), len(cases))
        scores, shares, unscored = _sorted_out(benchmark, answers, intake=intake, setting=setting)
        for name, rows in ((SCORES, scores), (SHARES, shares), (UNSCORED, unscored)):
            write_jsonl(out_dir / name, rows)
        evaluation = BenchmarkEvaluation(
            setting=dataclasses.replace(setting, dropped=tuple(chat.dropped)),
            remark=PROMPT_GIVEN if asked.wordings else RULES_THEIRS,
            captioner=captioner,
            num_videos=len({one.video for one in shares}),
            num_captions=len(shares) + len(unscored),
            num_unscored=len(unscored),
            files={str(path): hash_file(path) for path in files},
            problems=intake.problems,
            rates=benchmark_rates(benchmark, shares),
            unscored=tuple(unscored),
        )
        _write(out_dir, evaluation)
    return evaluation


def _sorted_out(
    benchmark: Benchmark, answers: Iterable[Any], *, intake: Intake, setting: Setting
) -> tuple[list[Any], list[CaptionShares], list[Unscored]]:
    """What the judge gave each case -> (scores, their shares, what has none)."""
    scores: list[Any] = []
    shares: list[CaptionShares] = []
    unscored = [one.verdict for one in intake.failures if isinstance(one.verdict, Unscored)]
    for case, answer in zip(intake.cases, answers, strict=True):
        if isinstance(answer, Unscored):
            unscored.append(answer)
            continue
        scores.append(_told_how(answer, setting) if isinstance(answer, Verdict) else answer)
        shares.append(_shares(benchmark, answer, case=case, setting=setting))
    return scores, shares, unscored


def _told_how(verdict: Verdict, setting: Setting) -> Verdict:
    """A verdict -> the same, saying whose it is and how it was asked for."""
    return dataclasses.replace(
        verdict,
        judge=setting.judge,
        prompt_version=setting.prompt_version,
        judge_protocol=setting.protocol,
        benchmark=setting.benchmark,
    )


def _shares(benchmark: Benchmark, score: Any, *, case: Case, setting: Setting) -> CaptionShares:
    """A caption's score -> what it adds to the numbers, saying how it was asked for."""
    return CaptionShares(
        caption_id=case.caption_id,
        sample_id=case.sample.sample_id,
        video=case.sample.video,
        shares={name: list(share) for name, share in benchmark.tally(score).items()},
        benchmark=setting.benchmark,
        judge_protocol=setting.protocol,
        judge=setting.judge,
        prompt_version=setting.prompt_version,
    )


def _intake(benchmark: Benchmark, captions: Iterable[WrittenCaption], truth: Truth, *, chat: Chat) -> Intake:
    """Captions and items -> the matched ones; events are extracted where the benchmark needs them."""
    intake = match(captions, truth)
    if benchmark.needs_events:
        return with_events(intake, extractor=chat)
    # of most benchmarks it is questions or references that are asked about
    kept = tuple(problem for problem in intake.problems if problem.kind != "sample without events")
    return dataclasses.replace(intake, problems=kept, needs_events=())


def _write(out_dir: Path, evaluation: BenchmarkEvaluation) -> None:
    rates = {name: dataclasses.asdict(rate) for name, rate in evaluation.rates.items()}
    write_json(out_dir / METRICS, {"benchmark": evaluation.setting.benchmark, "remark": evaluation.remark, **rates})
    data = dataclasses.asdict(dataclasses.replace(evaluation, rates={}, unscored=()))
    del data["rates"], data["unscored"]
    data["setting"] = setting_to_dict(evaluation.setting)
    counts = dict(Counter(problem.kind for problem in evaluation.problems))
    write_json(out_dir / EVALUATION, {**data, "num_problems": counts})


def read_benchmark_evaluation(folder: str | Path) -> tuple[Setting, list[CaptionShares]]:
    """Folder of a finished evaluation on a benchmark -> (how it was made, what each caption adds)."""
    return read_setting(folder), list(read_jsonl(Path(folder) / SHARES, CaptionShares))


def read_setting(folder: str | Path) -> Setting:
    """Folder of a finished evaluation, on a benchmark or not -> how it was made."""
    path = Path(folder) / EVALUATION
    expected = "that of a finished evaluation, as avcap evaluate leaves it"
    data = read_json(path, expected=expected)
    if not isinstance(data, dict) or "setting" not in data:
        raise UserError(f"{path}: got no setting, expected {expected}")
    return from_data(data["setting"], Setting)
