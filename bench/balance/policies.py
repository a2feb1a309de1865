"""The policies that are compared."""

from collections.abc import Callable
from itertools import count
from random import Random
from typing import Protocol

from bench.balance.trace import Call
from proctor.server.engines.replicas.balancing.balancer import Balancer
from proctor.server.engines.replicas.balancing.prefix_index import PrefixIndex, chain

BLOCK_TOKENS = 64
"""The size of the blocks in which prefix-aware policies compare prompts."""

MAX_BLOCKS_PER_REPLICA = 380_000 // BLOCK_TOKENS


class Ticket(Protocol):
    """A call that a policy has assigned."""

    @property
    def replica(self) -> str: ...
    def progress(self, tokens: int) -> None: ...
    def finish(self) -> None: ...


class Policy(Protocol):
    """Chooses a replica for each call. Each gateway has one, which sees only its own calls."""

    def assign(self, call: Call) -> Ticket: ...


class Counted:
    """A call that counts as one of its replica's requests until it has ended."""

    def __init__(self, replica: int, requests: list[int]) -> None:
        self.replica = str(replica)
        self._index = replica
        self._requests = requests
        requests[replica] += 1

    def progress(self, tokens: int) -> None:
        """Nothing: it counts as much as before."""

    def finish(self) -> None:
        self._requests[self._index] -= 1


class RoundRobin:
    """One after the other."""

    def __init__(self, replicas: int) -> None:
        self._requests = [0] * replicas
        self._next = count()

    def assign(self, call: Call) -> Ticket:
        return Counted(next(self._next) % len(self._requests), self._requests)


class LeastRequests:
    """The replica with the fewest running requests of this gateway; of several, a random one."""

    def __init__(self, replicas: int) -> None:
        self._requests = [0] * replicas
        self._rng = Random(replicas)

    def assign(self, call: Call) -> Ticket:
        return Counted(self.least(), self._requests)

    def least(self) -> int:
        fewest = min(self._requests)
        equal = [number for number, each in enumerate(self._requests) if each == fewest]
        return self._rng.choice(equal)


class PrefixAware(LeastRequests):
    """The longest prefix, then least requests: the rule of SGLang's router, with its defaults.

    The longest prefix decides if it is more than 0.3 of the prompt, unless the replicas' numbers
    of requests are out of balance, by more than 64 and by more than half.
    """

    def __init__(self, replicas: int) -> None:
        super().__init__(replicas)
        self._index = PrefixIndex(MAX_BLOCKS_PER_REPLICA * replicas)
        self._slots = [self._index.add() for _ in range(replicas)]

    def assign(self, call: Call) -> Ticket:
        links = chain(call.prompt.ids, BLOCK_TOKENS, call.session.tenant)
        chosen = self._choose(self._index.match(links), len(call.prompt.ids))
        self._index.record(links, self._slots[chosen])
        return Counted(chosen, self._requests)

    def _choose(self, matched: dict[int, int], tokens: int) -> int:
        fewest, most = min(self._requests), max(self._requests)
        unbalanced = most - fewest > 64 and most > 1.5 * fewest
        longest = max(matched.values(), default=0)
        if unbalanced or longest * BLOCK_TOKENS <= 0.3 * tokens:
            return self.least()
        holders = [slot for slot, depth in matched.items() if depth == longest]
        return min(holders, key=lambda slot: self._requests[slot])


class Ours:
    """The balancer of the server itself."""

    def __init__(self, replicas: int) -> None:
        self._balancer = Balancer(
            block_tokens=BLOCK_TOKENS, max_blocks=MAX_BLOCKS_PER_REPLICA * replicas
        )
        for replica in range(replicas):
            self._balancer.add(str(replica))

    def assign(self, call: Call) -> Ticket:
        budget = call.session.budget
        return self._balancer.assign(
            call.prompt.ids,
            salt=call.session.tenant,
            budget_key=budget.name,
            limit=budget.limit,
            session=self._session(call),
        )

    def _session(self, call: Call) -> str | None:
        return None


class OursBySession(Ours):
    """The same, where clients tell their sessions (`prompt_cache_key`, a header)."""

    def _session(self, call: Call) -> str | None:
        return call.session.name


POLICIES: dict[str, Callable[[int], Policy]] = {
    "round robin": RoundRobin,
    "least requests": LeastRequests,
    "prefix-aware": PrefixAware,
    "Proctor": Ours,
    "Proctor, by session": OursBySession,
}
