"""The exact judge: clean captions are clean, planted errors are found one by one, and any text gets a verdict."""

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avcap.judge.metrics.error_counts import count_errors, total_error
from avcap.records import Verdict, WorldTruth, from_json, to_json
from avcap.world import describe, grammar
from avcap.world.oracle import corrupt, judge_caption
from avcap.world.scene import Scene, SoundAtom, VisualAtom, make_scene

CIRCLE = {"colour": "red", "shape": "circle", "size": 1}
SCENE = Scene(
    seed=0,
    difficulty="easy",
    domain="default",
    duration_s=8,
    visual=(
        VisualAtom(second=1, kind="appear", place="top-left", **CIRCLE),
        VisualAtom(second=3, kind="move", place="top-left", new_place="bottom-right", **CIRCLE),
        VisualAtom(second=5, kind="grow", place="bottom-right", **CIRCLE),
    ),
    sounds=(
        SoundAtom(second=2, kind="counted", name="bell", count=3),
        SoundAtom(second=3, kind="say", words=("lemon", "tiger")),
        SoundAtom(second=6, kind="plain", name="flute"),
    ),
)
# 7 events: v1 s2 v3 s3 b3 v5 s6
TEXT = describe.reference_caption(SCENE)


def labels(verdict: Verdict) -> dict[str, str]:
    """The labels that are not "correct"."""
    return {event.event_id: event.label for event in verdict.events if event.label != "correct"}


def texts(verdict: Verdict) -> tuple[str, ...]:
    return tuple(claim.text for claim in verdict.invented)


def assert_clean(verdict: Verdict) -> None:
    assert not labels(verdict) and not verdict.invented and not verdict.repeated, verdict


# --- clean captions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("difficulty", ["standard", pytest.param("hard", marks=pytest.mark.slow)])
def test_two_thousand_clean_captions_have_no_errors(difficulty):
    num_captions = 0
    for seed in range(400):
        scene = make_scene(seed, difficulty=difficulty)
        for modality in ("both", "visual", "audio"):
            for interval_s in (None, (2.0, 6.0)):
                text = describe.reference_caption(scene, modality=modality, interval_s=interval_s)
                assert_clean(judge_caption(text, truth=scene, modality=modality, interval_s=interval_s))
                num_captions += 1
    assert num_captions == 2400  # 400 scenes x 3 modalities x (global, local)


def test_a_true_clause_that_was_not_asked_for_counts_neither_way():
    assert_clean(judge_caption(TEXT, truth=SCENE, modality="visual"))
    assert_clean(judge_caption(TEXT, truth=SCENE, interval_s=(2.0, 4.0)))


def test_a_false_clause_is_invented_wherever_it_lies():
    verdict = judge_caption("At 3s a bell rings once. At 6s a piano plays.", truth=SCENE, interval_s=(1.0, 3.0))
    # Second 6 was not asked for, and a flute is no piano; the bell is that of second 2 at a wrong time and count.
    assert labels(verdict) == {"v1": "missing", "s2": "missing"}
    assert texts(verdict) == ("At 3s a bell rings once", "At 6s a piano plays")
    assert [(claim.modality, claim.start_s) for claim in verdict.invented] == [("audio", 3.0), ("audio", 6.0)]


def test_truth_may_be_a_line_of_a_world():
    truth = WorldTruth(
        clip_id="c",
        video="c.mp4",
        difficulty="easy",
        domain="default",
        seed=0,
        duration_s=8.0,
        reference_caption=TEXT,
        events=describe.scene_events(SCENE),
        scene=dataclasses.asdict(SCENE),
    )
    truth = from_json(to_json(truth), WorldTruth)
    verdict = judge_caption(TEXT, truth=truth, caption_id="c-1")
    assert_clean(verdict)
    assert (verdict.caption_id, verdict.judge) == ("c-1", "oracle")
    assert [event.event_id for event in verdict.events] == [event.event_id for event in truth.events]


