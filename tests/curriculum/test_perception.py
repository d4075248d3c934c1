"""Attributes of rendered seconds: the classes are those of the scene, and a batch is a function of its step."""

import math

import pytest
import torch

from avcap.curriculum.perception import (
    AUDIO_ATTRIBUTES,
    IGNORE,
    NUM_TRAINING_SEEDS,
    SOUND_KINDS,
    VISUAL_ATTRIBUTES,
    AttributeHeads,
    AudioBatches,
    FrameBatches,
    atoms_by_second,
    attribute_loss,
    audio_targets,
    training_seed,
    visual_targets,
)
from avcap.world.scene import COLOURS, PLACES, SHAPES, WORDS, SoundAtom, Thing, make_scene, stage_at


def test_video_targets_name_what_stands_in_each_cell():
    stages = [{PLACES[2]: Thing(colour="green", shape="star", size=0)}, {}]
    targets = visual_targets(stages)
    assert targets["present"].tolist() == [[0, 0, 1, 0], [0, 0, 0, 0]]
    empty = [IGNORE] * 4
    assert targets["colour"].tolist() == [[IGNORE, IGNORE, COLOURS.index("green"), IGNORE], empty]
    assert targets["shape"].tolist() == [[IGNORE, IGNORE, SHAPES.index("star"), IGNORE], empty]
    assert targets["size"].tolist() == [[IGNORE, IGNORE, 0, IGNORE], empty]


def test_audio_targets_have_counts_and_words_only_where_there_are_some():
    atoms = [
        None,
        SoundAtom(second=1, kind="plain", name="rain"),
        SoundAtom(second=2, kind="counted", name="bell", count=3),
        SoundAtom(second=3, kind="say", words=("tiger", "apple")),
    ]
    targets = audio_targets(atoms)
    assert [SOUND_KINDS[kind] for kind in targets["kind"]] == ["silence", "rain", "bell", "voice"]
    assert targets["count"].tolist() == [IGNORE, IGNORE, 2, IGNORE]  # three strokes are class 3 - 1
    assert targets["word_1"].tolist() == [IGNORE, IGNORE, IGNORE, WORDS.index("tiger")]
    assert targets["word_2"].tolist() == [IGNORE, IGNORE, IGNORE, WORDS.index("apple")]


def test_the_first_of_two_in_a_second_is_the_one_named():
    scene = next(
        scene
        for scene in (make_scene(seed, difficulty="hard") for seed in range(100))
        if len({audio.second for audio in scene.sounds}) < len(scene.sounds)
    )
    by_second = atoms_by_second(scene)
    assert len(by_second) == scene.duration_s
    for second, atom in enumerate(by_second):
        assert atom == next((audio for audio in scene.sounds if audio.second == second), None)


def test_video_batches_are_functions_of_seed_stream_and_step():
    batches = FrameBatches(seed=3, image_size=24, clips_per_step=2, frames_per_clip=2)
    (batch,) = batches(5)
    assert batch.inputs.shape == (4, 3, 24, 24) and batch.inputs.dtype == torch.uint8
    assert {name: target.shape for name, target in batch.targets.items()} == dict.fromkeys(VISUAL_ATTRIBUTES, (4, 4))
    (again,) = batches(5)
    assert torch.equal(batch.inputs, again.inputs)
    assert all(torch.equal(batch.targets[name], again.targets[name]) for name in batch.targets)
    others = [*batches(6), *FrameBatches(seed=3, image_size=24, clips_per_step=2, frames_per_clip=2, stream=1)(5)]
    assert not any(torch.equal(batch.inputs, other.inputs) for other in others)


def test_video_batches_show_what_their_targets_say():
    (batch,) = FrameBatches(seed=3, image_size=24, clips_per_step=1, frames_per_clip=10)(0)
    scene = make_scene(training_seed(3, 1, 0, 0, 0), visual_rate=0.9, seconds=(12, 12))
    # seconds 2 to 11 are ten: all of them are drawn, in some order
    expected = sorted(str(visual_targets([stage_at(scene, second)])["colour"].tolist()) for second in range(2, 12))
    assert sorted(str([row]) for row in batch.targets["colour"].tolist()) == expected


def test_audio_batches_are_functions_of_the_step_and_fit_their_scenes():
    batches = AudioBatches(seed=1, num_mel_bins=8, clips_per_step=1, seconds_per_clip=4)
    (batch,) = batches(2)
    assert batch.inputs.shape == (4, 8, 100)  # hops of 10 ms: 100 frames a second
    assert torch.equal(batch.inputs, batches(2)[0].inputs)
    scene = make_scene(training_seed(1, 2, 0, 2, 0), sound_rate=0.95, say_share=0.65, seconds=(4, 4))
    expected = audio_targets(atoms_by_second(scene))
    assert {name: target.tolist() for name, target in batch.targets.items()} == {
        name: target.tolist() for name, target in expected.items()
    }
    assert set(expected) == set(AUDIO_ATTRIBUTES)


def test_training_seeds_stay_below_those_of_made_worlds_and_do_not_meet():
    seeds = {training_seed(run, stream, step) for run in range(4) for stream in range(5) for step in range(200)}
    assert len(seeds) == 4 * 5 * 200
    assert all(0 <= seed < NUM_TRAINING_SEEDS for seed in seeds)


def test_attribute_loss_is_the_sum_of_means_over_items_that_have_the_attribute():
    logits = {"kind": torch.zeros(3, 4), "count": torch.zeros(3, 2)}
    targets = {"kind": torch.tensor([0, 1, 2]), "count": torch.tensor([IGNORE, 1, IGNORE])}
    output = attribute_loss(logits, targets)
    # all classes are as likely: ln 4 over three items, ln 2 over one
    assert output.loss.item() == pytest.approx(math.log(4) + math.log(2))
    assert output.metrics == pytest.approx({"kind": 1 / 3, "count": 0.0})  # argmax of a tie is class 0


def test_attribute_loss_without_any_of_a_kind_is_finite_and_trains():
    torch.manual_seed(0)
    heads = AttributeHeads(6, {"kind": 3, "word_1": 5})
    targets = {"kind": torch.tensor([0, 2]), "word_1": torch.tensor([IGNORE, IGNORE])}
    output = attribute_loss(heads(torch.randn(2, 6)), targets)
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert math.isnan(output.metrics["word_1"])  # none in the batch: no accuracy, and not one of 0
    assert heads.heads["word_1"].weight.grad.abs().sum() == 0
    assert heads.heads["kind"].weight.grad.isfinite().all() and heads.heads["kind"].weight.grad.abs().sum() > 0
