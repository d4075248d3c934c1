"""A condition on columns, as --where takes it: "repetition<0.1 and finished". Read here; nothing is evaluated as code.

    condition   one `or` one, one `and` one, `not` one, (one), a comparison, a column of truth values
    comparison  column < 0.1, also <= > >= == !=; column == "text"; column == none (not known)

What is not known is neither true nor false: a comparison with it keeps nothing, and `none` asks for it. No torch.
"""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from avcap.errors import UserError

Value = float | int | bool | str | None
LONGEST = 2000
NOT_TRUE = " is not true: "
"""Between a part of a condition and the values that it was not true of."""
DEEPEST = 50

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)
      | (?P<string>"[^"]*"|'[^']*')
      | (?P<name>[A-Za-z_]\w*)
      | (?P<sign><=|>=|==|!=|<|>|=|\(|\))
    )""",
    re.VERBOSE,
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_CONSTANTS: dict[str, Value] = {"true": True, "false": False, "none": None, "null": None}
_WORDS = {"and", "or", "not"}


@dataclass(frozen=True, kw_only=True)
class Token:
    kind: str
    text: str
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Part:
    """A condition that can be told true, false or not known of a row; `text`: as it was written."""

    text: str
    columns: frozenset[str]
    truth: Callable[[Mapping[str, Value]], bool | None]


@dataclass(frozen=True, kw_only=True)
class Where:
    """A whole condition: all of its parts have to be true."""

    parts: tuple[Part, ...]

    def reasons(self, row: Mapping[str, Value]) -> tuple[str, ...]:
        """A row's columns -> why it is dropped, for each part that is not true; empty: it is kept."""
        return tuple(_reason(part, row) for part in self.parts if part.truth(row) is not True)


def _reason(part: Part, row: Mapping[str, Value]) -> str:
    values = ", ".join(f"{name} is {_shown(row[name])}" for name in sorted(part.columns))
    return f"{part.text}{NOT_TRUE}{values}"


def _shown(value: Value) -> str:
    if value is None:
        return "not known"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def read_where(text: str, *, kinds: Mapping[str, str]) -> Where:
    """--where -> the condition.

    Args:
        text: as in the module's docstring.
        kinds: column -> "float64", "int64", "bool" or "string".

    Raises:
        UserError: it is no condition; it says where, or which columns there are.
    """
    return _Reader(text, kinds).read()


