"""Which replica a request goes to: where its prefix is cached, unless that one has more to do."""

from collections.abc import Collection, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from proctor.server.engines.replicas.prefix_index import PrefixIndex, chain, text_number
from proctor.server.engines.replicas.usage_estimates import UsageEstimates

PREFILL_WEIGHT = 0.1
"""The work of prefilling a token, as a share of that of generating one in a batch."""

TOLERANCE = 0.25
"""How far above the least loaded replica another may be, relative to the mean load."""

MIN_TOLERANCE = 1000
"""The same in tokens, for when there is little load."""

_MASK = (1 << 64) - 1


class NoReplica(LookupError):
    """No replica is left to send a request to."""


class _Replica:
    """A replica and its outstanding work, in tokens to generate."""

    __slots__ = ("capacity", "name", "seed", "slot", "work")

    def __init__(self, name: str, slot: int, capacity: float) -> None:
        self.name = name
        self.slot = slot
        self.capacity = capacity
        self.seed = text_number(name)
        self.work = 0.0


class Assignment:
    """A request on a replica. Counts as load until it is finished or aborted.

    Attributes:
        replica: the name of the replica.
        cached_tokens: how many tokens of the prompt are believed to be in its cache.
    """

    __slots__ = (
        "_estimates",
        "_generated",
        "_key",
        "_limit",
        "_next_estimate",
        "_open",
        "_prefill",
        "_remaining",
        "_replica",
        "cached_tokens",
    )

    def __init__(
        self,
        replica: _Replica,
        estimates: UsageEstimates,
        *,
        key: Hashable,
        limit: int,
        prefill: int,
        cached_tokens: int,
    ) -> None:
        self.cached_tokens = cached_tokens
        self._replica = replica
        self._estimates = estimates
        self._key = key
        self._limit = limit
        self._generated = 0
        self._remaining = 0.0
        self._next_estimate = 0
        self._prefill = PREFILL_WEIGHT * prefill
        self._open = True
        replica.work += self._prefill
        self._estimate()

    @property
    def replica(self) -> str:
        return self._replica.name

    def progress(self, tokens: int) -> None:
        """Subtract tokens that were generated since the last call."""
        if not self._open:
            return
        if self._prefill:
            self._end_prefill()
        self._generated += tokens
        if self._generated >= self._next_estimate:
            self._estimate()
        else:
            used = min(tokens, self._remaining)
            self._remaining -= used
            self._replica.work -= used

    def finish(self) -> None:
        """Remove the load of a request that has ended by itself, and learn from it."""
        if self._open:
            self._estimates.learn(self._key, self._limit, self._generated)
            self.abort()

    def abort(self) -> None:
        """Remove the load of a request, of which nothing can be learned."""
        if self._open:
            self._open = False
            self._end_prefill()
            self._replica.work -= self._remaining

    def _end_prefill(self) -> None:
        self._replica.work -= self._prefill
        self._prefill = 0.0

    def _estimate(self) -> None:
        # Whoever has generated more than most will generate more: estimated again with each
        # quarter power of two.
        remaining = self._estimates.remaining(self._key, self._limit, self._generated)
        self._replica.work += remaining - self._remaining
        self._remaining = remaining
        self._next_estimate = self._generated + max(16, self._generated // 4)


class Balancer:
    """Assigns requests to replicas by the prefixes of their prompts, within bounds of load.

    Among the replicas whose work would be near the least with this request, the one that holds
    the longest prefix of the prompt is chosen. Several that hold as much, or nothing, are told
    apart by rendezvous hashing of the first block that none of them holds, so that several
    gateways choose alike, and a replica that leaves takes only its own prefixes with it.

    Work is what the running requests are expected to prefill and to generate yet, divided by the
    replica's capacity.
    """

    def __init__(self, *, block_tokens: int = 64, max_blocks: int = 1 << 18) -> None:
        """Initialize a balancer without replicas.

        Args:
            block_tokens: the number of tokens of the blocks in which prefixes are compared.
            max_blocks: how many blocks to remember over all replicas, about 150 bytes each.
                More than the replicas' caches hold is of no use.
        """
        self._block_tokens = block_tokens
        self._index = PrefixIndex(max_blocks)
        self._estimates = UsageEstimates()
        self._replicas: dict[str, _Replica] = {}

    def add(self, replica: str, capacity: float = 1.0) -> None:
        """Add a replica that holds nothing, or change the capacity of one.

        Args:
            replica: its name, the same in all gateways.
            capacity: its speed relative to others; less than usual while it is slow or on trial.

        Raises:
            ValueError: if the capacity is not positive.
        """
        if capacity <= 0:
            raise ValueError("capacity must be positive")
        known = self._replicas.get(replica)
        if known is None:
            self._replicas[replica] = _Replica(replica, self._index.add(), capacity)
        else:
            known.capacity = capacity

    def remove(self, replica: str) -> None:
        """Remove a replica and what it holds. Its assignments may still be finished."""
        removed = self._replicas.pop(replica, None)
        if removed is not None:
            self._index.remove(removed.slot)

    def outstanding(self) -> dict[str, float]:
        """Return the work of each replica, in tokens to generate."""
        return {name: replica.work for name, replica in self._replicas.items()}

    def assign(
        self,
        prompt_ids: Sequence[int],
        *,
        salt: str,
        budget_key: Hashable,
        limit: int,
        excluded: Collection[str] = (),
    ) -> Assignment:
        """Choose the replica for a request and count the request as its load.

        Args:
            prompt_ids: token ids of the prompt.
            salt: separates the caches of tenants, as vLLM's `cache_salt`.
            budget_key: what requests that use about as many tokens have in common.
            limit: the maximum number of tokens that the request can generate.
            excluded: replicas not to use.

        Raises:
            NoReplica: if there is none that is not excluded.
        """
        candidates = [each for each in self._replicas.values() if each.name not in excluded]
        if not candidates:
            raise NoReplica
        links = chain(prompt_ids, self._block_tokens, salt)
        matched = self._index.match(links)
        expected = self._estimates.remaining(budget_key, limit)
        request = expected + PREFILL_WEIGHT * len(prompt_ids)
        chosen = self._choose(candidates, links, matched, request)
        self._index.record(links, chosen.slot)
        cached_tokens = matched.get(chosen.slot, 0) * self._block_tokens
        return Assignment(
            chosen,
            self._estimates,
            key=budget_key,
            limit=limit,
            prefill=len(prompt_ids) - cached_tokens,
            cached_tokens=cached_tokens,
        )

    def _choose(
        self,
        candidates: Sequence[_Replica],
        links: Sequence[int],
        matched: dict[int, int],
        request: float,
    ) -> _Replica:
        saved = PREFILL_WEIGHT * self._block_tokens
        works = [
            (each.work + request - saved * matched.get(each.slot, 0)) / each.capacity
            for each in candidates
        ]
        bound = min(works) + max(TOLERANCE * sum(works) / len(works), MIN_TOLERANCE)
        near = [each for each, work in zip(candidates, works, strict=True) if work <= bound]
        longest = max(matched.get(each.slot, 0) for each in near)
        holders = [each for each in near if matched.get(each.slot, 0) == longest]
        if not links:
            return min(holders, key=lambda each: each.work / each.capacity)
        return rendezvous(links[min(longest, len(links) - 1)], holders)


def rendezvous(key: int, replicas: Sequence[_Replica]) -> _Replica:
    """Return the replica of the highest random weight for a key, in proportion to capacity."""
    if len(replicas) == 1:
        return replicas[0]
    seeds = np.array([each.seed for each in replicas], dtype=np.uint64)
    capacities = np.array([each.capacity for each in replicas])
    return replicas[int(np.argmax(capacities / -np.log(_uniform(key, seeds))))]


def _uniform(key: int, seeds: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return a number between 0 and 1, exclusively, for each seed: the mixer of SplitMix64."""
    mixed = seeds ^ np.uint64(key & _MASK)
    mixed = (mixed ^ mixed >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return ((mixed >> np.uint64(11)).astype(np.float64) + 0.5) / (1 << 53)
