"""Captions read like the example below, the vocabulary is closed, and the annotator errs at the rates it is told."""

import random
from dataclasses import fields, replace

import pytest

from avcap.judge.metrics.error_counts import count_errors
from avcap.judge.metrics.words import count_words
from avcap.world import describe, grammar, questions
from avcap.world.describe import Annotator
from avcap.world.oracle import judge_caption
from avcap.world.scene import Scene, SoundAtom, VisualAtom, make_scene

PERFECT = Annotator(**{field.name: 0.0 for field in fields(Annotator)})

CIRCLE = {"colour": "red", "shape": "circle", "size": 1}
SCENE = Scene(
    seed=0,
    difficulty="hard",
    domain="default",
    duration_s=6,
    visual=(
        VisualAtom(second=1, kind="appear", place="top-left", **CIRCLE),
        VisualAtom(second=3, kind="move", place="top-left", new_place="bottom-right", **CIRCLE),
        VisualAtom(second=4, kind="recolour", place="bottom-right", new_colour="orange", **CIRCLE),
    ),
    sounds=(
        SoundAtom(second=2, kind="counted", name="bell", count=2),
        SoundAtom(second=3, kind="say", words=("lemon", "tiger")),
        SoundAtom(second=3, kind="plain", name="applause"),
    ),
)


def test_the_caption_of_a_scene():
    assert describe.reference_caption(SCENE) == (
        "At 1s a red circle appears in the top-left corner. "
        "At 2s a bell rings twice. "
        "At 3s the red circle moves from the top-left corner to the bottom-right corner "
        'while a voice says "lemon tiger" and people applaud. '
        "At 4s the red circle turns orange."
    )


def test_one_modality_intervals_and_seconds():
    assert describe.reference_caption(SCENE, modality="audio") == (
        'At 2s a bell rings twice. At 3s a voice says "lemon tiger" and people applaud.'
    )
    # From 2s to 3s is second 2 alone.
    assert describe.reference_caption(SCENE, interval_s=(2.0, 3.0)) == "At 2s a bell rings twice."
    assert describe.reference_caption(SCENE, interval_s=(5.0, 6.0)) == "Nothing happens."
    assert describe.clause(SCENE, 4) == "the red circle turns orange."
    assert describe.clause(SCENE, 4, "audio") is None
    assert describe.clause(SCENE, 5) is None


def test_events_are_sights_sounds_and_what_happens_together():
    events = {event.event_id: event for event in describe.scene_events(SCENE)}
    assert list(events) == ["v1", "s2", "v3", "s3", "s3-2", "b3", "b3-2", "v4"]
    assert events["b3-2"].text == "people applaud while the red circle moves"
    assert events["b3-2"].modality == "both"
    assert (events["s2"].text, events["s2"].start_s, events["s2"].end_s) == ("a bell rings twice", 2.0, 3.0)
    assert [event.event_id for event in describe.scene_events(SCENE, modality="audio")] == ["s2", "s3", "s3-2"]
    assert [event.event_id for event in describe.scene_events(SCENE, interval_s=(4.0, 6.0))] == ["v4"]


def test_articles():
    assert grammar.with_article("orange square") == "an orange square"
    assert grammar.with_article("white ring") == "a white ring"


def test_interval_samples():
    for seed in range(200):
        scene = make_scene(seed)
        samples = describe.interval_samples(scene, clip_id="clip-7", video="clip-7.mp4", rng=random.Random(seed))
        assert len({sample.sample_id for sample in samples}) == 2
        for sample in samples:
            start_s, end_s = sample.interval_s
            assert 3 <= end_s - start_s <= 5 and start_s >= 1 and end_s <= scene.duration_s
            assert sample.prompt == f"Describe what happens from {int(start_s)}s to {int(end_s)}s."
            assert sample.reference_caption == describe.reference_caption(scene, interval_s=sample.interval_s)
            assert all(start_s <= event.start_s < end_s for event in sample.events)


def test_a_clip_too_short_for_intervals_has_none():
    scene = replace(SCENE, duration_s=3)
    assert describe.interval_samples(scene, clip_id="c", video="c.mp4", rng=random.Random(0)) == ()


@pytest.mark.slow
def test_no_text_leaves_the_vocabulary():
    words = describe.all_words()
    assert words == sorted(set(words))
    prompts = [*describe.GLOBAL_PROMPTS, describe.VIDEO_PROMPT, describe.AUDIO_PROMPT, describe.NO_EVENT_ANSWER]
    for seed in range(3000):
        scene = make_scene(seed, difficulty=("easy", "standard", "hard")[seed % 3])
        rng = random.Random(seed)
        texts = [*prompts, describe.second_prompt(seed % 20), describe.reference_caption(scene)]
        texts.append(describe.imperfect_caption(scene, annotator=Annotator(), rng=rng))
        for sample in describe.interval_samples(scene, clip_id="c", video="c.mp4", rng=rng):
            texts += [sample.prompt, sample.reference_caption]
        for question in questions.make_questions(scene, clip_id="c", rng=rng):
            texts += [question.text, question.answer]
        assert {token for text in texts for token in grammar.tokens(text)} <= set(words)


