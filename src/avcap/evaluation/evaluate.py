"""Captions and truth become error rates with intervals: the main path of evaluation. No torch.

    captions, truth --judge/inputs/ingest.py--> cases --judge--> verdicts --judge/metrics/error_rates.py--> metrics

    OUT/cases.jsonl       what is judged: each caption with the events of its sample
    OUT/verdicts.jsonl    what the judge says, each line as soon as it is there
    OUT/unscored.jsonl    captions without a verdict, and why
    OUT/events.jsonl      samples whose events were taken from a reference caption, with these
    OUT/setting.json      protocol, judge, prompt version, modality: a folder holds an evaluation of one kind
    OUT/metrics.json      every rate, with intervals
    OUT/evaluation.json   how it was made, and all that could not be used

Stopped and run again it goes on: a verdict is kept as long as its caption, its events and the judge are the same.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from avcap.errors import UserError
from avcap.files.claim import claim
from avcap.files.hashes import hash_file
from avcap.files.journal import Journal
from avcap.files.lock import lock_folder
from avcap.files.write import write_json
from avcap.judge.inputs.events import Correction, ExtractionError, apply_corrections, extract
from avcap.judge.inputs.ingest import Intake, Problem
from avcap.judge.metrics.compare import Setting
from avcap.judge.metrics.error_rates import Metrics, Scored, compute_metrics, metrics_to_dict
from avcap.judge.protocols.registry import AVCAP_1
from avcap.judge.types import Case, EventJudge
from avcap.llm.types import Chat
from avcap.records import (
    Event,
    InventedClaim,
    Modality,
    Unscored,
    Verdict,
    from_data,
    journal,
    read_jsonl,
    to_json,
    write_jsonl,
)
from avcap.texts.json_text import read_json

PROTOCOL = AVCAP_1
CASES, VERDICTS, UNSCORED = "cases.jsonl", "verdicts.jsonl", "unscored.jsonl"
EVENTS = "events.jsonl"
METRICS, EVALUATION, SETTING = "metrics.json", "evaluation.json", "setting.json"
BEFORE = ("captions.jsonl", "answers.jsonl", "replies.sqlite*")
"""What may stand in a folder before it is judged: captions that its own model wrote, replies that were paid for."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What evaluation.json holds, and with it what was scored."""

    setting: Setting
    """`modality`: what was asked for and is counted: all events ("both"), or those of one modality alone."""
    captioner: str
    """Who wrote the captions, as far as is known: a checkpoint, or the names of the caption files."""
    num_videos: int
    num_events: int
    """Different ones: an event of an interval is an event of its video too."""
    num_captions: int
    num_unscored: int
    files: dict[str, str]
    """File that went in -> sha256."""
    problems: tuple[Problem, ...]
    scored: tuple[Scored, ...]
    metrics: Metrics


def evaluate(
    intake: Intake,
    *,
    judge: EventJudge,
    out_dir: str | Path,
    modality: Modality = "both",
    judge_protocol: str = PROTOCOL,
    captioner: str = "",
    files: Iterable[str | Path] = (),
    extractor: Chat | None = None,
    corrections: Sequence[Correction] = (),
    watch: Callable[[Iterator[Any], int], Iterable[Any]] = lambda answers, _: answers,
) -> Evaluation:
    """Matched captions and a judge -> their Evaluation, also written to `out_dir`.

    `extractor`: finds the events of samples that have a reference caption alone. `corrections`: a person's, of events.
    `watch`: wraps the verdicts that are asked for, with their number, for a progress bar.
    """
    out_dir = Path(out_dir)
    setting = setting_of(judge, modality=modality, judge_protocol=judge_protocol)
    untold = {sample.sample_id for sample in intake.needs_events}
    intake = with_events(intake, extractor=extractor)
    extracted = [case.sample for case in intake.cases if case.sample.sample_id in untold]
    intake = _corrected(intake, corrections)
    with lock_folder(out_dir):
        claim_evaluation(out_dir, setting)
        if untold:
            write_jsonl(out_dir / EVENTS, extracted)
        answers = _judged(intake, judge=judge, out_dir=out_dir, watch=watch)
        scored = [*(Scored(case=case, verdict=answers[case.caption_id]) for case in intake.cases), *intake.failures]
        _write_answers(out_dir, scored)
    counted = [restrict(one, modality=modality) for one in scored]
    dropped = {part for one in scored if isinstance(one.verdict, Verdict) for part in one.verdict.dropped}
    evaluation = Evaluation(
        setting=dataclasses.replace(setting, dropped=tuple(sorted(dropped))),
        captioner=captioner,
        num_videos=len({one.case.sample.video for one in counted}),
        num_events=len({(one.case.sample.video, e.event_id) for one in counted for e in one.case.sample.events}),
        num_captions=len(counted),
        num_unscored=sum(isinstance(one.verdict, Unscored) for one in counted),
        files={str(path): hash_file(path) for path in files},
        problems=intake.problems,
        scored=tuple(counted),
        metrics=compute_metrics(counted, durations_s=intake.durations_s),
    )
    write_json(out_dir / METRICS, metrics_to_dict(evaluation.metrics))
    write_json(out_dir / EVALUATION, describe(evaluation))
    return evaluation


