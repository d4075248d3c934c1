"""The exact judge of this world: a caption becomes a Verdict by reading it, without a model. Standard library only.

Every event and every claim is accounted for once:

- An event is *correct* if a claim says all of it with the right time; *incorrect* if the nearest claim about it is
  wrong or says only a part; *missing* if no claim is about it.
- A claim is spent on one event; or *repeated*, if it was made before; or else *invented*. So is what cannot be read.
- A "both" event is correct if "while" joins the right sight to the right sound, and missing otherwise, never incorrect:
  the wrong half is counted already.
- Sizes are not judged: no event tells one. "Nothing happens" claims nothing.

Captions of an interval or of one modality are judged against the whole clip: what is true but was not asked for counts
neither for nor against the caption, and what is false is invented wherever it lies.
"""

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, replace

from avcap.records import (
    EventLabel,
    EventVerdict,
    InventedClaim,
    Modality,
    Verdict,
    WorldTruth,
    from_json,
)
from avcap.world import describe, grammar
from avcap.world.describe import Interval
from avcap.world.grammar import Claim, Sentence, Statement
from avcap.world.scene import Scene

JUDGE_NAME = "oracle"


def judge_caption(
    text: str,
    *,
    truth: Scene | WorldTruth,
    interval_s: Interval | None = None,
    modality: Modality = "both",
    caption_id: str = "",
) -> Verdict:
    """A caption and the clip's truth -> a label for each event asked for, and the claims invented and repeated."""
    scene = truth if isinstance(truth, Scene) else scene_of(truth)
    true_claims: dict[str, tuple[Claim, ...]] = {}
    for sentence in describe.sentences_of(scene):
        true_claims |= describe.claims_by_event(sentence)
    single = {event_id: claims[0] for event_id, claims in true_claims.items() if len(claims) == 1}
    reading = grammar.read_caption(text)
    fresh, repeated = _without_repeats(reading.statements, true_claims=set(single.values()))
    spent = _spend(fresh, single)

    def label(event_id: str) -> EventLabel:
        claims = true_claims[event_id]
        if len(claims) == 2:
            return "correct" if claims in reading.pairs else "missing"
        if event_id not in spent:
            return "missing"
        return "correct" if spent[event_id].claim == claims[0] else "incorrect"

    asked = [event.event_id for event in describe.scene_events(scene, interval_s=interval_s, modality=modality)]
    unharmful = [spent[event_id] for event_id in spent if event_id in asked or label(event_id) == "correct"]
    invented = [statement for statement in fresh if statement not in unharmful]
    return Verdict(
        caption_id=caption_id,
        events=tuple(EventVerdict(event_id=event_id, label=label(event_id)) for event_id in asked),
        invented=(*map(_invented, invented), *(InventedClaim(text=text) for text in reading.unread)),
        repeated=tuple(map(_quote, repeated)),
        judge=JUDGE_NAME,
    )


def scene_of(truth: WorldTruth) -> Scene:
    """A line of truth.jsonl -> the Scene it was made from. Raises UserError if its `scene` is not one."""
    return from_json(json.dumps(truth.scene), Scene)


def _quote(statement: Statement) -> str:
    second = statement.claim.second
    return statement.text if second is None else f"At {second}s {statement.text}"


def _invented(statement: Statement) -> InventedClaim:
    claim = statement.claim
    return InventedClaim(
        text=_quote(statement),
        modality="visual" if claim.is_visual else "audio",
        start_s=None if claim.second is None else float(claim.second),
    )


def _without_repeats(
    statements: Iterable[Statement], *, true_claims: set[Claim]
) -> tuple[list[Statement], list[Statement]]:
    """Statements -> (those that say something new, those that say again what was said)."""
    fresh: list[Statement] = []
    repeated: list[Statement] = []
    said: set[Claim] = set()
    for statement in statements:
        claim = statement.claim
        # A clause without a time of its own repeats an earlier one at whatever time, unless it happens to be news.
        said_at_some_time = not statement.timed and claim.content in said and claim not in true_claims
        (repeated if claim in said or said_at_some_time else fresh).append(statement)
        said |= {claim, claim.content}
    return fresh, repeated