# --- single errors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        # A dropped half, or a wrong one: the event, and what it makes with the other half.
        (' while a voice says "lemon tiger"', "", {"s3": "missing", "b3": "missing"}),
        ("lemon tiger", "lemon table", {"s3": "incorrect", "b3": "missing"}),
        ("to the bottom-right", "to the top-right", {"v3": "incorrect", "b3": "missing"}),
        # Both told, but not as one: only "both" suffers.
        (" while a voice", ". At 3s a voice", {"b3": "missing"}),
        (" while a voice", " and a voice", {"b3": "missing"}),
        ("At 5s the red circle grows. ", "", {"v5": "missing"}),
        ("three times", "twice", {"s2": "incorrect"}),
        ("bell", "drum", {"s2": "incorrect"}),
        ("a flute", "a violin", {"s6": "incorrect"}),
        ("a flute", "a saxophone", {"s6": "incorrect"}),
        # The verb is an attribute of the object's change.
        ("grows", "shrinks", {"v5": "incorrect"}),
        ("At 6s", "At 7s", {"s6": "incorrect"}),
        # Half said is not right.
        ("appears in the top-left corner", "appears", {"v1": "incorrect"}),
        ("rings three times", "rings", {"s2": "incorrect"}),
    ],
)
def test_a_wrong_or_missing_clause(old, new, wrong):
    assert old in TEXT
    verdict = judge_caption(TEXT.replace(old, new, 1), truth=SCENE)
    assert labels(verdict) == wrong
    assert not verdict.invented and not verdict.repeated


@pytest.mark.parametrize(
    ("added", "invented"),
    [
        ("At 4s a blue star vanishes.", ("At 4s a blue star vanishes",)),
        # The flute of second 6 is spent on the claim that is right.
        ("At 7s a flute plays.", ("At 7s a flute plays",)),
        ("At 7s the weather is fine and a drum beats once.", ("At 7s a drum beats once", "the weather is fine")),
    ],
)
def test_an_added_claim_is_invented(added, invented):
    verdict = judge_caption(f"{TEXT} {added}", truth=SCENE)
    assert not labels(verdict) and not verdict.repeated
    assert texts(verdict) == invented


@pytest.mark.parametrize(
    ("added", "num_repeated"),
    [
        ("At 6s a flute plays.", 1),
        ("Overall, a red circle appears in the top-left corner and a bell rings three times.", 2),
        ("A bell rings three times.", 1),
        ("Overall.", 0),
        ("Nothing happens.", 0),
    ],
)
def test_what_is_said_again_is_repeated_not_invented(added, num_repeated):
    verdict = judge_caption(f"{TEXT} {added}", truth=SCENE)
    assert not labels(verdict) and not verdict.invented
    assert len(verdict.repeated) == num_repeated


def test_the_exact_claim_wins_the_event_against_a_near_one():
    near_first = judge_caption(f"At 6s a guitar plays. {TEXT}", truth=SCENE)
    assert not labels(near_first)
    assert texts(near_first) == ("At 6s a guitar plays",)


def test_of_two_claims_about_one_event_the_nearer_in_time_is_spent_and_the_other_invented():
    text = TEXT.replace("At 6s a flute plays.", "At 4s a flute plays. At 7s a flute plays.")
    verdict = judge_caption(text, truth=SCENE)  # a flute plays at 6 s: 2 s and 1 s off
    assert labels(verdict) == {"s6": "incorrect"} and texts(verdict) == ("At 4s a flute plays",)


@pytest.mark.parametrize(
    ("event", "near", "far"),
    [
        # another sound at the right time before the right sound at another
        ("At 6s a flute plays", "At 6s a guitar plays", "At 7s a flute plays"),
        # the same change of another object before another change of the same object
        ("At 5s the red circle grows", "At 5s the blue star grows", "At 5s the red circle vanishes"),
        # and that before the right change at another time
        ("At 5s the red circle grows", "At 5s the red circle vanishes", "At 4s the red circle grows"),
    ],
)
def test_kinds_of_nearness_have_an_order(event, near, far):
    assert event in TEXT
    for told in (f"{near}. {far}", f"{far}. {near}"):
        verdict = judge_caption(TEXT.replace(event, told), truth=SCENE)
        assert list(labels(verdict).values()) == ["incorrect"] and texts(verdict) == (far,)