def test_kinds_of_tokens():
    def kinds(text: str) -> list[tuple[str, str]]:
        words = grammar.tokens(text)
        return [(word, kind) for word, kind in zip(words, describe.token_kinds(words), strict=True) if kind]

    assert kinds('At 3s the red ring turns blue while a voice says "lemon tiger".') == [
        ("3s", "time"),
        ("red", "colour"),
        ("ring", "shape"),
        ("turns", "verb"),
        ("blue", "new_colour"),
        ("voice", "sound"),
        ("lemon", "word"),
        ("tiger", "word"),
    ]
    assert kinds("somebody knocks three times and people applaud") == [
        ("somebody", "sound"),
        ("three", "count"),
        ("people", "sound"),
    ]
    # "rings" is what a bell does, "waves" is a sound: only the noun counts.
    assert kinds("a bell rings once while waves break") == [("bell", "sound"), ("once", "count"), ("waves", "sound")]
    assert kinds("top-left.") == [("top-left", "place")]


def test_every_clause_has_a_content_word():
    for seed in range(300):
        for sentence in describe.sentences_of(make_scene(seed)):
            for claim in sentence.claims:
                assert any(describe.token_kinds(grammar.tokens(grammar.clause_text(claim))))


def test_an_annotator_without_faults_writes_the_reference():
    for seed in range(200):
        scene = make_scene(seed, difficulty="hard")
        label = describe.imperfect_caption(scene, annotator=PERFECT, rng=random.Random(seed))
        assert label == describe.reference_caption(scene)


@pytest.mark.parametrize("kind", [*grammar.VISUAL_KINDS, *grammar.SOUND_KINDS])
def test_an_omission_rate_omits_that_kind_and_no_other(kind):
    annotator = replace(PERFECT, **{f"omit_{kind}": 1.0})
    scene = make_scene(3, difficulty="hard")
    kept = [c for sentence in describe.sentences_of(scene) for c in sentence.claims if c.kind != kind]
    label = describe.imperfect_caption(scene, annotator=annotator, rng=random.Random(0))
    assert [statement.claim for statement in grammar.read_caption(label).statements] == kept


def test_slips_are_wrong_in_one_attribute():
    for seed in range(300):
        scene = make_scene(seed, difficulty="hard")
        label = describe.imperfect_caption(scene, annotator=replace(PERFECT, slip=1.0), rng=random.Random(seed))
        verdict = judge_caption(label, truth=scene)
        # Every sight and sound is told wrongly, and so what happens together is missing.
        assert all(e.label == ("missing" if e.event_id[0] == "b" else "incorrect") for e in verdict.events)
        assert not verdict.invented and not verdict.repeated


def test_a_recap_says_again_what_was_said():
    for seed in range(300):
        scene = make_scene(seed)
        annotator = replace(PERFECT, recap=1.0, long_recap=0.5)
        label = describe.imperfect_caption(scene, annotator=annotator, rng=random.Random(seed))
        *_, last = label.split(". ")
        if "Overall" not in label:  # nothing was said that is long enough to be repeated
            assert all(len(grammar.clause_text(c).split()) < 5 for s in describe.sentences_of(scene) for c in s.claims)
            continue
        assert last.startswith("Overall, ")
        verdict = judge_caption(label, truth=scene)
        assert len(verdict.repeated) in (1, 2) and not verdict.invented
        assert all(event.label == "correct" for event in verdict.events)
        # Each recapped clause has at least five words, all of which are a repetition.
        assert count_words(label).repetition_rate >= 5 / len(label.split())


def test_an_early_stop_keeps_the_first_half():
    for seed in range(200):
        scene = make_scene(seed)
        reference = describe.reference_caption(scene)
        label = describe.imperfect_caption(scene, annotator=replace(PERFECT, early_stop=1.0), rng=random.Random(seed))
        assert reference.startswith(label)
        if reference.count("At") > 1:
            assert reference.count("At") / 2 <= label.count("At") < reference.count("At")


def test_labels_of_the_default_annotator_are_as_bad_as_intended():
    """The rates that training was tuned on: about half missing, a twelfth wrong, a seventh repeated."""
    scenes = [make_scene(seed) for seed in range(1000)]
    labels = [
        describe.imperfect_caption(scene, annotator=Annotator(), rng=random.Random(i)) for i, scene in enumerate(scenes)
    ]
    counts = [count_errors(judge_caption(label, truth=scene)) for label, scene in zip(labels, scenes, strict=True)]
    num_events = sum(count.num_events for count in counts)
    assert sum(count.missing for count in counts) / num_events == pytest.approx(0.48, abs=0.02)
    assert sum(count.incorrect + count.invented for count in counts) / num_events == pytest.approx(0.084, abs=0.01)
    assert sum(count_words(label).repetition_rate for label in labels) / len(labels) == pytest.approx(0.15, abs=0.02)
