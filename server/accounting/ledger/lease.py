"""A gateway says that it lives, again and again, and settles what others left that do not."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

from proctor.server.accounting.ledger.gateways import GatewayStore, Seen
from proctor.server.accounting.ledger.process import this_process
from proctor.server.accounting.ledger.records import DraftRecord
from proctor.server.storage.errors import reason
from proctor.server.storage.retry import wait_or_cancel

logger = logging.getLogger(__name__)

BEAT_SECONDS = 2.0
"""Between two times; what a gateway generates after the last one before it is killed is lost."""

LOST_SECONDS = 30.0
"""A gateway elsewhere that was seen not to renew its lease for so long is lost. One on this
machine is as soon as its process has ended, and is not as long as that runs or was stopped."""

RETIRE_SECONDS = 5.0
"""For the last words of a gateway that ends."""


class Watch:
    """Follows other gateways from look to look.

    What counts is how long a lease was *seen* unchanged, by this process's own clock: clocks
    differ from machine to machine, and while the database is away nobody can renew.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._since: dict[Seen, float] = {}

    def lost(self, seen: Iterable[Seen]) -> list[Seen]:
        """Those of them that are lost."""
        now = self._now()
        self._since = {each: self._since.get(each, now) for each in seen}
        return [each for each, since in self._since.items() if _is_lost(each, now - since)]

    def blink(self) -> None:
        """Forget how long: they could not be seen."""
        self._since.clear()


class Lease:
    """One gateway's."""

    def __init__(
        self,
        store: GatewayStore,
        gateway: str,
        drafts: Callable[[], list[DraftRecord]],
        alone: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]],
    ) -> None:
        """Begin without one.

        Args:
            store: where leases are.
            gateway: whose it is.
            drafts: the requests that run.
            alone: does some work while none of their rows is written.
        """
        self._store = store
        self._gateway = gateway
        self._drafts = drafts
        self._alone = alone
        self._process = this_process()
        self._beat = 0
        self._watch = Watch()
        self._failing = False
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to renew it."""
        self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Let go of it, with all that this gateway may have left."""
        self._ending.set()
        if self._task is not None:
            # Not cancelled while the database answers: its connection would outlive the event loop.
            await wait_or_cancel([self._task], RETIRE_SECONDS)
        try:
            async with asyncio.timeout(RETIRE_SECONDS):
                await self._store.retire(self._gateway)
        except Exception as error:  # drivers have their own
            logger.warning("what is left is for other gateways to settle: %s", reason(error))

    async def _run(self) -> None:
        while not self._ending.is_set():
            try:
                await self._alone(self._renew)
                await self._look()
            except Exception as error:
                self._watch.blink()
                if not self._failing:
                    logger.warning("the gateway's lease cannot be renewed: %s", reason(error))
                self._failing = True
            else:
                self._failing = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS):
                    await self._ending.wait()

    async def _renew(self) -> None:
        if self._failing:  # whatever is there now may have no tables yet
            await self._store.migrate()
        self._beat += 1
        await self._store.renew(self._gateway, self._process, self._beat, self._drafts())

    async def _look(self) -> None:
        for lost in self._watch.lost(await self._store.others(self._gateway)):
            rows = await self._store.take_over(lost)
            logger.warning(
                "gateway %s is gone: %d of its requests are settled as it last told of them",
                lost.id,
                rows,
            )


def _is_lost(seen: Seen, seconds: float) -> bool:
    if seen.process is not None and seen.process.is_here:
        return seen.process.is_gone
    return seconds >= LOST_SECONDS
