"""The replicas of a model: which there are, how they are, and which one a request goes to."""

import asyncio
import logging
import random
import time
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from proctor.server.engines.base import Job
from proctor.server.engines.replicas.addresses import resolve
from proctor.server.engines.replicas.balancing.assignment import Assignment
from proctor.server.engines.replicas.balancing.balancer import Balancer, NoReplica
from proctor.server.engines.replicas.balancing.health import (
    Health,
    HealthSettings,
    RequestHealth,
    State,
)
from proctor.server.engines.replicas.client import ReplicaClient, new_session
from proctor.server.engines.replicas.metrics import ReplicaMetrics
from proctor.server.errors import EngineUnavailable

logger = logging.getLogger(__name__)

RESOLVE_SECONDS = 5.0
"""How often the names of the URLs are resolved again."""

CHECK_SECONDS = 0.25
"""How often it is checked whether probes are due and replicas hang."""

PROBE_TIMEOUT_SECONDS = 5.0

WAIT_SECONDS = 5.0
"""How long an admitted request waits for a replica when there is none: as long as one that was lost
needs to come back."""

DEFAULT_HEALTH = HealthSettings()
NO_REPLICA = "no replica can take requests now"


@dataclass(slots=True)
class Member:
    """A replica of the pool.

    Attributes:
        client: its client.
        probe: the probe under way.
        state: its state when it was last checked.
    """

    client: ReplicaClient
    probe: asyncio.Task[None] | None = None
    state: State = State.OUT


@dataclass(slots=True)
class Lease:
    """A request on a replica: counts as its load, and tells of its health.

    Attributes:
        name: the replica's name.
        client: its client.
    """

    name: str
    client: ReplicaClient
    _assignment: Assignment
    _health: RequestHealth

    def progress(self, tokens: int) -> None:
        """Report tokens that have come."""
        self._assignment.progress(tokens)
        self._health.tokens(tokens, time.monotonic())

    def fail(self, status: int) -> None:
        """Report a response of status 5xx."""
        self._health.failed(status, time.monotonic())

    def finish(self) -> None:
        """Report that the request has ended by itself."""
        self._assignment.finish()

    def close(self) -> None:
        """End the lease; call this in any case."""
        self._assignment.abort()
        self._health.ended()


