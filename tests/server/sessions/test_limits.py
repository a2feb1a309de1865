"""The arithmetic of session limits, held against a slow and obvious reference."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proctor.server.admission.session_share import SessionShare
from proctor.server.config.prices import ComputePrice, Prices
from proctor.server.config.section import UsageLimits
from proctor.server.config.sessions import Limit, SessionLimits
from proctor.server.errors import SessionLimitExceeded
from proctor.server.sessions.limits import (
    Allowance,
    Session,
    SessionState,
    SessionUsage,
    TierUsage,
    allowance,
    remaining_headers,
)
from tests.server.harness import settings

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
TIERS = ("low", "high", "custom")
COUNTS = st.integers(0, 50)
MONEY = COUNTS.map(lambda count: 20_000 * count)
"""Amounts of billionths that pay for as many tokens as there are."""
OPTIONAL = st.none() | COUNTS
POSITIVE = st.none() | st.integers(1, 60)


@dataclass(frozen=True)
class Request:
    """A request of a session that has ended, or is running with this worst case."""

    tier: str
    thinking: int
    tokens: int
    nanos: int
    running: bool


REQUESTS = st.lists(
    st.builds(Request, st.sampled_from(TIERS), COUNTS, COUNTS, MONEY, st.booleans()), max_size=6
)


def nano(number: int | None) -> Decimal | None:
    return None if number is None else number * Decimal("1e-9")


@st.composite
def usage_limits(draw: Callable[..., Any], kind: type[UsageLimits]) -> UsageLimits:
    return kind(
        max_thinking_tokens=draw(OPTIONAL),
        max_tokens=draw(POSITIVE),
        max_cost=nano(draw(st.none() | MONEY.filter(bool))),
        max_requests=draw(st.none() | st.integers(1, 4)),
    )


LIMITS = usage_limits(SessionLimits)


def state_of(requests: list[Request], requested: SessionLimits) -> SessionState:
    tiers = []
    for tier in TIERS:
        used = reserved = SessionUsage()
        for request in requests:
            if request.tier == tier:
                use = SessionUsage(1, request.thinking, request.tokens, request.nanos)
                used, reserved = (
                    (used, reserved + use) if request.running else (used + use, reserved)
                )
        tiers.append(TierUsage(tier, used, reserved))
    return SessionState(NOON, requested, tiers=tuple(tiers))


USES: dict[str, Callable[[Request], int | Decimal]] = {
    "max_thinking_tokens": lambda request: request.thinking,
    "max_tokens": lambda request: request.tokens,
    "max_cost": lambda request: request.nanos * Decimal("1e-9"),
    "max_requests": lambda _: 1,
}
"""What a request uses of each limit."""


def is_within(
    requests: list[Request],
    another: Request,
    limits: list[SessionLimits],
    tiers: dict[str, UsageLimits],
) -> bool:
    """Return whether another request keeps all limits of what it uses; the reference.

    One that does not think may run although more was thought than a limit that was lowered since.
    """
    groups: list[tuple[UsageLimits, list[Request]]] = [(each, requests) for each in limits]
    for name, tier in tiers.items():
        groups.append((tier, [request for request in requests if request.tier == name]))
    for limit, group in groups:
        for name, uses in USES.items():
            maximum = getattr(limit, name)
            total = sum(map(uses, [*group, another]))
            if maximum is not None and uses(another) and total > maximum:
                return False
    return True


@given(
    REQUESTS,
    st.builds(Request, st.sampled_from(TIERS), COUNTS, COUNTS, MONEY, st.just(True)),
    LIMITS,
    LIMITS,
    LIMITS,
    st.dictionaries(st.sampled_from(TIERS), usage_limits(UsageLimits), max_size=2),
)
@example(
    [Request("low", 5, 5, 0, False)],
    Request("low", 0, 1, 0, True),
    SessionLimits(),
    SessionLimits(max_thinking_tokens=3),
    SessionLimits(),
    {},
)
def test_a_request_is_covered_exactly_if_it_keeps_all_limits(
    requests: list[Request],
    another: Request,
    operator: SessionLimits,
    earlier: SessionLimits,
    requested: SessionLimits,
    tiers: dict[str, UsageLimits],
) -> None:
    session = Session("", "s", True, requested, operator, tiers)
    left = allowance(session, state_of(requests, earlier), NOON)
    want = SessionUsage(1, another.thinking, another.tokens, another.nanos)

    # What the session has used of other tiers' limits is no concern of this request.
    of_tier = {name: tier for name, tier in tiers.items() if name == another.tier}
    expected = is_within(requests, another, [operator, earlier, requested], of_tier)

    assert left.covers(another.tier, want) is expected


@given(LIMITS, REQUESTS, st.sampled_from(TIERS), st.integers(1, 5), COUNTS, st.integers(0, 5))
def test_what_a_request_is_admitted_with_is_covered_to_the_last_token(
    limits: SessionLimits,
    requests: list[Request],
    tier: str,
    choices: int,
    prompt: int,
    price: int,
) -> None:
    """Every choice may use all of its share, and one token more for each would be too much."""
    prices = Prices(prompt=price, thinking=2 * price, answer=price)
    server = settings(prices=prices)
    left = allowance(Session("", "s", True, limits), state_of(requests, SessionLimits()), NOON)
    share = SessionShare(left, tier, choices, server)
    if not covers(left, tier, prompt, choices, 1, price):
        with pytest.raises(SessionLimitExceeded):
            admit(share, prompt)
        return
    length = admit(share, prompt)
    tokens = 1000 if length is None else length[0]

    assert covers(left, tier, prompt, choices, tokens, price)
    assert length is None or not covers(left, tier, prompt, choices, tokens + 1, price)


def admit(share: SessionShare, prompt: int) -> tuple[int, Limit] | None:
    """Return the maximum length of each choice and its limit, as admission determines it."""
    share.check()
    return share.max_tokens(prompt, 1)


def covers(left: Allowance, tier: str, prompt: int, choices: int, tokens: int, price: int) -> bool:
    nanos = 1000 * price * (prompt + 2 * choices * tokens)
    want = SessionUsage(1, 0, prompt + choices * tokens, nanos)
    return left.covers(tier, want)


@pytest.mark.parametrize(
    ("used", "retries", "message"),
    [
        (SessionUsage(1, 0, 95, 0), "false", "the prompt has 10 tokens, and 5 of the 100 tokens"),
        (SessionUsage(1, 0, 0, 0), None, "while 95 tokens are reserved for running requests"),
    ],
)
def test_an_error_tells_what_is_left_and_whether_to_retry(
    used: SessionUsage, retries: str | None, message: str
) -> None:
    reserved = SessionUsage(1, 0, 95, 0) if used.tokens == 0 else SessionUsage()
    state = SessionState(NOON, tiers=(TierUsage("low", used, reserved),))
    left = allowance(Session("", "s", requested=SessionLimits(max_tokens=100)), state, NOON)

    with pytest.raises(SessionLimitExceeded, match=message) as refused:
        SessionShare(left, "low", 1, settings()).max_tokens(10, 1)

    assert refused.value.limit == Limit.TOKENS
    assert refused.value.headers.get("x-should-retry") == retries
    assert ("retry-after" in refused.value.headers) is (retries is None)


def test_a_session_ends_with_its_time() -> None:
    session = Session("", "s", requested=SessionLimits(max_seconds=60))
    state = SessionState(NOON)
    almost = allowance(session, state, NOON + timedelta(seconds=59))

    assert SessionShare(almost, "low", 1, settings()).max_seconds() == 1
    with pytest.raises(SessionLimitExceeded, match="the 60 s of this session have passed"):
        SessionShare(
            allowance(session, state, NOON + timedelta(seconds=60)), "low", 1, settings()
        ).check()


@given(st.integers(1, 10**12), st.decimals("0.01", "1000", places=2))
def test_the_time_that_is_paid_for_costs_no_more_than_is_left(
    nanos: int, per_hour: Decimal
) -> None:
    limits = SessionLimits(max_cost=nano(nanos))
    left = allowance(Session("", "s", requested=limits), SessionState(), NOON)
    share = SessionShare(left, "low", 1, settings(compute=ComputePrice(per_hour=per_hour)))
    paid = nanos * Decimal("1e-9") * 3600 / per_hour
    if paid <= Decimal("0.01"):
        with pytest.raises(SessionLimitExceeded):
            share.max_seconds()
        return

    assert paid * Decimal("0.999") < Decimal(share.max_seconds()) <= paid


@given(LIMITS, LIMITS)
def test_limits_are_only_lowered(first: SessionLimits, second: SessionLimits) -> None:
    lowered = first.lowered_by(second)

    for name in SessionLimits.limit_names():
        given_limits = [getattr(each, name) for each in (first, second)]
        kept = [limit for limit in given_limits if limit is not None]
        assert getattr(lowered, name) == (min(kept) if kept else None)
    assert lowered == second.lowered_by(first) == lowered.lowered_by(first)


def test_the_headers_tell_what_was_left() -> None:
    limits = SessionLimits(max_thinking_tokens=100, max_cost=Decimal("2.50"))
    used = SessionUsage(1, 30, 50, 500_000_000)
    state = SessionState(NOON, tiers=(TierUsage("low", used, SessionUsage(1, 20, 0, 0)),))
    session = Session("", "mine", requested=limits)

    assert remaining_headers(session, allowance(session, state, NOON)) == {
        "x-session-id": "mine",
        "x-session-thinking-remaining": "50",
        "x-session-cost-remaining": "2",
    }
