"""The rate limits and spending limits of API keys."""

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal

from proctor.server.config.access import KeyLimits
from proctor.server.errors import QuotaExceeded, RateLimited
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
    """

    tokens: int
    nanos: int
    thinking: int = 0


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
            headers=headers,
        )
    raise RateLimited(
        f"Rate limit reached: the request may use {want.tokens} tokens, and "
        f"{max(0, limit - use.tokens)} of its API key's {limit} tokens per minute are left. Try "
        f"again in {wait} s.",
        headers={**headers, "retry-after": wait},
    )


def _check_spending(
    limits: KeyLimits, use: KeyUsage, want: WorstCase, now: datetime, headers: dict[str, str]
) -> None:
    periods = (
        ("day", limits.per_day, use.day, use.held_of_day, _next_day(now)),
        ("month", limits.per_month, use.month, use.held_of_month, _next_month(now)),
    )
    for period, limit, spent, reserved, end in periods:
        if limit is not None and spent + want.nanos > to_nanos(limit):
            left = max(Decimal(), limit - spent * NANO)
            shortage = (
                f"the request may cost {want.nanos * NANO:f}, and {left:f} of its API key's "
                f"{limit:f} per {period} are left"
            )
            if spent - reserved + want.nanos <= to_nanos(limit):
                raise RateLimited(
                    f"Spending limit reached: {shortage}, while {reserved * NANO:f} are reserved "
                    "for running requests. Try again when one of them has ended, or reduce "
                    "max_tokens.",
                    headers={**headers, "retry-after": RESERVED_RETRY_SECONDS},
                )
            raise QuotaExceeded(
                f"Spending limit exceeded: {shortage}.",
                headers={**headers, "retry-after": str(math.ceil((end - now).total_seconds()))},
            )


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
