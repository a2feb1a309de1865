"""Which replica a request goes to: where its prefix is cached, unless that one is too busy."""

from collections.abc import Collection, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from proctor.server.engines.replicas.balancing.assignment import (
    CONTEXT_TOKENS,
    PREFILL_WEIGHT,
    Assignment,
    Replica,
    horizon_of,
)
from proctor.server.engines.replicas.balancing.prefix_index import PrefixIndex, chain, text_number
from proctor.server.engines.replicas.balancing.usage_estimates import UsageEstimates

TOLERANCE = 1.0
"""How far above the least busy replica another may be, as a share of the mean work."""

MIN_TOLERANCE = 6000
"""The same as work, for when there is little of it."""

_MASK = (1 << 64) - 1


class NoReplica(LookupError):
    """No replica is left to send a request to."""


class Balancer:
    """Assigns requests to replicas by the prefixes of their prompts, within a bound on work.

    Of the replicas whose work with this request would be near the least, the one that holds the
    longest prefix of the prompt is chosen. Several that hold as much, or nothing, are told apart
    by rendezvous hashing of the first block that none of them holds, so that gateways choose
    alike, and a replica that leaves takes only its own prefixes with it. The first request of a
    session goes by the session instead of the prompt: another gateway may know that session.

    Work is what the running requests are expected to prefill and to generate, divided by the
    replica's capacity, see `proctor.server.engines.replicas.balancing.assignment.Replica`.
    """

    def __init__(self, *, block_tokens: int = 64, max_blocks: int = 1 << 18) -> None:
        """Initialize a balancer without replicas.

        Args:
            block_tokens: the number of tokens of the blocks in which prefixes are compared.
            max_blocks: how many blocks to remember over all replicas, about 100 bytes each.
                More than fit in the replicas' caches are of no use.
        """
        self._block_tokens = block_tokens
        self._index = PrefixIndex(max_blocks)
        self._estimates = UsageEstimates()
        self._replicas: dict[str, Replica] = {}

    def add(self, replica: str, capacity: float = 1.0) -> None:
        """Add a replica that holds nothing, or change the capacity of a known one.

        Args:
            replica: its name, the same in all gateways.
            capacity: its speed relative to others; less than usual while it is slow or on trial.

        Raises:
            ValueError: if the capacity is not positive.
        """
        if capacity <= 0:
            raise ValueError("capacity must be positive")
        if known := self._replicas.get(replica):
            known.capacity = capacity
        else:
            self._replicas[replica] = Replica(replica, self._index.add(), capacity)

    def remove(self, replica: str) -> None:
        """Remove a replica and forget what it holds. Its assignments may still be finished."""
        if removed := self._replicas.pop(replica, None):
            self._index.remove(removed.slot)

    def outstanding(self) -> dict[str, float]:
        """Return the tokens that the requests on each replica are expected to generate yet."""
        return {name: replica.tokens for name, replica in self._replicas.items()}

    def assign(
        self,
        prompt_ids: Sequence[int],
        *,
        salt: str,
        budget_key: Hashable,
        limit: int,
        session: str | None = None,
        excluded: Collection[str] = (),
    ) -> Assignment:
        """Choose the replica for a request and count the request as its work.

        Args:
            prompt_ids: token ids of the prompt.
            salt: separates the caches of tenants, as vLLM's `cache_salt`.
            budget_key: what requests that generate about as many tokens have in common.
            limit: the maximum number of tokens that the request can generate.
            session: what requests have in common whose prompts continue each other, if the
                client tells.
            excluded: replicas not to use.

        Raises:
            NoReplica: if there is none that is not excluded.
        """
        candidates = [each for each in self._replicas.values() if each.name not in excluded]
        if not candidates:
            raise NoReplica("no replica is available")
        links = chain(prompt_ids, self._block_tokens, salt)
        matched = self._index.match(links)
        near = self._near(candidates, matched, len(prompt_ids), budget_key, limit)
        home = None if session is None else hash((text_number(salt), text_number(session)))
        chosen = self._choose(near, links, matched, home)
        self._index.record(links, chosen.slot)
        if home is not None:
            self._index.record([home], chosen.slot)
        return Assignment(
            chosen,
            self._estimates,
            budget_key=budget_key,
            limit=limit,
            prompt_tokens=len(prompt_ids),
            cached_tokens=matched.get(chosen.slot, 0) * self._block_tokens,
        )

    def _near(
        self,
        candidates: Sequence[Replica],
        matched: dict[int, int],
        prompt_tokens: int,
        budget_key: Hashable,
        limit: int,
    ) -> list[Replica]:
        """Return the replicas whose work with a request would be near the least."""
        tokens = self._estimates.remaining(budget_key, limit)
        horizon = horizon_of(tokens)
        own = PREFILL_WEIGHT * prompt_tokens + tokens * (1 + prompt_tokens / CONTEXT_TOKENS)
        saved = PREFILL_WEIGHT * self._block_tokens
        works = [
            (each.work(horizon) + own - saved * matched.get(each.slot, 0)) / each.capacity
            for each in candidates
        ]
        bound = min(works) + max(TOLERANCE * sum(works) / len(works), MIN_TOLERANCE)
        return [each for each, work in zip(candidates, works, strict=True) if work <= bound]

    def _choose(
        self,
        near: Sequence[Replica],
        links: Sequence[int],
        matched: dict[int, int],
        home: int | None,
    ) -> Replica:
        if home is not None:
            visited = self._index.match([home])
            if not any(each.slot in visited for each in near):
                return rendezvous(home, near)
        longest = max(matched.get(each.slot, 0) for each in near)
        holders = [each for each in near if matched.get(each.slot, 0) == longest]
        if not links:
            return min(holders, key=lambda each: each.work(0) / each.capacity)
        return rendezvous(links[min(longest, len(links) - 1)], holders)


def rendezvous(key: int, replicas: Sequence[Replica]) -> Replica:
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
