"""The open sockets of the test process."""

import asyncio
from typing import Any

import psutil


def connections_to(port: int) -> int:
    """Return how many sockets of this process are connected to a port."""
    connections = psutil.Process().net_connections("tcp")
    return sum(bool(each.raddr) and each.raddr.port == port for each in connections)


async def cancel_after(task: asyncio.Task[Any], steps: int) -> None:
    """Cancel a task after some iterations of the event loop, and wait until it has ended.

    A socket that was closed meanwhile is free when this returns: asyncio's transports close
    theirs in the next iteration.
    """
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0)
