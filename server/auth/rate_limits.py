"""The rate limits and spending limits of API keys."""

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal

from proctor.server.config.access import KeyLimits
from proctor.server.errors import NO_RETRY, QuotaExceeded, RateLimited
from proctor.server.nanos import NANO, to_nanos

WINDOW = timedelta(seconds=60)

RESERVED_RETRY_SECONDS = "5"
"""The `Retry-After` of a request that has to wait for reservations of running requests, which end
at an unknown time."""


@dataclass(frozen=True, slots=True)
class WorstCase:
    """The maximum that a request may use.

    Attributes:
        tokens: the tokens of the prompt and of all answers.
        nanos: the cost, in billionths of the currency; 0 if spending is not limited.
        thinking: the thinking tokens of all choices.
        currency: the currency, for messages.
    """

    tokens: int
    nanos: int
    thinking: int = 0
    currency: str = "USD"


@dataclass(frozen=True, slots=True)
class KeyUsage:
    """The usage of a key, reservations of running requests included.

    Attributes:
        requests: the number of requests in the last minute.
        tokens: the tokens of those requests, and of all running ones.
        oldest: when the first request of the last minute was received.
        day: the spending of this day, in billionths of the currency.
        month: the spending of this month, likewise.
        held_of_day: the part of `day` that is reserved for running requests.
        held_of_month: the part of `month` that is reserved for running requests.
    """

    requests: int
    tokens: int
    oldest: datetime | None
    day: int
    month: int
    held_of_day: int = 0
    held_of_month: int = 0


def check(limits: KeyLimits, use: KeyUsage, want: WorstCase, now: datetime) -> dict[str, str]:
    """Check that a request is within the limits of its key.

    Args:
        limits: the limits of the key.
        use: the usage of the key so far.
        want: the maximum that the request may use.
        now: the time.

    Returns:
        The rate-limit headers, as of after the request.

    Raises:
        RateLimited: if the requests or tokens per minute would be exceeded, or if the
            request would be within the spending limit without the reservations of
            running requests.
        QuotaExceeded: if the spending limit of the day or month would be exceeded.
    """
    headers = _headers(limits, use, now)
    _check_rates(limits, use, want, now, headers)
    _check_spending(limits, use, want, now, headers)
    after = replace(
        use,
        requests=use.requests + 1,
        tokens=use.tokens + want.tokens,
        oldest=use.oldest or now,
    )
    return _headers(limits, after, now)


def _check_rates(
    limits: KeyLimits, use: KeyUsage, want: WorstCase, now: datetime, headers: dict[str, str]
) -> None:
    wait = str(math.ceil(_reset(use, now)))
    limit = limits.requests_per_minute
    if limit is not None and use.requests >= limit:
        raise RateLimited(
            f"Rate limit reached: this API key is limited to {limit} requests per minute. Try "
            f"again in {wait} s.",
            headers={**headers, "retry-after": wait},
        )
    limit = limits.tokens_per_minute
    if limit is None or use.tokens + want.tokens <= limit:
        return
    if want.tokens > limit:
        raise RateLimited(
            f"Request too large: it may use {want.tokens} tokens, and its API key is limited to "
            f"{limit} tokens per minute. Reduce max_tokens.",
            headers={**headers, **NO_RETRY},
        )
    raise RateLimited(
        f"Rate limit reached: the request may use {want.tokens} tokens, and "
        f"{max(0, limit - use.tokens)} of its API key's {limit} tokens per minute are left. Try "
        f"again in {wait} s.",
        headers={**headers, "retry-after": wait},
    )


@dataclass(frozen=True, slots=True)
class SpendingLimit:
    """The spending limit of a day or a month, and its usage.

    Attributes:
        period: "day" or "month".
        limit: the limit, in the currency.
        spent: the spending, reservations included, in billionths of the currency.
        reserved: the part of it that is reserved for running requests.
        end: when the period ends.
    """

    period: str
    limit: Decimal
    spent: int
    reserved: int
    end: datetime

    def exceeded(self, nanos: int) -> bool:
        """Return whether a request of this cost would exceed the limit."""
        return self.spent + nanos > to_nanos(self.limit)

    def held(self, nanos: int) -> bool:
        """Return whether it would only because of the reservations of running requests."""
        return self.spent - self.reserved + nanos <= to_nanos(self.limit)


