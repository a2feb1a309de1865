"""Connections that one process accepts and others serve; here, all in one."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from proctor.server.transport.handover import Balancer, ConnectionSource

TURNS = 1000
"""Turns of the event loop in which connections are accepted that are established already."""


@dataclass
class Worker:
    """A recipient of connections.

    Attributes:
        channel: the balancer's end of its channel.
        theirs: its own end.
        source: where it takes connections from.
        taken: the connections that it has taken.
    """

    channel: socket.socket
    theirs: socket.socket
    source: ConnectionSource
    taken: list[socket.socket] = field(default_factory=list)

    def take(self) -> int:
        """Take what has been handed over, and return the number of all connections."""
        self.taken += self.source.take()
        return len(self.taken)

    def close(self, count: int) -> None:
        """Close some connections."""
        for _ in range(count):
            self.taken.pop().close()
            self.source.report_closed()


@contextmanager
def workers(count: int) -> Iterator[list[Worker]]:
    with ExitStack() as stack:
        made = []
        for _ in range(count):
            ours, theirs = socket.socketpair()
            stack.enter_context(ours)
            stack.enter_context(theirs)
            made.append(Worker(ours, theirs, ConnectionSource(theirs)))
        yield made
        for worker in made:
            for connection in worker.taken:
                connection.close()


@asynccontextmanager
async def balancing(made: list[Worker]) -> AsyncIterator[tuple[Balancer, tuple[str, int]]]:
    """Yield a balancer of these workers, and its address."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    balancer = Balancer([listener])
    for worker in made:
        balancer.add(worker.channel)
    try:
        yield balancer, listener.getsockname()
    finally:
        balancer.close()
        for worker in made:
            balancer.remove(worker.channel)


@contextmanager
def connections(address: tuple[str, int], count: int) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection(address))
        yield


async def until_taken(made: list[Worker], total: int) -> list[int]:
    """Let workers take connections until they have so many, and return the numbers of each."""
    for _ in range(TURNS):
        counts = [worker.take() for worker in made]
        if sum(counts) >= total:
            return counts
        await asyncio.sleep(0)
    raise AssertionError(f"{counts} connections were taken, not {total}")


async def test_each_connection_goes_to_the_worker_with_the_fewest() -> None:
    with workers(3) as made:
        async with balancing(made) as (_, address):
            with connections(address, 9):
                assert await until_taken(made, 9) == [3, 3, 3]
                made[1].close(3)
                await asyncio.sleep(0)  # the reports are read in the next turn of the event loop
                with connections(address, 3):
                    assert await until_taken(made, 9) == [3, 3, 3]


async def test_a_connection_reaches_the_client_from_the_worker() -> None:
    with workers(1) as made:
        async with balancing(made) as (_, address):
            with socket.create_connection(address) as client:
                await until_taken(made, 1)
                made[0].taken[0].sendall(b"from the worker")
                assert client.recv(99) == b"from the worker"


async def test_a_worker_that_has_ended_gets_no_connections() -> None:
    with workers(2) as made:
        async with balancing(made) as (_, address):
            made[0].theirs.close()
            with connections(address, 4):
                assert await until_taken([made[1]], 4) == [4]


async def test_connections_wait_while_there_is_no_worker() -> None:
    with workers(2) as made:
        async with balancing(made[:1]) as (balancer, address):
            balancer.remove(made[0].channel)
            with connections(address, 2):
                await asyncio.sleep(0)
                assert made[0].take() == 0
                balancer.add(made[1].channel)
                assert await until_taken(made, 2) == [0, 2]
                balancer.remove(made[1].channel)


async def test_a_stopped_worker_whose_channel_is_full_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    send_fds = socket.send_fds
    with workers(2) as made:

        def send(channel: socket.socket, *rest: Any) -> int:
            if channel is made[0].channel:
                raise BlockingIOError
            return send_fds(channel, *rest)

        monkeypatch.setattr(socket, "send_fds", send)
        async with balancing(made) as (_, address):
            with connections(address, 4):
                assert await until_taken(made, 4) == [0, 4]


async def test_a_closed_balancer_refuses_connections() -> None:
    with workers(1) as made:
        async with balancing(made) as (balancer, address):
            balancer.close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)
            balancer.add(made[0].channel)  # by a worker that starts meanwhile
