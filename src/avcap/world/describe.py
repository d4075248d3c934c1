"""A Scene becomes text: its reference captions, its atomic events, the prompts, and imperfect human-like labels.

Intervals are half-open: "from 3s to 7s" is about the seconds 3, 4, 5 and 6. Standard library only.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from avcap.records import Event, Modality, Sample
from avcap.world import grammar
from avcap.world.grammar import Claim, Sentence
from avcap.world.questions import NUMBERS, question_tokens
from avcap.world.scene import (
    COLOURS,
    COUNTED_SOUNDS,
    MAX_COUNT,
    MAX_SECONDS,
    PLACES,
    PLAIN_SOUNDS,
    SHAPES,
    WORDS,
    Scene,
)

GLOBAL_PROMPTS = (
    "Describe the video in detail.",
    "What happens in this video?",
    "Tell me everything that is seen and heard.",
)
VIDEO_PROMPT = "Describe only what is seen."
AUDIO_PROMPT = "Describe only what is heard."
NO_EVENT_ANSWER = "Nothing."

Interval = tuple[float, float]


def interval_prompt(start_s: int, end_s: int) -> str:
    """Whole seconds -> the prompt for a local caption."""
    return f"Describe what happens from {start_s}s to {end_s}s."


def second_prompt(second: int) -> str:
    """The prompt whose answer is `clause(scene, second)`, or NO_EVENT_ANSWER."""
    return f"What happens at {second}s?"


# --- what is true -----------------------------------------------------------------------------------------------------


def sentences_of(
    scene: Scene, *, modality: Modality = "both", interval_s: Interval | None = None
) -> tuple[Sentence, ...]:
    """Scene -> what a perfect caption tells, one Sentence per second in which something is seen or heard."""
    start_s, end_s = interval_s or (0, scene.duration_s)
    atoms = (scene.visual if modality != "audio" else ()) + (scene.sounds if modality != "visual" else ())
    sentences = []
    for second in range(scene.duration_s):
        claims = tuple(grammar.claim_of(atom) for atom in atoms if atom.second == second)
        if claims and start_s <= second < end_s:
            sentences.append(Sentence(second=second, claims=claims))
    return tuple(sentences)


def reference_caption(scene: Scene, *, modality: Modality = "both", interval_s: Interval | None = None) -> str:
    """Scene -> the one right caption of the whole clip or of an interval, of both modalities or of one."""
    return grammar.caption_text(sentences_of(scene, modality=modality, interval_s=interval_s))


def clause(scene: Scene, second: int, modality: Modality = "both") -> str | None:
    """What the caption says after "At 3s", with its full stop; None if nothing happens in that second."""
    sentences = sentences_of(scene, modality=modality, interval_s=(second, second + 1))
    return f"{grammar.join_clauses(sentences[0].claims)}." if sentences else None


def scene_events(scene: Scene, *, modality: Modality = "both", interval_s: Interval | None = None) -> tuple[Event, ...]:
    """Scene -> its atomic events in time order: one per sight, per sound, and per sight and sound in one second.

    Ids: v3, s3, b3; the second sound of a second is s3-2, and what it makes with the sight b3-2.
    """
    events = []
    for sentence in sentences_of(scene, modality=modality, interval_s=interval_s):
        for event_id, claims in claims_by_event(sentence).items():
            kind: Modality = "visual" if claims[0].is_visual else "audio"
            text = grammar.clause_text(claims[0])
            if len(claims) == 2:
                kind = "both"
                text = f"{grammar.short_text(claims[1])} while {grammar.short_text(claims[0])}"
            start_s = float(sentence.second)
            events.append(Event(event_id=event_id, text=text, modality=kind, start_s=start_s, end_s=start_s + 1))
    return tuple(events)


def claims_by_event(sentence: Sentence) -> dict[str, tuple[Claim, ...]]:
    """The true sentence of a second -> event id -> its claim, or for "both" events the visual claim and the sound."""
    second = sentence.second
    sights = [claim for claim in sentence.claims if claim.is_visual]
    sounds = [claim for claim in sentence.claims if not claim.is_visual]
    suffixes = ["" if i == 0 else f"-{i + 1}" for i in range(len(sounds))]
    events: dict[str, tuple[Claim, ...]] = {f"v{second}": (sight,) for sight in sights}
    events |= {f"s{second}{suffix}": (sound,) for suffix, sound in zip(suffixes, sounds, strict=True)}
    for sight in sights:
        events |= {f"b{second}{suffix}": (sight, sound) for suffix, sound in zip(suffixes, sounds, strict=True)}
    return events


def interval_samples(
    scene: Scene, *, clip_id: str, video: str, rng: random.Random, num_intervals: int = 2
) -> tuple[Sample, ...]:
    """Scene -> samples for different intervals of 3 to 5 whole seconds; fewer if the clip is too short for them."""
    possible = [(start, start + length) for length in (3, 4, 5) for start in range(1, scene.duration_s - length + 1)]
    samples = []
    for start, end in sorted(rng.sample(possible, min(num_intervals, len(possible)))):
        interval_s = (float(start), float(end))
        samples.append(
            Sample(
                sample_id=f"{clip_id}-{start}s-{end}s",
                video=video,
                prompt=interval_prompt(start, end),
                interval_s=interval_s,
                reference_caption=reference_caption(scene, interval_s=interval_s),
                events=scene_events(scene, interval_s=interval_s),
            )
        )
    return tuple(samples)


# --- words ------------------------------------------------------------------------------------------------------------


def all_words() -> list[str]:
    """Every word and punctuation mark that a caption, prompt, question or answer of this world can contain, sorted."""
    texts = [*GLOBAL_PROMPTS, VIDEO_PROMPT, AUDIO_PROMPT, NO_EVENT_ANSWER, interval_prompt(0, 0), second_prompt(0)]
    words = grammar.all_tokens() | question_tokens()
    return sorted(words | {token for text in texts for token in grammar.tokens(text)})


TokenKind = Literal["colour", "new_colour", "shape", "place", "verb", "sound", "count", "word", "time"]

_WORDS_OF_KIND: dict[TokenKind, tuple[str, ...]] = {
    "colour": COLOURS,
    "shape": SHAPES,
    "place": PLACES,
    "verb": tuple(grammar.VERBS.values()),
    "sound": (*PLAIN_SOUNDS, *COUNTED_SOUNDS, "people", "somebody", "voice"),
    "count": ("once", "twice", *NUMBERS),
    "word": WORDS,
    "time": tuple(f"{second}s" for second in range(MAX_SECONDS + 1)),
}
_KIND_OF_WORD = {word: kind for kind, words in _WORDS_OF_KIND.items() for word in words}


def token_kinds(words: list[str]) -> list[TokenKind | None]:
    """Tokens of a caption or an answer -> what each tells; None for words that carry no content.

    For accuracy per kind under teacher forcing: the mean over all tokens hides that only the grammar was learned.
    """
    kinds: list[TokenKind | None] = []
    for i, word in enumerate(words):
        kind = _KIND_OF_WORD.get(word)
        kinds.append("new_colour" if kind == "colour" and i > 0 and words[i - 1] == "turns" else kind)
    return kinds


# --- the imperfect annotator ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Annotator:
    """How a hurried labeller falls short. The defaults miss and invent about as much as a weak teacher model does."""

    omit_appear: float = 0.06
    """Chance that a clause of this kind is left out; so the next eight. Objects draw the eye, sounds do not."""
    omit_move: float = 0.15
    omit_recolour: float = 0.15
    omit_grow: float = 0.65
    omit_shrink: float = 0.65
    omit_vanish: float = 0.55
    omit_plain: float = 0.6
    omit_counted: float = 0.65
    omit_say: float = 0.5
    slip: float = 0.1
    """Chance that a clause has one attribute wrong: a colour, shape, place, spoken word, count or sound. Never a time:
    whoever writes while watching knows when."""
    invention: float = 0.05
    """Chance per second of a clause for which there is nothing in the clip."""
    split: float = 0.3
    """Chance that a sight and a sound of one second get a sentence each, and "while" is not said."""
    early_stop: float = 0.2
    """Chance that the caption ends somewhere in its second half."""
    recap: float = 0.6
    """Chance of a last sentence "Overall, ..." that says one or two clauses again: a repetition habit. The opening is
    always the same, so that a model trained on these labels makes it its most likely ending."""
    long_recap: float = 0.6
    """Chance that a recap has two clauses instead of one."""


# A repetition is measured in 5-grams: a recap of shorter clauses would not count as one.
_MIN_RECAP_WORDS = 5


def imperfect_caption(
    scene: Scene, *, annotator: Annotator, rng: random.Random, interval_s: Interval | None = None
) -> str:
    """Scene -> a label as `annotator` writes it, of the whole clip or of an interval."""
    start_s, end_s = interval_s or (1, scene.duration_s)
    truth = {sentence.second: sentence for sentence in sentences_of(scene, interval_s=interval_s)}
    sentences: list[Sentence] = []
    for second in range(int(start_s), int(end_s)):
        if second in truth:
            sentences += _told(truth[second], annotator=annotator, rng=rng)
        if rng.random() < annotator.invention:
            sentences.append(Sentence(second=second, claims=(random_claim(second, rng=rng),)))
    if rng.random() < annotator.early_stop and len(sentences) > 1:
        del sentences[rng.randrange((len(sentences) + 1) // 2, len(sentences)) :]
    recap = _draw_recap(sentences, annotator=annotator, rng=rng) if rng.random() < annotator.recap else ()
    return grammar.caption_text(sentences, recap=recap)


def _told(sentence: Sentence, *, annotator: Annotator, rng: random.Random) -> Iterator[Sentence]:
    """The true sentence of a second -> the sentences, none to two, that the annotator makes of it."""
    kept = [claim for claim in sentence.claims if rng.random() >= getattr(annotator, f"omit_{claim.kind}")]
    kept = [slipped(claim, rng=rng) if rng.random() < annotator.slip else claim for claim in kept]
    sights = tuple(claim for claim in kept if claim.is_visual)
    sounds = tuple(claim for claim in kept if not claim.is_visual)
    parts = (sights, sounds) if sights and sounds and rng.random() < annotator.split else (sights + sounds,)
    for claims in parts:
        if claims:
            yield Sentence(second=sentence.second, claims=claims)


def _draw_recap(sentences: list[Sentence], *, annotator: Annotator, rng: random.Random) -> tuple[Claim, ...]:
    said = [claim for sentence in sentences for claim in sentence.claims]
    long_enough = [claim for claim in said if len(grammar.clause_text(claim).split()) >= _MIN_RECAP_WORDS]
    num_claims = min(2 if rng.random() < annotator.long_recap else 1, len(long_enough))
    return tuple(long_enough[i] for i in sorted(rng.sample(range(len(long_enough)), num_claims)))


_SLIPS = {
    "appear": ("colour", "shape", "place"),
    "move": ("colour", "shape", "new_place"),
    "recolour": ("colour", "shape", "new_colour"),
    "grow": ("colour", "shape"),
    "shrink": ("colour", "shape"),
    "vanish": ("colour", "shape"),
    "plain": ("name",),
    "counted": ("name", "count"),
    "say": ("words",),
}


def slipped(claim: Claim, *, rng: random.Random) -> Claim:
    """A claim with one attribute, never its time, changed to another value that makes sense."""
    attribute = rng.choice(_SLIPS[claim.kind])
    if attribute == "words":
        assert claim.words, claim
        words = list(claim.words)
        words[rng.randrange(len(words))] = rng.choice([word for word in WORDS if word not in words])
        return replace(claim, words=tuple(words))
    values: dict[str, tuple] = {
        "colour": COLOURS,
        "new_colour": COLOURS,
        "shape": SHAPES,
        "place": PLACES,
        "new_place": PLACES,
        "name": PLAIN_SOUNDS if claim.kind == "plain" else COUNTED_SOUNDS,
        "count": tuple(range(1, MAX_COUNT + 1)),
    }
    # Not from a corner to the same corner, nor from red to red.
    taken = (claim.colour, claim.new_colour) if "colour" in attribute else (claim.place, claim.new_place)
    value = rng.choice([v for v in values[attribute] if v != getattr(claim, attribute) and v not in taken])
    return replace(claim, **{attribute: value})


def random_claim(second: int, *, rng: random.Random, visual: bool | None = None) -> Claim:
    """A claim out of thin air, of any kind, or of a visual (True) or audible (False) one."""
    visual = rng.random() < 0.5 if visual is None else visual
    kind = rng.choice(grammar.VISUAL_KINDS if visual else grammar.SOUND_KINDS)
    if kind == "plain":
        return Claim(second=second, kind=kind, name=rng.choice(PLAIN_SOUNDS))
    if kind == "counted":
        return Claim(second=second, kind=kind, name=rng.choice(COUNTED_SOUNDS), count=rng.randint(1, MAX_COUNT))
    if kind == "say":
        return Claim(second=second, kind=kind, words=tuple(rng.sample(WORDS, 2)))
    colour, new_colour = rng.sample(COLOURS, 2)
    place, new_place = rng.sample(PLACES, 2)
    return Claim(
        second=second,
        kind=kind,
        colour=colour,
        shape=rng.choice(SHAPES),
        place=place if kind in ("appear", "move") else None,
        new_place=new_place if kind == "move" else None,
        new_colour=new_colour if kind == "recolour" else None,
    )
