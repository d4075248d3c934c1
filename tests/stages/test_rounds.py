"""Preference rounds on the example videos: the real model, real files, the exact judge; stopped and gone on with."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from avcap.errors import UserError
from avcap.infer.captioner import Captioner
from avcap.infer.shipped import find_checkpoint
from avcap.judge.answers import is_right
from avcap.judge.ingest import read_truth
from avcap.judge.oracle import OracleJudge
from avcap.judge.pairs import PairConfig
from avcap.model.lora import BLOCK_OF, LoraConfig
from avcap.records import Caption, PreferencePair, Unscored, Verdict, read_jsonl
from avcap.stages import gate, rounds
from avcap.stages.gate import Standing, StopConfig, decide
from avcap.stages.prefer import PairBatches, PreferConfig, ReplayConfig
from avcap.stages.rounds import Material, RoundsConfig, SamplingConfig, run_rounds, set_aside
from avcap.train.anchor import AnchorConfig
from avcap.train.optim import OptimConfig

EXAMPLES = Path(__file__).parents[2] / "examples" / "truth.jsonl"
CONFIG = RoundsConfig(
    num_rounds=1,
    sampling=SamplingConfig(num_prompts=6, local_share=0.5, captions_per_prompt=6, temperature=1.0),
    pairs=PairConfig(rule="best_vs_worst", min_gap=0.01, min_length_ratio=0.1, max_length_ratio=10.0),
    prefer=PreferConfig(
        lora=LoraConfig(rank=4, alpha=8, dropout=0.0, targets=tuple(BLOCK_OF)), epochs=3, batch_size=2,
        optim=OptimConfig(lr=1e-3, muon_lr=None, warmup_steps=1), checkpoint_every=1,
    ),
    guidance=(0.5,),
)  # fmt: skip


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
    material = Material(samples=learn, held_out=held_out)
    return run_rounds(parent, config=config, material=material, judge=judge, out_dir=out_dir)


@pytest.fixture(scope="module")
def whole(samples, judge, tmp_path_factory) -> Path:
    """A run that nothing disturbed."""
    out_dir = tmp_path_factory.mktemp("whole")
    go(samples, judge, out_dir)
    return out_dir


def weights(out_dir: Path, *, number: int = 1) -> dict:
    return load_file(out_dir / f"round-{number}" / "checkpoint" / "model.safetensors")


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


# --- a round ----------------------------------------------------------------------------------------------------------


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
    assert captioner.settings == Captioner("tiny-sft").settings and captioner.world_check is not None
    assert captioner.caption(held_out[0].video).text
    names = weights(whole).keys()
    assert names == load_file(find_checkpoint("tiny-sft") / "model.safetensors").keys()  # no LoRA is left in it


def test_only_the_language_model_learns(whole):
    before, after = load_file(find_checkpoint("tiny-sft") / "model.safetensors"), weights(whole)
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed and all(name.startswith("language_model.model.layers.") for name in changed)
    assert {name.split(".")[-2] for name in changed} == set(BLOCK_OF)


# --- stopped and gone on with -----------------------------------------------------------------------------------------


class Stopped(Exception):
    pass


@pytest.mark.parametrize("where", ["sampling", "judging", "training", "merging", "measuring"])
def test_a_stopped_run_ends_with_the_same_weights(where, whole, samples, judge, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        _stop(where, patch)
        with pytest.raises(Stopped):
            go(samples, judge, tmp_path)
    assert not (tmp_path / "round-1" / "standing.json").exists()
    go(samples, judge, tmp_path)
    assert same(weights(whole), weights(tmp_path))
    for name in ("captions.jsonl", "verdicts.jsonl", "pairs.jsonl"):
        assert (tmp_path / "round-1" / name).read_bytes() == (whole / "round-1" / name).read_bytes()


def _stop(where: str, patch) -> None:
    """Makes the next run stop in the middle of something, as a kill would: with half a line written where it writes."""

    def stop_after(number: int, items):
        for count, item in enumerate(items):
            if count == number:
                raise Stopped
            yield item

    if where == "sampling":
        sample = Captioner.sample
        patch.setattr(Captioner, "sample", lambda *a, **k: stop_after(8, sample(*a, **k)))  # in the second prompt
    elif where == "judging":
        real = OracleJudge.judge
        # the four captions held out are judged first, one call for each measure
        patch.setattr(OracleJudge, "judge", lambda self, cases: stop_after(9, real(self, cases)))
    elif where == "training":
        from avcap.stages import prefer

        real_loss = prefer.preference_loss
        calls = iter(range(100))
        patch.setattr(prefer, "preference_loss", lambda *a, **k: real_loss(*a, **k) if next(calls) < 3 else _raise())
    elif where == "merging":
        patch.setattr(rounds._Round, "_save", lambda *a, **k: _raise())
    else:
        real_evaluate = gate.evaluate
        patch.setattr(
            gate, "evaluate", lambda *a, **k: _raise() if k["captioner"] == "round 1" else real_evaluate(*a, **k)
        )


def _raise():
    raise Stopped


def test_half_a_line_is_written_again(whole, samples, judge, tmp_path):
    folder = tmp_path / "round-1"
    folder.mkdir()
    lines = (whole / "round-1" / "captions.jsonl").read_text().splitlines(keepends=True)
    (folder / "captions.jsonl").write_text("".join(lines[:8]) + lines[8][:40])  # one prompt whole, one torn
    go(samples, judge, tmp_path)
    assert (folder / "captions.jsonl").read_text() == "".join(lines)


def test_a_finished_run_does_nothing_again(whole, samples, judge, monkeypatch):
    monkeypatch.setattr(Captioner, "sample", lambda *a, **k: _raise())
    monkeypatch.setattr(rounds, "prefer", lambda *a, **k: _raise())
    go(samples, judge, whole)


# --- options of a recipe ----------------------------------------------------------------------------------------------


def questions_of(truth, videos: set[str]):
    from avcap.cli import material

    return [question for question in material.questions_of(truth, None) if question.video in videos]


def metrics_of(out_dir: Path, number: int) -> list[dict]:
    return [json.loads(line) for line in (out_dir / f"round-{number}/train/metrics.jsonl").read_text().splitlines()]


def test_a_kept_lora_goes_on_against_the_first_model(samples, judge, tmp_path):
    config = replace(CONFIG, proxy="kept", num_rounds=2, stop=StopConfig(patience=9))
    go(samples, judge, tmp_path, config=config)
    adapters = [load_file(tmp_path / f"round-{n}/train/adapter.safetensors") for n in (1, 2)]
    start, last = load_file(find_checkpoint("tiny-sft") / "model.safetensors"), weights(tmp_path, number=2)
    name = next(name for name in adapters[1] if "q_proj" in name and "lora_A" in name)
    matrix = name.partition(".lora_A")[0] + ".weight"
    a, b = adapters[1][name], adapters[1][name.replace("lora_A", "lora_B")]
    # merged into the first model, not into round 1's: W + alpha / r B A with alpha / r = 8 / 4
    assert last[matrix].allclose(start[matrix] + 2 * b @ a, atol=1e-6)
    assert not adapters[0][name].equal(a)
    # it does not begin among equals
    assert abs(metrics_of(tmp_path, 2)[0]["rewards/margins"]) > 1e-3


def test_questions_are_replayed_and_gate_the_rounds(samples, judge, truth, tmp_path):
    learn, held_out = samples
    material = Material(
        samples=learn, held_out=held_out, questions=questions_of(truth, {sample.video for sample in learn}),
        held_out_questions=questions_of(truth, {held_out[0].video}),
    )  # fmt: skip
    config = replace(
        CONFIG, prefer=replace(CONFIG.prefer, replay=ReplayConfig(weight=0.5, batch_size=3)), average=True,
        sampling=replace(CONFIG.sampling, num_questions=(8,)),
    )  # fmt: skip
    parent = find_checkpoint("tiny-sft")
    run_rounds(parent, config=config, material=material, judge=judge, out_dir=tmp_path)
    first = metrics_of(tmp_path, 1)[0]
    assert first["loss"] == pytest.approx(math.log(2) + 0.5 * first["guidance"] + first["replay"], abs=1e-4)
    standing = json.loads((tmp_path / "round-1/standing.json").read_text())
    kinds = {question.kind for question in material.held_out_questions}
    assert set(standing["questions_by_kind"]) == kinds and 0 <= standing["questions"] <= 1
    # 8 questions, 6 answers each; a pair where one is wrong, chosen right
    answers = list(read_jsonl(tmp_path / "round-1/answers.jsonl", Caption))
    assert len(answers) == 8 * 6
    by_id = {question.question_id: question for question in material.questions}
    pairs = [pair for pair in read_jsonl(tmp_path / "round-1/pairs.jsonl", PreferencePair) if pair.sample_id in by_id]
    for pair in pairs:
        question = by_id[pair.sample_id]
        assert is_right(pair.chosen, question) and not is_right(pair.rejected, question)
    # what is measured is the mean of the parent and the round
    mean, after = (load_file(tmp_path / "round-1" / name / "model.safetensors") for name in ("average", "checkpoint"))
    before = load_file(parent / "model.safetensors")
    assert all(mean[name].allclose((before[name] + after[name]) / 2, atol=1e-6) for name in mean)


def test_replay_without_questions_is_an_error(samples, judge, tmp_path):
    config = replace(CONFIG, prefer=replace(CONFIG.prefer, replay=ReplayConfig(weight=1.0)))
    with pytest.raises(UserError, match="no questions"):
        go(samples, judge, tmp_path, config=config)


@pytest.mark.parametrize("kind", ["l2", "ewc"])
def test_an_anchor_holds_weights_of_full_fine_tuning(kind, samples, judge, truth, tmp_path):
    learn, held_out = samples
    moved = []
    for weight in (1e-9, 1e3):
        prefer = replace(CONFIG.prefer, full=True, anchor=AnchorConfig(kind=kind, weight=weight))
        material = Material(
            samples=learn, held_out=held_out, questions=questions_of(truth, {sample.video for sample in learn})
        )
        run_rounds(
            find_checkpoint("tiny-sft"), config=replace(CONFIG, prefer=prefer), material=material, judge=judge,
            out_dir=tmp_path / f"{weight}",
        )  # fmt: skip
        before, after = load_file(find_checkpoint("tiny-sft") / "model.safetensors"), weights(tmp_path / f"{weight}")
        moved.append(sum((after[name] - before[name]).square().sum().item() for name in before))
    assert 0 < moved[1] < 0.9 * moved[0]


def test_rounds_are_set_aside_and_made_anew(whole, samples, judge, tmp_path):
    shutil.copytree(whole, tmp_path / "rounds")
    place = set_aside(tmp_path / "rounds", first=1)
    assert place and (place / "round-1" / "checkpoint").is_dir() and not (tmp_path / "rounds" / "round-1").exists()
    assert (tmp_path / "rounds" / "round-0").is_dir() and set_aside(tmp_path / "rounds", first=1) is None
    go(samples, judge, tmp_path / "rounds")
    assert same(weights(whole), weights(tmp_path / "rounds"))


# --- what cannot go on ------------------------------------------------------------------------------------------------


def test_a_judge_that_is_down_stops_the_round_and_keeps_what_was_paid(samples, judge, tmp_path):
    class Failing:
        name, prompt_version = "oracle", ""

        def __init__(self, num_right: int):
            self.num_right = num_right

        def judge(self, cases):
            for case, verdict in zip(cases, judge.judge(cases), strict=True):
                self.num_right -= 1
                yield verdict if self.num_right >= 0 else Unscored(caption_id=case.caption_id, reason="no answer")

    held_out = len(samples[1])
    with pytest.raises(UserError, match=r"26 of 36 captions have no verdict.*no answer.*10 verdicts are kept"):
        go(samples, Failing(held_out + 10), tmp_path)
    assert len((tmp_path / "round-1" / "verdicts.jsonl").read_text().splitlines()) == 10
    go(samples, judge, tmp_path)


def test_no_pairs_is_an_error_that_says_why(samples, judge, tmp_path):
    config = replace(CONFIG, pairs=PairConfig(min_gap=100.0))
    with pytest.raises(UserError, match="min_gap"):
        go(samples, judge, tmp_path, config=config)


def test_videos_are_not_learned_and_measured_on(samples, judge, tmp_path):
    with pytest.raises(UserError, match="learned and measured"):
        go((samples[0], samples[0]), judge, tmp_path)


def test_samples_without_events_are_named(samples, judge, tmp_path):
    learn, held_out = samples
    with pytest.raises(UserError, match=f"1 samples have no events, the first is {learn[0].sample_id}"):
        go(([replace(learn[0], events=()), *learn[1:]], held_out), judge, tmp_path)


# --- the stop rule ----------------------------------------------------------------------------------------------------

START = Standing(
    number=0, total_error=0.5, global_error=0.5, local_error=0.5, missing=0.4, hallucination=0.1, repetition=0.1,
    collapse=0.0, words=50.0, distinct=0.6, perplexity=2.0, questions=0.8,
)  # fmt: skip


def standings(*totals: float, **fields) -> list[Standing]:
    return [START, *(replace(START, number=i, total_error=t, **fields) for i, t in enumerate(totals, start=1))]


def test_a_swing_does_not_stop_the_rounds():
    decision = decide(standings(0.40, 0.42, 0.35, 0.37), StopConfig(patience=2))
    assert decision.best == 3 and not decision.stopped


def test_rounds_stop_when_none_was_better_for_long():
    decision = decide(standings(0.40, 0.42, 0.399), StopConfig(patience=2, min_gain=0.005))
    assert decision.best == 1 and decision.stopped  # 0.399 is better than 0.40 by less than 0.005


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"hallucination": 0.13}, "hallucination"),  # 0.13 - 0.10 = 0.03 > 0.02
        ({"repetition": 0.13}, "repetition"),
        ({"collapse": 0.03}, "never end"),
        ({"words": 20.0}, "0.40 times as"),
        ({"words": 100.0}, "2.00 times as"),
        ({"distinct": 0.3}, "distinct 4-grams: 0.50 times"),  # 0.3 / 0.6
        ({"perplexity": 8.0}, "perplexity: 4.00 times"),  # 8 / 2
        ({"questions": 0.77}, "questions answered right -0.030"),  # 0.80 - 0.77 > 0.02
    ],
)
def test_a_round_that_got_strange_is_not_the_best(fields, why):
    decision = decide(standings(0.2, **fields), StopConfig())
    assert decision.best == 0 and why in decision.refused[1]


def test_every_pair_is_seen_once_an_epoch_in_another_order():
    pairs = [PreferencePair(sample_id=str(i), video="", prompt="", chosen="", rejected="") for i in range(7)]
    batches = PairBatches(pairs=pairs, batch_size=3, seed=0)
    assert batches.steps_per_epoch == 3  # 3 + 3 + 1
    epochs = [[p.sample_id for step in range(3 * e, 3 * e + 3) for p in batches.pairs_of(step)] for e in (0, 1)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == [str(i) for i in range(7)] and epochs[0] != epochs[1]