def _check_spending(
    limits: KeyLimits, use: KeyUsage, want: WorstCase, now: datetime, headers: dict[str, str]
) -> None:
    exceeded = [each for each in _spending_limits(limits, use, now) if each.exceeded(want.nanos)]
    for each in exceeded:
        if want.nanos > to_nanos(each.limit):
            raise _too_expensive(each, want, headers)
    # The limit that is exceeded the longest decides: before that, no retry succeeds.
    lasting = [each for each in exceeded if not each.held(want.nanos)]
    if lasting:
        last = max(lasting, key=lambda each: each.end)
        raise QuotaExceeded(
            f"Spending limit exceeded: {_shortage(last, want)}. Reduce max_tokens, or try again "
            f"in the next {last.period}, from {last.end:%Y-%m-%d %H:%M} UTC on.",
            headers={**headers, "retry-after": str(math.ceil((last.end - now).total_seconds()))},
        )
    for each in exceeded:
        raise RateLimited(
            f"Spending limit reached: {_shortage(each, want)}, while "
            f"{_money(each.reserved * NANO, want)} are reserved for running requests. Try again "
            "when one of them has ended, or reduce max_tokens.",
            headers={**headers, "retry-after": RESERVED_RETRY_SECONDS},
        )


def _spending_limits(limits: KeyLimits, use: KeyUsage, now: datetime) -> list[SpendingLimit]:
    periods = (
        ("day", limits.per_day, use.day, use.held_of_day, _next_day(now)),
        ("month", limits.per_month, use.month, use.held_of_month, _next_month(now)),
    )
    return [
        SpendingLimit(period, limit, spent, reserved, end)
        for period, limit, spent, reserved, end in periods
        if limit is not None
    ]


def _too_expensive(each: SpendingLimit, want: WorstCase, headers: dict[str, str]) -> QuotaExceeded:
    """Return the error of a request that costs more than the whole limit: waiting does not help."""
    return QuotaExceeded(
        f"Request too expensive: it may cost {_money(want.nanos * NANO, want)}, and its API key "
        f"is limited to {_money(each.limit, want)} per {each.period}. Reduce max_tokens, or use a "
        "key with a higher limit.",
        headers={**headers, **NO_RETRY},
    )


def _shortage(each: SpendingLimit, want: WorstCase) -> str:
    left = max(Decimal(), each.limit - each.spent * NANO)
    return (
        f"the request may cost {_money(want.nanos * NANO, want)}, and {_money(left, want)} of its "
        f"API key's {_money(each.limit, want)} per {each.period} are left"
    )


def _money(amount: Decimal, want: WorstCase) -> str:
    return f"{amount:f} {want.currency}"


def _headers(limits: KeyLimits, use: KeyUsage, now: datetime) -> dict[str, str]:
    """Return OpenAI's rate-limit headers."""
    headers = {}
    rates = {
        "requests": (limits.requests_per_minute, use.requests),
        "tokens": (limits.tokens_per_minute, use.tokens),
    }
    for name, (limit, used) in rates.items():
        if limit is not None:
            headers[f"x-ratelimit-limit-{name}"] = str(limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(max(0, limit - used))
            headers[f"x-ratelimit-reset-{name}"] = f"{_reset(use, now):.3f}s"
    return headers


def _reset(use: KeyUsage, now: datetime) -> float:
    """Return the seconds until the oldest usage in the window no longer counts."""
    if use.oldest is None:
        return WINDOW.total_seconds() if use.tokens else 0.0
    return max(0.0, (use.oldest + WINDOW - now).total_seconds())


def _next_day(now: datetime) -> datetime:
    return datetime.combine(now.date() + timedelta(days=1), time(), UTC)


def _next_month(now: datetime) -> datetime:
    first = now.date().replace(day=1)
    return datetime.combine((first + timedelta(days=32)).replace(day=1), time(), UTC)