def setting_of(judge: EventJudge, *, modality: Modality, judge_protocol: str = PROTOCOL) -> Setting:
    """What a folder of evaluations is made by."""
    return Setting(protocol=judge_protocol, judge=judge.name, prompt_version=judge.prompt_version, modality=modality)


def setting_to_dict(setting: Setting) -> dict[str, Any]:
    """Setting -> plain values; without a benchmark as before there were any, so that old folders go on."""
    data = dataclasses.asdict(setting)
    return data if setting.benchmark else {name: value for name, value in data.items() if name != "benchmark"}


def describe(evaluation: Evaluation) -> dict[str, Any]:
    """Evaluation -> what evaluation.json holds: all but what stands in the other files."""
    data = dataclasses.asdict(dataclasses.replace(evaluation, scored=(), metrics=None))  # type: ignore[arg-type]
    del data["scored"], data["metrics"]
    data["setting"] = setting_to_dict(evaluation.setting)
    if not evaluation.setting.dropped:
        del data["setting"]["dropped"]
    return {**data, "num_problems": dict(Counter(problem.kind for problem in evaluation.problems))}


def read_evaluation(folder: str | Path) -> tuple[Setting, list[Scored]]:
    """Folder of a finished evaluation -> (how it was made, its captions with their verdicts)."""
    folder = Path(folder)
    path = folder / EVALUATION
    try:
        setting = from_data(
            read_json(path, expected="that of a finished evaluation, as avcap evaluate leaves it")["setting"], Setting
        )
        modality: Modality = next(name for name in get_args(Modality) if name == setting.modality)
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); expected the folder of a finished evaluation, as avcap evaluate leaves "
            "it"
        ) from None
    answers: dict[str, Verdict | Unscored] = {}
    for verdict in read_jsonl(folder / VERDICTS, Verdict):
        answers[verdict.caption_id] = verdict
    for unscored in read_jsonl(folder / UNSCORED, Unscored):
        answers[unscored.caption_id] = unscored
    cases = list(read_jsonl(folder / CASES, Case))
    if missing := [case.caption_id for case in cases if case.caption_id not in answers]:
        raise UserError(f"{folder}: {len(missing)} captions have no verdict; run its avcap evaluate again to the end")
    return setting, [restrict(Scored(case=case, verdict=answers[case.caption_id]), modality=modality) for case in cases]


def restrict(scored: Scored, *, modality: Modality) -> Scored:
    """A judged caption -> the same, counting the events of one modality alone ("both": all of them).

    What is true but was not asked for counts neither for nor against; what is false is invented, whatever it is about.
    """
    if modality == "both":
        return scored
    sample = scored.case.sample
    asked = {event.event_id: event for event in sample.events if event.modality == modality}
    case = dataclasses.replace(scored.case, sample=dataclasses.replace(sample, events=tuple(asked.values())))
    if isinstance(scored.verdict, Unscored):
        return Scored(case=case, verdict=scored.verdict)
    event_of = {event.event_id: event for event in sample.events}
    wrong = [
        _claim_about(event_of[label.event_id])
        for label in scored.verdict.events
        if label.event_id not in asked and label.label == "incorrect"
    ]
    verdict = dataclasses.replace(
        scored.verdict,
        events=tuple(label for label in scored.verdict.events if label.event_id in asked),
        invented=(*scored.verdict.invented, *wrong),
    )
    return Scored(case=case, verdict=verdict)


