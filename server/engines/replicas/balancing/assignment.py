"""The work that is outstanding on a replica, and the requests that it consists of."""

from bisect import bisect_left
from collections.abc import Hashable

from proctor.server.engines.replicas.balancing.prefix_index import text_number
from proctor.server.engines.replicas.balancing.usage_estimates import UsageEstimates

HORIZONS = [2**exponent for exponent in range(6, 18)]
"""Tokens ahead for which work is added up: that of a new request's own expected length counts."""

PREFILL_WEIGHT = 0.5
"""The work of prefilling a token, relative to generating one after an empty context."""

CONTEXT_TOKENS = 2000
"""The context after which generating a token is twice that work: the cache is read each time."""

UPDATE_TOKENS = 16
"""After how many tokens a request's work is updated."""


class Replica:
    """A replica and the work of its running requests.

    In continuous batching, each request generates a token per step. What slows a new request down
    is therefore what the others generate *while it runs*: of a proof with 20,000 tokens to go
    beside an answer of 200 tokens, only 200 count. Work is thus added up for several horizons.

    Attributes:
        name: its name.
        slot: its slot in the prefix index.
        capacity: its speed, relative to others.
        seed: a hash of its name.
        tokens: expected tokens that its requests still generate.
        prefill: tokens that they still prefill.
        generate: for each horizon, the work of generating at most as many tokens per request.
    """

    __slots__ = ("capacity", "generate", "name", "prefill", "seed", "slot", "tokens")

    def __init__(self, name: str, slot: int, capacity: float) -> None:
        self.name = name
        self.slot = slot
        self.capacity = capacity
        self.seed = text_number(name)
        self.tokens = 0.0
        self.prefill = 0
        self.generate = [0.0] * len(HORIZONS)

    def work(self, horizon: int) -> float:
        """Return the work within a horizon, given by its index."""
        return self.generate[horizon] + PREFILL_WEIGHT * self.prefill


def horizon_of(tokens: float) -> int:
    """Return the index of the shortest horizon that a number of tokens fits in."""
    return min(bisect_left(HORIZONS, tokens), len(HORIZONS) - 1)


class Assignment:
    """A request on a replica. Counts as its work until it is finished or aborted.

    Attributes:
        cached_tokens: how many tokens of the prompt are believed to be in the replica's cache.
    """

    __slots__ = (
        "_budget_key",
        "_context",
        "_estimates",
        "_generated",
        "_limit",
        "_next_update",
        "_open",
        "_prefill",
        "_remaining",
        "_replica",
        "_weight",
        "cached_tokens",
    )

    def __init__(
        self,
        replica: Replica,
        estimates: UsageEstimates,
        *,
        budget_key: Hashable,
        limit: int,
        prompt_tokens: int,
        cached_tokens: int,
    ) -> None:
        self.cached_tokens = cached_tokens
        self._replica = replica
        self._estimates = estimates
        self._budget_key = budget_key
        self._limit = limit
        self._context = prompt_tokens
        self._prefill = prompt_tokens - cached_tokens
        self._generated = 0
        self._remaining = 0.0
        self._weight = 0.0
        self._open = True
        replica.prefill += self._prefill
        self._update()

    @property
    def replica(self) -> str:
        """The name of the replica."""
        return self._replica.name

    def progress(self, tokens: int) -> None:
        """Count tokens that were generated since the last call."""
        if self._open:
            self._end_prefill()
            self._generated += tokens
            if self._generated >= self._next_update:
                self._update()

    def finish(self) -> None:
        """Remove the work of a request that came to its end, and learn from what it used."""
        if self._open:
            self._estimates.learn(self._budget_key, self._limit, self._generated)
            self.abort()

    def abort(self) -> None:
        """Remove the work of a request that failed or was cancelled: nothing can be learned."""
        if self._open:
            self._open = False
            self._end_prefill()
            self._set_work(0.0, 0.0)

    def _end_prefill(self) -> None:
        self._replica.prefill -= self._prefill
        self._prefill = 0

    def _update(self) -> None:
        self._next_update = self._generated + UPDATE_TOKENS
        remaining = self._estimates.remaining(self._budget_key, self._limit, self._generated)
        self._set_work(remaining, 1 + (self._context + self._generated) / CONTEXT_TOKENS)

    def _set_work(self, remaining: float, weight: float) -> None:
        replica, old_remaining, old_weight = self._replica, self._remaining, self._weight
        for number, horizon in enumerate(HORIZONS):
            old = old_weight * min(old_remaining, horizon)
            replica.generate[number] += weight * min(remaining, horizon) - old
        replica.tokens += remaining - old_remaining
        self._remaining, self._weight = remaining, weight
