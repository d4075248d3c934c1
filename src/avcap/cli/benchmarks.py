"""`avcap evaluate --benchmark`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from avcap.cli.app import EXIT_SOME_FAILED, say, tell
from avcap.cli.judges import NOISY, JudgeOptions, open_language_model, read_calibration, thresholds_of
from avcap.errors import UserError
from avcap.evaluation.benchmark import (
    BenchmarkEvaluation,
    Watch,
    benchmark_setting,
    benchmark_truth,
    evaluate_benchmark,
)
from avcap.evaluation.evaluate import EVALUATION, UNSCORED, claim_evaluation
from avcap.judge.benchmarks.benchmark import AskedBy, Benchmark
from avcap.judge.benchmarks.registry import find_benchmark
from avcap.judge.inputs.ingest import Problem, Truth, match, read_captions
from avcap.judge.protocols.avcap1 import LLMJudge
from avcap.judge.protocols.protocol import opening_requests
from avcap.judge.protocols.registry import AVCAP_1
from avcap.judge.protocols.wording import Wording, read_wording
from avcap.judge.tables import rate_lines
from avcap.web.benchmark_report import write_benchmark_report
from avcap.world.oracle import JUDGE_NAME

NUM_NAMED = 3
REPORT = "report.html"


@dataclass(frozen=True, kw_only=True)
class BenchmarkFlags:
    """What the command line says of an evaluation on a benchmark."""

    benchmark: str
    data: Path
    captions: tuple[Path, ...]
    out: Path
    judge: JudgeOptions
    prompt_files: tuple[str, ...] = ()
    caption_field: str | None = None
    max_unscored: float = 0.0
    dry_run: bool = False
    caption: Callable[[Truth], tuple[Path, str]] | None = None
    """Captions the videos first -> (file, name of the captioner), with --model."""


def run_benchmark(flags: BenchmarkFlags, *, watch: Watch) -> int:
    """Reads, asks, prints and writes -> exit code."""
    benchmark = find_benchmark(flags.benchmark)
    asked = _asked(benchmark, flags)
    items = benchmark.read(flags.data)
    if not items:
        raise UserError(f"{flags.data}: got no videos, expected data of {benchmark.name}")
    with open_language_model(flags.judge) as chat:
        if flags.judge.calibration is not None:
            read_calibration(flags.judge.calibration, judge=LLMJudge(chat, protocol=benchmark.protocol(asked)))
        files, captioner = list(flags.captions), ", ".join(path.name for path in flags.captions)
        if flags.caption is not None:
            claim_evaluation(flags.out, benchmark_setting(benchmark, chat=chat, asked=asked))
            path, captioner = flags.caption(benchmark_truth(items, folder=flags.data.parent))
            files = [path]
        captions = read_captions(files, text_field=flags.caption_field)
        if flags.dry_run:
            intake = match(captions, benchmark_truth(items, folder=flags.data.parent))
            about = {item.sample.sample_id: item.about for item in items}
            cases = [benchmark.make_case(case, about.get(case.sample.sample_id)) for case in intake.cases]
            first = opening_requests(benchmark.protocol(asked), cases)
            tell(f"{len(cases)} captions to judge, what is asked before any answer: {chat.estimate(first)}")
            return 0
        evaluation = evaluate_benchmark(
            benchmark,
            items=items,
            captions=captions,
            chat=chat,
            asked=asked,
            out_dir=flags.out,
            folder=flags.data.parent,
            captioner=captioner,
            files=[*files, flags.data],
            watch=watch,
        )
    write_benchmark_report(flags.out / REPORT, evaluation)
    return _print(evaluation, flags=flags)


def _asked(benchmark: Benchmark, flags: BenchmarkFlags) -> AskedBy:
    """Options -> how the judge is asked. UserError for what the benchmark does not offer."""
    spec, protocol = flags.judge.spec, flags.judge.protocol
    if flags.judge.calibration is not None and not benchmark.judge_protocols:
        raise UserError(f"got --calibration and --benchmark {benchmark.name}, whose judge is asked in a way of its own")
    if spec == JUDGE_NAME or spec.startswith(NOISY):
        raise UserError(
            f"got --benchmark {benchmark.name} and --judge {spec}; expected a language model: openai:MODEL@URL or "
            "local:PATH"
        )
    if protocol != AVCAP_1 and protocol not in benchmark.judge_protocols:
        raise UserError(
            f"got --judge-protocol {protocol}, expected none: {benchmark.name} asks its judge in a way of its own"
        )
    wordings = read_wordings(flags.prompt_files, names=benchmark.prompts)
    return AskedBy(judge_protocol=protocol, wordings=wordings, thresholds=thresholds_of(flags.judge))


def read_wordings(prompt_files: Sequence[str], *, names: Sequence[str]) -> dict[str, Wording]:
    """--prompt-file FILE or NAME=FILE -> prompts by name. UserError for a name that nothing is asked by."""
    wordings: dict[str, Wording] = {}
    for given in prompt_files:
        name, has_name, path = given.partition("=")
        name, path = (name, path) if has_name and not Path(given).exists() else (names[0] if names else "", given)
        if name not in names:
            raise UserError(f"got --prompt-file {given}, expected FILE or NAME=FILE of {', '.join(names) or 'nothing'}")
        wordings[name] = read_wording(Path(path))
    return wordings


def _print(evaluation: BenchmarkEvaluation, *, flags: BenchmarkFlags) -> int:
    setting = evaluation.setting
    for line in rate_lines(evaluation.rates):
        tell(line)
    num_scored = evaluation.num_captions - evaluation.num_unscored
    tell(
        f"{setting.benchmark}: {num_scored} captions of {evaluation.num_videos} videos, {evaluation.num_unscored} "
        f"unscored; judge {setting.judge}; protocol {setting.protocol}"
    )
    tell(evaluation.remark)
    print_problems(evaluation.problems, out=flags.out)
    if evaluation.num_unscored > flags.max_unscored * evaluation.num_captions:
        say(
            f"{evaluation.num_unscored} of {evaluation.num_captions} captions are unscored, above --max-unscored "
            f"{flags.max_unscored:g}; the first: {evaluation.unscored[0].reason}; all in {flags.out / UNSCORED}"
        )
        return EXIT_SOME_FAILED
    return 0


def print_problems(problems: Sequence[Problem], *, out: Path) -> None:
    """Every kind of problem on a line, with the first names."""
    for kind, some in groupby(sorted(problems, key=_kind), key=_kind):
        names = list(dict.fromkeys(problem.name for problem in some))
        more = ", ..." if len(names) > NUM_NAMED else ""
        say(f"{kind}: {len(names)} ({', '.join(names[:NUM_NAMED])}{more}); see {out / EVALUATION}")


def _kind(problem: Problem) -> str:
    return problem.kind
