"""A discrete-event simulation: sessions send calls through gateways to replicas."""

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from bench.balance.policies import Policy
from bench.balance.replica import Costs, Replica, Request
from bench.balance.trace import BLOCK_TOKENS, Budget, Call, Session

SAMPLE_SECONDS = 1.0


@dataclass(eq=False, slots=True)
class Outcome:
    """What became of a call. Times are in seconds.

    Attributes:
        budget: its budget.
        sent: when it was sent.
        prompt_tokens: the length of its prompt.
        possible_tokens: how many tokens of the prompt were computed before, on any replica.
        cached_tokens: how many were still in the cache of its own.
        first_token: when its first token came.
        ended: when it ended; 0 while it runs.
    """

    budget: Budget
    sent: float
    prompt_tokens: int
    possible_tokens: int
    cached_tokens: int = 0
    first_token: float = 0.0
    ended: float = 0.0


@dataclass
class Result:
    """All calls, and a sample of the replicas' loads each second.

    Attributes:
        outcomes: the calls, in the order in which they were sent.
        loads: for each second of the trace, the tokens of the requests on each replica.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    loads: list[list[int]] = field(default_factory=list)


class Simulation:
    """Replicas, gateways and sessions in simulated time."""

    def __init__(
        self, sessions: Sequence[Session], policies: Sequence[Policy], replicas: int, costs: Costs
    ) -> None:
        self._policies = policies
        self._replicas = [Replica(costs) for _ in range(replicas)]
        self._result = Result()
        self._rng = Random(len(sessions))
        self._seen: set[int] = set()
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()
        for session in sessions:
            self._at(session.start, self._next_call(session, first=True))

    def run(self, seconds: float) -> Result:
        """Run until all calls have ended; sessions send none after some seconds."""
        self._seconds = seconds
        self._at(0.0, self._sample)
        while self._events:
            now, _, event = heapq.heappop(self._events)
            event(now)
        return self._result

    def _at(self, time: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), event))

    def _sample(self, now: float) -> None:
        if now < self._seconds:
            self._result.loads.append([each.context_tokens for each in self._replicas])
            self._at(now + SAMPLE_SECONDS, self._sample)

    def _next_call(self, session: Session, *, first: bool = False) -> Callable[[float], None]:
        def begin(now: float) -> None:
            found = next(session.calls, None)
            if found is not None:
                pause, call = found
                self._at(now if first else now + pause, lambda now: self._send(call, now))

        return begin

    def _send(self, call: Call, now: float) -> None:
        if now >= self._seconds:
            return
        possible = next(
            (number for number, each in enumerate(call.prompt.blocks) if each not in self._seen),
            len(call.prompt.blocks),
        )
        budget, prompt_tokens = call.session.budget, len(call.prompt.ids)
        outcome = Outcome(budget, now, prompt_tokens, possible * BLOCK_TOKENS)
        self._result.outcomes.append(outcome)
        self._seen.update(call.prompt.blocks)
        ticket = self._rng.choice(self._policies).assign(call)
        replica = self._replicas[int(ticket.replica)]

        def progress(tokens: int, now: float) -> None:
            if not outcome.first_token:
                outcome.first_token = now
            ticket.progress(tokens)

        def finished(now: float) -> None:
            ticket.finish()
            outcome.ended = now
            outcome.cached_tokens = request.cached_tokens
            self._seen.update(call.sequence.blocks)
            self._next_call(call.session)(now)

        request = Request(call, progress, finished)
        self._run(replica, replica.submit(request, now))

    def _run(self, replica: Replica, due: float | None) -> None:
        if due is not None:
            self._at(due, lambda now: self._advance(replica, now))

    def _advance(self, replica: Replica, now: float) -> None:
        if replica.due == now:
            self._run(replica, replica.advance(now))