class ReplicaPool:
    """Keeps track of replicas, probes them, and assigns requests to them.

    Attributes:
        metrics: how they are, for Prometheus.
    """

    def __init__(
        self,
        urls: Sequence[str],
        api_key: str,
        identity: str,
        health: HealthSettings = DEFAULT_HEALTH,
        *,
        model: str = "",
    ) -> None:
        """Create a pool without replicas; `start` looks for them.

        Args:
            urls: where they are; each address that a host name resolves to is one.
            api_key: their bearer token; empty for none.
            identity: what they must serve, see `ReplicaClient.identity`.
            health: when they are taken out, and how they come back.
            model: the name of their model in metrics.
        """
        self._urls = urls
        self._api_key = api_key
        self._session = new_session()
        self._members: dict[str, Member] = {}
        self._health = Health(random.random, health, identity=identity)
        self._balancer = Balancer()
        self._tasks: list[asyncio.Task[None]] = []
        self._answered = asyncio.Event()
        self.metrics = ReplicaMetrics(model)

    async def start(self) -> None:
        """Look for replicas, probe them until `aclose`, and wait until one has answered."""
        await self._resolve()
        self._tasks = [
            asyncio.create_task(self._resolve_repeatedly()),
            asyncio.create_task(self._check_repeatedly()),
        ]
        await self._answered.wait()

    @property
    def usable(self) -> bool:
        """Whether any replica can take requests."""
        return self._usable(())

    def check_tasks(self) -> None:
        """Return if the pool still looks for replicas and probes them.

        Raises:
            EngineUnavailable: if it does not, due to a bug.
        """
        for task in self._tasks:
            if task.done() and not task.cancelled():
                raise EngineUnavailable("replicas are not probed any more") from task.exception()

    async def wait(self, excluded: Collection[str]) -> None:
        """Wait until a replica that is not excluded can take requests, but not for long.

        Args:
            excluded: the names of replicas not to use, unless there are no others.

        Raises:
            EngineUnavailable: if there is none after `WAIT_SECONDS`.
        """
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while not self._usable(excluded):
                    self._answered.clear()
                    await self._answered.wait()
        except TimeoutError:
            raise EngineUnavailable(NO_REPLICA) from None

    @contextmanager
    def lease(
        self, job: Job, prompt_ids: Sequence[int], limit: int, excluded: Collection[str]
    ) -> Generator[Lease, None, None]:
        """Assign a request to a replica while the body runs.

        Args:
            job: the choice.
            prompt_ids: the prompt of the request.
            limit: the maximum number of tokens that it generates.
            excluded: the names of replicas not to use, unless there are no others.

        Raises:
            EngineUnavailable: if no replica can take requests.
        """
        now = time.monotonic()
        out = {name for name in self._members if not self._reweigh(name, now)}
        budget = job.budget
        try:
            assignment = self._balancer.assign(
                prompt_ids,
                salt=job.owner,
                budget_key=(budget.minimum, budget.maximum, budget.continuations),
                limit=limit,
                session=job.session,
                excluded=self._members.keys() - self._candidates(excluded) | out,
            )
        except NoReplica:
            raise EngineUnavailable(NO_REPLICA) from None
        name = assignment.replica
        uncached = len(prompt_ids) - assignment.cached_tokens
        health = self._health.request_sent(name, now, prefill_tokens=uncached)
        lease = Lease(name, self._members[name].client, assignment, health)
        try:
            yield lease
        finally:
            lease.close()

    def report_lost(self, name: str, reason: str) -> None:
        """Report that the connection to a replica failed."""
        self._health.connection_failed(name, time.monotonic(), reason)

    async def aclose(self) -> None:
        """Stop probing and close all connections."""
        probes = [member.probe for member in self._members.values() if member.probe is not None]
        for task in (*self._tasks, *probes):
            task.cancel()
        await asyncio.gather(*self._tasks, *probes, return_exceptions=True)
        await self._session.close()

    def _usable(self, excluded: Collection[str]) -> bool:
        now = time.monotonic()
        return any(self._health.usable(name, now) for name in self._candidates(excluded))

    def _candidates(self, excluded: Collection[str]) -> set[str]:
        """Return the names of the replicas that are not excluded, or of all if there are none.

        A single address may be that of a router, with other replicas behind it.
        """
        return self._members.keys() - {*excluded} or {*self._members}

    def _reweigh(self, name: str, now: float) -> float:
        """Set the capacity of a replica by its health, and return its weight."""
        weight = self._health.weight(name, now)
        if weight:
            self._balancer.add(name, weight)
        return weight

    async def _resolve_repeatedly(self) -> None:
        while True:
            await asyncio.sleep(RESOLVE_SECONDS)
            await self._resolve()

    async def _resolve(self) -> None:
        addresses = await resolve(self._urls)
        if not addresses and self._members:
            return  # rather the last known replicas than none: the name server may be down
        for name, address in addresses.items():
            if name not in self._members:
                client = ReplicaClient(self._session, address, self._api_key)
                self._members[name] = Member(client)
                self._health.add(name, time.monotonic())
        for name in self._members.keys() - addresses.keys():
            # Its requests go on until they end.
            member = self._members.pop(name)
            if member.probe is not None:
                member.probe.cancel()
            self._health.remove(name)
            self._balancer.remove(name)

    async def _check_repeatedly(self) -> None:
        while True:
            now = time.monotonic()
            for name, member in self._members.items():
                self._check(name, member, now)
            states = [member.state for member in self._members.values()]
            self.metrics.update(states, sum(self._balancer.outstanding().values()))
            await asyncio.sleep(CHECK_SECONDS)

    def _check(self, name: str, member: Member, now: float) -> None:
        """Note a change of a replica's state, and probe it if that is due."""
        state = self._health.state(name, now)
        if state is not member.state:
            reason = self._health.reason(name)
            logger.warning("replica %s is %s%s", name, state, f": {reason}" if reason else "")
            if state in (State.OUT, State.MISMATCHED):
                # What it had cached may be gone when it comes back.
                self._balancer.remove(name)
            if state is State.HUNG:
                member.client.break_off()
            member.state = state
        if member.probe is None and self._health.next_probe(name, now) <= now:
            member.probe = asyncio.create_task(self._probe(name, member))

    async def _probe(self, name: str, member: Member) -> None:
        health = self._health
        health.probe_sent(name, time.monotonic())
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_SECONDS):
                identity = await member.client.identity()
            health.probe_answered(name, time.monotonic(), identity)
            self._answered.set()
        except TimeoutError:
            health.probe_timed_out(name, time.monotonic())
        except (EngineUnavailable, ValueError) as error:
            health.connection_failed(name, time.monotonic(), str(error))
        finally:
            member.probe = None
