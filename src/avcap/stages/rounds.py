"""Multi-round preference optimisation, top to bottom (arXiv 2410.06682, section 3).

    model -> several captions of each video -> verdicts -> pairs -> guided DPO on a fresh LoRA -> merged: the next model

    OUT/config.yaml
    OUT/round-0/held-out/      the model that the rounds begin with, evaluated as each round's is
    OUT/round-1/captions.jsonl verdicts.jsonl pairs.jsonl selection.txt
                train/         reference log-probs, metrics.jsonl, state
                checkpoint/    the merged model
                held-out/      its greedy captions of other videos, judged
                standing.json  what the stop rule reads
                done.json      the round is whole
    OUT/decision.json          which round is best, and why the rounds ended

Every file is whole or is gone on with: stopped at any moment and run again, the rounds end with the same weights.
"""

import hashlib
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from avcap.data.feature_cache import FeatureCache
from avcap.errors import UserError
from avcap.infer.captioner import Captioner
from avcap.infer.request import Request
from avcap.judge.base import Case, EventJudge
from avcap.judge.ingest import Intake
from avcap.judge.metrics import Metrics
from avcap.judge.pairs import PairConfig, report_text, select_pairs
from avcap.model.checkpoints import silence_progress_bars
from avcap.model.features import MediaFeatures
from avcap.records import (
    Caption,
    CaptionError,
    Decoding,
    Lineage,
    PreferencePair,
    Sample,
    Unscored,
    Verdict,
    from_json,
    read_jsonl,
    to_json,
    write_jsonl,
)
from avcap.stages.evaluate import evaluate
from avcap.stages.prefer import PreferConfig, prefer, with_guidance

CAPTIONS, VERDICTS, PAIRS, SELECTION = "captions.jsonl", "verdicts.jsonl", "pairs.jsonl", "selection.txt"
DONE, DECISION, STANDING = "done.json", "decision.json", "standing.json"
CHECKPOINT, HELD_OUT, TRAIN = "checkpoint", "held-out", "train"


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
    max_more_collapse: float = 0.02
    min_words_ratio: float = 0.6
    max_words_ratio: float = 1.8


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """Rendered clips to learn and to measure on, for models of the world: nothing of them was ever trained on."""

    num_clips: int = 300
    num_held_out: int = 60
    difficulty: str = "standard"
    seed: int = 100
    """The clips to measure on have the next one."""


@dataclass(frozen=True, kw_only=True)
class RoundsConfig:
    num_rounds: int = 6
    seed: int = 0
    world: WorldConfig | None = None
    """Where videos come from when none are given; None: they have to be."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    pairs: PairConfig = field(default_factory=PairConfig)
    prefer: PreferConfig = field(default_factory=PreferConfig)
    guidance: tuple[float, ...] = (0.1,)
    """Weight of the cross-entropy on reference captions, round by round; the last one holds for all rounds after it."""
    stop: StopConfig = field(default_factory=StopConfig)
    max_unscored: float = 0.1
    """Share of captions without a verdict above which a round does not go on."""
    batch_size: int = 16
    """Videos captioned side by side."""
    feature_bytes: int = 20 * 2**30
    """Room for encoded videos on disk, shared by all rounds."""

    def guidance_of(self, number: int) -> float:
        """Round, from 1 -> its guidance weight."""
        return self.guidance[min(number, len(self.guidance)) - 1]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What the stop rule knows of a round: rates on held-out videos."""

    number: int
    total_error: float
    """Mean of global and local captions, where there are both."""
    global_error: float | None
    local_error: float | None
    missing: float
    hallucination: float
    repetition: float
    collapse: float
    words: float


@dataclass(frozen=True, kw_only=True)
class Decision:
    best: int
    reason: str
    refused: dict[int, str]
    """Rounds that could not be the best, and why."""
    stopped: bool
    """Whether no further round is worth its cost."""