class _Reader:
    def __init__(self, text: str, kinds: Mapping[str, str]) -> None:
        self.text, self.kinds = text, kinds
        self.tokens = self._tokens()
        self.index = 0
        self.depth = 0

    def read(self) -> Where:
        parts = [self._either()]
        while self._takes("and"):
            parts.append(self._either())
        # `or` binds less than `and`: with one, all of it is one part
        if self._peek("or"):
            parts = [self._any(parts)]
        if self.index < len(self.tokens):
            raise self._wrong("expected `and`, `or` or the end")
        return Where(parts=tuple(parts))

    def _tokens(self) -> list[Token]:
        if not self.text.strip() or len(self.text) > LONGEST:
            raise UserError(
                f"got --where {self.text[:80]!r}, expected a condition such as 'repetition<0.1 and finished'"
            )
        found, end = [], 0
        while self.text[end:].strip():
            match = _TOKEN.match(self.text, end)
            if match is None:
                raise UserError(
                    f'got --where with {self.text[end:].strip()[:40]!r} in it, expected columns, numbers, "texts", '
                    "< <= > >= == !=, and, or, not and brackets"
                )
            kind = str(match.lastgroup)
            found.append(Token(kind=kind, text=match[kind], start=match.start(kind), end=match.end()))
            end = match.end()
        return found

    # --- parts of the grammar -----------------------------------------------------------------------------------------

    def _any(self, first: list[Part]) -> Part:
        """What stands before an `or` -> it and the rest as one part."""
        sides = [_all_of(first, self.text)]
        while self._takes("or"):
            side = [self._either()]
            while self._takes("and"):
                side.append(self._either())
            sides.append(_all_of(side, self.text))
        columns = frozenset().union(*(side.columns for side in sides))
        text = " or ".join(side.text for side in sides)

        def truth(row: Mapping[str, Value]) -> bool | None:
            values = [side.truth(row) for side in sides]
            return True if True in values else None if None in values else False

        return Part(text=text, columns=columns, truth=truth)

    def _either(self) -> Part:
        """One condition without `and` and `or` outside brackets."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise UserError(f"got --where with more than {DEEPEST} brackets in each other, expected fewer")
        try:
            if self._takes("not"):
                return _not(self._either())
            if self._takes("("):
                return self._bracket()
            return self._comparison()
        finally:
            self.depth -= 1

    def _bracket(self) -> Part:
        parts = [self._either()]
        while self._takes("and"):
            parts.append(self._either())
        part = self._any(parts) if self._peek("or") else _all_of(parts, self.text)
        if not self._takes(")"):
            raise self._wrong("expected `)`")
        return Part(text=f"({part.text})", columns=part.columns, truth=part.truth)

    def _comparison(self) -> Part:
        name = self._column()
        sign = self._sign()
        if sign is None:
            if self.kinds[name] != "bool":
                raise UserError(
                    f"got --where with {name} alone, which is no truth value, expected {name} < VALUE or such"
                )
            return Part(text=name, columns=frozenset([name]), truth=lambda row: _truth(row[name]))
        value, text = self._value()
        self._check_kinds(name, sign, value)
        compare = _COMPARE[sign]

        def truth(row: Mapping[str, Value]) -> bool | None:
            got = row[name]
            if value is None:
                return compare(got, None)
            return None if got is None else compare(got, value)

        return Part(text=f"{name}{sign}{text}", columns=frozenset([name]), truth=truth)

    def _column(self) -> str:
        token = self._next("expected a column")
        if token.kind != "name" or token.text.lower() in _WORDS or token.text.lower() in _CONSTANTS:
            raise self._wrong("expected a column", at=token)
        if token.text not in self.kinds:
            raise UserError(f"got --where with the column {token.text!r}, expected one of {', '.join(self.kinds)}")
        return token.text

    def _sign(self) -> str | None:
        token = self.tokens[self.index] if self.index < len(self.tokens) else None
        if token is None or token.kind != "sign" or token.text not in (*_COMPARE, "="):
            return None
        self.index += 1
        return "==" if token.text == "=" else token.text

    def _value(self) -> tuple[Value, str]:
        token = self._next("expected a value")
        if token.kind == "number":
            return float(token.text), token.text
        if token.kind == "string":
            return token.text[1:-1], token.text
        if token.kind == "name" and token.text.lower() in _CONSTANTS:
            return _CONSTANTS[token.text.lower()], token.text.lower()
        raise self._wrong('expected a number, "text", true, false or none', at=token)

    def _check_kinds(self, name: str, sign: str, value: Value) -> None:
        kind = self.kinds[name]
        fits = value is None or {
            "bool": isinstance(value, bool),
            "string": isinstance(value, str),
        }.get(kind, isinstance(value, float))
        if not fits or (sign not in ("==", "!=") and (value is None or kind == "bool")):
            kinds = {"bool": "true or false", "string": 'a "text"'}
            raise UserError(f"got --where with {name} {sign} {_shown(value)}, expected {kinds.get(kind, 'a number')}")

    # --- tokens -------------------------------------------------------------------------------------------------------

    def _peek(self, text: str) -> bool:
        return self.index < len(self.tokens) and self.tokens[self.index].text.lower() == text

    def _takes(self, text: str) -> bool:
        is_there = self._peek(text) and self.tokens[self.index].kind != "string"
        self.index += is_there
        return is_there

    def _next(self, expected: str) -> Token:
        if self.index >= len(self.tokens):
            raise self._wrong(expected)
        self.index += 1
        return self.tokens[self.index - 1]

    def _wrong(self, expected: str, *, at: Token | None = None) -> UserError:
        token = at or (self.tokens[self.index] if self.index < len(self.tokens) else None)
        got = f"{token.text!r} at character {token.start + 1}" if token else "its end"
        return UserError(f"got --where {self.text[:80]!r} with {got}, {expected}")


def _truth(value: Value) -> bool | None:
    return value if isinstance(value, bool) else None


def _not(part: Part) -> Part:
    def truth(row: Mapping[str, Value]) -> bool | None:
        value = part.truth(row)
        return None if value is None else not value

    return Part(text=f"not {part.text}", columns=part.columns, truth=truth)


def _all_of(parts: list[Part], text: str) -> Part:
    if len(parts) == 1:
        return parts[0]

    def truth(row: Mapping[str, Value]) -> bool | None:
        values = [part.truth(row) for part in parts]
        return False if False in values else None if None in values else True

    columns = frozenset().union(*(part.columns for part in parts))
    return Part(text=" and ".join(part.text for part in parts), columns=columns, truth=truth)
