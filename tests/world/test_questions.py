"""Questions have one right answer each, which cannot be guessed from the question."""

import random
from collections import Counter, defaultdict

import pytest

from avcap.records import Question
from avcap.world import describe, questions
from avcap.world.scene import Scene, SoundAtom, VisualAtom, make_scene

NUM_SCENES = 3000


@pytest.fixture(scope="module")
def asked() -> dict[str, list[tuple[Scene, Question]]]:
    """Kind -> the questions of that kind about many standard scenes."""
    by_kind = defaultdict(list)
    for seed in range(NUM_SCENES):
        scene = make_scene(seed)
        for question in questions.make_questions(scene, clip_id=f"clip-{seed}", rng=random.Random(seed)):
            by_kind[question.kind].append((scene, question))
    return by_kind


def test_every_kind_is_asked_often(asked):
    assert set(asked) == set(questions.question_kinds()) and len(asked) >= 8
    assert all(len(pairs) >= NUM_SCENES / 3 for pairs in asked.values())
    assert {pairs[0][1].needs for pairs in asked.values()} == {"visual", "audio", "both"}


def test_questions_and_ids_are_of_a_clip_and_the_same_every_time():
    scene = make_scene(5)
    first, again = (questions.make_questions(scene, clip_id="c5", rng=random.Random(1)) for _ in range(2))
    assert first == again
    assert [question.question_id for question in first] == [f"c5-{question.kind}" for question in first]


def test_guessing_one_answer_gives_the_documented_chance(asked):
    for kind, pairs in asked.items():
        answers = Counter(question.answer for _, question in pairs)
        if kind == "first":
            # The best guess here names one of the two sounds of the question: the first or the second.
            answers = Counter(
                question.text.index(question.answer[:-1]) < question.text.index(" or ") for _, question in pairs
            )
        best_guess = answers.most_common(1)[0][1] / len(pairs)
        assert best_guess == pytest.approx(questions.chance(kind), abs=0.03), kind


def test_the_name_of_a_sound_does_not_tell_whether_it_is_heard(asked):
    by_text = defaultdict(Counter)
    for _, question in asked["heard"]:
        by_text[question.text][question.answer] += 1
    # The best answer per wording: 1/2 and the luck of hindsight on some 200 questions each.
    assert sum(max(answers.values()) for answers in by_text.values()) / len(asked["heard"]) < 0.55


@pytest.mark.parametrize("position", [0, -1])
def test_pictures_alone_do_not_tell_what_was_there_before_a_sound(asked, position):
    hits = 0
    for scene, question in asked["there"]:
        appearing = [atom for atom in scene.visual if atom.kind == "appear"]
        hits += question.answer == f"the {appearing[position].colour} {appearing[position].shape}."
    # Always the first object, or always the last, of three on average: about 1/3.
    assert hits / len(asked["there"]) < 0.42


def test_the_answers_to_say_and_recolour_are_in_the_caption(asked):
    for scene, question in asked["say"]:
        assert f'says "{question.answer[:-1]}"' in describe.reference_caption(scene)
    for scene, question in asked["recolour"]:
        thing = question.text.removeprefix("What colour does the ").removesuffix(" turn?")
        turns = [part for part in describe.reference_caption(scene).split(". ") if f"the {thing} turns" in part]
        assert len(turns) == 1 and f"turns {question.answer[:-1]}" in turns[0]


def test_where_objects_heard_and_count_agree_with_the_scene(asked):
    for scene, question in asked["where"]:
        thing = question.text.removeprefix("Where does the ").removesuffix(" appear?")
        places = [a.place for a in scene.visual if a.kind == "appear" and f"{a.colour} {a.shape}" == thing]
        assert places == [question.answer[:-1]]
    for scene, question in asked["objects"]:
        assert questions.NUMBERS.index(question.answer[:-1]) == describe.reference_caption(scene).count(" appears ")
    for scene, question in asked["heard"]:
        name = question.text.removesuffix("?").split(" ")[-1]
        assert (question.answer == "yes.") == any(sound.name == name for sound in scene.sounds)
    for scene, question in asked["count"]:
        second = int(question.text.split(" ")[-1].removesuffix("s?"))
        assert f" {question.answer[:-1]}" in describe.clause(scene, second, "audio")


def _atom(second: int, kind: str, colour: str, shape: str, **changes) -> VisualAtom:
    return VisualAtom(second=second, kind=kind, colour=colour, shape=shape, place="top-left", size=1, **changes)


def test_a_scene_by_hand():
    """Red circle at 1s, bell at 3s while it grows, green star at 4s, flute at 5s."""
    scene = Scene(
        seed=0,
        difficulty="easy",
        domain="default",
        duration_s=6,
        visual=(
            _atom(1, "appear", "red", "circle"),
            _atom(3, "grow", "red", "circle"),
            _atom(4, "appear", "green", "star"),
        ),
        sounds=(
            SoundAtom(second=3, kind="counted", name="bell", count=2),
            SoundAtom(second=5, kind="plain", name="flute"),
        ),
    )
    asked = {q.kind: q for q in questions.make_questions(scene, clip_id="c", rng=random.Random(0))}
    assert asked["first"].answer == "the bell."
    there = {"a bell rings": "the red circle.", "a flute plays": "the green star."}
    clause = asked["there"].text.removeprefix("Which object is the last to appear before ").removesuffix("?")
    assert asked["there"].answer == there[clause]
    assert asked["during"].text == "What do you hear while the red circle grows?"
    assert asked["during"].answer == "a bell."
    assert asked["objects"].answer == "two."
    # No voice and no recolouring: nothing to ask.
    assert "say" not in asked and "recolour" not in asked


def test_an_empty_scene_has_no_objects():
    scene = Scene(seed=0, difficulty="easy", domain="default", duration_s=6, visual=(), sounds=())
    (question,) = questions.make_questions(scene, clip_id="c", rng=random.Random(0))
    assert (question.kind, question.answer) == ("objects", "zero.")


@pytest.mark.parametrize(
    ("given", "answer", "is_right"),
    [
        ("Lemon tiger", "lemon tiger.", True),
        ('"lemon tiger"', "lemon tiger.", True),
        ("tiger lemon.", "lemon tiger.", False),
        ("The red circle.", "the red circle.", True),
        ("a red circle", "the red circle.", True),
        ("red square", "the red circle.", False),
        ("in the top left corner", "top-left.", True),
        ("2", "two.", True),
        ("3 times", "three times.", True),
        ("two times", "twice.", True),
        ("YES!", "yes.", True),
        ("yes and no", "yes.", False),
        ("", "yes.", False),
        ("²", "two.", False),
    ],
)
def test_right(given, answer, is_right):
    question = Question(question_id="q", kind="say", text="?", answer=answer, needs="audio")
    assert questions.right(given, question) is is_right
