"""Costs of responses: by tokens, or by their shares of the engine's time."""

from decimal import Decimal
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.budget import BudgetStateMachine, EndReason, TokenBudget
from proctor.server.accounting.cost import COST_QUANTUM, HOUR_NS, PriceModel, RequestCost
from proctor.server.accounting.engine_time import BusyClock
from proctor.server.config.prices import ComputePrice, Prices
from proctor.server.config.section import ConfigError
from proctor.server.config.settings import load_settings
from proctor.server.engines.base import Finish
from proctor.server.engines.fake import MARKERS, FakeEngine, Script
from proctor.server.generation.base import AdmittedRequest, ChoiceResult
from tests.server.harness import CHAT, body, client, parse_events

ROUTE = "/v1/route"
PRICES = {"prompt": "1", "cached_prompt": "0.25", "thinking": "2", "answer": "4"}
SECOND = 1_000_000_000


class Time:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def ended(choice: int, tokens: int, answer_tokens: int) -> ChoiceResult:
    outcome = BudgetStateMachine(TokenBudget(), MARKERS).outcome(EndReason.NATURAL)
    return ChoiceResult(choice, Finish.STOP, outcome, (), tokens, answer_tokens, 0)


def price_model(time: Time, per_hour: str) -> PriceModel:
    compute = ComputePrice(per_hour=Decimal(per_hour))
    return PriceModel(None, compute, BusyClock(time))


async def test_cached_tokens_have_their_own_price() -> None:
    async with client(FakeEngine(cached_tokens=7), prices=PRICES) as http:
        response = await http.post(CHAT, json=body(n=2))
    async with client(FakeEngine(), prices=PRICES) as http:
        without_cache = (await http.post(CHAT, json=body())).json()

    answer = response.json()
    prompt = answer["usage"]["prompt_tokens"]
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 7}
    assert answer["cost"]["prompt"] == pytest.approx((prompt - 7 + 7 * 0.25) / 1e6)
    assert "prompt_tokens_details" not in without_cache["usage"]
    assert without_cache["cost"]["prompt"] == pytest.approx(prompt / 1e6)


async def test_the_x_cost_header_has_no_exponent() -> None:
    async with client(FakeEngine(), prices=PRICES) as http:
        whole = await http.post(CHAT, json=body())
        streamed = await http.post(CHAT, json=body(stream=True))
    async with client(FakeEngine()) as http:
        unpriced = await http.post(CHAT, json=body())

    header = whole.headers["x-cost"]
    assert float(header) == whole.json()["cost"]["total"]
    assert set(header) <= set("0123456789.")
    assert "x-cost" not in streamed.headers
    assert "x-cost" not in unpriced.headers
    assert unpriced.json()["cost"] is None


MOMENTS = st.lists(
    st.tuples(st.integers(0, 10**12), st.integers(0, 10**11), st.integers(0, 10**11)), min_size=1
)
"""Of each choice: its arrival, and the time for its prompt and its tokens, in nanoseconds."""


@given(moments=MOMENTS, per_hour=st.decimals("0", "1000", places=2))
def test_the_costs_of_concurrent_requests_add_up_to_the_busy_time(
    moments: list[tuple[int, int, int]], per_hour: Decimal
) -> None:
    time = Time()
    paid = price_model(time, str(per_hour))
    bills = [RequestCost(paid) for _ in moments]
    what: list[tuple[int, int, Any, tuple[Any, ...]]] = []
    for at, (request_cost, (comes, prefill, decode)) in enumerate(zip(bills, moments, strict=True)):
        what += [
            (comes, 3 * at, request_cost.choice_started, (0, lambda: ended(0, 0, 0))),
            (comes + prefill, 3 * at + 1, request_cost.first_token, (0,)),
            (comes + prefill + decode, 3 * at + 2, request_cost.choice_left_engine, (0,)),
        ]
    running, busy = 0, 0
    ordered = sorted(what, key=lambda event: event[:2])
    for (now, order, happens, what_with), after in pairwise([*ordered, ordered[-1]]):
        time.now = now
        happens(*what_with)
        running += {0: 1, 1: 0, 2: -1}[order % 3]
        busy += (after[0] - now) if running else 0
    for request_cost in bills:
        request_cost.choice_finished(ended(0, 5, 2))

    costs = [request_cost.cost(1) for request_cost in bills]

    total = sum((cost.total for cost in costs if cost is not None), Decimal())
    assert None not in costs
    assert all(part >= 0 for cost in costs if cost for part in (cost.prompt, cost.thinking))
    assert abs(total - busy * per_hour / HOUR_NS) <= 3 * len(bills) * COST_QUANTUM


