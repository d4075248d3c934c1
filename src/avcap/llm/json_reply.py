"""A language model's reply -> JSON, or the reason why not: nothing is run, and nothing guessed. Standard library only.

Tolerated: thoughts in all their forms (answer.py), prose around the JSON, a code fence, a comma before a closing brace,
and drafts: of several objects the last one that fits the schema counts. Not tolerated, because one would have to guess
what was meant: two different objects where no schema tells them apart, a key given twice, NaN.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from avcap.llm.answer import answer_of

# A string that is never closed is taken to the end: tried again at each of its quotes it would cost a square.
_STRING_OR_SPARE_COMMA = re.compile(r'("(?:[^"\\]|\\.)*+(?:"|\\?\Z))|,(?=\s*[}\]])', re.DOTALL)
MAX_STARTS = 200
"""Opening braces tried: each costs a reading of what follows, and a reply can be made of a million of them."""


class BadReply(Exception):
    """A reply that cannot be used, and why."""


def parse_object(text: str, *, schema: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A reply -> the one JSON object in it, or the last one that fits the schema. Raises BadReply."""
    _, brace, rest = answer_of(text).text.partition("{")
    found: list[dict[str, Any]] = []
    for item in _objects(_without_spare_commas(brace + rest)):
        if item not in found:
            found.append(item)
    if not found:
        raise BadReply("no JSON object in the reply" if text.strip() else "the reply is empty")
    if schema is not None and (fitting := [item for item in found if fits(item, schema)]):
        return fitting[-1]
    if len(found) > 1:
        raise BadReply(f"{len(found)} different JSON objects in the reply, expected one")
    return found[0]


def parse_object_or_python(text: str, *, schema: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The same, of {'visual': 4} too: published prompts ask for that, and nothing is run to read it."""
    try:
        return parse_object(text, schema=schema)
    except BadReply:
        return parse_object(text.replace("'", '"'), schema=schema)


_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value has the form that a JSON schema asks for: types, fields, items and choices."""
    names = schema.get("type", ())
    kinds = [_TYPES[name] for name in ([names] if isinstance(names, str) else names)]
    if kinds and not any(isinstance(value, kind) and (kind is bool or not isinstance(value, bool)) for kind in kinds):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if isinstance(value, list):
        return all(fits(item, schema.get("items", {})) for item in value)
    if isinstance(value, dict):
        fields = schema.get("properties", {})
        is_whole = all(name in value for name in schema.get("required", ()))
        return is_whole and all(fits(value[name], expected) for name, expected in fields.items() if name in value)
    return True


def _without_spare_commas(text: str) -> str:
    """Text that opens with a brace -> itself if that is the brace of an object, else without spare commas."""
    try:
        json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return _STRING_OR_SPARE_COMMA.sub(lambda found: found[1] or "", text)
    return text


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Text -> the JSON objects in it that lie in no other one."""
    decoder = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    start = text.find("{")
    for _ in range(MAX_STARTS):
        if start < 0:
            return
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):  # ValueError also: a number of thousands of digits
            end = start + 1
        else:
            yield value
        start = text.find("{", end)
    raise BadReply(f"more than {MAX_STARTS} opening braces that open no JSON object")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise BadReply("a JSON object gives a key twice")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise BadReply(f"{name} in the reply, which is no JSON")


# --- fields of an object: each takes what it says and nothing else ----------------------------------------------------


def take(item: Any, key: str, *, where: str) -> Any:
    """An object's field, or BadReply."""
    if not isinstance(item, dict):
        raise BadReply(f"{where} is not an object")
    if key not in item:
        raise BadReply(f"{where} has no {key!r}")
    return item[key]


def take_list(item: Any, key: str, *, where: str) -> list[Any]:
    value = take(item, key, where=where)
    if not isinstance(value, list):
        raise BadReply(f"{key!r} of {where} is not a list")
    return value


def take_text(item: Any, key: str, *, where: str) -> str:
    """A field that holds text with something in it."""
    value = take(item, key, where=where)
    if not isinstance(value, str) or not value.strip():
        raise BadReply(f"{key!r} of {where} is not a text")
    return value.strip()


def take_count(item: Any, key: str, *, where: str, most: int | None = None) -> int:
    """A field that holds a whole number from 0 to `most`. "3" and 3.0 are not counts: a bool neither."""
    value = take(item, key, where=where)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0 or (most is not None and value > most):
        raise BadReply(f"{key!r} of {where} is not a whole number from 0 to {'any' if most is None else most}")
    return value


def take_choice(item: Any, key: str, *, where: str, choices: tuple[str | None, ...]) -> Any:
    """A field that holds one of the choices."""
    value = take(item, key, where=where)
    if (value is not None and not isinstance(value, str)) or value not in choices:
        raise BadReply(f"{key!r} of {where} is none of {', '.join(map(str, choices))}")
    return value


def take_seconds(item: Any, key: str, *, where: str) -> float | None:
    """A field that holds a time from 0 on, or null."""
    value = take(item, key, where=where)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1e6:
        raise BadReply(f"{key!r} of {where} is not a time in seconds")
    return float(value)


# --- quotations -------------------------------------------------------------------------------------------------------


def is_quoted(quote: str, *, source: str) -> bool:
    """Whether a quotation's words stand in the source: in a row, or in order within one clause with some left out.

    "..." in the quotation stands for whatever was left out. Within a whole sentence instead of a clause, the subject of
    one part and the verb of another would make quotations of what nobody said (bench/quotations.py); "not" and the like
    are never left out.
    """
    return _stands_in_a_row(quote, source=source) or _stands_in_a_clause(quote, source=source)


LEAST_WORDS = 2
_CLAUSE_END = re.compile(
    r"[.!?;:,()\n。！？，；]+|\b(?:while|whilst|and|or|but|then|as|when|where|that|which|who|whose|before|after|because|if)\b",
    re.IGNORECASE,
)
_NEVER_LEFT_OUT = frozenset(
    ("not", "no", "never", "without", "nobody", "nothing", "neither", "nor", "t", "nt", "hardly")
)


def _stands_in_a_clause(quote: str, *, source: str) -> bool:
    said = _letters(quote).split()
    return len(said) >= LEAST_WORDS and any(_is_part_of(said, clause) for clause in _clauses(source))


def _is_part_of(said: list[str], clause: tuple[str, ...]) -> bool:
    """Whether words stand in a clause in order, with none left out that turns its meaning round."""
    rest = iter(clause)
    for word in said:
        for other in rest:
            if other == word:
                break
            if other in _NEVER_LEFT_OUT:
                return False
        else:
            return False
    return not any(word in _NEVER_LEFT_OUT for word in rest)


@lru_cache(maxsize=32)
def _clauses(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(_letters(part).split()) for part in _CLAUSE_END.split(text))


def _stands_in_a_row(quote: str, *, source: str) -> bool:
    haystack = _letters(source)
    parts = [_letters(part) for part in re.split(r"\.{3}|…", quote)]
    said = [part for part in parts if part]
    position = 0
    for part in said:
        position = haystack.find(part, position)
        if position < 0:
            return False
        position += len(part)
    return sum(map(len, said)) >= 2  # one letter stands in every caption


@lru_cache(maxsize=32)  # one caption is the source of many quotations in a row
def _letters(text: str) -> str:
    """Text -> its letters and digits in lower case, single spaces for all else."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(char if char.isalnum() else " " for char in folded).split())
