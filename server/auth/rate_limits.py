"""Whether a key may have what a request may take, beside what it has had."""

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal

from proctor.server.config.access import KeyLimits
from proctor.server.errors import QuotaExceeded, RateLimited
from proctor.server.pricing import NANO, to_nanos

WINDOW = timedelta(seconds=60)

HELD_SECONDS = "5"
"""After which to ask again for what is held for others; nobody knows when they end."""


@dataclass(frozen=True, slots=True)
class WorstCase:
    """What one request may take at most.

    Attributes:
        tokens: of the prompt and of all its answers.
        nanos: billionths of the currency; 0 where money is not limited.
    """

    tokens: int
    nanos: int


@dataclass(frozen=True, slots=True)
class KeyUsage:
    """What requests with a key have taken, or may still take while they run.

    Attributes:
        requests: those of the last minute.
        tokens: theirs, and those of all that run.
        oldest: when the first request of the last minute came.
        day: billionths of the currency, of this day's requests, those that run included.
        month: likewise.
        held_of_day: what of it is held for those that run.
        held_of_month: likewise.
    """

    requests: int
    tokens: int
    oldest: datetime | None
    day: int
    month: int
    held_of_day: int = 0
    held_of_month: int = 0


def check(limits: KeyLimits, use: KeyUsage, want: WorstCase, now: datetime) -> dict[str, str]:
    """Headers that tell what is left, once the request has what it wants.

    Args:
        limits: the key's.
        use: what it has had.
        want: what the request may take.
        now: the time.

    Raises:
        RateLimited: if the requests or the tokens of this minute do not allow for it, or what
            is held for requests that run.
        QuotaExceeded: if the money of this day or month does not.
    """
    headers = _told(limits, use, now)
    _check_rates(limits, use, want, now, headers)
    _check_money(limits, use, want, now, headers)
    after = replace(
        use,
        requests=use.requests + 1,
        tokens=use.tokens + want.tokens,
        oldest=use.oldest or now,
    )
    return _told(limits, after, now)


def _check_rates(
    limits: KeyLimits, use: KeyUsage, want: WorstCase, now: datetime, headers: dict[str, str]
) -> None:
    wait = str(math.ceil(_reset(use, now)))
    most = limits.requests_per_minute
    if most is not None and use.requests >= most:
        raise RateLimited(
            f"this key may send {most} requests a minute: try again in {wait} s",
            headers={**headers, "retry-after": wait},
        )
    most = limits.tokens_per_minute
    if most is None or use.tokens + want.tokens <= most:
        return
    if want.tokens > most:
        raise RateLimited(
            f"this request may take {want.tokens} tokens, and its key has {most} a minute: "
            "ask for fewer by max_tokens",
            headers=headers,
        )
    raise RateLimited(
        f"this request may take {want.tokens} tokens, and of its key's {most} a minute "
        f"{max(0, most - use.tokens)} are left: try again in {wait} s",
        headers={**headers, "retry-after": wait},
    )


def _check_money(
    limits: KeyLimits, use: KeyUsage, want: WorstCase, now: datetime, headers: dict[str, str]
) -> None:
    spans = (
        ("day", limits.per_day, use.day, use.held_of_day, _next_day(now)),
        ("month", limits.per_month, use.month, use.held_of_month, _next_month(now)),
    )
    for span, most, spent, held, ends in spans:
        if most is not None and spent + want.nanos > to_nanos(most):
            left = max(Decimal(), most - spent * NANO)
            if spent - held + want.nanos <= to_nanos(most):
                raise RateLimited(
                    f"this request may cost {want.nanos * NANO:f}, and of the {most:f} that its "
                    f"key may spend in a {span} {left:f} are left while {held * NANO:f} are held "
                    "for requests that run: try again when one has ended, or ask for fewer "
                    "tokens by max_tokens",
                    headers={**headers, "retry-after": HELD_SECONDS},
                )
            raise QuotaExceeded(
                f"this request may cost {want.nanos * NANO:f}, and of the {most:f} that its key "
                f"may spend in a {span} {left:f} are left",
                headers={**headers, "retry-after": str(math.ceil((ends - now).total_seconds()))},
            )


def _told(limits: KeyLimits, use: KeyUsage, now: datetime) -> dict[str, str]:
    """What is left, in OpenAI's headers."""
    told = {}
    rates = {
        "requests": (limits.requests_per_minute, use.requests),
        "tokens": (limits.tokens_per_minute, use.tokens),
    }
    for name, (most, had) in rates.items():
        if most is not None:
            told[f"x-ratelimit-limit-{name}"] = str(most)
            told[f"x-ratelimit-remaining-{name}"] = str(max(0, most - had))
            told[f"x-ratelimit-reset-{name}"] = f"{_reset(use, now):.3f}s"
    return told


def _reset(use: KeyUsage, now: datetime) -> float:
    """Seconds until a part of what was taken in the last minute counts no more."""
    if use.oldest is None:
        return WINDOW.total_seconds() if use.tokens else 0.0
    return max(0.0, (use.oldest + WINDOW - now).total_seconds())


def _next_day(now: datetime) -> datetime:
    return datetime.combine(now.date() + timedelta(days=1), time(), UTC)


def _next_month(now: datetime) -> datetime:
    first = now.date().replace(day=1)
    return datetime.combine((first + timedelta(days=32)).replace(day=1), time(), UTC)
