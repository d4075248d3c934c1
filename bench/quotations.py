"""May a quotation leave out words? What planted errors say: quotations of what a caption does not tell must not pass.

    python bench/quotations.py [VIDEOS]

For every event of captions with planted errors, the words of the true event are offered as a quotation. For an event
that the caption tells right it should be found; for one that is missing or incorrect it should not, but for a time: the
words of an event that is told at another time stand in the caption by rights. A caption of people is not shown here.
"""

import itertools
import re
import sys
from collections.abc import Callable

from avcap.judge.calibration.cases import make_calibration_cases
from avcap.llm.json_reply import is_quoted
from avcap.world import grammar
from avcap.world.oracle import PlantedError

Rule = Callable[[str, str], bool]


def in_order(quote: str, text: str) -> bool:
    """Whether the quotation's words stand in one sentence, in order, with any others between them."""
    said = re.findall(r"\w+", quote.casefold())
    for sentence in re.split(r"[.!?\n]+", text):
        left = iter(re.findall(r"\w+", sentence.casefold()))
        if said and all(word in left for word in said):
            return True
    return False


def in_a_row(quote: str, text: str) -> bool:
    def letters(some: str) -> str:
        return " ".join(re.findall(r"\w+", some.casefold()))

    return letters(quote) in letters(text)


RULES: dict[str, Rule] = {
    "in a row": in_a_row,
    "words in order within a sentence": in_order,
    "avcap: in order within a clause": lambda quote, text: is_quoted(quote, source=text),
}


def main() -> None:
    num_videos = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    found = {name: {"told right": [0, 0], "not told right": [0, 0]} for name in RULES}
    for one in make_calibration_cases(num_videos=num_videos, seed=0):
        shifted = {event_id for error in one.planted if is_shift(error) for event_id in error.incorrect}
        label_of = {event.event_id: event.label for event in one.truth.events}
        for event in one.case.sample.events:
            if event.modality == "both" or event.event_id in shifted:
                continue  # no clause of its own; or its words are there, at another time
            kind = "told right" if label_of[event.event_id] == "correct" else "not told right"
            for name, rule in RULES.items():
                found[name][kind][0] += rule(event.text, one.case.text)
                found[name][kind][1] += 1
    for name, kinds in found.items():
        told = "   ".join(f"{kind}: {num} of {of} = {num / of:.1%}" for kind, (num, of) in kinds.items())
        print(f"{name:34} found   {told}")
    for name, (num, of) in mixed_quotations(num_videos).items():
        print(f"{name:34} subject of one clause, verb of another: {num} of {of} pass")


def mixed_quotations(num_videos: int) -> dict[str, list[int]]:
    """Two clauses in a sentence, the subject of one with the verb of the other -> how many each rule lets pass."""
    passed = {name: [0, 0] for name in RULES}
    for one in make_calibration_cases(num_videos=num_videos, seed=0, max_errors=0):
        claims = [s.claim for s in grammar.read_caption(one.case.text).statements if s.claim.is_visual]
        for first, second in itertools.pairwise(claims):
            if first.kind == second.kind or (first.colour, first.shape) == (second.colour, second.shape):
                continue
            clauses = [grammar.clause_text(claim) for claim in (first, second)]
            text = f"At {first.second}s {clauses[0]}, and at {second.second}s {clauses[1]}."
            quote = f"{first.colour} {first.shape} {grammar.VERBS[second.kind]}"
            for name, rule in RULES.items():
                passed[name][0] += rule(quote, text)
                passed[name][1] += 1
    return passed


def is_shift(error: PlantedError) -> bool:
    return error.kind == "shift"


if __name__ == "__main__":
    main()
