"""A TCP proxy that stands between a gateway and a replica, and loses or delays what passes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

CHUNK = 65536


class LossyProxy:
    """A proxy for one replica.

    Attributes:
        port: the port that it listens on.
        partitioned: whether nothing passes, in either direction, and connections hang.
        delay: seconds by which everything is late.
    """

    def __init__(self, target: int) -> None:
        """Create a proxy that does not listen yet.

        Args:
            target: the port of the replica.
        """
        self._target = target
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0
        self.partitioned = False
        self.delay = 0.0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["LossyProxy"]:
        """Listen on a free loopback port."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for connection in self._connections:
                connection.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            try:
                await self._pass_on()
                onward = await asyncio.open_connection("127.0.0.1", self._target)
                try:
                    await self._join(reader, writer, *onward)
                finally:
                    onward[1].close()
            finally:
                writer.close()

    async def _join(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        onward_reader: asyncio.StreamReader,
        onward_writer: asyncio.StreamWriter,
    ) -> None:
        """Copy both directions until either side closes."""
        copying = {
            asyncio.create_task(self._copy(reader, onward_writer)),
            asyncio.create_task(self._copy(onward_reader, writer)),
        }
        try:
            await asyncio.wait(copying, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in copying:
                task.cancel()
            await asyncio.gather(*copying, return_exceptions=True)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            await self._pass_on()
            writer.write(data)
            await writer.drain()

    async def _pass_on(self) -> None:
        await asyncio.sleep(self.delay)
        while self.partitioned:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
