"""Questions about a Scene, each with exactly one right answer in a few words. Standard library only.

Answers are balanced where a scene leaves a choice, and a question is not asked when its wording would give it away:
whoever guesses without looking and listening scores about `chance(kind)`.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from avcap.records import Modality, Question
from avcap.world import grammar
from avcap.world.scene import COUNTED_SOUNDS, MAX_COUNT, PLAIN_SOUNDS, Scene, SoundAtom, VisualAtom

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_SAY_AT = "What does the voice say at {time}?"
_SAY_FIRST = "What does the voice say first?"
_HEARD = "Can you hear {sound}?"
_COUNT = "How many times does {sound} at {time}?"
_RECOLOUR = "What colour does the {thing} turn?"
_WHERE = "Where does the {thing} appear?"
_OBJECTS = "How many objects appear?"
_FIRST = "Which comes first, {sound} or {other_sound}?"
_THERE = "Which object is the last to appear before {clause}?"
_DURING = "What do you hear while {clause}?"

_SPEAKS = "the voice speaks"
_COUNTED_VERBS = {"bell": "the bell ring", "drum": "the drum beat", "knock": "somebody knock"}
_UNCOUNTABLE = ("rain", "waves", "applause")


@dataclass(frozen=True)
class _Asked:
    text: str
    answer: str


Maker = Callable[[Scene, random.Random], _Asked | None]


@dataclass(frozen=True, kw_only=True)
class _Kind:
    make: Maker
    needs: Modality
    chance: float


def make_questions(scene: Scene, *, clip_id: str, rng: random.Random) -> tuple[Question, ...]:
    """Scene -> one question of each kind for which the scene has something to ask about."""
    asked = (ask(scene, kind, clip_id=clip_id, rng=rng) for kind in _KINDS)
    return tuple(question for question in asked if question)


def ask(scene: Scene, kind: str, *, clip_id: str, rng: random.Random) -> Question | None:
    """Scene -> a question of this kind; None if the scene has nothing to ask about."""
    asked = _KINDS[kind].make(scene, rng)
    if asked is None:
        return None
    needs = _KINDS[kind].needs
    return Question(question_id=f"{clip_id}-{kind}", kind=kind, text=asked.text, answer=asked.answer, needs=needs)


def question_kinds() -> tuple[str, ...]:
    return tuple(_KINDS)


def chance(kind: str) -> float:
    """Kind of question -> the share that the best constant answer gets right on standard scenes.

    For "first", the better of the two sounds named. Where a question needs both modalities, one alone is worth more
    than a guess: about .37 for "there" (a random object of the clip), .48 for "during" (a random sound).
    """
    return _KINDS[kind].chance


def question_tokens() -> set[str]:
    """Every word and mark of every question and answer; {fields} that the caption grammar fills are left to it."""
    fields = {"time": "0s", "thing": "", "clause": ""}
    texts = [_SAY_AT, _SAY_FIRST, _RECOLOUR, _WHERE, _OBJECTS, _THERE, _DURING, _SPEAKS, "yes no .", *NUMBERS]
    names = (*PLAIN_SOUNDS, *COUNTED_SOUNDS, "voice")
    for sound in (*map(_with_a, names), *map(_with_the, names), *_COUNTED_VERBS.values()):
        fields |= {"sound": sound, "other_sound": sound}
        texts += [template.format_map(fields) for template in (_HEARD, _COUNT, _FIRST)]
    return {token for text in texts for token in grammar.tokens(text.format_map(fields))} | grammar.all_tokens()


# --- answers ----------------------------------------------------------------------------------------------------------

_SILENT_WORDS = {"a", "an", "the", "in", "corner"}
_COUNTS: dict[tuple[str, ...], tuple[str, ...]] = {("one", "time"): ("once",), ("two", "times"): ("twice",)}


def right(answer_text: str, question: Question) -> bool:
    """A given answer -> is it the right one? Case, punctuation, articles and digits for words make no difference."""
    return _plain_words(answer_text) == _plain_words(question.answer)


def _plain_words(text: str) -> tuple[str, ...]:
    text = text.lower()
    for side in ("top", "bottom"):
        text = text.replace(f"{side} left", f"{side}-left").replace(f"{side} right", f"{side}-right")
    words = [word for word in grammar.tokens(text) if word[0].isalnum() and word not in _SILENT_WORDS]
    spelled = tuple(
        NUMBERS[int(word)] if word.isascii() and word.isdigit() and len(word) == 1 else word for word in words
    )
    return _COUNTS.get(spelled, spelled)


# --- what can be asked about ------------------------------------------------------------------------------------------


def _sound_name(sound: SoundAtom) -> str:
    return sound.name or "voice"


def _with_a(name: str) -> str:
    return name if name in _UNCOUNTABLE else grammar.with_article(name)


def _with_the(name: str) -> str:
    return f"the {name}"


def _clauses_of_one_moment(scene: Scene) -> list[tuple[SoundAtom, str]]:
    """The sounds that a clause can single out, each with it: "a bell rings", or "a bell rings twice" among others."""
    full_clauses = [grammar.clause_text(grammar.claim_of(sound)) for sound in scene.sounds]
    short_clauses = {"voice": _SPEAKS} | grammar.PLAIN_CLAUSES | grammar.COUNTED_CLAUSES
    once = _heard_once(scene)
    return [
        (sound, short_clauses[_sound_name(sound)] if sound in once else full)
        for sound, full in zip(scene.sounds, full_clauses, strict=True)
        if full_clauses.count(full) == 1
    ]


def _heard_once(scene: Scene) -> list[SoundAtom]:
    """The sounds of a scene whose name stands for one moment only."""
    times = Counter(map(_sound_name, scene.sounds))
    return [sound for sound in scene.sounds if times[_sound_name(sound)] == 1]


def _thing(atom: VisualAtom) -> str:
    return f"{atom.colour} {atom.shape}"


def _one_of_a_kind(scene: Scene, kind: str) -> list[VisualAtom]:
    """The changes of this kind whose object has no other change of this kind in the scene."""
    atoms = [atom for atom in scene.visual if atom.kind == kind]
    times = Counter(map(_thing, atoms))
    return [atom for atom in atoms if times[_thing(atom)] == 1]


def _ask_say(scene: Scene, rng: random.Random) -> _Asked | None:
    spoken = [sound for sound in scene.sounds if sound.words]
    if not spoken:
        return None
    ask_first = rng.random() < 0.3
    sound = spoken[0] if ask_first else rng.choice(spoken)
    text = _SAY_FIRST if ask_first else _SAY_AT.format(time=f"{sound.second}s")
    return _Asked(text, f"{' '.join(sound.words or ())}.")


def _ask_heard(scene: Scene, rng: random.Random) -> _Asked | None:
    heard = sorted({sound.name for sound in scene.sounds if sound.name})
    # A scene without a nameable sound could only be asked about with the answer "no".
    if not heard:
        return None
    if rng.random() < 0.5:
        return _Asked(_HEARD.format(sound=_with_a(rng.choice(heard))), "yes.")
    absent = [name for name in (*PLAIN_SOUNDS, *COUNTED_SOUNDS) if name not in heard]
    # A counted sound is in more scenes than a plain one. Asked about as often in vain, its name gives nothing away.
    weights = [_ABSENT_COUNTED_WEIGHT if name in COUNTED_SOUNDS else 1.0 for name in absent]
    return _Asked(_HEARD.format(sound=_with_a(rng.choices(absent, weights=weights)[0])), "no.")


_ABSENT_COUNTED_WEIGHT = 4.0


def _ask_count(scene: Scene, rng: random.Random) -> _Asked | None:
    counted = [sound for sound in scene.sounds if sound.count]
    if not counted:
        return None
    sound = rng.choice(counted)
    assert sound.name and sound.count, sound
    text = _COUNT.format(sound=_COUNTED_VERBS[sound.name], time=f"{sound.second}s")
    return _Asked(text, f"{grammar.COUNT_WORDS[sound.count - 1]}.")


def _ask_recolour(scene: Scene, rng: random.Random) -> _Asked | None:
    atoms = _one_of_a_kind(scene, "recolour")
    if not atoms:
        return None
    atom = rng.choice(atoms)
    return _Asked(_RECOLOUR.format(thing=_thing(atom)), f"{atom.new_colour}.")


def _ask_where(scene: Scene, rng: random.Random) -> _Asked | None:
    atoms = _one_of_a_kind(scene, "appear")
    if not atoms:
        return None
    atom = rng.choice(atoms)
    return _Asked(_WHERE.format(thing=_thing(atom)), f"{atom.place}.")


def _ask_objects(scene: Scene, rng: random.Random) -> _Asked | None:
    number = sum(atom.kind == "appear" for atom in scene.visual)
    return _Asked(_OBJECTS, f"{NUMBERS[number]}.") if number < len(NUMBERS) else None


def _ask_first(scene: Scene, rng: random.Random) -> _Asked | None:
    """Two sounds of different seconds, in random order."""
    sounds = _heard_once(scene)
    pairs = [(a, b) for a in sounds for b in sounds if a.second < b.second]
    if not pairs:
        return None
    first, last = (_with_the(_sound_name(sound)) for sound in rng.choice(pairs))
    asked = rng.sample((first, last), 2)
    return _Asked(_FIRST.format(sound=asked[0], other_sound=asked[1]), f"{first}.")


def _ask_there(scene: Scene, rng: random.Random) -> _Asked | None:
    """The last object to appear before a sound, where another sound would have had another answer."""
    appearing = [atom for atom in scene.visual if atom.kind == "appear"]
    seconds = [atom.second for atom in appearing]
    clauses_by_answer: dict[str, list[str]] = {}
    for sound, clause in _clauses_of_one_moment(scene):
        before = [atom for atom in appearing if atom.second < sound.second]
        # What appears in the second of the sound is in the picture just before it: no fair question.
        if before and sound.second not in seconds:
            clauses_by_answer.setdefault(_thing(before[-1]), []).append(clause)
    # With one possible answer in the whole scene, pictures alone would give it away.
    if len(clauses_by_answer) < 2:
        return None
    answer = rng.choice(list(clauses_by_answer))
    return _Asked(_THERE.format(clause=rng.choice(clauses_by_answer[answer])), f"the {answer}.")


def _ask_during(scene: Scene, rng: random.Random) -> _Asked | None:
    """The sound in the second of a change; the clip has other sounds, so that listening alone does not answer it."""
    if len({_sound_name(sound) for sound in scene.sounds}) < 2:
        return None
    possible = []
    for kind in grammar.VISUAL_KINDS:
        for atom in _one_of_a_kind(scene, kind):
            sounds = [sound for sound in scene.sounds if sound.second == atom.second]
            # Two sounds in five are the voice: as an answer it would be worth guessing.
            if len(sounds) == 1 and sounds[0].name:
                possible.append((atom, sounds[0].name))
    if not possible:
        return None
    atom, name = rng.choice(possible)
    return _Asked(_DURING.format(clause=grammar.short_text(grammar.claim_of(atom))), f"{_with_a(name)}.")


_KINDS = {
    "say": _Kind(make=_ask_say, needs="audio", chance=0.01),
    "heard": _Kind(make=_ask_heard, needs="audio", chance=0.51),
    "count": _Kind(make=_ask_count, needs="audio", chance=1 / MAX_COUNT),
    "recolour": _Kind(make=_ask_recolour, needs="visual", chance=0.14),
    "where": _Kind(make=_ask_where, needs="visual", chance=0.26),
    "objects": _Kind(make=_ask_objects, needs="visual", chance=0.33),
    "first": _Kind(make=_ask_first, needs="audio", chance=0.5),
    "there": _Kind(make=_ask_there, needs="both", chance=0.03),
    "during": _Kind(make=_ask_during, needs="both", chance=0.16),
}
