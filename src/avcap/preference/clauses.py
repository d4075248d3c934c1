"""Captions as clauses, and in how many of them two captions differ. Standard library only.

A text is cut at the ends of sentences and where main clauses are joined. Captions that follow a grammar may be read by
it instead: world_clauses.py does so with those of the rendered world.
"""

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

_CLAUSE_END = re.compile(
    r"[.!?]+(?=[\s\"'”’)]|$)|[;\n。！？；]+|,?\s+\b(?:while|whereas|and then|then)\b|,\s+(?:and|but)\s", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class Clause:
    """Two clauses are equal if they say the same: their `key`. `content` leaves out when it happens."""

    key: Hashable
    content: Hashable
    text: str = field(compare=False)


@dataclass(frozen=True, kw_only=True)
class Clauses:
    """A text in clauses. `by_grammar` is None where there is no grammar that reads most of it."""

    by_grammar: tuple[Clause, ...] | None
    by_sentence: tuple[Clause, ...]

    @property
    def num_repeated(self) -> int:
        """Clauses that say again what an earlier one says."""
        clauses = self.by_sentence if self.by_grammar is None else self.by_grammar
        return len(clauses) - len(set(clauses))


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What only one of two texts says. A clause that was changed, or only moved, is in both lists and counts once."""

    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    num_changed: int


ReadClauses = Callable[[str], Clauses]
"""A text -> its clauses: `read_clauses`, or what is known of how the captions are written (world_clauses.py)."""


def read_clauses(text: str) -> Clauses:
    """Any text -> its clauses."""
    return Clauses(by_grammar=None, by_sentence=tuple(_sentence_clauses(text)))


def _sentence_clauses(text: str) -> Iterator[Clause]:
    for part in _CLAUSE_END.split(text):
        words = tuple(re.findall(r"\w+", part.casefold()))
        if words:
            yield Clause(key=words, content=words, text=" ".join(part.split()))


def compare_clauses(first: Clauses, second: Clauses) -> Difference:
    """Two texts -> the clauses in which they differ; by the grammar if it reads both."""
    if first.by_grammar is not None and second.by_grammar is not None:
        return _compare(first.by_grammar, second.by_grammar)
    return _compare(first.by_sentence, second.by_sentence)


def _compare(first: Sequence[Clause], second: Sequence[Clause]) -> Difference:
    num_changed = 0
    only_first: list[Clause] = []
    only_second: list[Clause] = []
    deleted: Counter[Hashable] = Counter()
    inserted: Counter[Hashable] = Counter()
    for kind, i, i_end, j, j_end in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        only_first += first[i:i_end]
        only_second += second[j:j_end]
        num_changed += max(i_end - i, j_end - j)
        if kind == "delete":
            deleted.update(clause.content for clause in first[i:i_end])
        if kind == "insert":
            inserted.update(clause.content for clause in second[j:j_end])
    return Difference(
        only_first=tuple(clause.text for clause in only_first),
        only_second=tuple(clause.text for clause in only_second),
        num_changed=num_changed - (deleted & inserted).total(),
    )