def run_rounds(
    parent: Path,
    *,
    config: RoundsConfig,
    samples: Sequence[Sample],
    held_out: Sequence[Sample],
    judge: EventJudge,
    out_dir: Path,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """The SFT checkpoint, samples with events to learn on and others to measure on -> the best round's checkpoint.

    `samples` without reference captions are learnt from pairs alone, which is said. UserError where a round cannot go
    on (no pairs, judge down); what is there stays, and the same call goes on from it.
    """
    silence_progress_bars()
    _check_samples(samples, held_out, config=config, say=say)
    features = FeatureCache(out_dir / "features", max_bytes=config.feature_bytes)
    model = parent
    standings = [_measure(model, 0, config=config, held_out=held_out, judge=judge, out_dir=out_dir, features=features)]
    say(describe(standings[0]))
    for number in range(1, config.num_rounds + 1):
        folder = out_dir / f"round-{number}"
        if not (folder / DONE).exists():
            _run_round(
                model, number, config=config, samples=samples, judge=judge, folder=folder, features=features, say=say
            )
        model = folder / CHECKPOINT
        standings.append(
            _measure(model, number, config=config, held_out=held_out, judge=judge, out_dir=out_dir, features=features)
        )
        say(describe(standings[-1]))
        decision = decide(standings, config.stop)
        _write_json(out_dir / DECISION, asdict(decision))
        if decision.stopped:
            break
    decision = decide(standings, config.stop)
    say(f"best: round {decision.best}; {decision.reason}")
    return parent if decision.best == 0 else out_dir / f"round-{decision.best}" / CHECKPOINT


def _run_round(
    model: Path, number: int, *, config: RoundsConfig, samples: Sequence[Sample], judge: EventJudge, folder: Path,
    features: FeatureCache, say: Callable[[str], None],
) -> None:  # fmt: skip
    """One round from the model before it to folder/checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    captioner = Captioner(model, batch_size=config.batch_size, feature_cache=features)
    prompts = draw_prompts(samples, config=config, number=number)
    captions = sample_captions(captioner, prompts, config=config, number=number, path=folder / CAPTIONS)
    verdicts = judge_captions(captions, prompts, judge=judge, path=folder / VERDICTS, max_unscored=config.max_unscored)
    pairs = _choose_pairs(captions, verdicts, prompts, config=config, folder=folder)
    say(f"round {number}: {len(captions)} captions of {len(prompts)} prompts, {len(pairs)} pairs")
    if not (folder / CHECKPOINT).exists():
        by_id = {sample.sample_id: sample for sample in prompts}
        request = _request(config, number=number, captioner=captioner)
        prefer(
            captioner.model, captioner.tokenizer, pairs=pairs,
            media_of=lambda pair: _media(captioner, by_id[pair.sample_id], request),
            config=with_guidance(config.prefer, config.guidance_of(number)), seed=config.seed * 1000 + number,
            out_dir=folder / TRAIN, title=f"round {number}",
        )  # fmt: skip
        _save(captioner, model, number, config=config, folder=folder)
    _write_json(folder / DONE, {"round": number, "num_captions": len(captions), "num_pairs": len(pairs)})


# --- captions, verdicts, pairs ----------------------------------------------------------------------------------------


def draw_prompts(samples: Sequence[Sample], *, config: RoundsConfig, number: int) -> list[Sample]:
    """All samples -> those of a round: other ones in each round, about `local_share` of them intervals."""
    rng = random.Random(f"prompts/{config.seed}/{number}")
    by_kind = {
        local: [sample for sample in samples if (sample.interval_s is not None) == local] for local in (False, True)
    }
    num_local = min(round(config.sampling.num_prompts * config.sampling.local_share), len(by_kind[True]))
    num_global = min(config.sampling.num_prompts - num_local, len(by_kind[False]))
    return rng.sample(by_kind[False], num_global) + rng.sample(by_kind[True], num_local)


def _request(config: RoundsConfig, *, number: int, captioner: Captioner) -> Request:
    sampling = config.sampling
    seed = (config.seed * 1000 + number) * sampling.captions_per_prompt  # answer k draws from seed + k
    return Request(
        decoding=Decoding(
            max_new_tokens=captioner.settings.max_new_tokens, temperature=sampling.temperature, top_p=sampling.top_p,
            seed=seed,
        )
    )  # fmt: skip


def sample_captions(
    captioner: Captioner, prompts: Sequence[Sample], *, config: RoundsConfig, number: int, path: Path
) -> list[Caption]:
    """Prompts -> captions_per_prompt captions of each, also in the file; what a stopped run wrote is kept."""
    per_prompt = config.sampling.captions_per_prompt
    kept = _whole_groups(path, per_prompt=per_prompt)
    todo = [sample for sample in prompts if sample.sample_id not in kept]
    request = _request(config, number=number, captioner=captioner)
    found: dict[str, list[Caption]] = dict(kept)
    with open(path, "a", encoding="utf-8", errors="backslashreplace") as handle:
        for group in _groups(captioner.sample(todo, request, num_answers=per_prompt)):
            if isinstance(group, CaptionError):
                raise UserError(f"{group.error}; leave this sample out, or mend the file, and run the rounds again")
            handle.write("".join(to_json(caption) + "\n" for caption in group))
            handle.flush()
            os.fsync(handle.fileno())
            found[group[0].sample_id] = group
    return [caption for sample in prompts for caption in found[sample.sample_id]]


def _groups(rows: Iterable[Caption | CaptionError]) -> Iterator[list[Caption] | CaptionError]:
    """Captions that stand next to each other by sample -> lists of one sample each."""
    group: list[Caption] = []
    for row in rows:
        if group and (isinstance(row, CaptionError) or row.sample_id != group[0].sample_id):
            yield group
            group = []
        if isinstance(row, CaptionError):
            yield row
        else:
            group.append(row)
    if group:
        yield group


def _whole_groups(path: Path, *, per_prompt: int) -> dict[str, list[Caption]]:
    """What a stopped run left -> the samples that have all their captions; the rest of the file is dropped."""
    groups: dict[str, list[Caption]] = {}
    for line in _whole_lines(path):
        caption = from_json(line, Caption)
        groups.setdefault(caption.sample_id, []).append(caption)
    whole = {sample_id: group for sample_id, group in groups.items() if len(group) == per_prompt}
    write_jsonl(path, (caption for group in whole.values() for caption in group))
    return whole


def judge_captions(
    captions: Sequence[Caption], prompts: Sequence[Sample], *, judge: EventJudge, path: Path, max_unscored: float
) -> list[Verdict | Unscored]:
    """Captions -> a verdict on each, also in the file; those that a stopped run paid for are kept.

    UserError if too many have none: the judge is down, and pairs of what is left would be pairs of chance.
    """
    sample_of = {sample.sample_id: sample for sample in prompts}
    kept = {verdict.caption_id: verdict for verdict in (from_json(line, Verdict) for line in _whole_lines(path))}
    write_jsonl(path, kept.values())
    cases = [
        Case(caption_id=c.caption_id, sample=sample_of[c.sample_id], text=c.text, finished=c.finished)
        for c in captions if c.caption_id not in kept
    ]  # fmt: skip
    answers: dict[str, Verdict | Unscored] = dict(kept)
    with open(path, "a", encoding="utf-8", errors="backslashreplace") as handle:
        for answer in judge.judge(cases):
            answers[answer.caption_id] = answer
            if isinstance(answer, Verdict):
                handle.write(to_json(answer) + "\n")
                handle.flush()
    unscored = [answer for answer in answers.values() if isinstance(answer, Unscored)]
    if len(unscored) > max_unscored * len(captions):
        reasons = Counter(answer.reason for answer in unscored)
        raise UserError(
            f"{len(unscored)} of {len(captions)} captions have no verdict, wanted at most {max_unscored:.0%}; most "
            f"often: {reasons.most_common(1)[0][0]}; {len(captions) - len(unscored)} verdicts are kept, run it again"
        )
    return [answers[caption.caption_id] for caption in captions]


def _choose_pairs(
    captions: Sequence[Caption], verdicts: Sequence[Verdict | Unscored], prompts: Sequence[Sample],
    *, config: RoundsConfig, folder: Path,
) -> list[PreferencePair]:  # fmt: skip
    path = folder / PAIRS
    if not path.exists():
        selection = select_pairs(captions, verdicts=verdicts, samples=prompts, config=config.pairs)
        (folder / SELECTION).write_text(report_text(selection.report) + "\n", encoding="utf-8")
        write_jsonl(path, selection.pairs)
    return list(read_jsonl(path, PreferencePair))


def _media(captioner: Captioner, sample: Sample, request: Request) -> MediaFeatures:
    """A sample -> its encoded video, from the cache where sampling has left it."""
    (video,) = captioner.encode([sample], request)
    if isinstance(video, CaptionError):
        raise UserError(video.error)
    return video.clip.media


def _save(captioner: Captioner, parent: Path, number: int, *, config: RoundsConfig, folder: Path) -> None:
    """The merged model as a checkpoint folder beside which nothing of its parent is lost: settings, world check."""
    partial = folder / f"{CHECKPOINT}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(parent, partial, ignore=shutil.ignore_patterns("*.md", "model*.safetensors*"))
    captioner.model.requires_grad_(True)
    captioner.model.save_pretrained(partial)
    captioner.tokenizer.save_pretrained(partial)
    pairs_hash = _digest(folder / PAIRS)
    lineage = Lineage(
        stage="rounds", round=number, parent=captioner.checkpoint, recipe="rounds", data_hash=pairs_hash,
        seed=config.seed, commit="",
    )  # fmt: skip
    (partial / "lineage.json").write_text(to_json(lineage) + "\n", encoding="utf-8")
    os.replace(partial, folder / CHECKPOINT)


# --- the gate ---------------------------------------------------------------------------------------------------------


def _measure(
    model: Path, number: int, *, config: RoundsConfig, held_out: Sequence[Sample], judge: EventJudge, out_dir: Path,
    features: FeatureCache,
) -> Standing:  # fmt: skip
    """A model -> its standing on held-out videos, by greedy captions."""
    folder = out_dir / f"round-{number}" / HELD_OUT
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CAPTIONS
    kept = {group[0].sample_id: group[0] for group in _whole_groups(path, per_prompt=1).values()}
    todo = [sample for sample in held_out if sample.sample_id not in kept]
    if todo:
        captioner = Captioner(model, batch_size=config.batch_size, feature_cache=features)
        request = Request(decoding=Decoding(max_new_tokens=captioner.settings.max_new_tokens))
        with open(path, "a", encoding="utf-8", errors="backslashreplace") as handle:
            for row in captioner.stream(todo, request):
                if isinstance(row, CaptionError):
                    raise UserError(f"{row.error}; leave this sample out, or mend the file, and run the rounds again")
                handle.write(to_json(row) + "\n")
                handle.flush()
                kept[row.sample_id] = row
    cases = [
        Case(caption_id=kept[s.sample_id].caption_id, sample=s, text=kept[s.sample_id].text,
             finished=kept[s.sample_id].finished)
        for s in held_out
    ]  # fmt: skip
    evaluation = evaluate(Intake(cases=tuple(cases)), judge=judge, out_dir=folder, captioner=f"round {number}")
    standing = standing_of(number, evaluation.metrics)
    _write_json(folder.parent / STANDING, asdict(standing))
    return standing


def standing_of(number: int, metrics: Metrics) -> Standing:
    """Metrics of held-out captions -> what the stop rule reads. Words, repetition and the like are the global ones."""
    groups = [group for group in (metrics.global_, metrics.local) if group is not None]
    main = groups[0]

    def mean(name: str) -> float:
        values = [getattr(group, name).value for group in groups]
        known = [value for value in values if value is not None]
        return sum(known) / len(known)

    return Standing(
        number=number, total_error=mean("total_error_rate"),
        global_error=metrics.global_.total_error_rate.value if metrics.global_ else None,
        local_error=metrics.local.total_error_rate.value if metrics.local else None,
        missing=mean("missing_rate"), hallucination=mean("hallucination_rate"),
        repetition=main.repetition_rate.value or 0.0, collapse=main.collapse_rate.value or 0.0,
        words=main.words_per_caption.value or 0.0,
    )  # fmt: skip


def decide(standings: Sequence[Standing], config: StopConfig) -> Decision:
    """Standings of rounds 0, 1, ... -> the best so far, and whether to stop.

    A round is a new best if its total error is lower by min_gain than the best before it, and nothing that error rates
    do not see has gone wrong. Rounds that swing are no reason to stop before `patience` of them in a row are no better.
    """
    start, best = standings[0], standings[0]
    refused: dict[int, str] = {}
    for standing in standings[1:]:
        if why := strange(standing, start=start, config=config):
            refused[standing.number] = why
        elif standing.total_error <= best.total_error - config.min_gain:
            best = standing
    since = standings[-1].number - best.number
    stopped = since >= config.patience
    reason = (
        f"total error {best.total_error:.3f}, {best.total_error - start.total_error:+.3f} against the start"
        + (f"; {since} rounds since without a better one" if since else "")
    )  # fmt: skip
    return Decision(best=best.number, reason=reason, refused=refused, stopped=stopped)


def strange(standing: Standing, *, start: Standing, config: StopConfig) -> str:
    """A round -> why it may not be the best although its total error may be low, or ""."""
    limits = (
        ("hallucination", standing.hallucination - start.hallucination, config.max_more_hallucination),
        ("repetition", standing.repetition - start.repetition, config.max_more_repetition),
        ("captions that never end", standing.collapse - start.collapse, config.max_more_collapse),
    )
    for name, more, limit in limits:
        if more > limit:
            return f"{name} {more:+.3f} against the start, above {limit:+.3f}"
    ratio = standing.words / start.words if start.words else 1.0
    if not config.min_words_ratio <= ratio <= config.max_words_ratio:
        return (
            f"captions {ratio:.2f} times as long as at the start, outside {config.min_words_ratio} to "
            f"{config.max_words_ratio}"
        )
    return ""


def describe(standing: Standing) -> str:
    """A standing -> one line."""
    return (
        f"round {standing.number}: total error {standing.total_error:.3f} (missing {standing.missing:.3f}, "
        f"hallucination {standing.hallucination:.3f}), repetition {standing.repetition:.3f}, {standing.words:.0f} words"
    )


def read_standings(out_dir: Path) -> list[Standing]:
    """Folder of rounds -> the standings of those that have been measured, in order."""
    standings = []
    for folder in sorted(out_dir.glob("round-*"), key=lambda path: int(path.name.removeprefix("round-"))):
        if (folder / STANDING).exists():
            standings.append(from_json((folder / STANDING).read_text(encoding="utf-8"), Standing))
    if not standings:
        raise UserError(f"{out_dir}: got no measured round, wanted a folder of avcap rounds run")
    return standings


# --- files ------------------------------------------------------------------------------------------------------------


def _check_samples(
    samples: Sequence[Sample], held_out: Sequence[Sample], *, config: RoundsConfig, say: Callable[[str], None]
) -> None:
    """UserError for samples that cannot be judged, or that are learnt and measured on both."""
    if not samples or not held_out:
        raise UserError(f"got {len(samples)} samples to learn on, {len(held_out)} to measure on, wanted some of each")
    without = [sample.sample_id for sample in (*samples, *held_out) if not sample.events]
    if without:
        raise UserError(f"{len(without)} samples have no events, the first is {without[0]}; see avcap events extract")
    if both := {sample.video for sample in samples} & {sample.video for sample in held_out}:
        raise UserError(f"{len(both)} videos are learnt and measured on, the first is {min(both)}; keep them apart")
    num_guided = sum(bool(sample.reference_caption) for sample in samples)
    if num_guided < len(samples) and any(config.guidance):
        say(f"{len(samples) - num_guided} of {len(samples)} samples have no reference caption: no guidance from them")


def _whole_lines(path: Path) -> Iterator[str]:
    """Lines of a file, if it is there; a torn last one is what a killed process leaves, and is passed over."""
    if path.exists():
        with open(path, encoding="utf-8") as handle:
            yield from (line for line in handle.readlines() if line.endswith("\n") and line.strip())


def _write_json(path: Path, data: Any) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]

