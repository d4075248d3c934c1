"""Preference rounds on the example videos: the real model, real files, the exact judge; stopped and gone on with."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from avcap.data.feature_cache import FeatureCache
from avcap.data.qa_files import VideoQuestion
from avcap.errors import UserError
from avcap.evaluation import held_out as measuring
from avcap.evaluation.collect import ModelOpener
from avcap.evaluation.held_out import RoundMetrics
from avcap.infer.captioner import Captioner
from avcap.infer.find_checkpoint import find_checkpoint
from avcap.judge.inputs.ingest import read_truth
from avcap.judge.metrics.answers import is_right
from avcap.judge.oracle import OracleJudge
from avcap.model.average import read_weights
from avcap.model.lora import BLOCK_OF, LoraConfig
from avcap.preference.round_data import RoundData
from avcap.preference.select import PairConfig
from avcap.records import (
    Caption,
    Decoding,
    Event,
    PreferencePair,
    Sample,
    Seen,
    Unscored,
    Verdict,
    read_jsonl,
    to_json,
    write_jsonl,
)
from avcap.run_folder import measured_model, set_aside
from avcap.stages import rounds
from avcap.stages.parts.drawing import SamplingConfig
from avcap.stages.parts.selection import StopConfig, decide
from avcap.stages.rounds import RoundsConfig, run_rounds
from avcap.train.optim import OptimConfig
from avcap.train.pair_examples import PairBatches
from avcap.train.preference_steps import DpoConfig, ReplayConfig
from avcap.train.weight_regularizer import WeightRegularizerConfig

EXAMPLES = Path(__file__).parents[2] / "examples" / "truth.jsonl"
CONFIG = RoundsConfig(
    num_rounds=1,
    sampling=SamplingConfig(num_prompts=6, local_share=0.5, captions_per_prompt=6, temperature=1.0),
    pairs=PairConfig(rule="best_vs_worst", min_gap=0.01, min_length_ratio=0.1, max_length_ratio=10.0),
    dpo=DpoConfig(
        lora=LoraConfig(rank=4, alpha=8, dropout=0.0, targets=tuple(BLOCK_OF)),
        epochs=3,
        batch_size=2,
        optim=OptimConfig(lr=1e-3, muon_lr=None, warmup_steps=1),
        checkpoint_every=1,
    ),
    guidance=(0.5,),
)


@pytest.fixture(scope="module")
def truth():
    return read_truth(EXAMPLES)


@pytest.fixture(scope="module")
def judge(truth):
    return OracleJudge(truth.worlds.values())


@pytest.fixture(scope="module")
def samples(truth):
    found = [replace(sample, video=truth.video_path(sample)) for sample in truth.samples if sample.events]
    held_out = found[-1].video
    learn = [sample for sample in found if sample.video != held_out]
    return learn, [sample for sample in found if sample.video == held_out]


def go(samples, judge, out_dir: Path, *, config: RoundsConfig = CONFIG) -> Path:
    learn, held_out = samples
    parent = find_checkpoint("tiny-sft")
    round_data = RoundData(samples=learn, held_out=held_out)
    return run_rounds(parent, config=config, round_data=round_data, judge=judge, out_dir=out_dir)


@pytest.fixture(scope="module")
def whole(samples, judge, tmp_path_factory) -> Path:
    """A run that nothing disturbed."""
    out_dir = tmp_path_factory.mktemp("whole")
    go(samples, judge, out_dir)
    return out_dir


PAIRED = ("captions.jsonl", "verdicts.jsonl", "pairs.jsonl")
"""What a round has before it learns."""


@pytest.fixture
def begun(whole, tmp_path):
    """-> function: round 1's files -> the folder of a run that stopped after them, so that only the rest is run.

    It always has the encoded videos, and the first model measured.
    """

    def begin(*files: str, folder: Path = tmp_path) -> Path:
        for name in ("features", "round-0"):
            shutil.copytree(whole / name, folder / name)
        (folder / "round-1").mkdir()
        for name in files:
            shutil.copy(whole / "round-1" / name, folder / "round-1" / name)
        return folder

    return begin


def weights(out_dir: Path, *, round_number: int = 1) -> dict:
    return load_file(out_dir / f"round-{round_number}" / "checkpoint" / "model.safetensors")


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


# --- a round ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_round_begins_among_equals_and_ends_with_the_chosen_ahead(whole):
    lines = [json.loads(line) for line in (whole / "round-1" / "train" / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "preference" in line]
    # policy = reference: every margin is 0, and -log sigmoid(0) = ln 2 = 0.6931
    assert steps[0]["preference"] == pytest.approx(math.log(2), abs=1e-4)
    assert steps[0]["loss"] == pytest.approx(math.log(2) + 0.5 * steps[0]["guidance"], abs=1e-4)
    assert steps[-1]["rewards/margins"] > 0 and steps[-1]["preference"] < steps[0]["preference"]


def test_a_round_leaves_all_its_records(whole):
    folder = whole / "round-1"
    captions = list(read_jsonl(folder / "captions.jsonl", Caption))
    verdicts = list(read_jsonl(folder / "verdicts.jsonl", Verdict))
    pairs = list(read_jsonl(folder / "pairs.jsonl", PreferencePair))
    assert len(captions) == 6 * 6 == len({caption.caption_id for caption in captions})
    assert [verdict.caption_id for verdict in verdicts] == [caption.caption_id for caption in captions]
    assert 1 <= len(pairs) <= 6 and all(pair.margin > 0 for pair in pairs)
    assert "pairs" in (folder / "selection.txt").read_text()
    lineage = json.loads((folder / "checkpoint" / "lineage.json").read_text())
    assert lineage["stage"] == "rounds" and lineage["round"] == 1 and lineage["parent"].startswith("tiny-sft")


def test_the_merged_model_is_a_captioner_like_its_parent(whole, samples):
    _, held_out = samples
    captioner = Captioner(whole / "round-1" / "checkpoint")
    assert captioner.settings == Captioner("tiny-sft").settings and captioner.encoder.world_check is not None
    assert captioner.caption(held_out[0].video).text
    names = weights(whole).keys()
    assert names == read_weights(find_checkpoint("tiny-sft") / "model.safetensors").keys()  # no LoRA is left in it


def test_only_the_language_model_learns(whole):
    before, after = read_weights(find_checkpoint("tiny-sft") / "model.safetensors"), weights(whole)
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed and all(name.startswith("language_model.model.layers.") for name in changed)
    assert {name.split(".")[-2] for name in changed} == set(BLOCK_OF)


# --- stopped and gone on with -----------------------------------------------------------------------------------------


class Stopped(Exception):
    pass


@pytest.mark.parametrize(
    "where",
    ["training", *(pytest.param(w, marks=pytest.mark.slow) for w in ("sampling", "judging", "merging", "measuring"))],
)
def test_a_stopped_run_ends_with_the_same_weights(where, whole, begun, samples, judge, monkeypatch):
    out_dir = begun()
    with monkeypatch.context() as patch:
        _stop(where, patch)
        with pytest.raises(Stopped):
            go(samples, judge, out_dir)
    assert not (out_dir / "round-1" / "round_metrics.json").exists()
    go(samples, judge, out_dir)
    assert same(weights(whole), weights(out_dir))
    for name in PAIRED:
        assert (out_dir / "round-1" / name).read_bytes() == (whole / "round-1" / name).read_bytes()


def _stop(where: str, patch) -> None:
    """Makes the next run stop in the middle of something, as a kill would: with half a line written where it writes."""

    def stop_after(round_number: int, items):
        for count, item in enumerate(items):
            if count == round_number:
                raise Stopped
            yield item

    if where == "sampling":
        sample = Captioner.sample
        patch.setattr(Captioner, "sample", lambda *a, **k: stop_after(8, sample(*a, **k)))  # in the second prompt
    elif where == "judging":
        real = OracleJudge.judge
        patch.setattr(OracleJudge, "judge", lambda self, cases: stop_after(9, real(self, cases)))
    elif where == "training":
        from avcap.train import preference_steps as steps

        real_loss = steps.preference_loss
        calls = iter(range(100))
        patch.setattr(steps, "preference_loss", lambda *a, **k: real_loss(*a, **k) if next(calls) < 3 else _raise())
    elif where == "merging":
        patch.setattr(rounds._Round, "_save", lambda *a, **k: _raise())
    else:
        real_evaluate = measuring.evaluate
        patch.setattr(
            measuring, "evaluate", lambda *a, **k: _raise() if k["captioner"] == "round 1" else real_evaluate(*a, **k)
        )


def _raise():
    raise Stopped


@pytest.mark.slow
def test_half_a_line_is_written_again(whole, begun, samples, judge):
    folder = begun() / "round-1"
    lines = (whole / "round-1" / "captions.jsonl").read_text().splitlines(keepends=True)
    (folder / "captions.jsonl").write_text("".join(lines[:8]) + lines[8][:40])  # one prompt whole, one torn
    go(samples, judge, folder.parent)
    assert (folder / "captions.jsonl").read_text() == "".join(lines)


def test_a_finished_run_does_nothing_again(whole, samples, judge, monkeypatch):
    monkeypatch.setattr(Captioner, "sample", lambda *a, **k: _raise())
    monkeypatch.setattr(rounds, "dpo", lambda *a, **k: _raise())
    before = {path: path.read_bytes() for path in whole.rglob("*.json*")}
    best = json.loads((whole / "decision.json").read_text())["best"]
    assert go(samples, judge, whole) == (whole / "round-1" / "checkpoint" if best else find_checkpoint("tiny-sft"))
    assert before and {path: path.read_bytes() for path in whole.rglob("*.json*")} == before


# --- options of a recipe ----------------------------------------------------------------------------------------------


def questions_of(truth, videos: set[str]):
    from avcap.cli import round_data

    return [question for question in round_data.questions_of(truth, None) if question.video in videos]


def metrics_of(out_dir: Path, round_number: int) -> list[dict]:
    return [
        json.loads(line) for line in (out_dir / f"round-{round_number}/train/metrics.jsonl").read_text().splitlines()
    ]


@pytest.mark.slow
def test_a_kept_lora_goes_on_against_the_first_model(begun, samples, judge):
    config = replace(CONFIG, reset_lora=False, num_rounds=2, stop=StopConfig(patience=9))
    out_dir = begun(*PAIRED)
    go(samples, judge, out_dir, config=config)
    adapters = [load_file(out_dir / f"round-{n}/train/adapter.safetensors") for n in (1, 2)]
    start, last = read_weights(find_checkpoint("tiny-sft") / "model.safetensors"), weights(out_dir, round_number=2)
    name = next(name for name in adapters[1] if "q_proj" in name and "lora_A" in name)
    matrix = name.partition(".lora_A")[0] + ".weight"
    a, b = adapters[1][name], adapters[1][name.replace("lora_A", "lora_B")]
    # merged into the first model, not into round 1's: W + alpha / r B A with alpha / r = 8 / 4
    assert last[matrix].allclose(start[matrix] + 2 * b @ a, atol=1e-6)
    assert not adapters[0][name].equal(a)
    # it does not begin among equals
    assert abs(metrics_of(out_dir, 2)[0]["rewards/margins"]) > 1e-3


@pytest.mark.slow
def test_questions_are_replayed_and_selection_the_rounds(samples, judge, truth, tmp_path):
    learn, held_out = samples
    round_data = RoundData(
        samples=learn,
        held_out=held_out,
        questions=questions_of(truth, {sample.video for sample in learn}),
        held_out_questions=questions_of(truth, {held_out[0].video}),
    )
    config = replace(
        CONFIG,
        dpo=replace(CONFIG.dpo, replay=ReplayConfig(weight=0.5, batch_size=3)),
        average=True,
        sampling=replace(CONFIG.sampling, num_questions=(8,)),
    )
    parent = find_checkpoint("tiny-sft")
    run_rounds(parent, config=config, round_data=round_data, judge=judge, out_dir=tmp_path)
    first = metrics_of(tmp_path, 1)[0]
    assert first["loss"] == pytest.approx(math.log(2) + 0.5 * first["guidance"] + first["replay"], abs=1e-4)
    round_metrics = json.loads((tmp_path / "round-1/round_metrics.json").read_text())
    kinds = {question.kind for question in round_data.held_out_questions}
    assert set(round_metrics["questions_by_kind"]) == kinds and 0 <= round_metrics["questions"] <= 1
    # 8 questions, 6 answers each; a pair where one is wrong, chosen right
    answers = list(read_jsonl(tmp_path / "round-1/answers.jsonl", Caption))
    assert len(answers) == 8 * 6
    by_id = {question.question_id: question for question in round_data.questions}
    pairs = [pair for pair in read_jsonl(tmp_path / "round-1/pairs.jsonl", PreferencePair) if pair.sample_id in by_id]
    wrong = {one.sample_id for one in answers if one.text and not is_right(one.text, by_id[one.sample_id])}
    assert wrong and [pair.sample_id for pair in pairs] == list(
        dict.fromkeys(one.sample_id for one in answers if one.sample_id in wrong)
    )
    for pair in pairs:
        question = by_id[pair.sample_id]
        assert is_right(pair.chosen, question) and not is_right(pair.rejected, question)
    # what is measured is the mean of the parent and the round
    mean, after = (load_file(tmp_path / "round-1" / name / "model.safetensors") for name in ("average", "checkpoint"))
    before = read_weights(parent / "model.safetensors")
    assert all(mean[name].allclose((before[name] + after[name]) / 2, atol=1e-6) for name in mean)


def test_replay_without_questions_is_an_error(begun, samples, judge):
    config = replace(CONFIG, dpo=replace(CONFIG.dpo, replay=ReplayConfig(weight=1.0)))
    with pytest.raises(UserError, match="no questions"):
        go(samples, judge, begun(*PAIRED), config=config)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["l2", "ewc"])
def test_an_weight_regularizer_holds_weights_of_full_fine_tuning(kind, begun, samples, judge, truth, tmp_path):
    learn, held_out = samples
    moved = []
    for weight in (1e-9, 1e3):
        dpo = replace(CONFIG.dpo, full=True, weight_regularizer=WeightRegularizerConfig(kind=kind, weight=weight))
        round_data = RoundData(
            samples=learn, held_out=held_out, questions=questions_of(truth, {sample.video for sample in learn})
        )
        run_rounds(
            find_checkpoint("tiny-sft"),
            config=replace(CONFIG, dpo=dpo),
            round_data=round_data,
            judge=judge,
            out_dir=begun(*PAIRED, folder=tmp_path / f"{weight}"),
        )
        before, after = read_weights(find_checkpoint("tiny-sft") / "model.safetensors"), weights(tmp_path / f"{weight}")
        moved.append(sum((after[name] - before[name]).square().sum().item() for name in before))
    assert 0 < moved[1] < 0.9 * moved[0]


@pytest.mark.slow
def test_rounds_are_set_aside_and_made_anew(whole, samples, judge, tmp_path):
    shutil.copytree(whole, tmp_path / "rounds")
    place = set_aside(tmp_path / "rounds", first=1)
    assert place and (place / "round-1" / "checkpoint").is_dir() and not (tmp_path / "rounds" / "round-1").exists()
    assert (tmp_path / "rounds" / "round-0").is_dir() and set_aside(tmp_path / "rounds", first=1) is None
    go(samples, judge, tmp_path / "rounds")
    assert same(weights(whole), weights(tmp_path / "rounds"))


# --- what cannot go on ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_judge_that_is_down_stops_the_round_and_keeps_what_was_paid(begun, samples, judge):
    class Failing:
        name, prompt_version = "oracle", ""

        def __init__(self, num_right: int):
            self.num_right = num_right

        def judge(self, cases):
            for case, verdict in zip(cases, judge.judge(cases), strict=True):
                self.num_right -= 1
                yield verdict if self.num_right >= 0 else Unscored(caption_id=case.caption_id, reason="no answer")

    out_dir = begun("captions.jsonl")
    with pytest.raises(UserError, match=r"26 of 36 captions have no verdict.*no answer.*10 verdicts are kept"):
        go(samples, Failing(10), out_dir)
    assert len((out_dir / "round-1" / "verdicts.jsonl").read_text().splitlines()) == 10
    go(samples, judge, out_dir)


def test_no_pairs_is_an_error_that_says_why(begun, samples, judge):
    config = replace(CONFIG, pairs=PairConfig(min_gap=100.0))
    with pytest.raises(UserError, match="min_gap"):
        go(samples, judge, begun("captions.jsonl"), config=config)


def test_videos_are_not_learned_and_measured_on(samples, judge, tmp_path):
    with pytest.raises(UserError, match="learned and measured"):
        go((samples[0], samples[0]), judge, tmp_path)


def test_samples_without_events_are_named(samples, judge, tmp_path):
    learn, held_out = samples
    with pytest.raises(UserError, match=f"1 samples have no events, the first is {learn[0].sample_id}"):
        go(([replace(learn[0], events=()), *learn[1:]], held_out), judge, tmp_path)


# --- parts of a round, without a model --------------------------------------------------------------------------------

EVENT = Event(event_id="0", text="", modality="visual")
WHOLE = [Sample(sample_id=f"whole-{i}", video=f"{i}.mp4", prompt="", events=(EVENT,)) for i in range(20)]
LOCAL = [
    replace(sample, sample_id=f"local-{i}", interval_s=(1.0, 3.0), reference_caption="Rain falls.")
    for i, sample in enumerate(WHOLE[:10])
]
HELD_OUT = [replace(WHOLE[0], sample_id="held-out", video="held-out.mp4")]
JUDGE = OracleJudge([])


def test_dials_by_round_end_with_one_that_holds_on():
    config = RoundsConfig(guidance=(0.0, 0.1, 0.3))
    assert [config.guidance_of(round_number) for round_number in (1, 2, 3, 4, 9)] == [0.0, 0.1, 0.3, 0.3, 0.3]


@pytest.mark.parametrize(
    ("fields", "name"),
    [({"guidance": ()}, "guidance"), ({"sampling": SamplingConfig(num_questions=())}, "sampling.num_questions")],
)
def test_dials_by_round_need_a_number(fields, name):
    with pytest.raises(UserError, match=f"{name}: got an empty list"):
        RoundsConfig(**fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": ()}, "got 0 samples to learn on, 1 to measure on"),
        ({"held_out": ()}, "got 20 samples to learn on, 0 to measure on"),
        ({"held_out": [replace(HELD_OUT[0], events=())]}, "1 samples have no events, the first is held-out"),
        # a video of a question counts as one of a sample, on both sides
        ({"questions": ("held-out.mp4",)}, "1 videos are learned and measured on, the first is held-out.mp4"),
        ({"held_out_questions": ("3.mp4", "2.mp4")}, "2 videos are learned and measured on, the first is 2.mp4"),
        ({"questions": ("q.mp4",), "held_out_questions": ("q.mp4",)}, "1 videos are learned and measured on"),
    ],
)
def test_round_data_that_cannot_be_learned_from_is_refused_before_a_model_is_loaded(change, message, tmp_path):
    for name in ("questions", "held_out_questions"):
        if name in change:
            change[name] = [question(video, video=video) for video in change[name]]
    round_data = replace(RoundData(samples=WHOLE, held_out=HELD_OUT), **change)
    with pytest.raises(UserError, match=message):
        run_rounds(Path("nowhere"), config=CONFIG, round_data=round_data, judge=JUDGE, out_dir=tmp_path)


def question(name: str, *, video: str = "0.mp4") -> VideoQuestion:
    return VideoQuestion(question_id=name, video=video, kind="who", text="Who rings?", answer="a bell")


def write_round_metrics(out_dir: Path, *totals: float) -> None:
    """Rounds 0, 1, ... as they are left when they are whole, with these total errors."""
    for index, total in enumerate(totals):
        folder = out_dir / f"round-{index}"
        (folder / "checkpoint").mkdir(parents=True)
        (folder / "done.json").write_text("{}")
        (folder / "round_metrics.json").write_text(to_json(replace(START, round_number=index, total_error=total)))


def finish(out_dir: Path, *, samples=WHOLE, **fields) -> tuple[Path, list[str]]:
    """Goes on with rounds that are whole -> the best model, and what is said."""
    said: list[str] = []
    best = run_rounds(
        Path("parent"),
        config=replace(CONFIG, **fields),
        round_data=RoundData(samples=samples, held_out=HELD_OUT),
        judge=JUDGE,
        out_dir=out_dir,
        say=said.append,
    )
    return best, said


def test_the_best_round_is_given_back_and_rounds_after_the_last_are_not_run(tmp_path):
    write_round_metrics(tmp_path, 0.5, 0.4, 0.45, 0.41)
    # patience 2: after rounds 2 and 3 without a new best there is no round 4, although 6 are allowed
    best, said = finish(tmp_path, num_rounds=6, stop=StopConfig(patience=2))
    assert best == tmp_path / "round-1" / "checkpoint"
    assert said[-1].startswith("best: round 1; total error 0.400, -0.100 against the start")
    decision = json.loads((tmp_path / "decision.json").read_text())
    assert (decision["best"], decision["stopped"]) == (1, True)
    # the mean with the model before it, where that is what was measured
    (tmp_path / "round-1" / "average").mkdir()
    assert finish(tmp_path, num_rounds=3)[0] == tmp_path / "round-1" / "average"
    assert measured_model(tmp_path / "round-2") == tmp_path / "round-2" / "checkpoint"


def test_where_no_round_is_better_the_parent_is_given_back(tmp_path):
    write_round_metrics(tmp_path, 0.5, 0.6)
    assert finish(tmp_path, num_rounds=1)[0] == Path("parent")


def test_each_round_begins_with_the_model_that_the_one_before_it_left(tmp_path, monkeypatch):
    write_round_metrics(tmp_path, 0.5, 0.4, 0.3, 0.2)
    (tmp_path / "round-1" / "average").mkdir()  # measured, but the next round does not begin with it
    begun = []
    monkeypatch.setattr(rounds._Round, "run", lambda self: begun.append((self.round_number, self.start, self.before)))
    finish(tmp_path, num_rounds=3)
    parent = Path("parent")
    assert begun == [
        (1, parent, parent),
        (2, parent, tmp_path / "round-1/checkpoint"),
        (3, parent, tmp_path / "round-2/checkpoint"),
    ]


def test_samples_without_a_reference_caption_are_counted_where_there_is_guidance(tmp_path):
    write_round_metrics(tmp_path, 0.5, 0.4)
    warning = "20 of 30 samples have no reference caption: no guidance from them"
    assert warning in finish(tmp_path, samples=[*WHOLE, *LOCAL], guidance=(0.0, 0.1))[1]
    assert warning not in finish(tmp_path, samples=[*WHOLE, *LOCAL], guidance=(0.0,))[1]
    assert not any("no reference caption" in line for line in finish(tmp_path, samples=LOCAL)[1])


def test_rounds_from_one_on_are_set_aside_with_what_was_decided_of_them(tmp_path):
    write_round_metrics(tmp_path, *(0.5,) * 11)
    for name in ("decision.json", "config.yaml", "notes.txt"):
        (tmp_path / name).write_text(name)
    first = set_aside(tmp_path, first=9)  # 10 comes after 9, and not after 1
    assert first == tmp_path / "set-aside" / "1"
    assert {path.name for path in first.iterdir()} == {"round-9", "round-10", "decision.json", "config.yaml"}
    assert (tmp_path / "round-8").is_dir() and not (tmp_path / "round-9").exists() and (tmp_path / "notes.txt").exists()
    second = set_aside(tmp_path, first=8)
    assert second == tmp_path / "set-aside" / "2" and {path.name for path in second.iterdir()} == {"round-8"}


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner("tiny-sft")


def round_of(round_number: int, folder: Path, *, questions=(), **fields) -> rounds._Round:
    return rounds._Round(
        round_number=round_number,
        start=Path("parent"),
        before=Path("before"),
        folder=folder,
        config=replace(CONFIG, **fields),
        round_data=RoundData(samples=WHOLE, held_out=HELD_OUT, questions=questions),
        judge=JUDGE,
        models=ModelOpener(features=FeatureCache(folder / "features")),
        say=lambda line: None,
    )


def test_of_the_answers_to_a_question_a_right_one_is_chosen_and_the_most_frequent_wrong_one_rejected(
    captioner, tmp_path
):
    told = {
        "some right": ["", "a drum", "a flute", "the bell", "a flute", ""],  # silence is as frequent, but no answer
        "none right": ["a drum"] * 6,
        "all right": ["a bell"] * 6,
        "silent": [""] * 6,
    }
    write_jsonl(
        tmp_path / "answers.jsonl",
        (
            Caption(
                caption_id=f"{name}/{i}",
                sample_id=name,
                video="0.mp4",
                prompt="Who rings?",
                text=text,
                checkpoint="tiny-sft",
                decoding=Decoding(max_new_tokens=9),
                finished=True,
                duration_s=8.0,
                seen=Seen(frames=8, audio_seconds=8.0, visual_tokens=48, audio_tokens=16),
            )
            for name, texts in told.items()
            for i, text in enumerate(texts)
        ),
    )
    sampling = replace(CONFIG.sampling, num_questions=(9,))
    one = round_of(1, tmp_path, questions=[question(name) for name in told], sampling=sampling)
    pairs = {pair.sample_id: (pair.chosen, pair.rejected) for pair in one._question_pairs(captioner)}
    # where none was right, the answer of the file is chosen
    assert pairs == {"some right": ("the bell", "a flute"), "none right": ("a bell", "a drum")}


# --- the stop rule ----------------------------------------------------------------------------------------------------

START = RoundMetrics(
    round_number=0,
    total_error=0.5,
    global_error=0.5,
    local_error=0.5,
    missing=0.4,
    hallucination=0.1,
    repetition=0.1,
    truncated=0.0,
    words=50.0,
    distinct=0.6,
    perplexity=2.0,
    questions=0.8,
)


def all_metrics(*totals: float, **fields) -> list[RoundMetrics]:
    return [START, *(replace(START, round_number=i, total_error=t, **fields) for i, t in enumerate(totals, start=1))]


def test_a_swing_does_not_stop_the_rounds():
    decision = decide(all_metrics(0.40, 0.42, 0.35, 0.37), StopConfig(patience=2))
    assert decision.best == 3 and not decision.stopped


def test_rounds_stop_when_none_was_better_for_long():
    decision = decide(all_metrics(0.40, 0.42, 0.399), StopConfig(patience=2, min_gain=0.005))
    assert decision.best == 1 and decision.stopped  # 0.399 is better than 0.40 by less than 0.005


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"hallucination": 0.13}, "hallucination"),  # 0.13 - 0.10 = 0.03 > 0.02
        ({"repetition": 0.13}, "repetition"),
        ({"truncated": 0.03}, "never end"),
        ({"words": 20.0}, "0.40 times as"),
        ({"words": 100.0}, "2.00 times as"),
        ({"distinct": 0.3}, "distinct 4-grams: 0.50 times"),  # 0.3 / 0.6
        ({"perplexity": 8.0}, "perplexity: 4.00 times"),  # 8 / 2
        ({"questions": 0.77}, "questions answered right -0.030"),  # 0.80 - 0.77 > 0.02
    ],
)
def test_a_round_that_got_rejected_is_not_the_best(fields, why):
    decision = decide(all_metrics(0.2, **fields), StopConfig())
    assert decision.best == 0 and why in decision.refused[1]


def test_every_pair_is_seen_once_an_epoch_in_another_order():
    pairs = [PreferencePair(sample_id=str(i), video="", prompt="", chosen="", rejected="") for i in range(7)]
    batches = PairBatches(pairs=pairs, batch_size=3, seed=0)
    assert batches.steps_per_epoch == 3  # 3 + 3 + 1
    epochs = [[p.sample_id for step in range(3 * e, 3 * e + 3) for p in batches.pairs_of(step)] for e in (0, 1)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == [str(i) for i in range(7)] and epochs[0] != epochs[1]
