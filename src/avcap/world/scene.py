"""A random number generator becomes a Scene: what is seen and heard in a clip, second by second. Standard library only.

The stage is a 2 x 2 grid: four places, at most one object in each. Time runs in whole seconds. A *visual* atom "at 3s"
is a change that is animated just before second 3 and has settled in the frame at 3.0 s. A *sound* atom "at 3s" begins
just after 3.0 s and is over, but for its reverberation, at 4.0 s. So the frame of second k shows the state after the
change of second k, and the sound of [k, k + 1) belongs to it.
"""

import random
from dataclasses import dataclass
from typing import Literal

COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white")
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
PLACES = ("top-left", "top-right", "bottom-left", "bottom-right")  # row by row: place i is cell (i // 2, i % 2)
SIZES = ("small", "medium", "large")

PLAIN_SOUNDS = (
    "flute",
    "trumpet",
    "piano",
    "violin",
    "guitar",
    "bird",
    "telephone",
    "rain",
    "waves",
    "helicopter",
    "applause",
    "cymbal",
)
COUNTED_SOUNDS = ("bell", "drum", "knock")
MAX_COUNT = 4

WORDS = (
    "apple",
    "basket",
    "candle",
    "dragon",
    "eagle",
    "forest",
    "garden",
    "hammer",
    "island",
    "jacket",
    "kitten",
    "ladder",
    "lemon",
    "magnet",
    "monkey",
    "number",
    "paper",
    "pencil",
    "pocket",
    "rabbit",
    "river",
    "rocket",
    "sugar",
    "summer",
    "table",
    "tiger",
    "tunnel",
    "valley",
    "window",
    "winter",
    "wizard",
    "zebra",
)

MAX_SECONDS = 20

VisualKind = Literal["appear", "move", "recolour", "grow", "shrink", "vanish"]
SoundKind = Literal["plain", "counted", "say"]


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One object on the stage."""

    colour: str
    shape: str
    size: int = 1  # index into SIZES


@dataclass(frozen=True, kw_only=True)
class VisualAtom:
    """One visible change. `colour`, `shape`, `place` are those BEFORE it (for "appear": those it appears with)."""

    second: int
    kind: VisualKind
    colour: str
    shape: str
    place: str
    size: int
    new_place: str | None = None
    new_colour: str | None = None


@dataclass(frozen=True, kw_only=True)
class SoundAtom:
    """One audible event: a plain sound, a counted one (`count` 1 to 4), or a voice that says two `words`."""

    second: int
    kind: SoundKind
    name: str | None = None
    count: int | None = None
    words: tuple[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A whole clip. `seed` also fixes everything that has no words: background, jitter, voice, pitch, loudness."""

    seed: int
    difficulty: str
    domain: str
    duration_s: int
    visual: tuple[VisualAtom, ...]
    sounds: tuple[SoundAtom, ...]


@dataclass(frozen=True, kw_only=True)
class Difficulty:
    """How full a scene is; how hard its pixels and samples are is the renderer's reading of `clutter` and `noise`."""

    seconds: tuple[int, int]  # shortest and longest clip
    visual_rate: float  # chance of a visual atom in a second
    sound_rate: float
    second_sound_rate: float  # chance that a second with a sound has another, different one on top
    clutter: float  # 0: plain background; 1: strong texture, distractors, partial occlusion
    noise: float  # 0: silence between sounds; 1: loud background noise and reverberation


DIFFICULTIES = {
    "easy": Difficulty(seconds=(6, 8), visual_rate=0.5, sound_rate=0.4, second_sound_rate=0.0, clutter=0.0, noise=0.0),
    "standard": Difficulty(
        seconds=(8, 12), visual_rate=0.6, sound_rate=0.45, second_sound_rate=0.0, clutter=0.5, noise=0.5
    ),
    "hard": Difficulty(
        seconds=(12, 20), visual_rate=0.7, sound_rate=0.6, second_sound_rate=0.15, clutter=1.0, noise=1.0
    ),
}

KIND_WEIGHTS: dict[str, float] = {
    "appear": 0.36,
    "move": 0.2,
    "recolour": 0.16,
    "grow": 0.1,
    "shrink": 0.1,
    "vanish": 0.08,
}
SOUND_WEIGHTS: dict[str, float] = {"plain": 0.33, "counted": 0.27, "say": 0.4}


def make_scene(
    seed: int,
    *,
    difficulty: str = "standard",
    domain: str = "default",
    visual_rate: float | None = None,
    sound_rate: float | None = None,
    say_share: float | None = None,
    seconds: tuple[int, int] | None = None,
) -> Scene:
    """Seed -> Scene. The rates and the length are the difficulty's unless given. Same arguments, same scene, for ever.

    `say_share`: share of voices among the sounds, SOUND_WEIGHTS if None.
    """
    level = DIFFICULTIES[difficulty]
    rng = random.Random(f"scene/{seed}/{difficulty}")
    duration_s = rng.randint(*(seconds or level.seconds))
    visual_rate = level.visual_rate if visual_rate is None else visual_rate
    sound_rate = level.sound_rate if sound_rate is None else sound_rate
    weights = SOUND_WEIGHTS if say_share is None else _with_share("say", say_share)
    stage: dict[str, Thing] = {}
    visual: list[VisualAtom] = []
    sounds: list[SoundAtom] = []
    for second in range(1, duration_s):
        if rng.random() < visual_rate:
            visual.append(_change_something(stage, second=second, rng=rng))
        if rng.random() < sound_rate:
            sounds.append(_make_sound(second, weights=weights, rng=rng))
            if rng.random() < level.second_sound_rate:
                sounds.append(_make_other_sound(sounds[-1], weights=weights, rng=rng))
    return Scene(
        seed=seed,
        difficulty=difficulty,
        domain=domain,
        duration_s=duration_s,
        visual=tuple(visual),
        sounds=tuple(sounds),
    )