def _claim_about(event: Event) -> InventedClaim:
    return InventedClaim(text=f"wrong about: {event.text}", modality=event.modality, start_s=event.start_s)


# --- events of reference captions -------------------------------------------------------------------------------------


def with_events(intake: Intake, *, extractor: Chat | None) -> Intake:
    """The same, every sample with its events; a reference caption that gives none makes its caption a failure."""
    needed = intake.needs_events
    if not needed:
        return intake
    if extractor is None:
        raise UserError(
            f"got {len(needed)} samples with a reference caption and no events, the first is {needed[0].sample_id}; "
            "expected events, or a judge that can extract them: --judge openai:MODEL@URL or local:PATH"
        )
    found = {sample.sample_id: answer for sample, answer in zip(needed, extract(needed, chat=extractor), strict=True)}
    cases, failures = [], list(intake.failures)
    for case in intake.cases:
        answer = found.get(case.sample.sample_id, case.sample)
        if isinstance(answer, ExtractionError):
            reason = f"no events from the reference caption: {answer.reason}"
            unscored = Unscored(caption_id=case.caption_id, reason=reason, reply=answer.reply)
            failures.append(Scored(case=case, verdict=unscored))
        else:
            cases.append(dataclasses.replace(case, sample=answer))
    return dataclasses.replace(intake, cases=tuple(cases), failures=tuple(failures), needs_events=())


def _corrected(intake: Intake, corrections: Sequence[Correction]) -> Intake:
    """The same with a person's corrections of the events; those that fit no event any more are named."""
    if not corrections:
        return intake
    done = apply_corrections([case.sample for case in intake.cases], corrections=corrections, partial=True)
    cases = [dataclasses.replace(case, sample=sample) for case, sample in zip(intake.cases, done.samples, strict=True)]
    stale = [Problem(kind="stale correction", name=text.partition(":")[0], detail=text) for text in done.stale]
    return dataclasses.replace(intake, cases=tuple(cases), problems=(*intake.problems, *stale))


# --- the folder -------------------------------------------------------------------------------------------------------


def claim_evaluation(out_dir: Path, setting: Setting) -> None:
    """Makes the folder one of this setting. UserError if it holds an evaluation made otherwise, or anything else."""
    claim(out_dir, SETTING, setting_to_dict(setting), ours=BEFORE)


def _judged(
    intake: Intake, *, judge: EventJudge, out_dir: Path, watch: Callable[[Iterator[Any], int], Iterable[Any]]
) -> dict[str, Verdict | Unscored]:
    """Cases -> caption id -> its verdict: what an earlier run left, and the judge's, each on the disk at once."""
    with journal(out_dir / VERDICTS, Verdict) as lines:
        kept = _take_up(lines, intake, path=out_dir / CASES)
        answers: dict[str, Verdict | Unscored] = dict(kept)
        todo = [case for case in intake.cases if case.caption_id not in kept]
        if not todo:
            return answers
        for case, answer in zip(todo, watch(judge.judge(todo), len(todo)), strict=True):
            assert answer.caption_id == case.caption_id, f"{judge.name} answered out of order"
            answers[case.caption_id] = answer
            if isinstance(answer, Verdict):
                lines.append([answer])
    return answers


def _take_up(lines: Journal[Verdict], intake: Intake, *, path: Path) -> dict[str, Verdict]:
    """Caption id -> the verdict that an earlier run left, if it was about the same text and events."""
    cases = [*intake.cases, *(failure.case for failure in intake.failures)]
    texts = [to_json(case) for case in cases]
    before = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    known = set(before)
    same = {case.caption_id for case, text in zip(cases, texts, strict=True) if text in known}
    old = list(lines.read())
    kept = {verdict.caption_id: verdict for verdict in old if verdict.caption_id in same}
    # first the verdicts that still hold, then the cases: killed in between, no verdict is taken for another case's
    if len(kept) < len(old):
        lines.rewrite(kept.values())
    if texts != before:
        write_jsonl(path, cases)
    return kept


def _write_answers(out_dir: Path, scored: Sequence[Scored]) -> None:
    """The finished files, in the order of the captions whatever the order they were judged in."""
    write_jsonl(out_dir / VERDICTS, (one.verdict for one in scored if isinstance(one.verdict, Verdict)))
    write_jsonl(out_dir / UNSCORED, (one.verdict for one in scored if isinstance(one.verdict, Unscored)))