def _spend(statements: list[Statement], events: dict[str, Claim]) -> dict[str, Statement]:
    """Claims and events -> event id -> the claim spent on it: the nearest first, each claim and each event once."""
    candidates = []
    for i, statement in enumerate(statements):
        for j, (event_id, event) in enumerate(events.items()):
            distance = _distance(statement.claim, event)
            if distance is not None:
                candidates.append((distance, i, j, event_id))
    spent: dict[str, Statement] = {}
    used: set[int] = set()
    for _, i, _, event_id in sorted(candidates):
        if i not in used and event_id not in spent:
            spent[event_id] = statements[i]
            used.add(i)
    return spent


def _distance(claim: Claim, event: Claim) -> tuple[int, int] | None:
    """How far a claim is from an event: (0, 0) if right; None if it is about something else."""
    same_second = claim.second == event.second
    if claim == event:
        return 0, 0
    if same_second and claim.kind == event.kind:
        return 1, sum(getattr(claim, name) != getattr(event, name) for name in _ATTRIBUTES)
    if same_second and event.is_visual and (claim.colour, claim.shape) == (event.colour, event.shape):
        return 2, 0
    if claim.content == event.content:
        assert event.second is not None
        return 3, 0 if claim.second is None else abs(claim.second - event.second)
    return None


_ATTRIBUTES = ("colour", "shape", "place", "new_place", "new_colour", "name", "count", "words")


# --- planted errors ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PlantedError:
    """An error put into a clean caption, and what a judge must find because of it."""

    kind: str
    missing: tuple[str, ...] = ()
    incorrect: tuple[str, ...] = ()
    num_invented: int = 0
    num_repeated: int = 0


def corrupt(caption: str, k: int, *, rng: random.Random) -> tuple[str, tuple[PlantedError, ...]]:
    """A clean caption -> the caption with `k` errors, each about another second, and what they are.

    ValueError if the caption tells of fewer than `k` seconds.
    """
    return _Corruption(caption, rng=rng).plant(k)


