"""`avcap pairs`: preference pairs from judged captions, and their way to other trainers and back."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from avcap.captioners import find_source
from avcap.cli.app import App, app, say, tell
from avcap.cli.engines import (
    CONCURRENCY,
    AllowDroppedAudio,
    EngineFlags,
    EnginePrices,
    SharedBudget,
    SharedConcurrency,
    SharedTimeout,
    budget_of,
)
from avcap.cli.engines import TIMEOUT_S as ENGINE_TIMEOUT_S
from avcap.cli.evaluate import TRUTH_FILE
from avcap.cli.judges import TIMEOUT_S, JudgeOptions, JudgeProtocol, open_judge, read_calibration
from avcap.cli.model_help import ANY_MODEL, WEIGHTS
from avcap.cli.outputs import check_records, write_records
from avcap.cli.round_data import claim_run, clause_reader
from avcap.cli.sample import NUM_CAPTIONS, TEMPERATURE, sample_to_file, sampling_request
from avcap.cli.train import find_recipe, overrides
from avcap.config import override, parse_assignments
from avcap.errors import UserError
from avcap.files.lock import lock_folder
from avcap.infer.caption_file import read_rows
from avcap.infer.find_checkpoint import find_checkpoint
from avcap.judge.inputs.ingest import SampleIndex, Truth, WrittenCaption, read_truth
from avcap.judge.protocols.registry import AVCAP_1
from avcap.judge.types import Case
from avcap.preference.clauses import compare_clauses
from avcap.preference.formats import FLAVOURS, export_pairs, import_pairs
from avcap.preference.select import PairConfig, above_noise, report_text, select_pairs
from avcap.preference.world_clauses import read_world_clauses
from avcap.records import Caption, CaptionError, PreferencePair, Unscored, Verdict, read_jsonl
from avcap.world.oracle import JUDGE_NAME

pairs_app = App(help="Preference pairs of judged captions.", no_args_is_help=True)
app.add_typer(pairs_app, name="pairs")

Flavours = ", ".join(FLAVOURS)
REPLIES = Path("replies.sqlite")


@pairs_app.command("build", no_args_is_help=True)
def build_pairs(
    truth: Annotated[
        Path,
        typer.Option(metavar="FILE|DIR", help="Events and reference captions of the videos, or the folder of a world."),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.jsonl", help="Write the pairs to this file.")],
    captions: Annotated[
        list[Path] | None,
        typer.Argument(metavar="CAPTIONS...", help="Several captions of each video (JSONL of avcap sample)."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help=f"Caption the videos of the truth first, with this: {ANY_MODEL}."),
    ] = None,
    num: Annotated[
        int, typer.Option("--num", "-n", help="Number of captions of each video, with --model.")
    ] = NUM_CAPTIONS,
    temperature: Annotated[float, typer.Option(help="Temperature of sampling, with --model.")] = TEMPERATURE,
    judge: Annotated[str, typer.Option(help="oracle (of a world), openai:MODEL@URL or local:PATH.")] = JUDGE_NAME,
    judge_protocol: JudgeProtocol = AVCAP_1,
    verdicts: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Use existing verdicts instead of a judge.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Calibration of the judge; margins within its noise make no pair."),
    ] = None,
    rule: Annotated[str, typer.Option(help="minimal or best_vs_worst.")] = "minimal",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Set a limit (see docs/rounds.md); repeatable."),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help=f"Replies are kept here: of an engine, and of an LLM judge (else in {REPLIES})."
        ),
    ] = None,
    budget: SharedBudget = None,
    timeout: SharedTimeout = None,
    prices: EnginePrices = None,
    concurrency: SharedConcurrency = CONCURRENCY,
    allow_dropped_audio: AllowDroppedAudio = False,
) -> None:
    """Choose at most one pair of captions for each prompt, and print what was dropped and why."""
    config = override(PairConfig(), {"rule": rule} | parse_assignments(set_ or []))
    if verdicts and calibration:
        raise UserError("got --calibration and --verdicts, expected one; give the margin as --set noise_margin=0.2")
    check_records(out, PreferencePair)
    known = read_truth(truth / TRUTH_FILE if truth.is_dir() else truth)
    if bool(captions) == (model is not None):
        raise UserError("got captions and --model, or neither; expected files of captions or a model that writes them")
    files, spending = list(captions or []), budget_of(budget)
    if model is not None:
        flags = EngineFlags(
            cache=cache,
            budget=spending,
            prices=prices,
            concurrency=concurrency,
            timeout_s=ENGINE_TIMEOUT_S if timeout is None else timeout,
            allow_dropped_audio=allow_dropped_audio,
        )
        files = [_sampled(known, model, flags, num=num, temperature=temperature, beside=out)]
    found = _captions_of(files, known)
    answers: list[Verdict | Unscored]
    if verdicts:
        answers = [verdict for path in verdicts for verdict in read_jsonl(path, Verdict)]
    else:
        options = JudgeOptions(
            spec=judge,
            protocol=judge_protocol,
            calibration=calibration,
            cache=cache or REPLIES,
            budget=spending,
            prices=prices,
            concurrency=concurrency,
            timeout_s=TIMEOUT_S if timeout is None else timeout,
        )
        with open_judge(options, truth=known) as opened:
            if calibration:
                config = above_noise(config, read_calibration(calibration, judge=opened.judge).noise_margin)
            answers = list(opened.judge.judge(_cases(found, known)))
    selection = select_pairs(found, verdicts=answers, samples=known.samples, config=config, read=clause_reader(known))
    write_records(out, selection.pairs, PreferencePair)
    tell(report_text(selection.report))
    say(f"written: {out}")


@pairs_app.command("show", no_args_is_help=True)
def show_pairs(
    pairs: Annotated[Path, typer.Argument(metavar="PAIRS.jsonl", help="Pairs of avcap pairs build.")],
    num: Annotated[int, typer.Option("--num", "-n", help="Number of pairs.")] = 5,
) -> None:
    """Print pairs: what only the chosen caption says (+) and what only the rejected caption says (-)."""
    read = list(read_jsonl(pairs, PreferencePair))
    tell("\n\n".join(_shown(pair) for pair in read[:num]))
    say(f"{min(num, len(read))} of {len(read)} pairs")


@pairs_app.command("export", no_args_is_help=True)
def export_file(
    pairs: Annotated[Path, typer.Argument(metavar="PAIRS.jsonl", help="Pairs of avcap pairs build.")],
    to: Annotated[str, typer.Option(metavar="FLAVOUR", help=f"{Flavours}.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Write the rows to this file.")],
) -> None:
    """Export pairs for another trainer."""
    exported = export_pairs(read_jsonl(pairs, PreferencePair), out, flavour=to)
    for reason, count in exported.left_out.items():
        say(f"{count} pairs left out: {reason}")
    if exported.remark:
        say(exported.remark)
    say(f"{exported.num_pairs} pairs written: {', '.join(map(str, exported.files))}")


@pairs_app.command("import", no_args_is_help=True)
def import_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Preference pairs of another trainer.")],
    out: Annotated[Path, typer.Option(metavar="FILE.jsonl", help="Write the pairs to this file.")],
    flavour: Annotated[str | None, typer.Option("--from", metavar="FLAVOUR", help=f"{Flavours}.")] = None,
) -> None:
    """Import pairs that were made for another trainer."""
    pairs = _imported(file, flavour)
    write_records(out, pairs, PreferencePair)
    say(f"{len(pairs)} pairs written: {out}")


@app.command("dpo", no_args_is_help=True)
def learn(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="tiny_dpo or salmonn2_7b_dpo.")],
    pairs: Annotated[Path, typer.Option(metavar="FILE", help="Pairs of avcap pairs build, or of another trainer.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the run. The same command resumes.")],
    model: Annotated[str, typer.Option(help=f"What to begin with: {WEIGHTS}.")] = "tiny-sft",
    videos: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the videos. Default: as the pairs name them.")
    ] = None,
    off_policy: Annotated[
        bool, typer.Option("--off-policy", help="Also learn from pairs that another model wrote.")
    ] = False,
    flavour: Annotated[
        str | None, typer.Option("--from", metavar="FLAVOUR", help=f"{Flavours}; our own if left out.")
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Set a field of the recipe; repeatable.")
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE.yaml", help="Set the fields in this file.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same as --set seed=N.")] = None,
) -> None:
    """Run one round of guided DPO on pairs from a file: train a LoRA and merge it."""
    values = overrides(recipe, config=config, assignments=assignments or [], seed=seed)
    parent = find_checkpoint(model, weights=False)
    found = [
        pair if videos is None else replace(pair, video=str(videos / pair.video))
        for pair in (read_jsonl(pairs, PreferencePair) if flavour is None else _imported(pairs, flavour))
    ]
    make_config = find_recipe(recipe)  # here torch comes in, and not before the arguments have been read

    from avcap.runs.dpo_from_file import DpoFromFileConfig, run_dpo_from_file

    resolved = override(make_config(), values)
    if not isinstance(resolved, DpoFromFileConfig):
        raise UserError(f"got the recipe {recipe}, expected one for pairs from a file, such as tiny_dpo")
    with lock_folder(out):
        claim_run(out, recipe, resolved, models=[parent])
        parent = find_checkpoint(parent)
        tell(run_dpo_from_file(parent, found, config=resolved, out_dir=out, allow_others=off_policy, say=say))


def _imported(file: Path, flavour: str | None) -> Sequence[PreferencePair]:
    """Pairs of another trainer; what is left out, or used otherwise than there, is said."""
    imported = import_pairs(file, flavour=flavour)
    for reason, count in imported.left_out.items():
        say(f"{count} rows left out: {reason}")
    if imported.num_audio_files:
        say(f"{imported.num_audio_files} rows name a sound file; the sound of the video itself is used instead")
    return imported.pairs


def _sampled(known: Truth, model: str, flags: EngineFlags, *, num: int, temperature: float, beside: Path) -> Path:
    """Captions the samples of the truth, several times each -> the file, which stands beside the pairs."""
    source = find_source(model)
    request = sampling_request(source, num=num, temperature=temperature)
    samples = [replace(sample, video=known.video_path(sample)) for sample in known.samples]
    path = beside.with_name(f"{beside.stem}.captions.jsonl")
    sample_to_file(source, flags, samples, request, out=path, num=num)
    return path


def _captions_of(paths: Sequence[Path], truth: Truth) -> list[Caption]:
    """Files of captions -> the captions, under the ids that their samples have in the truth."""
    index = SampleIndex(truth.samples)
    captions = []
    num_errors = 0
    for path in paths:
        for row in read_rows(path):
            if isinstance(row, CaptionError):
                num_errors += 1
                continue
            names = (row.sample_id, row.video)
            written = WrittenCaption(where=str(path), names=names, text=row.text, interval_s=row.interval_s)
            sample = index.find(written)
            captions.append(row if isinstance(sample, str) else replace(row, sample_id=sample.sample_id))
    if num_errors:
        say(f"{num_errors} rows have an error instead of a caption, and are passed over")
    return captions


def _cases(captions: Sequence[Caption], truth: Truth) -> list[Case]:
    """Captions -> what there is to judge; those whose sample is not known are told by the selection."""
    sample_of = {sample.sample_id: sample for sample in truth.samples}
    return [
        Case(caption_id=one.caption_id, sample=sample_of[one.sample_id], text=one.text, finished=one.finished)
        for one in captions
        if one.sample_id in sample_of
    ]


def _shown(pair: PreferencePair) -> str:
    """A pair -> its name, its errors, and the clauses in which it differs."""
    difference = compare_clauses(read_world_clauses(pair.chosen), read_world_clauses(pair.rejected))
    margin = "margin not known" if pair.margin is None else f"margin {pair.margin:.3f}"
    lines = [f"{pair.sample_id}  {margin}  {pair.prompt}"]
    for sign, errors, clauses in (
        ("+", pair.chosen_errors, difference.only_first),
        ("-", pair.rejected_errors, difference.only_second),
    ):
        if errors:
            lines.append(
                f"{sign} {errors.missing} missing, {errors.incorrect} incorrect, {errors.invented} invented, "
                f"{errors.repeated} repeated, of {errors.num_events} events"
            )
        lines += [f"    {sign} {clause}" for clause in clauses]
    return "\n".join(lines)
