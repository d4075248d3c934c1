"""Everything that avcap 0.1 left on disk opens or goes on; tests/data/v0_1 holds an example of each."""

import functools
import json
import shutil
from pathlib import Path

import pytest
import yaml
from safetensors import safe_open
from safetensors.torch import load_file
from support.here_and_now import HereAndNow

from avcap import Captioner, v0_1
from avcap.config import flatten, override, parse_assignments, to_dict
from avcap.curriculum import feature_tracks
from avcap.errors import UserError
from avcap.evaluation.evaluate import read_evaluation
from avcap.evaluation.held_out import read_round_metrics
from avcap.infer.settings import read_settings
from avcap.infer.world_fit import fit_world_check
from avcap.judge.calibration.calibrate import Calibration
from avcap.judge.inputs.ingest import read_truth
from avcap.model.salmonn2.modeling import Salmonn2ForCaptioning
from avcap.recipes import RECIPES
from avcap.records import Caption, PreferencePair, from_json, read_jsonl
from avcap.runs import recipe

ROOT = Path(__file__).parent.parent
OLD = Path("tests/data/v0_1")  # as the runs there know it: they began in the root of a checkout
EXAMPLE = "examples/two_bells.mp4"


@pytest.fixture(autouse=True)
def in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "today"),
    [
        ("caption a.mp4 --no-sound", "caption a.mp4 --no-audio"),
        ("caption a.mp4 --no-picture --out x", "caption a.mp4 --no-video --out x"),
        ("caption a.mp4 --compat official --end 2", "caption a.mp4 --official --end 2"),
        ("caption --compat=official a.mp4", "caption --official a.mp4"),
        ("caption a.mp4 --compat default", "caption a.mp4"),
        ("audit-compat a.mp4 --model m", "audit-official a.mp4 --model m"),
        ("caption audit-compat", "caption audit-compat"),  # a file of that name
    ],
)
def test_options_of_0_1_are_those_of_today(words, today):
    assert v0_1.command_line(words.split()) == today.split()


def test_another_compat_is_refused(run):
    code, _, err = run("caption", EXAMPLE, "--compat", "exact")
    assert code == 2 and err.count("\n") == 1 and "--compat" in err


def test_a_command_of_0_1_goes_on_with_its_file(run, tmp_path):
    out = tmp_path / "captions.jsonl"
    shutil.copy(OLD / "captions_no_sound.jsonl", out)
    code, _, err = run("caption", EXAMPLE, "--no-sound", "--out", out)
    assert code == 0 and "0 captions written, 0 errors, 1 captions were there already" in err
    assert out.read_bytes() == (OLD / "captions_no_sound.jsonl").read_bytes()


# --- recipes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / OLD / "recipes").glob("*.yaml")))
def test_every_field_of_a_recipe_is_known_today(name):
    config = RECIPES[name]()
    values = flatten(yaml.safe_load((OLD / "recipes" / f"{name}.yaml").read_text()))
    assert values.pop("recipe") == name
    assert override(config, values) == config  # no recipe has changed since
    for field in (OLD / "recipes" / f"{name}.set.txt").read_text().split():
        nearest = [known for known in flatten(to_dict(config)) if known.startswith(v0_1.config_field(field))]
        assert nearest, f"{field} is {v0_1.config_field(field)} today, which {name} does not have"


def test_set_takes_names_of_0_1():
    assignments = parse_assignments(["teach.mix.slots=0.5", "practise.question_mix.heard=2"])
    config = override(RECIPES["tiny_base"](), assignments)
    assert config.finetune.mix.seconds == 0.5 and config.second_phase.question_mix.heard == 2.0
    rounds = override(RECIPES["tiny_rounds"](), parse_assignments(["proxy=kept", "prefer.anchor.kind=l2"]))
    assert rounds.reset_lora is False and rounds.dpo.weight_regularizer.kind == "l2"
    with pytest.raises(UserError, match="reset_lora: got 'borrowed'"):
        override(rounds, {"proxy": "borrowed"})


# --- models -----------------------------------------------------------------------------------------------------------


def test_a_model_opens_and_captions(tmp_path):
    captioner = Captioner(OLD / "model")
    assert captioner.settings.prompts.audio_only == "Describe only what is heard."
    assert captioner.model.config.audio_layer_norm is False
    (row,) = read_jsonl(OLD / "captions.jsonl", Caption)
    caption = captioner.caption(EXAMPLE, max_new_tokens=8)
    assert (caption.text, caption.seen, caption.prompt) == (row.text, row.seen, row.prompt)
    assert read_settings(OLD / "model").prompts.video_only == "Describe only what is seen."


def test_all_weights_are_found_and_saved_under_their_names_of_today(tmp_path):
    old = load_file(OLD / "model" / "model.safetensors")
    assert any(name.startswith("sound_encoder.") for name in old)
    model = Salmonn2ForCaptioning.from_pretrained(OLD / "model")  # not by the way of checkpoints.load
    model.save_pretrained(tmp_path)
    new = load_file(tmp_path / "model.safetensors")
    assert new.keys() == {v0_1.weight_name(name) for name in old}
    assert all(new[v0_1.weight_name(name)].equal(tensor) for name, tensor in old.items())
    fields = json.loads((tmp_path / "config.json").read_text())
    assert "audio_layer_norm" in fields and "speech_layer_norm" not in fields


