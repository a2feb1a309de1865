"""Renews the lease of a gateway, and takes over gateways that are lost."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

from proctor.server.accounting.ledger.gateways import GatewayStore, ObservedGateway
from proctor.server.accounting.ledger.process import this_process
from proctor.server.accounting.ledger.records import DraftRecord
from proctor.server.storage.errors import reason
from proctor.server.storage.retry import wait_or_cancel

logger = logging.getLogger(__name__)

RENEW_SECONDS = 2.0
"""The interval between renewals. If a gateway is killed, what it has generated since the last
renewal is not recorded."""

LEASE_SECONDS = 30.0
"""The time without a renewal after which a gateway on another machine is lost. A gateway on this
machine is lost as soon as its process has ended, and never while the process runs or is stopped."""

RETIRE_SECONDS = 5.0
"""The maximum time that a stopping gateway spends on ending its lease."""


class FailureDetector:
    """Finds lost gateways, from observations at intervals.

    What counts is how long this process has *observed* a lease without a change, by its own
    clock: the clocks of machines differ, and no gateway can renew its lease while the
    database is unavailable.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._since: dict[ObservedGateway, float] = {}

    def lost(self, observed: Iterable[ObservedGateway]) -> list[ObservedGateway]:
        """Return the gateways that are lost, out of all that were observed now."""
        now = self._now()
        self._since = {gateway: self._since.get(gateway, now) for gateway in observed}
        return [gateway for gateway, since in self._since.items() if _is_lost(gateway, now - since)]

    def reset(self) -> None:
        """Forget all observations, since the database was unavailable."""
        self._since.clear()


class Lease:
    """The lease of one gateway."""

    def __init__(
        self,
        store: GatewayStore,
        gateway: str,
        drafts: Callable[[], list[DraftRecord]],
        run_exclusively: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]],
    ) -> None:
        """Initialize the lease, which begins when it is started.

        Args:
            store: the leases in the database.
            gateway: the ID of the gateway.
            drafts: returns the drafts of the running requests.
            run_exclusively: runs a function while none of their rows is written.
        """
        self._store = store
        self._gateway = gateway
        self._drafts = drafts
        self._run_exclusively = run_exclusively
        self._process = this_process()
        self._beat = 0
        self._failure_detector = FailureDetector()
        self._failing = False
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to renew the lease."""
        self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """End the lease, and settle what this gateway may have left."""
        self._closing.set()
        if self._task is not None:
            # Not cancelled while the database answers: its connection would outlive the event loop.
            await wait_or_cancel([self._task], RETIRE_SECONDS)
        try:
            async with asyncio.timeout(RETIRE_SECONDS):
                await self._store.retire(self._gateway)
        except Exception as error:  # each driver has exceptions of its own
            logger.warning(
                "The lease cannot be ended; other gateways will settle what is left: %s",
                reason(error),
            )

    async def _run(self) -> None:
        while not self._closing.is_set():
            try:
                await self._run_exclusively(self._renew)
                await self._take_over_lost()
            except Exception as error:
                self._failure_detector.reset()
                if not self._failing:
                    logger.warning("The gateway's lease cannot be renewed: %s", reason(error))
                self._failing = True
            else:
                self._failing = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RENEW_SECONDS):
                    await self._closing.wait()

    async def _renew(self) -> None:
        if self._failing:  # the database may be a new one, without tables
            await self._store.migrate()
        self._beat += 1
        await self._store.renew(self._gateway, self._process, self._beat, self._drafts())

    async def _take_over_lost(self) -> None:
        for lost in self._failure_detector.lost(await self._store.others(self._gateway)):
            rows = await self._store.take_over(lost)
            logger.warning(
                "Gateway %s is lost; %d of its requests were recorded from their last drafts",
                lost.id,
                rows,
            )


def _is_lost(gateway: ObservedGateway, seconds: float) -> bool:
    if gateway.process is not None and gateway.process.is_local:
        return gateway.process.has_ended
    return seconds >= LEASE_SECONDS
