"""What a run of an LLM judge will cost, before it is spent, and a budget that it cannot exceed.

Prices are US dollars for a million tokens. A YAML file in the form of `PRICES` overrides and adds to them:

    gpt-4.1: {input: 2.00, output: 8.00}
    Qwen/Qwen2.5-72B-Instruct: {input: 0, output: 0}

`estimate` guesses (4 bytes of text are about one token); `Budget` does not: before each call it sets aside the most
that the call can cost (one token for every byte, all of max_tokens) and gives back what was not used.
"""

import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from avcap.errors import UserError
from avcap.llm.types import ChatRequest, Reply
from avcap.texts.yaml_text import read_yaml

PRICES_DATE = "2026-04"
BYTES_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 8
"""What a chat template puts around one message, rounded up."""


@dataclass(frozen=True, kw_only=True)
class Price:
    """US dollars for a million tokens."""

    input: float
    output: float

    def of(self, *, input_tokens: int, output_tokens: int) -> float:
        """Token counts -> US dollars."""
        return (input_tokens * self.input + output_tokens * self.output) / 1e6


PRICES: Mapping[str, Price] = {
    "gpt-5": Price(input=1.25, output=10.00),
    "gpt-5-mini": Price(input=0.25, output=2.00),
    "gpt-5-nano": Price(input=0.05, output=0.40),
    "gpt-4.1": Price(input=2.00, output=8.00),
    "gpt-4.1-mini": Price(input=0.40, output=1.60),
    "gpt-4.1-nano": Price(input=0.10, output=0.40),
    "gpt-4o": Price(input=2.50, output=10.00),
    "gpt-4o-mini": Price(input=0.15, output=0.60),
    "gpt-3.5-turbo": Price(input=0.50, output=1.50),
}
"""List prices of the hosted models that published protocols use, as of `PRICES_DATE`."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What asking some requests will cost. `money_usd` None: the model's price is not known."""

    model: str
    calls: int
    cached: int
    input_tokens: int
    output_tokens_max: int
    money_usd: float | None

    def __str__(self) -> str:
        if self.money_usd is None:
            money = f"no price is known for {self.model!r}: name a file with --prices"
        else:
            money = f"at most about ${self.money_usd:.2f} (prices of {PRICES_DATE} where --prices names none)"
        return (
            f"{self.calls:,} calls to {self.model} ({self.cached:,} more from the cache), about {self.input_tokens:,} "
            f"tokens in, at most {self.output_tokens_max:,} out: {money}"
        )


def read_prices(path: str | Path) -> dict[str, Price]:
    """YAML file -> the built-in prices with those of the file over them."""
    table = read_yaml(path, expected="a price table in YAML")
    if not isinstance(table, dict):
        raise UserError(f"{path}: got {type(table).__name__}, expected lines like `gpt-4.1: {{input: 2, output: 8}}`")
    return {**PRICES, **{str(model): _price(entry, where=f"{path}: {model}") for model, entry in table.items()}}


def _price(entry: object, *, where: str) -> Price:
    if not isinstance(entry, dict) or set(entry) != {"input", "output"}:
        raise UserError(
            f"{where}: got {entry!r}, expected {{input: ..., output: ...}} in US dollars per million tokens"
        )
    for amount in entry.values():
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount < float("inf"):
            raise UserError(f"{where}: got the price {amount!r}, expected a number of US dollars, 0 or more")
    return Price(input=float(entry["input"]), output=float(entry["output"]))


def find_price(model: str, *, prices: Mapping[str, Price] = PRICES) -> Price | None:
    """Model name -> its price; a dated snapshot ("gpt-4.1-2025-04-14") has that of its model; None: not known."""
    return prices.get(model) or prices.get(re.sub(r"-\d{4}-\d{2}-\d{2}$|-\d{4}$", "", model))


def guess_input_tokens(request: ChatRequest) -> int:
    """Request -> about how many tokens it has; the judge's own tokenizer is not here to count."""
    media = sum(part.tokens for m in request.messages for part in m.parts)
    return media + sum(-(-_num_bytes(m.content) // BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE for m in request.messages)


def most_output_tokens(request: ChatRequest) -> int:
    """Request -> how many tokens all its answers may have together."""
    return request.max_tokens * int(request.options.get("n", 1))


def most_it_can_cost(request: ChatRequest, *, price: Price) -> float:
    """Request -> US dollars that one call of it cannot exceed: no tokenizer in use makes two tokens of one byte."""
    in_bytes = sum(_num_bytes(m.content) + TOKENS_PER_MESSAGE for m in request.messages)
    in_bytes += sum(part.most_tokens for m in request.messages for part in m.parts)
    # in a field of its own or, where a server takes none, in the prompt with a sentence, which costs less than counting
    # a token for every byte is too much
    in_bytes += _num_bytes(json.dumps(request.schema)) if request.schema else 0
    return price.of(input_tokens=in_bytes, output_tokens=most_output_tokens(request))


def _num_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def cost_of(reply: Reply, *, price: Price) -> float:
    """Reply with its token counts -> US dollars."""
    return price.of(input_tokens=reply.input_tokens, output_tokens=reply.output_tokens)


def estimate(
    requests: Iterable[ChatRequest],
    *,
    model: str,
    price: Price | None,
    key: Callable[[ChatRequest], str],
    is_cached: Callable[[str], bool],
) -> Estimate:
    """Requests -> what asking each of them once will cost. Equal ones are asked once; those in the cache are free."""
    seen: set[str] = set()
    calls = cached = input_tokens = output_tokens = 0
    for request in requests:
        its_key = key(request)
        if its_key in seen or is_cached(its_key):
            cached += 1
            continue
        seen.add(its_key)
        calls += 1
        input_tokens += guess_input_tokens(request)
        output_tokens += most_output_tokens(request)
    money = price.of(input_tokens=input_tokens, output_tokens=output_tokens) if price else None
    return Estimate(
        model=model,
        calls=calls,
        cached=cached,
        input_tokens=input_tokens,
        output_tokens_max=output_tokens,
        money_usd=money,
    )


class Budget:
    """US dollars that all chats holding it may spend together. What calls in flight can cost is set aside."""

    def __init__(self, limit_usd: float) -> None:
        if not 0 <= limit_usd < float("inf"):
            raise UserError(f"budget: got {limit_usd} US dollars, expected 0 or more")
        self.limit_usd = limit_usd
        self.spent_usd = 0.0
        self._reserved_usd = 0.0
        self._in_flight = 0
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return f"${self.spent_usd:.4f} of ${self.limit_usd:.2f} are spent"

    def affords(self, most_usd: float) -> bool:
        """Could such a call still be paid if those in flight cost nothing? Once false, never true again."""
        with self._lock:
            return self.spent_usd + most_usd <= self.limit_usd

    def reserve(self, most_usd: float) -> bool:
        """Sets aside what a call can cost -> False if it might exceed the limit, with those in flight."""
        with self._lock:
            if self.spent_usd + self._reserved_usd + most_usd > self.limit_usd:
                return False
            self._reserved_usd += most_usd
            self._in_flight += 1
            return True

    def settle(self, most_usd: float, *, spent_usd: float) -> None:
        """Ends what `reserve` began: the call has cost `spent_usd`."""
        with self._lock:
            self._in_flight -= 1
            # With nothing in flight nothing is set aside: rounding must not add up over 100,000 calls.
            self._reserved_usd = self._reserved_usd - most_usd if self._in_flight else 0.0
            self.spent_usd += spent_usd