def test_a_sound_is_not_taken_for_one_of_another_kind_in_its_second():
    # At 3 s a voice speaks, and no bell rings: the ring says nothing about the voice.
    text = TEXT.replace('a voice says "lemon tiger"', "a drum beats once")
    verdict = judge_caption(text, truth=SCENE)
    assert labels(verdict) == {"s3": "missing", "b3": "missing"} and texts(verdict) == ("At 3s a drum beats once",)


def test_a_clause_without_a_time_may_tell_a_second_event_of_the_same_content():
    flutes = tuple(SoundAtom(second=second, kind="plain", name="flute") for second in (2, 5))
    scene = dataclasses.replace(SCENE, sounds=flutes)
    text = (
        "At 1s a red circle appears in the top-left corner. At 2s a flute plays. "
        "At 3s the red circle moves from the top-left corner to the bottom-right corner. At 5s the red circle grows."
    )
    assert labels(judge_caption(text, truth=scene)) == {"s5": "missing", "b5": "missing"}
    # The last clause has the time of the one before it, 5 s, when a flute plays as well; said once more it is no news.
    verdict = judge_caption(f"{text} A flute plays.", truth=scene)
    assert labels(verdict) == {"b5": "missing"} and not verdict.repeated and not verdict.invented
    verdict = judge_caption(f"{text} A flute plays. A flute plays.", truth=scene)
    assert labels(verdict) == {"b5": "missing"} and verdict.repeated == ("At 5s a flute plays",)


def test_an_empty_caption_misses_everything():
    verdict = judge_caption("", truth=SCENE)
    assert list(labels(verdict).values()) == ["missing"] * 7
    assert not verdict.invented and not verdict.repeated


# --- lenient reading --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clean", "paraphrase"),
    [
        ("At 1s a red circle appears in the top-left corner", "at 1 s A RED CIRCLE shows up at the top left"),
        ("At 1s a red circle appears", "At second 1, a small red circle comes up"),
        ("in the top-left corner.", "in the upper left corner of the screen."),
        ("At 2s a bell rings three times.", "A bell rings 3 times at 2 seconds."),
        ("At 2s", "At 2.0 s,"),
        ("moves from", "slides from"),
        ("grows", "gets bigger"),
        ("grows", "becomes larger"),
        ('"lemon tiger"', "“Lemon tiger”"),
        ('"lemon tiger".', '"lemon tiger."'),
        ('"lemon tiger"', "lemon tiger"),
        (" At 2s a bell rings three times.", ""),  # moved to the end below
    ],
)
def test_paraphrases_are_understood(clean, paraphrase):
    assert clean in TEXT
    text = TEXT.replace(clean, paraphrase, 1) if paraphrase else f"{TEXT.replace(clean, '')}{clean}"
    assert_clean(judge_caption(text, truth=SCENE))


@pytest.mark.parametrize(
    "text",
    [
        "At 3s the red circle turns blue while a flute plays.",
        "At 3s a flute plays while the red circle turns blue.",
        "The red circle becomes blue at 3s while a flute plays.",
        "At 3s, the red circle turns into blue as a flute plays!",
    ],
)
def test_orders_of_one_sentence_have_one_reading(text):
    reading = grammar.read_caption(text)
    sight = grammar.Claim(second=3, kind="recolour", colour="red", shape="circle", new_colour="blue")
    sound = grammar.Claim(second=3, kind="plain", name="flute")
    assert {statement.claim for statement in reading.statements} == {sight, sound}
    assert reading.pairs == {(sight, sound)}
    assert not reading.unread


def test_a_clause_without_a_time_has_the_last_one():
    reading = grammar.read_caption("Rain falls. At 2s rain falls. Waves break, and at 4s people applaud.")
    said = [(s.claim.second, s.claim.name, s.timed) for s in reading.statements]
    assert said == [(None, "rain", False), (2, "rain", True), (2, "waves", False), (4, "applause", True)]


def test_times_after_what_happens():
    reading = grammar.read_caption("A bell rings once at 2s and a drum beats 4 times at 3s.")
    assert [(s.claim.second, s.claim.count) for s in reading.statements] == [(2, 1), (3, 4)]


