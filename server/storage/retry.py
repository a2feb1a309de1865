"""What has to be written, however long the database is away."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from proctor.server.storage.errors import reason

logger = logging.getLogger(__name__)

FIRST_DELAY_SECONDS, LAST_DELAY_SECONDS = 0.1, 2.0
"""Between two tries; each is twice the one before."""


async def until_done(attempt: Callable[[], Awaitable[object]]) -> None:
    """Try until it is done.

    Args:
        attempt: does it, or raises; to do it twice is to do it once.
    """
    delay = FIRST_DELAY_SECONDS
    while True:
        try:
            await attempt()
        except Exception as error:  # drivers have their own
            # The lease cannot be renewed meanwhile, and warns of it once.
            logger.info("the ledger's database is to be told later: %s", reason(error))
            await asyncio.sleep(delay)
            delay = min(2 * delay, LAST_DELAY_SECONDS)
        else:
            return


async def ended(tasks: Iterable[asyncio.Task[None]], seconds: float) -> None:
    """Wait for tasks, and cancel those that go on for longer than that."""
    running = {*tasks}
    if running:
        _, late = await asyncio.wait(running, timeout=seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