# --- records ----------------------------------------------------------------------------------------------------------


def test_records_are_read():
    (pair, *_) = read_jsonl(OLD / "pairs.jsonl", PreferencePair)
    assert pair.chosen and pair.margin is not None
    assert len(read_truth(OLD / "truth.jsonl").worlds) == 3
    calibration = from_json((OLD / "calibration.json").read_text(), Calibration)
    assert calibration.judge == "noisy-oracle"


def test_a_report_is_read(run, tmp_path):
    setting, scored = read_evaluation(OLD / "report")
    assert setting.judge == "oracle" and len(scored) == 3
    shutil.copytree(OLD / "report", tmp_path / "again")
    code, out, err = run("compare", OLD / "report", tmp_path / "again")
    assert code == 0 and "visual" in out, err


# --- runs that were stopped -------------------------------------------------------------------------------------------


def old_run(tmp_path: Path, name: str) -> tuple[Path, list[str]]:
    """A stopped run, copied -> its folder and the options that it began with."""
    arguments = next((ROOT / OLD).rglob(f"{name}.args.json"))
    fields = json.loads(arguments.read_text())
    words = [word for field, value in fields.items() for word in ("--set", f"{field}={value}")]
    folder = tmp_path / "run"
    shutil.copytree(OLD / "train" / "run" if name == "train" else OLD / name, folder)
    return folder, words


def close(first: Path, second: Path) -> bool:
    one = load_file(first)
    two = {v0_1.weight_name(name): tensor for name, tensor in load_file(second).items()}
    return one.keys() == two.keys() and all(one[name].allclose(two[name], rtol=1e-3, atol=1e-5) for name in one)


@pytest.mark.slow
def test_a_training_run_goes_on_to_the_weights_of_0_1(run, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_tracks, "ProcessPoolExecutor", HereAndNow)
    monkeypatch.setattr(feature_tracks, "end_with_parent", lambda: None)
    # of no weight: the check that the checkpoint is given beside them
    monkeypatch.setattr(recipe, "fit_world_check", functools.partial(fit_world_check, num_scenes=12))
    folder, words = old_run(tmp_path, "train")
    code, out, err = run("train", "tiny_align", "--model", OLD / "model", "--out", folder, *words)
    assert code == 0, err
    assert out.strip() == str(folder / "checkpoint")
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps[:4] == [1, 2, 3, 4] and max(steps) == 8
    assert close(folder / "checkpoints" / "step-000008" / "model.safetensors", OLD / "train.finished.safetensors")


@pytest.mark.slow
def test_rounds_go_on_to_the_weights_of_0_1(run, tmp_path):
    folder, words = old_run(tmp_path, "rounds")
    paths = [folder / "round-1" / name for name in ("captions.jsonl", "verdicts.jsonl", "pairs.jsonl")]
    kept = {path: path.read_bytes() for path in paths}
    data = ("--data", OLD / "truth.jsonl", "--held-out", OLD / "held_out.jsonl")
    code, _, err = run("rounds", "tiny_rounds", *data, "--out", folder, *words)
    assert code == 0, err
    assert all(path.read_bytes() == text for path, text in kept.items())
    assert [metrics.round_number for metrics in read_round_metrics(folder)] == [0, 1]
    assert close(folder / "round-1" / "train" / "adapter.safetensors", OLD / "rounds.finished.safetensors")


def test_status_reads_rounds_and_leaves_them_as_they_are(run, tmp_path):
    folder, _ = old_run(tmp_path, "rounds")
    before = sorted(str(path) for path in folder.rglob("*"))
    code, out, _ = run("rounds", "status", folder)
    assert code == 0 and out.startswith("round 0: total error 0.649 ")
    assert sorted(str(path) for path in folder.rglob("*")) == before


def test_other_settings_are_refused_in_one_line(run, tmp_path):
    folder, words = old_run(tmp_path, "train")
    code, _, err = run("train", "tiny_align", "--model", OLD / "model", "--out", folder, *words, "--seed", 7)
    assert code == 2 and err.count("\n") == 1 and "config.yaml" in err


def test_tensors_are_renamed_without_another_byte(tmp_path):
    state = tmp_path / "model.safetensors"
    shutil.copy(OLD / "model" / "model.safetensors", state)
    v0_1._rename_tensors(state)
    old = load_file(OLD / "model" / "model.safetensors")
    with safe_open(state, framework="pt") as file:
        assert {name for name in file.keys()} == {v0_1.weight_name(name) for name in old}  # noqa: SIM118
        assert all(file.get_tensor(v0_1.weight_name(name)).equal(tensor) for name, tensor in old.items())
    once = state.read_bytes()
    v0_1._rename_tensors(state)
    assert state.read_bytes() == once
