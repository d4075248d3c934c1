"""The released 2+ model's numbers, on small recorded cases; and that mistakes of structure cannot hide in them."""

from dataclasses import replace

import parity
import pytest
import torch
from support import parity_plus

from avcap.model.salmonn2_plus import mrope

STRUCTURAL = 1.0  # logits move by more than this when anything is really wrong, and by less than 1e-4 when nothing is


def load(folder):
    ((folder, facts),), _ = parity.find_cases(folder)
    return parity.load_case(folder, facts)


@pytest.fixture
def case(plus_folder):
    return load(plus_folder)


@torch.no_grad()
def logits_error(case, *, positions: str = "train", recorded: str = "train") -> float:
    media = case.media(positions)
    places = case.model.positions(case.prompt_ids, media)
    embeds_1LD = case.model.embed(torch.tensor([case.prompt_ids]), [media])
    logits_1LV = case.model(inputs_embeds=embeds_1LD, position_ids=places.of_ids[:, None], logits_to_keep=48).logits
    return (logits_1LV - case.outputs[f"logits_{recorded}_last48"]).abs().max().item()


def test_audio_visual_case_is_reproduced(case):
    checks = parity.check_case(case)
    rows = {f"A{i}" for i in range(1, 11)} | {"C1", "C2", "C4", "C5", "C6", "C7", "C8", "DPO"}
    assert {check.row for check in checks} == rows
    assert [check for check in checks if not check.ok] == []


def test_image_case_is_reproduced(plus_folder):
    checks = parity.check_case(load(plus_folder.parent / "plus_image"))
    assert [check for check in checks if not check.ok] == []


def test_interleaving_of_many_lengths_is_reproduced(plus_folder):
    checks = parity_plus.check_tables(plus_folder.parent / "plus_tables" / "tables.safetensors")
    assert [check.row for check in checks] == ["C3", "C3"] and all(check.ok for check in checks)


def test_a_change_in_the_tables_is_a_miss(monkeypatch, plus_folder, capsys):
    monkeypatch.setattr(mrope, "POSITIONS_PER_S", 3)
    assert parity.main([str(plus_folder.parent / "plus_tables")]) == 1
    assert "MISS" in capsys.readouterr().out


def test_the_other_rule_of_positions_is_seen(case):
    assert logits_error(case, positions="official_generate") > STRUCTURAL
    assert logits_error(case, positions="official_generate", recorded="generate") < 1e-3


def test_audio_axes_swapped_are_seen(case, monkeypatch):
    right = mrope.train_positions

    def swapped(*args, **options):
        places = right(*args, **options)
        of_tokens = places.of_tokens.copy()
        is_audio = of_tokens[2] == of_tokens[0]
        of_tokens[1:, is_audio] = of_tokens[[2, 1]][:, is_audio]
        return replace(places, of_tokens=of_tokens)

    monkeypatch.setattr(mrope, "train_positions", swapped)
    assert logits_error(case) > STRUCTURAL


def test_text_that_starts_one_off_is_seen(case, monkeypatch):
    right = mrope.train_positions
    monkeypatch.setattr(
        mrope,
        "train_positions",
        lambda *args, **options: replace(p := right(*args, **options), following=p.following + 1),
    )
    assert logits_error(case) > STRUCTURAL


def test_audio_tokens_rolled_by_one_are_seen(case):
    case.features.audio_KPA.copy_(case.features.audio_KPA.roll(25, dims=1))
    assert logits_error(case) > STRUCTURAL


def test_embeddings_without_positions_are_refused(case):
    with pytest.raises(ValueError, match="without position_ids"):
        case.model(inputs_embeds=case.outputs["inputs_embeds"])


def test_ids_find_their_positions_themselves(case):
    media = case.media("train")
    with torch.no_grad():
        logits_1LV = case.model(torch.tensor([case.prompt_ids]), [media]).logits[:, -48:]
    assert (logits_1LV - case.outputs["logits_train_last48"]).abs().max() < 1e-3