def test_two_concurrent_requests_share_the_engines_time() -> None:
    time = Time()
    paid = price_model(time, "3.6")  # a thousandth of a dollar per second
    one, other = RequestCost(paid), RequestCost(paid)

    one.choice_started(0, lambda: ended(0, 5, 2))
    time.now = 10 * SECOND  # alone
    one.first_token(0)
    other.choice_started(0, lambda: ended(0, 0, 0))
    time.now = 20 * SECOND  # together
    snapshots = [request_cost.snapshot().cost(1) for request_cost in (one, other)]
    time.now = 30 * SECOND
    other.first_token(0)
    other.choice_left_engine(0)
    time.now = 40 * SECOND  # again alone
    one.choice_left_engine(0)
    one.choice_finished(ended(0, 10, 4))
    other.choice_finished(ended(0, 0, 0))
    first, second = one.cost(1), other.cost(1)

    assert first is not None
    assert second is not None
    assert (first.prompt, first.thinking, first.answer) == (
        Decimal("0.010"),
        Decimal("0.012"),
        Decimal("0.008"),
    )
    assert (second.prompt, second.total) == (Decimal("0.010"), Decimal("0.010"))
    assert [cost.total for cost in snapshots if cost is not None] == [
        Decimal("0.015"),  # the prompt alone, and half of the time for its tokens
        Decimal("0.005"),
    ]


def test_the_snapshot_of_a_running_request_has_its_cost_so_far() -> None:
    request_cost = RequestCost(PriceModel(Prices.model_validate(PRICES), None))
    admission: Any = SimpleNamespace(prompt_tokens=10, choices_per_prompt=3)
    request: Any = None
    request_cost.admitted(
        AdmittedRequest("id", "chat", "model", None, request, False, admission, "")
    )
    request_cost.choice_started(0, lambda: ended(0, 30, 10))
    request_cost.choice_started(1, lambda: ended(1, 7, 0))
    request_cost.first_token(0)
    request_cost.prompt_cached(0, 4)
    request_cost.choice_finished(ended(0, 50, 20))

    snapshot = request_cost.snapshot()

    assert (snapshot.completion_tokens, request_cost.completion_tokens) == (57, 50)
    assert snapshot.cached_tokens == 4
    cost = snapshot.charged_cost
    assert cost is not None
    assert (cost.thinking, cost.answer) == (Decimal(2 * 37) / 10**6, Decimal(4 * 20) / 10**6)


async def test_compute_time_has_a_price() -> None:
    async with client(FakeEngine(Script(("abc",), "de")), compute={"per_hour": 3600}) as http:
        unknown = (await http.post(ROUTE, json=body())).json()["cost"]
        whole = await http.post(CHAT, json=body())
        options = {"stream": True, "stream_options": {"include_usage": True}}
        streamed = (await http.post(CHAT, json=body(**options))).text
        known = (await http.post(ROUTE, json=body())).json()["cost"]

    cost = whole.json()["cost"]
    assert cost["total"] > 0
    assert float(whole.headers["x-cost"]) == cost["total"]
    usages = [event.data["cost"] for event in parse_events(streamed) if "cost" in event.data]
    assert usages[0]["total"] > 0
    totals = [cost["total"], usages[0]["total"]]
    assert unknown == {"currency": "USD", "least": None, "expected": None, "most": None}
    assert (known["least"], known["most"]) == (min(totals), max(totals))
    assert known["expected"] == pytest.approx(sum(totals) / 2)


async def test_estimates_follow_the_recent_costs_of_a_tier() -> None:
    async with client(FakeEngine(Script(("abc",), "de")), prices=PRICES) as http:
        before = (await http.post(ROUTE, json=body())).json()["cost"]
        cost = (await http.post(CHAT, json=body())).json()["cost"]
        after = (await http.post(ROUTE, json=body())).json()["cost"]
        other = (await http.post(ROUTE, json=body(budget_tier="low"))).json()["cost"]
        twice = (await http.post(ROUTE, json=body(n=2))).json()["cost"]

    assert before["expected"] is None
    assert before["least"] < cost["total"] < before["most"]
    assert after["expected"] == pytest.approx(cost["total"])
    assert other["expected"] is None
    assert twice["expected"] == pytest.approx(2 * cost["total"] - cost["prompt"])


def test_prices_and_compute_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="prices and compute"):
        load_settings({"prices": PRICES, "compute": {"per_hour": "2"}})
    with pytest.raises(ConfigError, match=r"compute\.per_hour"):
        load_settings({"compute": {"per_hour": "-2"}})
    with pytest.raises(ConfigError, match="cached_prompt"):
        load_settings({"prices": {**PRICES, "cached_prompt": "1.01"}})
    assert ComputePrice(per_hour=Decimal("2.5")).currency == "USD"
