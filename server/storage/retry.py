"""Retrying of writes that must not be lost while the database is unavailable."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from proctor.server.storage.errors import reason

logger = logging.getLogger(__name__)

FIRST_DELAY_SECONDS, LAST_DELAY_SECONDS = 0.1, 2.0
"""The first and the longest delay between two attempts; it doubles each time."""


async def retry_until_done(attempt: Callable[[], Awaitable[object]]) -> None:
    """Retry until an attempt succeeds, with exponential backoff.

    Args:
        attempt: does the work, or raises; must be idempotent.
    """
    delay = FIRST_DELAY_SECONDS
    while True:
        try:
            await attempt()
        except Exception as error:  # each driver has exceptions of its own
            # Not a warning: the lease cannot be renewed meanwhile either, and warns once.
            logger.info("The ledger's database is written later: %s", reason(error))
            await asyncio.sleep(delay)
            delay = min(2 * delay, LAST_DELAY_SECONDS)
        else:
            return


async def wait_or_cancel(tasks: Iterable[asyncio.Task[None]], seconds: float) -> None:
    """Wait for tasks, and cancel those that are still running after `seconds`."""
    running = {*tasks}
    if running:
        _, late = await asyncio.wait(running, timeout=seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