def _change_something(stage: dict[str, Thing], *, second: int, rng: random.Random) -> VisualAtom:
    """Draws a change that is possible on this stage, makes it, and returns it."""
    free = [place for place in PLACES if place not in stage]
    possible = ["appear"] if free else []
    if stage:
        possible += ["recolour", "vanish"]
        possible += ["move"] if free else []
        possible += ["grow"] if any(thing.size < len(SIZES) - 1 for thing in stage.values()) else []
        possible += ["shrink"] if any(thing.size > 0 for thing in stage.values()) else []
    kind = rng.choices(possible, weights=[KIND_WEIGHTS[name] for name in possible])[0]
    if kind == "appear":
        thing = _draw_thing(stage, rng=rng)
        atom = _atom(second, kind, thing, rng.choice(free))
    else:
        fits = {"grow": lambda thing: thing.size < len(SIZES) - 1, "shrink": lambda thing: thing.size > 0}
        place = rng.choice([place for place in PLACES if place in stage and fits.get(kind, bool)(stage[place])])
        thing = stage[place]
        new_place = rng.choice(free) if kind == "move" else None
        new_colour = _draw_new_colour(stage, thing, rng=rng) if kind == "recolour" else None
        atom = _atom(second, kind, thing, place, new_place=new_place, new_colour=new_colour)
    apply_change(stage, atom)
    return atom


def _atom(
    second: int, kind: str, thing: Thing, place: str, *, new_place: str | None = None, new_colour: str | None = None
) -> VisualAtom:
    return VisualAtom(
        second=second,
        kind=kind,  # type: ignore[arg-type]
        colour=thing.colour,
        shape=thing.shape,
        size=thing.size,
        place=place,
        new_place=new_place,
        new_colour=new_colour,
    )


def _draw_thing(stage: dict[str, Thing], *, rng: random.Random) -> Thing:
    """A thing whose colour and shape nothing on the stage has together, so that "the red circle" has one meaning."""
    taken = {(thing.colour, thing.shape) for thing in stage.values()}
    while True:
        pair = rng.choice(COLOURS), rng.choice(SHAPES)
        if pair not in taken:
            return Thing(colour=pair[0], shape=pair[1], size=rng.choice((0, 1, 1, 2)))


def _draw_new_colour(stage: dict[str, Thing], thing: Thing, *, rng: random.Random) -> str:
    taken = {other.colour for other in stage.values() if other.shape == thing.shape}
    return rng.choice([colour for colour in COLOURS if colour not in taken])


def apply_change(stage: dict[str, Thing], atom: VisualAtom) -> None:
    """Changes the stage (place -> thing) in place as the atom says."""
    before = Thing(colour=atom.colour, shape=atom.shape, size=atom.size)
    if atom.kind == "appear":
        stage[atom.place] = before
        return
    assert stage[atom.place] == before, f"{atom} does not fit the stage {stage}"
    del stage[atom.place]
    if atom.kind == "vanish":
        return
    step = {"grow": 1, "shrink": -1}.get(atom.kind, 0)
    after = Thing(colour=atom.new_colour or atom.colour, shape=atom.shape, size=atom.size + step)
    stage[atom.new_place or atom.place] = after


def stage_at(scene: Scene, second: int) -> dict[str, Thing]:
    """Place -> thing, as the frame at `second` shows it (after the change of that second)."""
    stage: dict[str, Thing] = {}
    for atom in scene.visual:
        if atom.second <= second:
            apply_change(stage, atom)
    return stage


def _with_share(kind: str, share: float) -> dict[str, float]:
    """SOUND_WEIGHTS with one kind's share set and the others' scaled to what is left."""
    rest = sum(weight for name, weight in SOUND_WEIGHTS.items() if name != kind)
    return {name: share if name == kind else weight / rest * (1 - share) for name, weight in SOUND_WEIGHTS.items()}


def _make_sound(second: int, *, weights: dict[str, float], rng: random.Random) -> SoundAtom:
    kind = rng.choices(list(weights), weights=list(weights.values()))[0]
    if kind == "say":
        first, last = rng.sample(WORDS, 2)
        return SoundAtom(second=second, kind="say", words=(first, last))
    if kind == "counted":
        return SoundAtom(
            second=second, kind="counted", name=rng.choice(COUNTED_SOUNDS), count=rng.randint(1, MAX_COUNT)
        )
    return SoundAtom(second=second, kind="plain", name=rng.choice(PLAIN_SOUNDS))


def _make_other_sound(first: SoundAtom, *, weights: dict[str, float], rng: random.Random) -> SoundAtom:
    """A sound of another kind in the same second: two voices at once could not be told apart by anyone."""
    while True:
        other = _make_sound(first.second, weights=weights, rng=rng)
        if other.kind != first.kind:
            return other
