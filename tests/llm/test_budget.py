"""Prices, estimates and budgets, by hand."""

import threading
from pathlib import Path

import pytest

from avcap.errors import UserError
from avcap.llm.budget import (
    PRICES,
    Budget,
    Price,
    cost_of,
    estimate,
    find_price,
    guess_input_tokens,
    most_it_can_cost,
    read_prices,
)
from avcap.llm.types import ChatRequest, Message, Reply

MILLI = Price(input=1000.0, output=4000.0)  # 0.001 and 0.004 US dollars a token


def request(text: str, **fields: object) -> ChatRequest:
    return ChatRequest(messages=(Message(role="user", content=text),), max_tokens=50, **fields)  # type: ignore[arg-type]


def test_cost_is_tokens_times_price():
    # 2,000 * $2 / 1e6 + 500 * $8 / 1e6 = 0.004 + 0.004
    assert Price(input=2.0, output=8.0).of(input_tokens=2000, output_tokens=500) == pytest.approx(0.008)
    assert cost_of(Reply(text="", input_tokens=3, output_tokens=2), price=MILLI) == pytest.approx(0.003 + 0.008)


def test_a_guess_is_four_bytes_a_token_and_a_bound_is_one():
    asked = request("ä" * 50)  # 100 bytes
    assert guess_input_tokens(asked) == 25 + 8
    assert most_it_can_cost(asked, price=MILLI) == pytest.approx((100 + 8) * 0.001 + 50 * 0.004)
    with_schema = request("ä" * 50, schema={"a": 1})  # {"a": 1} is 8 bytes
    assert most_it_can_cost(with_schema, price=MILLI) == pytest.approx((100 + 8 + 8) * 0.001 + 50 * 0.004)
    assert guess_input_tokens(request("\ud800")) == 1 + 8  # half a character: 3 bytes, one token


def test_the_estimate_counts_equal_requests_once():
    requests = [request("a"), request("b"), request("a"), request("kept")]
    told = estimate(
        requests,
        model="m",
        price=MILLI,
        key=lambda asked: asked.messages[0].content,
        is_cached=lambda key: key == "kept",
    )
    assert (told.calls, told.cached, told.input_tokens, told.output_tokens_max) == (2, 2, 2 * 9, 2 * 50)
    assert told.money_usd == pytest.approx(18 * 0.001 + 100 * 0.004)
    expected = "2 calls to m (2 more from the cache), about 18 tokens in, at most 100 out: at most about $0.42"
    assert str(told).startswith(expected)


def test_an_unknown_price_is_said_and_not_made_up():
    told = estimate([request("a")], model="mine", price=None, key=repr, is_cached=lambda key: False)
    assert told.money_usd is None and told.input_tokens == 9
    assert "no price is known for 'mine'" in str(told) and "$" not in str(told)


def test_a_dated_snapshot_has_the_price_of_its_model():
    assert find_price("gpt-4.1-2025-04-14") == find_price("gpt-4.1") == Price(input=2.0, output=8.0)
    assert find_price("gpt-3.5-turbo-0125") == PRICES["gpt-3.5-turbo"]
    assert find_price("gpt-4.1-maxi") is None and find_price("llama") is None


def test_a_file_overrides_and_adds(tmp_path: Path):
    path = tmp_path / "prices.yaml"
    path.write_text("gpt-4.1: {input: 1, output: 4.5}\nmine/model: {input: 0, output: 0}\n")
    prices = read_prices(path)
    assert prices["gpt-4.1"] == Price(input=1.0, output=4.5)
    assert find_price("mine/model", prices=prices) == Price(input=0.0, output=0.0)  # free is a known price
    assert prices["gpt-4o"] == PRICES["gpt-4o"]


@pytest.mark.parametrize(
    "text",
    [
        "- a",
        "gpt: 3",
        "gpt: {input: 1}",
        "gpt: {input: 1, output: -1}",
        "gpt: {input: .nan, output: 1}",
        "gpt: {input: .inf, output: 1}",
        "gpt: {input: '1', output: 1}",
        "gpt: {input: true, output: 1}",
        "a: [",
        "x",
        "gpt: {input: 1, output: 1, cached: 1}",
    ],
)
def test_bad_price_tables_are_refused(text: str, tmp_path: Path):
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"prices\.yaml"):
        read_prices(path)


def test_a_missing_price_table_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="cannot be read"):
        read_prices(tmp_path / "none.yaml")


def test_a_budget_sets_aside_what_is_in_flight():
    budget = Budget(10.0)
    assert budget.reserve(4.0) and budget.reserve(4.0)
    assert not budget.reserve(4.0) and budget.affords(4.0)  # 8 of 10 set aside, nothing spent: wait
    budget.settle(4.0, spent_usd=1.0)
    assert budget.reserve(4.0)  # 1 spent + 4 + 4 = 9
    budget.settle(4.0, spent_usd=4.0)
    budget.settle(4.0, spent_usd=4.0)
    assert budget.spent_usd == 9.0 and not budget.affords(4.0) and not budget.reserve(1.5) and budget.reserve(1.0)


def test_a_budget_holds_among_threads():
    budget, spent = Budget(100.0), []

    def spend() -> None:
        for _ in range(100):
            if budget.reserve(1.0):
                budget.settle(1.0, spent_usd=0.5)
                spent.append(0.5)

    threads = [threading.Thread(target=spend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # 800 tries of 0.5 want 400; the last that fits needs 1 free: 99 + 1 = 100, so it ends with 99 < spent <= 100.
    assert 99 < budget.spent_usd <= 100 and sum(spent) == budget.spent_usd


@pytest.mark.parametrize("limit", [-1.0, float("nan"), float("inf")])
def test_a_budget_is_a_number(limit: float):
    with pytest.raises(UserError, match="budget"):
        Budget(limit)
