"""Rebirth on the example videos: the real models, real files; stopped and gone on with."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from avcap.errors import UserError
from avcap.evaluation.held_out import RoundMetrics
from avcap.infer.captioner import Captioner
from avcap.infer.find_checkpoint import find_checkpoint
from avcap.judge.inputs.ingest import read_truth
from avcap.judge.oracle import OracleJudge
from avcap.model.average import average_checkpoints, read_weights
from avcap.preference.round_data import RoundData
from avcap.records import Caption, read_jsonl
from avcap.stages import rebirth as stage
from avcap.stages.rebirth import RebirthConfig, rebirth
from avcap.train import mixture
from avcap.train.loop import LoopConfig
from avcap.train.optim import OptimConfig

EXAMPLES = Path(__file__).parents[2] / "examples" / "truth.jsonl"
CONFIG = RebirthConfig(
    full=True,
    batch_size=4,
    loop=LoopConfig(num_steps=6, checkpoint_every=2, num_workers=0, log_every=1),
    optim=OptimConfig(lr=1e-3, muon_lr=0.003, warmup_steps=1),
)


@pytest.fixture(scope="module")
def truth():
    return read_truth(EXAMPLES)


@pytest.fixture(scope="module")
def round_data(truth):
    from avcap.cli.round_data import questions_of

    samples = [replace(sample, video=truth.video_path(sample)) for sample in truth.samples if sample.events]
    held_out = samples[-1].video
    questions = questions_of(truth, None)
    return RoundData(
        samples=[sample for sample in samples if sample.video != held_out],
        held_out=[sample for sample in samples if sample.video == held_out],
        questions=[question for question in questions if question.video != held_out],
        held_out_questions=[question for question in questions if question.video == held_out],
    )


def go(round_data, out_dir: Path, *, config: RebirthConfig = CONFIG, judge=None) -> Path:
    # the model that can do better stands for the one that the rounds made
    student, teacher = find_checkpoint("tiny-sft"), find_checkpoint("tiny-base")
    return rebirth(student, teacher, config=config, round_data=round_data, judge=judge, out_dir=out_dir)


@pytest.fixture(scope="module")
def whole(round_data, truth, tmp_path_factory) -> Path:
    out_dir = tmp_path_factory.mktemp("whole")
    go(round_data, out_dir, judge=OracleJudge(truth.worlds.values()))
    return out_dir


def weights(out_dir: Path) -> dict:
    return load_file(out_dir / "checkpoint" / "model.safetensors")


@pytest.mark.slow
def test_the_reborn_model_comes_from_the_student_and_its_encoders_stay(whole):
    before, after = read_weights(find_checkpoint("tiny-sft") / "model.safetensors"), weights(whole)
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed and not any(name.startswith(("vision_tower.", "audio_encoder.")) for name in changed)
    lineage = json.loads((whole / "checkpoint" / "lineage.json").read_text())
    assert lineage["stage"] == "rebirth" and lineage["parent"] == "tiny-sft on captions of tiny-base"
    assert Captioner(whole / "checkpoint").encoder.world_check is not None


@pytest.mark.slow
def test_all_three_models_are_measured(whole):
    names = ("student", "teacher", "reborn")
    found = {name: json.loads((whole / name / "round_metrics.json").read_text()) for name in names}
    expected = set(RoundMetrics.__dataclass_fields__)
    assert all(
        set(round_metrics) == expected and 0 <= round_metrics["questions"] <= 1 for round_metrics in found.values()
    )
    assert found["student"] != found["teacher"]


@pytest.mark.slow
def test_a_stopped_run_ends_with_the_same_weights(whole, round_data, tmp_path, monkeypatch):
    class Stopped(Exception):
        pass

    def stop_after(round_number, of):
        calls = iter(range(1000))

        def wrapped(*args, **kwargs):
            if next(calls) == round_number:
                raise Stopped
            return of(*args, **kwargs)

        return wrapped

    for module, place, round_number in ((stage, "keep_good", 0), (mixture, "answer_loss", 3)):
        with monkeypatch.context() as patch:
            patch.setattr(module, place, stop_after(round_number, getattr(module, place)))
            with pytest.raises(Stopped):
                go(round_data, tmp_path)
    go(round_data, tmp_path)
    first, second = weights(whole), weights(tmp_path)
    assert first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


@pytest.mark.slow
def test_bad_captions_are_counted_and_not_learned_from(whole):
    quality = json.loads((whole / "quality.json").read_text())
    kept = list(read_jsonl(whole / "kept.jsonl", Caption))
    assert quality["asked"] == len(list(read_jsonl(whole / "pool.jsonl", Caption)))
    assert quality["kept"] == len(kept) == quality["asked"] - sum(quality["dropped"].values())


def test_questions_have_to_be_there_or_left_out(round_data, tmp_path):
    with pytest.raises(UserError, match=r"no questions.*mix\.questions=0"):
        go(replace(round_data, questions=()), tmp_path)


def test_an_average_is_the_mean_of_weights_and_says_so(tmp_path):
    folders = [find_checkpoint("tiny-base"), find_checkpoint("tiny-sft")]
    out = average_checkpoints(folders, out=tmp_path / "mean", weights=[1, 3])
    first, second, mean = (read_weights(folder / "model.safetensors") for folder in (*folders, out))
    name = next(name for name in first if not first[name].equal(second[name]))
    # (1 w + 3 v) / 4
    assert mean[name].allclose((first[name] + 3 * second[name]) / 4, atol=1e-6)
    assert json.loads((out / "lineage.json").read_text())["parent"] == "tiny-base x 1, tiny-sft x 3"
    with pytest.raises(UserError, match="is there already"):
        average_checkpoints(folders, out=out)
    with pytest.raises(UserError, match="a weight of 0 or more for each"):
        average_checkpoints(folders, out=tmp_path / "other", weights=[1])
