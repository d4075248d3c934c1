"""The released model's numbers, on a small recorded case; and that mistakes of structure cannot hide in them."""

import json
import shutil

import parity
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from avcap.model.salmonn2 import aligner
from avcap.model.salmonn2 import modeling as salmonn2

STRUCTURAL = 1.0  # logits move by more than this when anything is really wrong, and by less than 1e-4 when nothing is


@pytest.fixture
def case(released_folder):
    return load(released_folder)


def load(folder):
    ((folder, facts),), _ = parity.find_cases(folder)
    return parity.load_case(folder, facts)


def logits_error(case) -> float:
    with torch.no_grad():
        logits_1LV = case.model(inputs_embeds=case.embeds_1LD.detach(), logits_to_keep=48).logits
    return (logits_1LV - case.outputs["logits_last48"]).abs().max().item()


def test_recorded_case_is_reproduced(case):
    checks = parity.check_case(case)
    assert {check.row for check in checks} >= {f"A{i}" for i in range(1, 11)} | {f"B{i}" for i in (1, 2, 3, 4, 5, 6, 8)}
    assert [check for check in checks if not check.ok] == []


def test_recorded_case_is_reproduced_as_an_interval_of_a_longer_one(released_folder, tmp_path):
    """The same 31 s and 7 frames, as seconds 5 to 36 of 60: all that the released code made of them stays as recorded.

    60 s at 24 a second are 1440 frames. The interval is from frame 5 * 24 = 120 to 36 * 24 = 864, and six steps of
    (864 - 120) / 6 = 124 lead through it.
    """
    folder = tmp_path / "case"
    shutil.copytree(released_folder, folder)
    inputs = load_file(folder / "inputs.safetensors")
    tile_S, num_samples = inputs["waveform_tile_i16"], 31 * 16_000
    recorded_S = tile_S[torch.arange(num_samples) % len(tile_S)]
    other_S = torch.randint(-9999, 9999, (24 * 16_000,), generator=torch.Generator().manual_seed(0)).to(torch.int16)
    inputs["waveform_tile_i16"] = torch.cat([other_S[: 5 * 16_000], recorded_S, other_S])
    inputs["waveform_num_samples"] = torch.tensor([60 * 16_000])
    inputs["source_num_frames"] = torch.tensor([1440])
    inputs["frame_index"] = torch.tensor([120, 244, 368, 492, 616, 740, 864])
    save_file(inputs, folder / "inputs.safetensors")
    facts = json.loads((folder / "case.json").read_text())
    (folder / "case.json").write_text(json.dumps(facts | {"timestamps": [5, 36]}))
    assert [check for check in parity.check_case(load(folder)) if not check.ok] == []
    (folder / "case.json").write_text(json.dumps(facts | {"timestamps": [4, 35]}))  # a second too early
    missed = {check.row for check in parity.check_case(load(folder)) if not check.ok}
    assert missed >= {"A3", "A4", "A5", "A6", "A7", "A8", "B1", "B5", "B8"}


def test_script_fails_without_a_case(tmp_path, capsys):
    assert parity.main([str(tmp_path)]) == 1
    assert "no case" in capsys.readouterr().out


def test_script_counts_cases_of_other_families(tmp_path, capsys):
    (tmp_path / "case.json").write_text(json.dumps({"family": "other"}))
    assert parity.main([str(tmp_path)]) == 1
    assert "1 others skipped" in capsys.readouterr().out


def test_script_reports_a_miss(released_folder, tmp_path, capsys):
    shutil.copytree(released_folder, tmp_path / "case")
    facts = json.loads((tmp_path / "case" / "case.json").read_text())
    (tmp_path / "case" / "case.json").write_text(json.dumps(facts | {"max_time": facts["max_time"] + 1}))
    assert parity.main([str(tmp_path)]) == 1
    misses = [line for line in capsys.readouterr().out.splitlines() if "MISS" in line]
    assert len(misses) == 1 and "frame index" in misses[0]


def test_average_pool_is_seen(case):
    case.model.vision_aligner.pool_mode = "average"
    assert logits_error(case) > STRUCTURAL


def test_missing_segment_positions_are_seen(case):
    case.model.config.segment_positions = False
    assert logits_error(case) > STRUCTURAL


def test_segment_positions_off_by_one_are_seen(case, monkeypatch):
    def shifted(chunks_U, *, width):
        return aligner.segment_positions(chunks_U + 1, width=width)

    monkeypatch.setattr(salmonn2, "segment_positions", shifted)
    assert logits_error(case) > STRUCTURAL


def test_post_layer_norm_of_the_tower_is_seen(case):
    tower = case.model.vision_tower

    def normed(module, inputs, output):
        output.last_hidden_state = tower.post_layernorm(output.last_hidden_state)
        return output

    tower.encoder.register_forward_hook(normed)
    assert logits_error(case) > STRUCTURAL


def test_missing_audio_norm_is_seen(case):
    case.model.audio_aligner.input_norm = nn.Identity()
    assert logits_error(case) > STRUCTURAL


def test_true_time_order_is_seen(case):
    case.model.config.sync = "true_time"
    assert logits_error(case) > STRUCTURAL
