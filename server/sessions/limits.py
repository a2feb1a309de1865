"""The arithmetic of session limits: what a session has used, and what is left of its limits."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from operator import add
from typing import NamedTuple

from proctor.server.config.section import UsageLimits
from proctor.server.config.sessions import Limit, SessionLimits
from proctor.server.nanos import NANO, to_nanos


@dataclass(frozen=True, slots=True)
class SessionUsage:
    """What requests of a session have used, or may use.

    Attributes:
        requests: the number of requests.
        thinking_tokens: the number of thinking tokens.
        tokens: the number of tokens of prompts and answers, thinking included.
        nanos: the cost, in billionths of the currency.
    """

    requests: int = 0
    thinking_tokens: int = 0
    tokens: int = 0
    nanos: int = 0

    def __add__(self, other: "SessionUsage") -> "SessionUsage":
        return SessionUsage(
            self.requests + other.requests,
            self.thinking_tokens + other.thinking_tokens,
            self.tokens + other.tokens,
            self.nanos + other.nanos,
        )

    def of(self, limit: Limit) -> int:
        """Return the number that counts against a limit other than that of time."""
        match limit:
            case Limit.THINKING:
                return self.thinking_tokens
            case Limit.TOKENS:
                return self.tokens
            case Limit.COST:
                return self.nanos
            case _:
                return self.requests


class TierUsage(NamedTuple):
    """What a session has used in one tier.

    Attributes:
        tier: the name of the tier, or "custom".
        used: the usage of the requests that have ended.
        reserved: the worst case of the running requests.
    """

    tier: str
    used: SessionUsage
    reserved: SessionUsage


@dataclass(frozen=True, slots=True)
class SessionState:
    """A session in the database.

    Attributes:
        created: when the first request of the session was received, or None.
        requested: the limits that its client has set.
        limits: the limits that applied to its last request.
        tiers: its usage in each tier.
    """

    created: datetime | None = None
    requested: SessionLimits = field(default_factory=SessionLimits)
    limits: SessionLimits = field(default_factory=SessionLimits)
    tiers: tuple[TierUsage, ...] = ()


@dataclass(frozen=True, slots=True)
class Session:
    """The session of a request, and the limits that apply to it.

    Attributes:
        key: the name of the request's key, whose session it is; empty without keys.
        id: the ID of the session, or None for a request that names no session and is one by
            itself.
        explicit: whether the request names it expressly, so that limits from earlier requests
            apply.
        requested: the limits that the request sets.
        operator: the limits that the key has for its sessions.
        tiers: the limits of tiers, by their names.
    """

    key: str
    id: str | None
    explicit: bool = False
    requested: SessionLimits = field(default_factory=SessionLimits)
    operator: SessionLimits = field(default_factory=SessionLimits)
    tiers: Mapping[str, UsageLimits] = field(default_factory=dict)

    @property
    def limited(self) -> bool:
        """Whether the request or the operator sets a limit."""
        return self.requested.limited or self.operator.limited or bool(self.tiers)

    def limits(self, state: SessionState) -> SessionLimits:
        """Return the limits of the session: the client can only lower them."""
        return self.operator.lowered_by(state.requested).lowered_by(self.requested)


@dataclass(frozen=True, slots=True)
class Amount:
    """What is left of a limit.

    Attributes:
        limit: the limit; of cost, in billionths of the currency.
        used: the part that requests have used.
        reserved: the worst case of the running requests.
        owner: whose limit it is, for messages.
    """

    limit: int
    used: int = 0
    reserved: int = 0
    owner: str = "session"

    @property
    def left(self) -> int:
        """What another request may use."""
        return max(0, self.limit - self.used - self.reserved)

    @property
    def unused(self) -> int:
        """What is left if the running requests use nothing."""
        return max(0, self.limit - self.used)


Amounts = Mapping[Limit, Amount]


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a request may use of the limits of its session.

    Attributes:
        session: what is left of the limits of the session.
        tiers: what is left of the limits of each tier.
        max_seconds: the limit of time, or None.
        seconds: the time that is left, or None if it is not limited.
    """

    session: Amounts = field(default_factory=dict)
    tiers: Mapping[str, Amounts] = field(default_factory=dict)
    max_seconds: float | None = None
    seconds: float | None = None

    def amount(self, limit: Limit, tier: str) -> Amount | None:
        """Return the tighter one of the session's and the tier's limit, or None."""
        amounts = (self.session.get(limit), self.tiers.get(tier, {}).get(limit))
        found = [amount for amount in amounts if amount is not None]
        return min(found, key=lambda amount: amount.left, default=None)

    def covers(self, tier: str, worst_case: SessionUsage) -> bool:
        """Return whether a request in a tier stays within all limits in the worst case."""
        if self.seconds is not None and self.seconds <= 0:
            return False
        return all(
            amount.left >= worst_case.of(limit)
            for amounts in (self.session, self.tiers.get(tier, {}))
            for limit, amount in amounts.items()
        )


UNLIMITED = Allowance()


def allowance(session: Session, state: SessionState, now: datetime) -> Allowance:
    """Return what another request of a session may use.

    Args:
        session: the session and its limits.
        state: what it has used.
        now: the time.
    """
    limits = session.limits(state)
    seconds = None
    if limits.max_seconds is not None:
        passed = 0.0 if state.created is None else (now - state.created).total_seconds()
        seconds = limits.max_seconds - max(0.0, passed)
    return Allowance(
        amounts_of(limits, state.tiers),
        {
            name: amounts_of(tier, (use for use in state.tiers if use.tier == name), name)
            for name, tier in session.tiers.items()
        },
        limits.max_seconds,
        seconds,
    )


def amounts_of(
    limits: UsageLimits, tiers: Iterable[TierUsage], tier: str | None = None
) -> dict[Limit, Amount]:
    """Return what is left of limits after the usage in some tiers.

    Args:
        limits: the limits.
        tiers: the usage that counts against them.
        tier: the tier whose limits they are, or None if they are those of the session.
    """
    parts = [*tiers]
    used = reduce(add, (part.used for part in parts), SessionUsage())
    reserved = reduce(add, (part.reserved for part in parts), SessionUsage())
    owner = "session" if tier is None else f"session in tier '{tier}'"
    numbers = {
        Limit.THINKING: limits.max_thinking_tokens,
        Limit.TOKENS: limits.max_tokens,
        Limit.COST: None if limits.max_cost is None else to_nanos(limits.max_cost),
        Limit.REQUESTS: limits.max_requests,
    }
    return {
        limit: Amount(number, used.of(limit), reserved.of(limit), owner)
        for limit, number in numbers.items()
        if number is not None
    }


def remaining_headers(session: Session, left: Allowance) -> dict[str, str]:
    """Return the headers about a session, as of before the request.

    Args:
        session: the session.
        left: what the request may use.
    """
    headers = {} if session.id is None else {"x-session-id": session.id}
    names = {
        Limit.THINKING: "thinking",
        Limit.TOKENS: "tokens",
        Limit.COST: "cost",
        Limit.REQUESTS: "requests",
    }
    for limit, name in names.items():
        if (amount := left.session.get(limit)) is not None:
            headers[f"x-session-{name}-remaining"] = format_amount(limit, amount.left)
    return headers


def format_amount(limit: Limit, amount: int) -> str:
    """Return an amount as text, of cost in the currency."""
    return f"{(amount * NANO).normalize():f}" if limit is Limit.COST else str(amount)
