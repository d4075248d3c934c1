"""Captions of the rendered world as clauses: its grammar says what each of them claims. No torch."""

from collections.abc import Iterator
from dataclasses import replace

from avcap.preference.clauses import Clause, Clauses, read_clauses
from avcap.world.grammar import Claim, Reading, read_caption


def read_world_clauses(text: str) -> Clauses:
    """Any text -> its clauses, by the grammar of the world if it reads most of it.

    A clause is a claim then, and that a sight and a sound are joined by "while" is one more.
    """
    reading = read_caption(text)
    is_readable = len(reading.unread) <= len(reading.statements)
    return replace(read_clauses(text), by_grammar=tuple(_grammar_clauses(reading)) if is_readable else None)


def _grammar_clauses(reading: Reading) -> Iterator[Clause]:
    text_of = {statement.claim: statement.text for statement in reading.statements}
    joined: set[tuple[Claim, Claim]] = set()
    for statement in reading.statements:
        claim = statement.claim
        when = "" if claim.second is None else f"{claim.second}s "
        yield Clause(key=claim, content=claim.content, text=when + statement.text)
        for sight in text_of:
            joint = (sight, claim)
            if joint in reading.pairs and joint not in joined:
                joined.add(joint)
                yield Clause(key=joint, content=joint, text=f"{when}{text_of[sight]} while {statement.text}")
    for phrase in reading.unread:
        yield Clause(key=phrase, content=phrase, text=phrase)