# --- planted errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "difficulty", ["easy", *(pytest.param(d, marks=pytest.mark.slow) for d in ("standard", "hard"))]
)
def test_exactly_the_planted_errors_are_found(difficulty):
    kinds = set()
    for seed in range(1000):
        scene = make_scene(seed, difficulty=difficulty)
        rng = random.Random(seed)
        num_seconds = len({atom.second for atom in scene.visual + scene.sounds})
        text, planted = corrupt(describe.reference_caption(scene), k := rng.randint(0, num_seconds), rng=rng)
        assert len(planted) == k
        verdict = judge_caption(text, truth=scene)
        expected = {event_id: "missing" for error in planted for event_id in error.missing}
        expected |= {event_id: "incorrect" for error in planted for event_id in error.incorrect}
        assert labels(verdict) == expected, text
        assert len(verdict.invented) == sum(error.num_invented for error in planted), text
        assert len(verdict.repeated) == sum(error.num_repeated for error in planted), text
        kinds |= {error.kind for error in planted}
    assert kinds == {"drop", "change", "shift", "invent", "repeat", "split"}


def test_planted_claims_have_their_seconds_to_themselves():
    num_added = 0
    for seed in range(60):
        clean = describe.reference_caption(make_scene(seed, difficulty="hard"))
        claims = [statement.claim for statement in grammar.read_caption(clean).statements]
        told = {(claim.second, claim.is_visual) for claim in claims}
        text, _ = corrupt(clean, len({claim.second for claim in claims}), rng=random.Random(seed))
        added = [
            (one.claim.second, one.claim.is_visual)
            for one in grammar.read_caption(text).statements
            if one.timed and (one.claim.second, one.claim.is_visual) not in told
        ]
        assert len(added) == len(set(added)), text
        num_added += len(added)
    assert num_added > 60  # shifted and invented ones, more than one a caption


def test_more_errors_than_seconds_cannot_be_planted():
    with pytest.raises(ValueError, match="k = 6, expected at most 5"):
        corrupt(TEXT, 6, rng=random.Random(0))
    assert corrupt(TEXT, 0, rng=random.Random(0)) == (TEXT, ())
    assert corrupt("Nothing happens.", 0, rng=random.Random(0)) == ("Nothing happens.", ())


# --- any text ---------------------------------------------------------------------------------------------------------


def assert_accounted_for(text: str) -> None:
    """Every claim is spent on an event, repeated or invented; nothing is dropped, nothing counted twice."""
    reading = grammar.read_caption(text)
    verdict = judge_caption(text, truth=SCENE)
    told = [e for e in verdict.events if e.label != "missing" and not e.event_id.startswith("b")]
    num_claims = len(reading.statements) + len(reading.unread)
    assert len(told) + len(verdict.invented) + len(verdict.repeated) == num_claims
    assert [event.event_id for event in verdict.events] == ["v1", "s2", "v3", "s3", "b3", "v5", "s6"]


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(st.text())
def test_garbage_gets_a_verdict(text):
    assert_accounted_for(text)


@settings(deadline=None, max_examples=500)
@given(st.lists(st.sampled_from([*describe.all_words(), "at", "@3", "3", "times", "_", "as", "second", "\n"])))
def test_a_salad_of_the_worlds_words_gets_a_verdict(words):
    assert_accounted_for(" ".join(words))


@settings(deadline=None, max_examples=300)
@given(st.permutations(TEXT.removesuffix(".").split(". ")))
def test_the_order_of_sentences_does_not_matter(sentences):
    assert_clean(judge_caption(". ".join(sentences) + ".", truth=SCENE))


# --- counts -----------------------------------------------------------------------------------------------------------


def test_counts_and_the_total_error():
    text = TEXT.replace("grows", "shrinks").replace("At 6s a flute plays.", "At 4s a drum beats once.")
    verdict = judge_caption(f"{text} At 2s a bell rings three times.", truth=SCENE)
    counts = count_errors(verdict)
    assert dataclasses.astuple(counts) == (7, 1, 1, 1, 1)  # events; s6 missing, v5 incorrect, a drum, the bell again
    # (1 + 1 + 1) / 7; with a clean caption of the same clip 3 / 14; repetition is not an error of this kind
    assert total_error([verdict]) == pytest.approx(3 / 7)
    assert total_error([verdict, judge_caption(TEXT, truth=SCENE)]) == pytest.approx(3 / 14)
    assert total_error([]) != total_error([])  # no events: nan