class _Corruption:
    """A clean caption, its sentences, and the changes made to them so far."""

    def __init__(self, caption: str, *, rng: random.Random):
        claims = [statement.claim for statement in grammar.read_caption(caption).statements]
        seconds = sorted({claim.second for claim in claims if claim.second is not None})
        self.claims = claims
        self.clean = {
            second: Sentence(second=second, claims=tuple(claim for claim in claims if claim.second == second))
            for second in seconds
        }
        self.sentences = {second: [sentence] for second, sentence in self.clean.items()}
        self.recap: list[Claim] = []
        self.rng = rng
        # (second, is it visual): where a new claim cannot be mistaken for one about something that is there.
        self.free = [
            (second, visual)
            for visual in (True, False)
            if any(claim.is_visual == visual for claim in claims)
            for second in range(min(seconds), max(seconds) + 1)
            if not any(claim.second == second and claim.is_visual == visual for claim in claims)
        ]

    def plant(self, k: int) -> tuple[str, tuple[PlantedError, ...]]:
        if k > len(self.clean):
            raise ValueError(f"got k = {k}, expected at most {len(self.clean)}: the seconds that the caption tells of")
        errors = []
        for second in sorted(self.rng.sample(sorted(self.clean), k)):
            makers = [self._drop, self._change, self._repeat, self._split, self._shift, self._invent]
            self.rng.shuffle(makers)
            # Not every second allows every error, but any clause can be dropped: one of them always succeeds.
            errors.append(next(error for maker in makers if (error := maker(self.clean[second])) is not None))
        in_order = [sentence for _, parts in sorted(self.sentences.items()) for sentence in parts if sentence.claims]
        return grammar.caption_text(in_order, recap=tuple(self.recap)), tuple(errors)

    def _events_of(self, sentence: Sentence, claim: Claim) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(the event that the claim tells, the "both" events it has a part in)"""
        events = describe.claims_by_event(sentence)
        own = tuple(event_id for event_id, claims in events.items() if claims == (claim,))
        joint = tuple(event_id for event_id, claims in events.items() if len(claims) == 2 and claim in claims)
        return own, joint

    def _replace(self, sentence: Sentence, old: Claim, new: tuple[Claim, ...]) -> None:
        claims = tuple(part for claim in sentence.claims for part in (new if claim == old else (claim,)))
        self.sentences[sentence.second][0] = replace(sentence, claims=claims)

    def _drop(self, sentence: Sentence) -> PlantedError:
        claim = self.rng.choice(sentence.claims)
        own, joint = self._events_of(sentence, claim)
        self._replace(sentence, claim, ())
        return PlantedError(kind="drop", missing=own + joint)

    def _change(self, sentence: Sentence) -> PlantedError:
        claim = self.rng.choice(sentence.claims)
        own, joint = self._events_of(sentence, claim)
        self._replace(sentence, claim, (describe.slipped(claim, rng=self.rng),))
        return PlantedError(kind="change", incorrect=own, missing=joint)

    def _shift(self, sentence: Sentence) -> PlantedError | None:
        """Tells a clause at the time of another second."""
        contents = [claim.content for claim in self.claims]
        # A clause that is true at two times would, when shifted, be as near to the one as to the other.
        unique = [claim for claim in sentence.claims if contents.count(claim.content) == 1]
        if not unique:
            return None
        claim = self.rng.choice(unique)
        second = self._take_free(visual=claim.is_visual)
        if second is None:
            return None
        own, joint = self._events_of(sentence, claim)
        self._replace(sentence, claim, ())
        self._add(replace(claim, second=second))
        return PlantedError(kind="shift", incorrect=own, missing=joint)

    def _invent(self, sentence: Sentence) -> PlantedError | None:
        """Adds a clause about nothing, in a second in which nothing of its modality happens; the sentence stays."""
        visual = self.rng.choice(sentence.claims).is_visual
        second = self._take_free(visual=visual)
        if second is None:
            return None
        contents = {claim.content for claim in self.claims}
        while (claim := describe.random_claim(second, rng=self.rng, visual=visual)).content in contents:
            pass
        self._add(claim)
        return PlantedError(kind="invent", num_invented=1)

    def _repeat(self, sentence: Sentence) -> PlantedError:
        """Says a clause again: at once with its time, or at the end without."""
        claim = self.rng.choice(sentence.claims)
        if self.rng.random() < 0.5:
            self.recap.append(claim)
        else:
            self._add(claim)
        return PlantedError(kind="repeat", num_repeated=1)

    def _split(self, sentence: Sentence) -> PlantedError | None:
        """Makes two sentences of a sight and a sound."""
        sights = tuple(claim for claim in sentence.claims if claim.is_visual)
        sounds = tuple(claim for claim in sentence.claims if not claim.is_visual)
        if not sights or not sounds:
            return None
        self.sentences[sentence.second][0:1] = [replace(sentence, claims=sights), replace(sentence, claims=sounds)]
        events = describe.claims_by_event(sentence)
        return PlantedError(kind="split", missing=tuple(event_id for event_id in events if len(events[event_id]) == 2))

    def _add(self, claim: Claim) -> None:
        assert claim.second is not None
        parts = self.sentences.setdefault(claim.second, [])
        parts.append(Sentence(second=claim.second, claims=(claim,)))

    def _take_free(self, *, visual: bool) -> int | None:
        """A second in which nothing of this modality is told, given away only once; None if there is none left."""
        seconds = [second for second, is_visual in self.free if is_visual == visual]
        if not seconds:
            return None
        second = self.rng.choice(seconds)
        self.free.remove((second, visual))
        return second
